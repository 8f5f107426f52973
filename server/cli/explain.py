"""`roundhouse explain`."""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

import click

from server.cli.options import Name, admin_options, json_option

_HEAD: Final = ("", "ACTION", "TARGET", "MODEL", "NOW", "REASON")
_HEAD_OF_ALL: Final = ("MODEL", "POLICY", "TARGETS")
_GROUPS: Final = {
    "own": "",
    "bridge": "bridge",
    "fallback": "fallback",
    "context_fallback": "larger window",
    "content_fallback": "other rules",
}


@click.command(
    epilog="""\b
Examples:
  roundhouse explain                            every model, and how its targets are
  roundhouse explain qwen3-8b                   where a request would go now, and why
  roundhouse explain qwen3-8b --request body.json --key team-a
  echo '{"prompt": "Hello"}' | roundhouse explain fast --request -
  roundhouse explain qwen3-8b --config roundhouse.yaml

Actions, in the order in which they would be tried: send; queue, for a place that comes free; wait,
for an engine that loads; refuse, because it loads; skip. Nothing is sent, and nothing changes."""
)
@click.argument("model", required=False, type=Name())
@click.option(
    "--request",
    "body",
    type=click.File("rb"),
    metavar="FILE",
    help="A request's body, JSON; - is the standard input. Default: a request that needs nothing.",
)
@click.option(
    "--surface",
    type=click.Choice(["chat", "completions", "embeddings"]),
    help="What the body is for. Default: as its members tell.",
)
@click.option("--key", metavar="NAME", help="As the client with this key. Default: all is allowed.")
@click.option(
    "--config",
    metavar="FILE",
    help="Explain this config without a server: no engine is loaded, all targets are well.",
)
@admin_options
@json_option
def explain(
    model: str | None,
    body: BinaryIO | None,
    surface: str | None,
    key: str | None,
    config: str | None,
    admin_url: str | None,
    admin_key: str | None,
    as_json: bool,
) -> None:
    """Show where a request for MODEL would go now: every target, in order, and why there.

    Asks the admin API of a running server. Without MODEL: all models.
    """
    asked = b"" if body is None else body.read()
    if config is not None:
        answer = _from_config(config, model, asked, surface, key)
    else:
        answer = _from_server(admin_url, admin_key, model, asked, surface, key)
    if as_json:
        click.echo(json.dumps(answer if model is not None else answer["plans"], indent=2))
    elif model is None:
        _show_all(answer["plans"])
    else:
        _show(answer)


def _from_server(
    admin_url: str | None,
    admin_key: str | None,
    model: str | None,
    body: bytes,
    surface: str | None,
    key: str | None,
) -> dict[str, Any]:
    from server.cli import client

    said = {name: value for name, value in (("surface", surface), ("key", key)) if value}
    query = f"?{urlencode(said)}" if said else ""
    try:
        with client.admin(admin_url, admin_key) as server:
            if model is None:
                answer, member = server.get("/plans"), "plans"
            else:
                path = f"/plans/{quote(model, safe='/')}{query}"
                answer, member = server.post(path, body), "targets"
    except client.NotRunning as error:
        raise client.NotRunning(
            f"{error} Or explain a config without a server: --config FILE."
        ) from None
    if not isinstance(answer, dict) or not isinstance(answer.get(member), list):
        raise client.ClientError(f"What answers at {server.url} is not the admin API.")
    return answer


def _from_config(
    path: str, model: str | None, body: bytes, surface: str | None, key: str | None
) -> dict[str, Any]:
    import msgspec

    from server.api import plans
    from server.cli.client import ClientError
    from server.cli.unserved import services_of
    from server.config import load
    from server.errors import RoundhouseError

    services = services_of(load.load(path))
    answer: Any
    try:
        if model is None:
            answer = {"plans": plans.overview(services)}
        else:
            limits = services.state.config.server.limits
            asked = plans.read(body, limits, plans.surface_of(surface), model)
            answer = plans.explained(services, model, asked, key)
    except RoundhouseError as error:
        raise ClientError(error.message) from None
    click.echo("From the config alone: no engine is loaded, all targets are well.", err=True)
    found = msgspec.json.decode(msgspec.json.encode(answer))
    assert isinstance(found, dict)
    return found


