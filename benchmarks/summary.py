"""Turns into figures: medians over rounds, and what is paired by round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.gateways import DIRECT
from benchmarks.stats import Interval, mean_interval, median, ratio_interval

#: A throughput is the gateway's own only while its core is full and the load's is not.
FULL: Final = 0.95
ROOM: Final = 0.90


@dataclass(frozen=True, slots=True)
class Row:
    """A contender in a case: `values` are medians over the turns."""

    case: str
    contender: str
    turns: int
    noisy: int
    failed: bool
    errors: int
    first_error: str
    values: dict[str, float]

    @property
    def counts(self) -> bool:
        """Does the rate say what the gateway can do?"""
        busy, load = self.values.get("gateway_busy", 0.0), self.values.get("load_busy", 1.0)
        return busy >= FULL and load < ROOM


class Table:
    """The turns of a run, looked at by case and contender."""

    def __init__(self, turns: Iterable[dict[str, Any]]) -> None:
        self._turns: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self.contenders: list[str] = []
        self.cases: list[str] = []
        for turn in turns:
            case, contender = turn["case"], turn["contender"]
            self._turns.setdefault((case, contender), {})[turn["round"]] = turn
            if contender not in self.contenders:
                self.contenders.append(contender)
            if case not in self.cases:
                self.cases.append(case)

    def turns(self, case: str, contender: str) -> list[dict[str, Any]]:
        return list(self._turns.get((case, contender), {}).values())

    def row(self, case: str, contender: str) -> Row | None:
        turns = self.turns(case, contender)
        if not turns:
            return None
        names = dict.fromkeys(name for turn in turns for name in turn["values"])
        return Row(
            case,
            contender,
            len(turns),
            sum(turn["noisy"] for turn in turns),
            any(turn["failed"] for turn in turns),
            sum(turn["errors"] for turn in turns),
            next((turn["first_error"] for turn in turns if turn["first_error"]), ""),
            {name: median(_values(turns, name)) for name in names},
        )

    def ratio(self, case: str, ours: str, theirs: str, value: str) -> Interval:
        """Of `value`, ours to theirs, paired by round."""
        pairs = self._pairs(case, ours, theirs, value)
        return ratio_interval([one for one, _ in pairs], [other for _, other in pairs])

    def added(self, case: str, contender: str, value: str) -> Interval:
        """What the contender adds to the direct path of the same round; the middle is the median,
        the interval is the mean's."""
        pairs = self._pairs(case, contender, DIRECT, value)
        differences = [one - other for one, other in pairs]
        mean = mean_interval(differences)
        return Interval(median(differences), mean.low, mean.high, mean.count)

    def added_ratio(self, case: str, ours: str, theirs: str, value: str) -> Interval:
        """Of what two contenders add; a round in which one added nothing is left out."""
        sides = self._turns.get((case, DIRECT), {})
        logs = []
        for number, turn in sides.items():
            base = _value(turn, value)
            one = self._value(case, ours, number, value) - base
            other = self._value(case, theirs, number, value) - base
            logs.append((one, other))
        return ratio_interval([one for one, _ in logs], [other for _, other in logs])

    def _pairs(self, case: str, one: str, other: str, value: str) -> list[tuple[float, float]]:
        mine, other_turns = self._turns.get((case, one), {}), self._turns.get((case, other), {})
        return [
            (_value(mine[number], value), _value(other_turns[number], value))
            for number in sorted(mine.keys() & other_turns.keys())
        ]

    def _value(self, case: str, contender: str, number: int, value: str) -> float:
        turn = self._turns.get((case, contender), {}).get(number)
        return _value(turn, value) if turn else float("nan")


def _value(turn: dict[str, Any], name: str) -> float:
    found = turn["values"].get(name)
    return float("nan") if found is None else float(found)  # JSON has null where there was no value


def _values(turns: list[dict[str, Any]], name: str) -> list[float]:
    return [_value(turn, name) for turn in turns]
