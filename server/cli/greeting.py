"""What `serve` says when it starts, and when its engines have settled. Pure text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.config.resolve import ResolvedModel
from server.engines.state import EngineState, EngineView
from server.registry.cards import CHATTING, Status


@dataclass(frozen=True, slots=True)
class Urls:
    """The listeners, without `/v1`. `docs`: is there a page at /docs?"""

    public: str
    admin: str | None = None
    docs: bool = True


def greeting(
    views: Sequence[EngineView],
    models: Mapping[str, ResolvedModel],
    urls: Urls,
    key_needed: bool,
    *,
    version: str = "",
    source: str = "",
    by_variable: Mapping[str, str] | None = None,
) -> str:
    """A table of the models and their states, and the curl line to try. `by_variable`: provider →
    the variable that brought it, where nobody asked for it in a file."""
    title = f"Roundhouse {version}".rstrip()
    title += f" serves {source}" if source else ""
    shown, added = rows(views, own(models)), catalog(models, by_variable or {})
    lines = [title, ""]
    if shown or not added:
        lines += [*table(("MODEL", "SERVED BY", "STATE"), shown), ""]
    if added:
        lines += [*added, ""]
    if by_variable:
        lines += [*(f"  {line}" for line in left_out_by(by_variable)), ""]
    lines.append(f"  API    {urls.public}/v1")
    if urls.docs:
        lines.append(f"  Docs   {urls.public}/docs")
    if urls.admin is not None:
        lines.append(f"  Admin  {urls.admin}")
    if name := first_to_try(views, models):
        lines += ["", "Try it:" if _answers(views, models[name]) else "Once it is ready, try:", ""]
        lines += ["  " + line for line in curl(urls.public, name, key_needed).splitlines()]
    return "\n".join(lines) + "\n"


def settled(views: Iterable[EngineView]) -> str:
    """One line for each engine, once those that load at startup are ready or have failed."""
    lines = []
    for view in views:
        if view.state is EngineState.READY:
            lines.append(f"{view.name} is ready.")
        elif view.state is EngineState.FAILED:
            lines.append(f"{view.name} has failed: {view.error or 'its log says why.'}")
    return "\n".join(lines) + "\n" if lines else ""


def own(models: Mapping[str, ResolvedModel]) -> dict[str, ResolvedModel]:
    """Without those that the catalog adds, which may be hundreds."""
    return {name: model for name, model in models.items() if not model.offered}


def catalog(
    models: Mapping[str, ResolvedModel], by_variable: Mapping[str, str] | None = None
) -> list[str]:
    """A table of those that the catalog adds, a row for each provider, with the variable that
    brought it and also without models where that is known; empty without any."""
    by: dict[str, list[ResolvedModel]] = {provider: [] for provider in by_variable or {}}
    for model in models.values():
        if model.offered and model.listed:
            by.setdefault(model.targets[0].provider or "", []).append(model)
    body = [
        (provider, str(len(those)) if those else "any", _such_as(provider, those))
        for provider, those in by.items()
    ]
    if not body or not by_variable:
        return table(("PROVIDER", "MODELS", "SUCH AS"), body) if body else []
    with_key = [(name, by_variable.get(name, ""), *rest) for name, *rest in body]
    return table(("PROVIDER", "KEY FROM", "MODELS", "SUCH AS"), with_key)


def _such_as(provider: str, models: Sequence[ResolvedModel]) -> str:
    if not models:
        return f"{provider}/ITS-OWN-ID"
    return ", ".join(model.name for model in examples(models))


def left_out_by(by_variable: Mapping[str, str]) -> tuple[str, str]:
    """How not to serve a provider that nobody asked for but by having its key."""
    variable = next(iter(by_variable.values()))
    return (
        "Providers are here because their keys are. To leave one out, empty its variable",
        f"(`{variable}= roundhouse serve`), or write a roundhouse.yaml with what you want.",
    )


def examples(models: Sequence[ResolvedModel]) -> list[ResolvedModel]:
    """Of a provider's models the first one that chats, and the cheapest."""
    chatting = [model for model in models if _chats(model)] or list(models)
    priced = [model for model in chatting if _price(model) is not None]
    cheapest = min(priced, key=lambda model: _price(model) or 0, default=chatting[0])
    return [chatting[0]] if cheapest is chatting[0] else [chatting[0], cheapest]


