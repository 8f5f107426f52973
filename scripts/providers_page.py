"""The tables of docs/providers.md from the code: `python -m scripts.providers_page [--check]`.

What stands between `<!-- made: NAME -->` and `<!-- end -->` is made here; the rest is written by
hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scripts import provider_answers, provider_passed_over
from scripts.provider_matrix import NAMES, Asking, ask
from scripts.provider_probes import EMBEDDINGS, EXTENSIONS, MESSAGES, PARAMETERS, RERANK, Probe
from server.api.accounts import STRICT
from server.config.provider import SETTINGS, DialectSettings
from server.config.providers_table import ROWS, SURFACES
from server.dialects.table import DIALECTS
from server.dialects.trouble import Trouble
from server.protocol.envelope import Surface

PAGE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _names(surfaces: Iterable[Surface]) -> str:
    return ", ".join(surface.value for surface in Surface if surface in set(surfaces))


def rows() -> str:
    """Providers known by name."""
    return _table(
        ("name", "dialect", "base URL", "key", "where to get one", "serves"),
        (
            (
                f"`{name}`",
                f"`{row.dialect}`",
                f"`{row.base_url}`" if row.base_url else f"its own, as `{row.example}`",
                " or ".join(f"`{v}`" for v in row.variables) or "none",
                f"<{row.page}>" if row.page else "–",
                _names(row.surfaces),
            )
            for name, row in ROWS.items()
        ),
    )


def dialects() -> str:
    """What each dialect has words for, and what it is known to lack."""
    return _table(
        ("dialect", "serves", "known to lack"),
        (
            (
                f"`{name}`",
                _names(SURFACES[name]),
                ", ".join(sorted(DIALECTS[name].lacks if name in DIALECTS else ())) or "–",
            )
            for name in NAMES
        ),
    )


def _matrix(what: str, probes: Iterable[Probe], names: Sequence[str], surface: Surface) -> str:
    asked = {name: Asking.of(name) for name in names}
    return _table(
        (what, *(f"`{name}`" for name in names)),
        ((probe.label, *(ask(asked[name], probe, surface) for name in names)) for probe in probes),
    )


def parameters() -> str:
    """OpenAI's parameters of a chat."""
    return _matrix("parameter", PARAMETERS, NAMES, Surface.CHAT)


def extensions() -> str:
    """Parameters that OpenAI does not have."""
    return _matrix("parameter", EXTENSIONS, NAMES, Surface.CHAT)


def messages() -> str:
    """What may stand in messages."""
    return _matrix("in a message", MESSAGES, NAMES, Surface.CHAT)


def embeddings() -> str:
    """Parameters of embeddings, for dialects that have any."""
    return _matrix("parameter", EMBEDDINGS, having(Surface.EMBEDDINGS), Surface.EMBEDDINGS)


def rerank() -> str:
    """Parameters of a ranking, for dialects that have any."""
    return _matrix("in a request", RERANK, having(Surface.RERANK), Surface.RERANK)


def having(surface: Surface) -> list[str]:
    """The dialects that have a word for such requests."""
    return [name for name in NAMES if surface in SURFACES[name]]


def settings() -> str:
    """What an account says to its dialect."""
    rows = []
    for name, field in DialectSettings.model_fields.items():
        about = (field.description or "").partition(": ")[2]
        theirs = [dialect for dialect, keys in SETTINGS.items() if name in keys]
        rows.append((f"`{name}`", ", ".join(f"`{one}`" for one in theirs), about))
    return _table(("setting", "of", "says"), rows)


