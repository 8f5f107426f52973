"""What the turns come to: CPU of an event, of a stream besides its events, of a whole answer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.report import grid
from benchmarks.stats import Interval, mean_interval
from benchmarks.translation.spoken import PASSED, SPOKEN
from benchmarks.translation.steps import Part

#: CPU µs that an event may cost more than one that passes.
BAR: Final = 40.0
#: Events of a read, in blocks.
BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """The server's CPU for each of this turn's answers, in µs."""

    round: int
    part: Part
    cpu_us: float
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """One dialect's, round by round, in µs of CPU."""

    event: list[float]
    event_of_block: list[float]
    stream: list[float]
    whole: list[float]


def costs(turns: Iterable[Turn], short: int, long: int) -> dict[str, Costs]:
    """By dialect. An event's cost is what a long stream takes more than a short one, by the events
    it has more: what a request and a stream cost by themselves cancels."""
    at = {(turn.round, turn.part): turn.cpu_us for turn in turns}
    rounds = sorted({number for number, _ in at})
    found = {}
    for dialect in SPOKEN:
        made = Costs([], [], [], [])
        for number in rounds:

            def used(pieces: int, block: int, number: int = number, name: str = dialect) -> float:
                return at[number, Part(name, pieces, block)]

            event = (used(long, 1) - used(short, 1)) / (long - short)
            made.event.append(event)
            made.event_of_block.append((used(long, BLOCK) - used(short, BLOCK)) / (long - short))
            made.stream.append(used(short, 1) - short * event)
            made.whole.append(used(short, 0))
        found[dialect] = made
    return found


def added(ours: list[float], passed: list[float]) -> Interval:
    """What a dialect takes more than bytes that pass, paired by round."""
    return mean_interval([one - other for one, other in zip(ours, passed, strict=True)])


def tables(found: dict[str, Costs]) -> str:
    """Two tables in Markdown: an event's cost, and what does not depend on events."""
    passed = found[PASSED]
    events, answers = [], []
    for dialect, made in found.items():
        name = f"{dialect}, passes" if dialect == PASSED else dialect
        events.append((
            name,
            *_figures(dialect, made.event, passed.event, digits=1),
            *_figures(dialect, made.event_of_block, passed.event_of_block, digits=1),
        ))  # fmt: skip
        answers.append((
            name,
            *_figures(dialect, made.stream, passed.stream, digits=0),
            *_figures(dialect, made.whole, passed.whole, digits=0),
        ))  # fmt: skip
    head = ("CPU µs", "event, one a read", "added (95 %)", f"event, {BLOCK} a read", "added (95 %)")
    other = ("CPU µs", "stream, besides its events", "added (95 %)", "whole answer", "added (95 %)")
    return f"{grid(head, events, left={0})}\n\n{grid(other, answers, left={0})}"


def _figures(
    dialect: str, ours: list[float], passed: list[float], *, digits: int
) -> tuple[str, str]:
    middle = f"{statistics.median(ours):.{digits}f}"
    if dialect == PASSED:
        return middle, "–"
    more = added(ours, passed)
    if more.low is None or more.high is None:
        return middle, f"{more.middle:.{digits}f}"
    return middle, f"{more.middle:.{digits}f} ({more.low:.{digits}f} to {more.high:.{digits}f})"


def dearest(found: dict[str, Costs]) -> tuple[str, Interval]:
    """The dialect whose event, as a read of its own, costs most beside one that passes."""
    more = {
        dialect: added(made.event, found[PASSED].event)
        for dialect, made in found.items()
        if dialect != PASSED
    }
    name = max(more, key=lambda dialect: more[dialect].middle)
    return name, more[name]


def verdict(found: dict[str, Costs]) -> tuple[str, bool]:
    """Whether the bar is met, by the figure in the middle, and in words."""
    name, most = dearest(found)
    met = most.middle <= BAR
    word = "met" if met else "not met"
    inside = "; the interval holds the bar" if most.around(BAR) else ""
    return (
        f"Translating adds {BAR:.0f} µs of CPU per event at most: {most.middle:.1f} µs ({name}), "
        f"**{word}**{inside}."
    ), met
