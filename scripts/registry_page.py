"""The tables of docs/registry.md from the catalog: `python -m scripts.registry_page [--check]`.

What stands between `<!-- made: NAME -->` and `<!-- end -->` is made here; the rest is written by
hand.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from server.registry import ALL_MODELS, ModelInfo, ModelType, SizeClass, Status

PAGE = Path(__file__).resolve().parents[1] / "docs" / "registry.md"
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _cards() -> list[ModelInfo]:
    return list(ALL_MODELS.values())


def providers() -> str:
    """Cards by provider and type."""
    found: dict[str, Counter[ModelType]] = defaultdict(Counter)
    current: Counter[str] = Counter()
    for card in _cards():
        found[card.provider][card.type] += 1
        current[card.provider] += card.status is not Status.RETIRED
    rows = [
        (
            f"`{name}`",
            types.total(),
            current[name],
            ", ".join(f"{kind.value} {count}" for kind, count in types.most_common()),
        )
        for name, types in sorted(found.items())
    ]
    total = (
        "**all**",
        sum(types.total() for types in found.values()),
        sum(current.values()),
        "",
    )
    return _table(("provider", "cards", "that answer", "types"), [*rows, total])


_BOUNDS = {
    SizeClass.TINY: ("below 1 billion", "below 2 GB", "any CPU"),
    SizeClass.SMALL: ("1 to 10 billion", "2 to 20 GB", "one GPU of 24 GB; a CPU with patience"),
    SizeClass.MEDIUM: ("10 to 40 billion", "20 to 80 GB", "one GPU of 80 GB, or 24 GB at 4 bits"),
    SizeClass.LARGE: ("40 to 150 billion", "80 to 300 GB", "2 to 4 GPUs of 80 GB"),
    SizeClass.HUGE: ("150 billion and more", "more", "a node of 8 GPUs, or several"),
}


def classes() -> str:
    """Size classes, what they need, and who is in them."""
    rows = []
    for size, (parameters, memory, machine) in _BOUNDS.items():
        inside = [c for c in _cards() if c.local and c.specs.size_class is size]
        shown = ", ".join(f"`{card.model_id}`" for card in inside[:3])
        rows.append((size.value, parameters, memory, machine, len(inside), shown))
    return _table(
        ("class", "parameters", "weights as bf16", "runs on", "cards", "for example"), rows
    )


def licences() -> str:
    """Every licence of a local model."""
    found: dict[str, list[ModelInfo]] = defaultdict(list)
    for card in _cards():
        if card.licence.id and card.local:
            found[card.licence.id].append(card)
    rows = []
    for name, cards in sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        licence = cards[0].licence
        ((conditions, _),) = Counter(card.licence.conditions for card in cards).most_common(1)
        shown = f"[{name}]({licence.link})" if licence.link else name
        commercial = {True: "yes", False: "no", None: "not known"}[licence.commercial_use]
        kind = licence.kind.value if licence.kind else "not known"
        rows.append((shown, kind, commercial, conditions or "", len(cards)))
    return _table(("licence", "kind", "commercial use", "conditions", "cards"), rows)


def makers() -> str:
    """Who makes the models."""
    found: dict[str, list[str]] = defaultdict(list)
    for card in _cards():
        found[card.origin.creator or "not known"].append(card.model_id)
    rows = [
        (name, len(ids), f"`{ids[0]}`")
        for name, ids in sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    ]
    return _table(("maker", "cards", "for example"), rows)


def ends() -> str:
    """What is deprecated or retired, and what its provider advises instead."""
    rows = [
        (
            f"`{card.model_id}`",
            card.provider,
            card.status.value,
            card.retires or "not known",
            f"`{card.replaced_by}`" if card.replaced_by else "none named",
        )
        for card in _cards()
        if card.status is not Status.CURRENT
    ]
    return _table(("model", "provider", "status", "end", "successor"), sorted(rows))


def unknown() -> str:
    """Facts that ought to be known and are not, with the reason, those with the same together."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for card in _cards():
        for fact, reason in card.exceptions.items():
            found[fact, reason].append(f"`{card.model_id}`")
    rows = []
    for (fact, reason), ids in sorted(found.items()):
        shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        rows.append((f"`{fact}`", reason, shown))
    return _table(("fact", "why it is not known", "cards"), rows)


_PARTS: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (providers, classes, licences, makers, ends, unknown)
}


def page(text: str) -> str:
    """The page with its made parts made anew."""
    return _PART.sub(lambda part: part[1] + _PARTS[part[2]]() + part[3], text)


def main() -> int:
    text = PAGE.read_text()
    if "--check" in sys.argv:
        if text != page(text):
            print("docs/registry.md is not what the catalog says: run `make docs`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
