"""`roundhouse models recommend`."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import click

from server.cli.models.values import FiniteRange
from server.cli.options import json_option

if TYPE_CHECKING:
    from server.registry.recommend import Recommendation, Recommendations

_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([km]?)", re.IGNORECASE)
_TIMES = {"": 1, "k": 1000, "m": 1_000_000}
#: Who asks for less has left out the unit.
_LEAST_MEMORY = 2**20


def _tokens(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = _COUNT.fullmatch(value.strip().replace(",", "").replace("_", ""))
    count = 0 if found is None else int(float(found[1]) * _TIMES[found[2].lower()])
    if count == 0:
        raise click.BadParameter(f"{value!r} is no number of tokens: write 32000, 200k or 1m.")
    return count


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from server.config.units import size

    try:
        found = int(size(int(value) if value.isdigit() else value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if found < _LEAST_MEMORY:
        raise click.BadParameter(f"{value!r} is {found:,} bytes. Write the unit: 24GiB.")
    return found


def _words(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in (value or "").split(",") if word.strip())


@click.command(
    epilog="""\b
Examples:
  roundhouse models recommend coding
  roundhouse models recommend chat --memory 24GiB          on this graphics card
  roundhouse models recommend rag --this-machine           on the CPU here
  roundhouse models recommend agents --keys --context 200k --needs tools,json_schema
  roundhouse models recommend cheap --max-price 0.5        dollars per million tokens
  roundhouse models recommend embedding --offline --licence open-source --languages de,ja

\b
Tasks: conversation, instructions, reasoning, coding, agents, cost, long-context, local, edge,
multilingual, vision, embedding, rerank, retrieval, classification, summarization, translation,
completion, fine-tuning, biomedical, speech-to-text, text-to-speech, image-generation, safety;
and words like chat, math, rag, ocr, medical.

It ranks by what the cards of models say (size, price, age, window, what their makers recommend
them for); they hold no benchmark results. Take it as a shortlist to try."""
)
@click.argument("task")
@click.option(
    "--context", metavar="TOKENS", callback=_tokens, help="Tokens it must hold: 32000, 200k, 1m."
)
@click.option(
    "--max-price",
    type=FiniteRange(min=0),
    metavar="DOLLARS",
    help="Per million tokens, three of input to one of output.",
)
@click.option(
    "--licence",
    "--license",
    type=click.Choice(["any", "commercial", "open-weights", "open-source"], case_sensitive=False),
    default="any",
    show_default=True,
    help="open-source: a licence of the OSI.",
)
@click.option(
    "--memory", metavar="SIZE", callback=_size, help="Its weights must fit in here: 24GiB."
)
@click.option("--this-machine", is_flag=True, help="Its weights must fit in the memory here.")
@click.option("--offline", is_flag=True, help="Only models whose weights can be had.")
@click.option("--keys", is_flag=True, help="Only providers whose key is set in the environment.")
@click.option(
    "--needs", metavar="LIST", callback=_words, help="Abilities: tools,json_schema,vision,…"
)
@click.option("--inputs", metavar="LIST", callback=_words, help="What it takes in: image,audio,…")
@click.option("--languages", metavar="LIST", callback=_words, help="What it must know: de,ja,…")
@click.option("--include-deprecated", is_flag=True, help="Also models whose end is announced.")
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True)
@json_option
@click.pass_context
def recommend(
    ctx: click.Context,
    task: str,
    context: int | None,
    max_price: float | None,
    licence: str,
    memory: int | None,
    this_machine: bool,
    offline: bool,
    keys: bool,
    needs: frozenset[str],
    inputs: frozenset[str],
    languages: frozenset[str],
    include_deprecated: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Recommend models for a TASK."""
    from server.registry.recommend import Constraints
    from server.registry.recommend import recommend as recommended

    if this_machine and memory is not None:
        raise click.UsageError("Say --memory or --this-machine, not both.")
    if keys and (offline or this_machine or memory is not None):
        raise click.UsageError(
            "--keys is about providers; models that run here need no key. Leave it out."
        )
    try:
        demands = Constraints(
            context=context,
            max_price=max_price,
            licence=licence,
            memory_bytes=_here() if this_machine else memory,
            offline=offline,
            providers=_with_keys() if keys else None,
            needs=needs,
            modalities=inputs,
            languages=languages,
            include_deprecated=include_deprecated,
        )
        found = recommended(task, demands, limit=limit)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if this_machine:
        click.echo(
            "Here is no GPU, so a CPU does the work: the task `edge` ranks what is small.", err=True
        )
    if as_json:
        click.echo(json.dumps(_plain(found), indent=2, ensure_ascii=False))
    else:
        _show(found)
    if not found:
        ctx.exit(1)


def _here() -> int:
    """Bytes for weights and cache on this machine's CPU."""
    from server.engines import devices

    if devices.gpus():
        raise click.UsageError(
            "Here is a GPU, and Roundhouse does not see what memory it has free: "
            "say --memory instead, such as --memory 24GiB."
        )
    return max(0, devices.memory() - devices.RUNTIME_MEMORY)


def _with_keys() -> frozenset[str]:
    """Providers whose key is set."""
    from server.config.providers_table import ROWS

    found = frozenset(
        name for name, row in ROWS.items() if any(os.environ.get(one) for one in row.variables)
    )
    if not found:
        names = ", ".join(one for row in ROWS.values() for one in row.variables)
        raise click.UsageError(f"No provider's key is set in the environment: {names}.")
    return found


def _show(found: Recommendations) -> None:
    fitting = found.candidates - found.left_out
    if found:
        first = f"the first {len(found)}" if len(found) < fitting else f"all {fitting}"
        click.echo(f"For {found.task}, {first} of {fitting} models that fit:")
    for place, one in enumerate(found, 1):
        click.echo()
        _show_one(place, one)
    if found.rejected:
        if found:
            click.echo()
        reasons = ", ".join(f"{reason} {count}" for reason, count in found.rejected.items())
        click.echo(_wrapped(f"Left out {found.left_out} of {found.candidates}: {reasons}."))
    if found.advice:
        click.echo(_wrapped(found.advice), err=True)


def _show_one(place: int, one: Recommendation) -> None:
    from server.cli.client import printable

    name = printable(one.card.model_id)
    if os.environ.get("TERM") != "dumb":
        name = click.style(name, bold=True)  # click takes it off again where it is no terminal
    click.echo(f"{place:2}. {name}  {one.card.provider}  {one.score:.0f}")
    for sign, reasons in (("+", one.because), ("-", one.but)):
        if reasons:
            text = printable("; ".join(reasons))
            click.echo(_wrapped(text, first=f"    {sign} ", rest="      "))


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    width = min(100, max(30, shutil.get_terminal_size((100, 24)).columns))
    return click.wrap_text(text, width, initial_indent=first, subsequent_indent=rest)


def _plain(found: Recommendations) -> dict[str, Any]:
    return {
        "task": found.task,
        "candidates": found.candidates,
        "left_out": found.left_out,
        "rejected": found.rejected,
        "advice": found.advice,
        "models": [
            {
                "model_id": one.card.model_id,
                "provider": one.card.provider,
                "score": one.score,
                "because": list(one.because),
                "but": list(one.but),
            }
            for one in found
        ],
    }