def _chats(model: ResolvedModel) -> bool:
    card = model.about.card
    return card is not None and card.type in CHATTING and card.status is Status.CURRENT


def _price(model: ResolvedModel) -> float | None:
    prices = model.targets[0].prices
    return None if prices is None else prices.output


def rows(
    views: Sequence[EngineView], models: Mapping[str, ResolvedModel]
) -> list[tuple[str, str, str]]:
    """(model, served by, state) of every name."""
    by_name = {view.name: view for view in views}
    found = []
    for name, model in models.items():
        if model.alias_of is not None:
            found.append((name, f"alias of {model.alias_of}", state_of(by_name, model)))
            continue
        places = [_label(by_name, target.engine, target.provider) for target in model.targets]
        text = ", ".join(dict.fromkeys(places))
        if model.fallbacks:
            text += f", else {', '.join(model.fallbacks)}"
        found.append((name, text, state_of(by_name, model)))
    return found


def _label(views: Mapping[str, EngineView], engine: str | None, provider: str | None) -> str:
    return f"engine {engine}" if engine is not None else f"provider {provider}"


def state_of(views: Mapping[str, EngineView], model: ResolvedModel) -> str:
    """The best state of a model's own targets; a provider counts as ready."""
    if any(target.engine is None for target in model.targets):
        return "ready"
    found = [views[t.engine] for t in model.targets if t.engine is not None and t.engine in views]
    order = list(_WORDS)
    best = min(found, key=lambda view: order.index(view.state), default=None)
    return "not running" if best is None else describe(best)


#: Best first.
_WORDS = {
    EngineState.READY: "ready",
    EngineState.STARTING: "loading",
    EngineState.WAITING: "waiting",
    EngineState.ASLEEP: "asleep",
    EngineState.BACKOFF: "restarting",
    EngineState.DRAINING: "stopping",
    EngineState.STOPPED: "loads on request",
    EngineState.FAILED: "failed",
}


def describe(view: EngineView) -> str:
    """`loading, about 12 s`"""
    if view.error_reason == "no_replica":
        return "no replica is well"
    text = _WORDS[view.state]
    if view.eta is not None and view.state in (EngineState.STARTING, EngineState.BACKOFF):
        text += f", about {view.eta:.0f} s"
    return text


def _answers(views: Sequence[EngineView], model: ResolvedModel) -> bool:
    return state_of({view.name: view for view in views}, model) == "ready"


def first_to_try(views: Sequence[EngineView], models: Mapping[str, ResolvedModel]) -> str | None:
    """A model that is ready, else the first that has not failed; None without models. Those that
    the catalog adds come last, as each answer of theirs is billed: the cheapest one of the first
    provider."""
    named, by_name = own(models), {view.name: view for view in views}
    states = {name: state_of(by_name, model) for name, model in named.items()}
    ready = [name for name, state in states.items() if state == "ready"]
    soon = [name for name, state in states.items() if state not in _HOPELESS]
    if ready or soon:
        return (ready or soon)[0]
    offered = [model for model in models.values() if model.offered and model.listed]
    if offered:
        provider = offered[0].targets[0].provider
        return examples([m for m in offered if m.targets[0].provider == provider])[-1].name
    return next(iter(named), None)


#: States that do not pass by themselves.
_HOPELESS: Final = frozenset({"failed", "not running"})


def curl(base: str, model: str, key_needed: bool) -> str:
    """A command line that works when it is pasted into a shell."""
    message = {"model": model, "messages": [{"role": "user", "content": "What can you do?"}]}
    lines = [f"curl {base}/v1/chat/completions -H 'content-type: application/json'"]
    if key_needed:
        lines.append('  -H "authorization: Bearer $ROUNDHOUSE_API_KEY"')
    lines.append(f"  -d '{json.dumps(message)}'")
    return " \\\n".join(lines)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them, two spaces apart."""
    every = [head, *body]
    widths = [max(len(row[at]) for row in every) for at in range(len(head))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