# --- on the terminal -------------------------------------------------------------------------


def _show(plan: dict[str, Any]) -> None:
    from server.cli.client import printable
    from server.cli.show import show

    for line in headline(plan):
        click.echo(printable(line))
    click.echo()
    show(_HEAD, [row(entry) for entry in plan["targets"]], empty="It has no target.")
    if (answer := plan.get("answer")) is not None:
        click.echo()
        click.echo(printable(_told(answer)))


def headline(plan: dict[str, Any]) -> list[str]:
    """What the plan is for, as sentences."""
    name, model = plan["name"], plan["model"]
    other = "" if name == model else f"{name} is {model}. "
    asked, server = plan["request"], plan["server"]
    tokens = f"about {asked['prompt_tokens']} + {asked['output_tokens']} tokens"
    what = f"{asked['surface']}{', streamed' if asked['stream'] else ''}, {tokens}"
    if asked["needs"]:
        what += f", needs {', '.join(asked['needs'])}"
    if plan["policy"] == "affinity" and not asked["affinity_key"]:
        what += ", nothing to hash"
    used = f"{server['retry_budget']:.0%} of the retry budget is used up"
    lines = [
        f"{other}Policy: {plan['policy']}. While it loads: {plan['while_loading']}.",
        f"Request: {what}. Key: {asked['key']}.",
        f"At most {server['attempts']} attempts; {used}.",
    ]
    if server["panic"]:
        lines.append("So many targets are out that breakers are ignored.")
    return lines


def row(entry: dict[str, Any]) -> tuple[str, ...]:
    """One target of a plan, as cells."""
    group = _GROUPS.get(entry["group"], entry["group"])
    target = entry["target"]
    if entry["replica"] is not None:
        target += f" at {entry['replica']}"
    reason = entry["reason"]
    if entry["dropped"] and entry["action"] != "skip":
        reason += f"; without {', '.join(entry['dropped'])}"
    return (
        str(entry["place"]),
        entry["action"],
        target,
        f"{entry['model']} ({group})" if group else entry["model"],
        _now(entry),
        reason,
    )


def _now(entry: dict[str, Any]) -> str:
    """How it is, in few words."""
    places, said = entry["places"], []
    if places is None:
        said.append(f"{entry['in_flight']} in flight")
    else:
        said.append(f"{places['taken']} of {places['limit']} places")
        if places["waiting"]:
            said.append(f"{places['waiting']} waiting")
    if not entry["ready"]:
        eta = entry["eta_s"]
        said = ["not ready" if eta is None else f"ready in about {eta:.0f} s"]
    if entry["latency_s"] is not None:
        said.append(f"{entry['latency_s']:.2f} s")
    if entry["price_usd"] is not None:
        said.append(f"${entry['price_usd']:.6f}" if entry["price_usd"] else "free")
    return ", ".join(said)


def _told(answer: dict[str, Any]) -> str:
    after = answer["retry_after_s"]
    again = "" if after is None else f" It may come back in {after:.0f} s."
    return f"The client is told: {answer['status']} {answer['code']}. {answer['message']}{again}"


def _show_all(plans: list[dict[str, Any]]) -> None:
    from server.cli.show import show

    own = [plan for plan in plans if not plan.get("offered")]
    cells = [(_names(plan), str(plan["policy"]), _targets(plan)) for plan in own]
    show(_HEAD_OF_ALL, cells, empty="The config has no models.")
    if more := len(plans) - len(own):
        click.echo(f"and {more} of the catalog")


def _names(plan: dict[str, Any]) -> str:
    return ", ".join([plan["model"], *plan.get("aliases", ())])


def _targets(plan: dict[str, Any]) -> str:
    """`engine/a ready, lab/a open; fallback: openai/b ready`"""
    by_group: dict[str, list[str]] = {}
    for one in plan["targets"]:
        where = one["target"] + (f" at {one['replica']}" if one["replica"] else "")
        words = by_group.setdefault(_GROUPS.get(one["group"], one["group"]), [])
        words.append(f"{where} {one['state'].replace('_', ' ')}")
    parts = (
        f"{group}: {', '.join(words)}" if group else ", ".join(words)
        for group, words in by_group.items()
    )
    return "; ".join(parts)
