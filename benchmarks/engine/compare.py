"""Both arms in turns, and the numbers of each turn, each pair and all pairs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import uvloop

from benchmarks.engine import load, stats
from benchmarks.engine.load import Door, Window, Work
from benchmarks.engine.machine import Cpu
from benchmarks.engine.stack import Stack
from benchmarks.engine.stats import DIRECT, THROUGH

#: Seconds of a turn before the first pair that only warms up both ways.
SETTLE_S: Final = 2.0

Row = dict[str, Any]


@dataclass(slots=True)
class Level:
    """All turns at one number of streams. `pairs` are made of `turns`."""

    work: Work
    turns: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)


def numbers(window: Window) -> Row:
    """One turn's numbers. Tokens and gaps count when they came within the window, times to the
    first token when their request was sent within it, problems always."""
    tokens = 0.0
    firsts: list[float] = []
    gaps: list[float] = []
    begin, end = window.begin_ns, window.end_ns
    for answer in window.answers:
        came = answer.events_ns
        if not came:
            continue
        tokens += answer.weight * sum(1 for at in came if begin <= at < end)
        if begin <= answer.sent_ns < end:
            firsts.append((came[0] - answer.sent_ns) / 1e9)
        gaps += [(after - at) / 1e9 for at, after in pairwise(came) if begin <= at and after < end]
    problems = [answer.problem for answer in window.answers if answer.problem]
    good = [answer for answer in window.answers if not answer.problem]
    events = sum(len(answer.events_ns) for answer in good)
    said = sum(answer.tokens for answer in good)
    return {
        "seconds": window.seconds,
        "tokens": tokens,
        "tokens_per_s": tokens / window.seconds,
        "streams_checked": len(good),
        "tokens_per_event": said / events if events else None,
        "characters_per_token": sum(a.characters for a in good) / said if said else None,
        "problems": len(problems),
        "first_problem": problems[0] if problems else "",
        "ttft_p50_s": stats.quantile(firsts, 0.5),
        "ttft_p99_s": stats.quantile(firsts, 0.99),
        "itl_p50_s": stats.quantile(gaps, 0.5),
        "itl_p99_s": stats.quantile(gaps, 0.99),
    }


def costs(window: Window, tokens: float) -> Row:
    """CPU beside the tokens. `others_cores`: what processes of nobody here used meanwhile."""
    used: Cpu = window.after.since(window.before)
    per = 1e6 / tokens if tokens else float("nan")
    return {
        "server_us_per_token": used.server * per,
        "engine_us_per_token": used.engine * per,
        "client_us_per_token": used.client * per,
        "others_cores": used.others / window.seconds,
        "load_average": round(os.getloadavg()[0], 2),
    }


def compare(
    stack: Stack,
    level: Level,
    *,
    pairs: int,
    first_number: int = 0,
    told: Callable[[Row], None] = lambda pair: None,
) -> None:
    """Fill the level; `told` hears of each pair. `first_number` sets prompts apart from those of
    levels before."""
    doors, crew = stack.doors(), stack.crew()
    number = first_number

    def turn(door: Door, work: Work) -> Row:
        nonlocal number
        counted = stack.engine_counts()
        window = uvloop.run(load.run(door, work, number=number, look=crew.look))
        after = stack.engine_counts()
        row = {"arm": door.name, "number": number, **numbers(window)}
        row |= costs(window, row["tokens"])
        row["engine_counts"] = {name: after[name] - value for name, value in counted.items()}
        number += 1
        return row

    for door in doors.values():
        turn(door, replace(level.work, warm_up_s=0.5, seconds=SETTLE_S))
    for index, order in enumerate(stats.order(pairs)):
        rows: dict[str, Row] = {}
        for arm in order:
            rows[arm] = {"pair": index, **turn(doors[arm], level.work)}
            level.turns.append(rows[arm])
        level.pairs.append(pair_of(index, order[0], rows[DIRECT], rows[THROUGH]))
        told(level.pairs[-1])


def pair_of(index: int, first: str, direct: Row, through: Row) -> Row:
    """What a pair of turns says: the ratio, and how much later things came through Roundhouse."""
    nothing = direct["tokens"] <= 0 or through["tokens"] <= 0
    delta = {
        f"{name}_delta_s": through[f"{name}_s"] - direct[f"{name}_s"]
        for name in ("ttft_p50", "itl_p50", "itl_p99")
    }
    return {
        "pair": index,
        "first": first,
        "direct_tokens_per_s": direct["tokens_per_s"],
        "through_tokens_per_s": through["tokens_per_s"],
        "ratio": None if nothing else through["tokens_per_s"] / direct["tokens_per_s"],
        **delta,
        "server_us_per_token": through["server_us_per_token"],
        "others_cores": max(direct["others_cores"], through["others_cores"]),
        "problems": direct["problems"] + through["problems"],
    }


def summary(level: Level) -> Row:
    """Over all pairs of a level."""
    found: Row = {
        "concurrency": level.work.concurrency,
        "pairs": len(level.pairs),
        "problems": sum(pair["problems"] for pair in level.pairs),
        "first_problem": next((t["first_problem"] for t in level.turns if t["problems"]), ""),
        "streams_checked": sum(turn["streams_checked"] for turn in level.turns),
        "prefix_cache_hits": sum(t["engine_counts"]["prefix_cache_hits"] for t in level.turns),
        "preemptions": sum(turn["engine_counts"]["num_preemptions"] for turn in level.turns),
    }
    ratios = [pair["ratio"] for pair in level.pairs if pair["ratio"]]
    found["ratio"] = stats.ratio_interval(ratios).as_dict() if ratios else None
    if level.pairs:
        for name in ("ttft_p50_delta_s", "itl_p50_delta_s", "itl_p99_delta_s"):
            found[name] = stats.interval([pair[name] for pair in level.pairs]).as_dict()
    for arm in (DIRECT, THROUGH):
        turns = [turn for turn in level.turns if turn["arm"] == arm]
        for name in ARM_NUMBERS if turns else ():
            found[f"{arm}_{name}"] = stats.quantile([turn[name] for turn in turns], 0.5)
    return found


#: Of these the summary has each arm's median over its turns.
ARM_NUMBERS: Final = (
    "tokens_per_s", "ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s",
    "server_us_per_token", "engine_us_per_token", "client_us_per_token", "others_cores",
)  # fmt: skip
