"""What the turns say, as lines for people and as JSON. Pure, but for `write`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from benchmarks.engine.stats import ratio_interval

Row = dict[str, Any]

HEAD: Final = (
    "round  policy      cache hits  first token p50    p95     answers/s  where\n"
    "-----  ----------  ----------  ---------------  --------  ---------  -----"
)
#: Medians over a policy's turns.
_NUMBERS: Final = ("hit_ratio", "first_p50_s", "first_p95_s", "answers_per_s")


def rounds(policies: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """The order of the policies in each round: forwards, then backwards, so that a drift of the
    machine falls on nobody."""
    return [tuple(policies) if n % 2 == 0 else tuple(reversed(policies)) for n in range(count)]


def line(row: Row) -> str:
    """A turn as a row under HEAD."""
    where = ", ".join(f"{name} {count}" for name, count in row["where"].items())
    return (
        f"{row['round'] + 1:5}  {row['policy']:10}  {row['hit_ratio']:10.1%}  "
        f"{row['first_p50_s'] * 1e3:12,.0f} ms  {row['first_p95_s'] * 1e3:5,.0f} ms  "
        f"{row['answers_per_s']:9.1f}  {where}"
        + (f"  {row['problems']} PROBLEMS: {row['first_problem']}" if row["problems"] else "")
    )


def medians(rows: Sequence[Row]) -> dict[str, Row]:
    """Policy → the medians of its turns."""
    found: dict[str, Row] = {}
    for policy in dict.fromkeys(row["policy"] for row in rows):
        turns = [row for row in rows if row["policy"] == policy]
        found[policy] = {name: median(row[name] for row in turns) for name in _NUMBERS}
    return found


def ratio(rows: Sequence[Row], name: str, policy: str, to: str) -> dict[str, Any] | None:
    """One policy's figure over another's of the same round: geometric mean, 95 % interval. None
    where a figure is 0: it has no ratio."""
    by_round: dict[int, dict[str, float]] = {}
    for row in rows:
        by_round.setdefault(row["round"], {})[row["policy"]] = row[name]
    pairs = [(one[policy], one[to]) for one in by_round.values() if policy in one and to in one]
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        return None
    return ratio_interval([mine / other for mine, other in pairs]).as_dict()


def shown(found: dict[str, Any] | None) -> str:
    """A ratio with its interval."""
    if found is None:
        return "– (a figure is 0)"
    if found["low"] is None:
        return f"{found['mean']:.2f}× (one round: no interval)"
    return f"{found['mean']:.2f}× ({found['low']:.2f} to {found['high']:.2f})"


def table(rows: Sequence[Row]) -> list[str]:
    """The medians as a table in Markdown."""
    lines = [
        "| policy | prefix-cache hits | first token p50 | p95 | answers/s |",
        "|---|---|---|---|---|",
    ]
    for policy, of in medians(rows).items():
        lines.append(
            f"| `{policy}` | {of['hit_ratio']:.1%} | {of['first_p50_s'] * 1e3:,.0f} ms "
            f"| {of['first_p95_s'] * 1e3:,.0f} ms | {of['answers_per_s']:.1f} |"
        )
    return lines


def verdicts(part: str, rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What the part is there to show, and whether it does."""
    of = medians(rows)
    if part == "conversations":
        found = []
        for other in ("ordered", "least_busy"):
            held = of["affinity"]["hit_ratio"] > of[other]["hit_ratio"]
            told = shown(ratio(rows, "hit_ratio", "affinity", other))
            found.append((f"prefix-cache hits, affinity over {other}: {told}", held))
        return found
    found = []
    for name, word in (("first_p50_s", "median"), ("first_p95_s", "p95")):
        held = of["least_busy"][name] < of["ordered"][name]
        told = shown(ratio(rows, name, "least_busy", "ordered"))
        found.append((f"{word} time to first token, least_busy over ordered: {told}", held))
    return found
