"""The bars that Roundhouse set itself, each met, missed or not measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks import cases
from benchmarks.gateways import OURS
from benchmarks.stats import Interval
from benchmarks.summary import Table

Word = Literal["met", "missed", "not measured"]

VLLM_ROUTER: Final = "vllm-router"
LITELLM: Final = "litellm"
BASELINES: Final = (VLLM_ROUTER, LITELLM)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` says what a reader should know: on which figure it rests, or why there is none."""

    bar: str
    word: Word
    measured: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Facts:
    table: Table
    contenders: Mapping[str, Mapping[str, Any]]


_Judge = Callable[[_Facts, str], Verdict]


def judge(table: Table, contenders: list[dict[str, Any]]) -> list[Verdict]:
    """All bars. `contenders` are the facts of each as the results have them."""
    facts = _Facts(table, {one["name"]: one for one in contenders})
    return [bar(facts, title) for title, bar in _BARS]


def _nothing(title: str, why: str) -> Verdict:
    return Verdict(title, "not measured", "–", why)


def _verdict(title: str, found: Interval, limit: float, least: bool, unit: str) -> Verdict:
    met = found.middle >= limit if least else found.middle <= limit
    return Verdict(title, "met" if met else "missed", _said(found, unit), _doubt(found, limit))


def _said(found: Interval, unit: str) -> str:
    text = f"{_short(found.middle)}{unit}"
    if found.low is not None and found.high is not None:
        text += f" ({_short(found.low)} to {_short(found.high)})"
    return text


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _doubt(found: Interval, limit: float) -> str:
    if found.low is None:
        return "too few rounds for an interval"
    return "the interval holds the bar, too" if found.around(limit) else ""


def _and(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _throughput(case: str, peer: str, least: float) -> _Judge:
    def judged(facts: _Facts, title: str) -> Verdict:
        table = facts.table
        ours, theirs = table.row(case, OURS), table.row(case, peer)
        if ours is None or theirs is None:
            return _nothing(title, f"no turns of {OURS if ours is None else peer}")
        if ours.counts and theirs.counts:
            found, basis = table.ratio(case, OURS, peer, "rate"), ""
        else:  # requests per second of CPU: theirs to ours of the CPU that one takes
            found = table.ratio(case, peer, OURS, "cpu_us")
            basis = "by CPU time, for not both were at a full core of their own"
        if math.isnan(found.middle):
            return _nothing(title, "no good answers to compare")
        verdict = _verdict(title, found, least, True, " ×")
        return Verdict(title, verdict.word, verdict.measured, _and(basis, verdict.why))

    return judged


def _cpu_per_chunk(facts: _Facts, title: str) -> Verdict:
    case = cases.PACED_200.name
    found = facts.table.ratio(case, OURS, VLLM_ROUTER, "cpu_us")
    if math.isnan(found.middle):
        return _nothing(title, f"no turns of {OURS} and {VLLM_ROUTER}")
    return _verdict(title, found, 1.25, False, " ×")


def _added_p50(facts: _Facts, title: str) -> Verdict:
    found = facts.table.added(cases.ONE_CONNECTION.name, OURS, "p50_ms")
    if math.isnan(found.middle):
        return _nothing(title, "no turns of it")
    return _verdict(title, found, 0.35, False, " ms")


def _added_p99(facts: _Facts, title: str) -> Verdict:
    found = facts.table.added_ratio(cases.ONE_CONNECTION.name, OURS, VLLM_ROUTER, "p99_ms")
    if math.isnan(found.middle):
        return _nothing(title, f"no turns of {OURS} and {VLLM_ROUTER}")
    return _verdict(title, found, 3.0, False, " ×")


def _most(case: str, value: str, limit: float, unit: str) -> _Judge:
    """The median of a value of Roundhouse."""

    def judged(facts: _Facts, title: str) -> Verdict:
        row = facts.table.row(case, OURS)
        found = row.values.get(value, math.nan) if row is not None else math.nan
        if row is None or math.isnan(found):
            return _nothing(title, "no turns of it")
        word: Word = "met" if found <= limit else "missed"
        errors = f"{row.errors} errors" if row.errors else ""
        return Verdict(title, word, f"{_short(found)}{unit}", errors)

    return judged


def _rest(facts: _Facts, title: str) -> Verdict:
    found = facts.contenders.get(OURS, {}).get("rss_mb")
    if not found:
        return _nothing(title, "no figure")
    return Verdict(title, "met" if found <= 80 else "missed", f"{_short(found)} MB")


def _whole(facts: _Facts, title: str) -> Verdict:
    """Of all turns together, not their median: one is too many."""
    rows = [
        turn
        for case in (cases.PACED_200.name, cases.PACED_1000.name)
        for turn in facts.table.turns(case, OURS)
        if turn["values"]
    ]
    if not rows:
        return _nothing(title, "no turns of it")
    lost = sum(turn["values"]["lost"] for turn in rows)
    doubled = sum(turn["values"]["doubled"] for turn in rows)
    chunks = sum(turn["values"]["chunks"] for turn in rows)
    word: Word = "missed" if lost or doubled else "met"
    return Verdict(title, word, f"{lost:.0f} lost, {doubled:.0f} doubled of {chunks:,.0f}")


_BARS: Final[tuple[tuple[str, _Judge], ...]] = (
    ("requests/s at least 0.6 × vllm-router", _throughput(cases.REQUESTS.name, VLLM_ROUTER, 0.6)),
    ("requests/s at least 60 × LiteLLM", _throughput(cases.REQUESTS.name, LITELLM, 60)),
    ("streams/s at least 1.3 × vllm-router", _throughput(cases.STREAMS.name, VLLM_ROUTER, 1.3)),
    ("CPU per paced chunk (200 × 50/s) at most 1.25 × vllm-router", _cpu_per_chunk),
    ("added p50, 1 connection, 4 KiB: at most 0.35 ms", _added_p50),
    ("added p99, 1 connection, 4 KiB: at most 3 × vllm-router", _added_p99),
    (
        "1,000 streams × 10/s: p99 of lateness at most 20 ms",
        _most(cases.PACED_1000.name, "late_p99_ms", 20, " ms"),
    ),
    ("paced streams: no chunk lost or doubled", _whole),
    ("RSS at rest at most 80 MB", _rest),
    (
        "RSS with 1,000 streams at most 150 MB",
        _most(cases.PACED_1000.name, "rss_mb", 150, " MB"),
    ),
)