#: What is otherwise, and who is asked so.
VARIANTS: Final[Sequence[tuple[str, Asking]]] = (
    (
        f"the rows {', '.join(f'`{row}`' for row in ROWS if row in STRICT)}",
        replace(Asking.of("openai"), strict=True),
    ),
    (
        "`version: 2026-10-21`",
        Asking("anthropic", "claude-opus-4-6", {"max_tokens": 4000, "version": "2026-10-21"}),
    ),
    (
        "a model that takes instructions in the middle",
        Asking("anthropic", "claude-opus-4-8", {"max_tokens": 4000}),
    ),
    (
        "`later_system: inline`",
        Asking("anthropic", "claude-opus-4-6", {"max_tokens": 4000, "later_system": "inline"}),
    ),
    (
        "a model that thinks by a budget",
        Asking("anthropic", "claude-sonnet-4-5", {"max_tokens": 4000}),
    ),
    ("a model that does not think", Asking("anthropic", "claude-3-5-haiku", {"max_tokens": 4000})),
    ("`deepseek-chat`, which does not think", Asking("deepseek", "deepseek-chat", {})),
    ("a model that thinks", Asking("mistral", "magistral-medium", {})),
)


def variants() -> str:
    """What is otherwise with another model or another setting."""
    lines = []
    for what, other in VARIANTS:
        usual = Asking.of(other.name)
        changed: dict[str, list[str]] = {}
        for probe in (*PARAMETERS, *EXTENSIONS, *MESSAGES):
            cell = ask(other, probe)
            if cell != ask(usual, probe):
                changed.setdefault(str(cell), []).append(probe.label)
        shown = "; ".join(f"{', '.join(labels)}: {cell}" for cell, labels in changed.items())
        lines.append((f"`{other.name}`", what, shown or "nothing"))
    return _table(("dialect", "with", "is otherwise"), lines)


def answers() -> str:
    """Where the parts of an answer are found."""
    return _table(
        ("part", *(f"`{name}`" for name in NAMES)),
        ((part, *row) for part, row in provider_answers.found()),
    )


def passed_over() -> str:
    """What of answers is in none of ours."""
    return _table(
        ("dialect", "what does not come back", "why"),
        (
            (f"`{name}`".replace(", embeddings`", "`, embeddings"), places, why)
            for name, places, why in provider_passed_over.passed_over()
        ),
    )


def ends() -> str:
    """Reasons to finish."""
    found: dict[str, list[str]] = {}
    for name, word, ours in provider_answers.ends():
        found.setdefault(name, []).append(f"`{word}` → {ours}")
    return _table(
        ("dialect", "its word → ours"),
        ((f"`{name}`", ", ".join(words)) for name, words in found.items()),
    )


def errors() -> str:
    """Statuses of providers, and what clients are told."""
    return _table(
        ("the provider says", "clients are told", "another target is tried", "otherwise"),
        (
            (
                status,
                usual,
                "yes" if retryable else "no",
                ", ".join(f"`{name}`: {told}" for name, told in others.items()) or "–",
            )
            for status, usual, retryable, others in provider_answers.errors()
        ),
    )


_STANDS_IN: Final = {
    Trouble.CONTEXT_LENGTH: "`context_fallbacks`",
    Trouble.CONTENT_POLICY: "`content_fallbacks`",
}


def words() -> str:
    """What providers say, and what clients are told."""
    rows = []
    for who, status, message, error in provider_answers.words():
        then = "yes" if error.retryable else "no"
        if error.trouble is not None:
            then = _STANDS_IN[Trouble(error.trouble)]
        rows.append((who, status, message, f"{error.status} `{error.code}`", then))
    return _table(("by", "status", "words", "clients are told", "another target is tried"), rows)


PARTS: Final[dict[str, Callable[[], str]]] = {
    made.__name__: made
    for made in (
        *(rows, dialects, settings, parameters, extensions, messages, embeddings),
        *(rerank, variants, answers, passed_over, ends, errors, words),
    )
}


def page(text: str) -> str:
    """The page with its made parts made anew."""
    return _PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], text)


def main() -> int:
    text = PAGE.read_text("utf-8")
    if "--check" in sys.argv:
        if text != page(text):
            print("docs/providers.md is not what the code says: run `make docs`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(text), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
