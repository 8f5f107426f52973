"""What a run found, as lines for people, as JSON with every turn, and as a chart."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine.compare import Level, Row, summary

HEAD = (
    "pair  first    direct t/s  through t/s  ratio   ttft p50 +ms  itl p50 +ms  itl p99 +ms  "
    "our us/token  others"
)


def line(pair: Row) -> str:
    """A pair as a row under HEAD. `others`: cores that processes of nobody here used."""
    ratio = "  –  " if pair["ratio"] is None else f"{pair['ratio']:.3f}"
    return (
        f"{pair['pair'] + 1:4}  {pair['first']:7}  {pair['direct_tokens_per_s']:10,.0f}  "
        f"{pair['through_tokens_per_s']:11,.0f}  {ratio}   "
        f"{pair['ttft_p50_delta_s'] * 1e3:+12.2f}  {pair['itl_p50_delta_s'] * 1e3:+11.3f}  "
        f"{pair['itl_p99_delta_s'] * 1e3:+11.2f}  {pair['server_us_per_token']:12.1f}"
        f"  {pair['others_cores']:6.2f}"
        + (f"  {pair['problems']} PROBLEMS" if pair["problems"] else "")
    )


def closing(found: Row) -> list[str]:
    """The lines under a level's table."""
    lines = [f"{found['concurrency']} streams, {found['pairs']} pairs"]
    if found["ratio"] is None:
        return [*lines, "  no ratio: a turn had no tokens"]
    lines.append(f"  through / direct     {_interval(found['ratio'], 1, 3)}")
    for name, title in (
        ("ttft_p50", "first token, p50"), ("itl_p50", "between, p50"), ("itl_p99", "between, p99"),
    ):  # fmt: skip
        direct, through = (found[f"{arm}_{name}_s"] * 1e3 for arm in ("direct", "through"))
        later = _interval(found[f"{name}_delta_s"], 1e3, 3)
        lines.append(
            f"  {title:18}   {direct:.2f} ms direct, {through:.2f} ms through; later by {later} ms"
        )
    lines.append(
        f"  CPU per token        Roundhouse {found['through_server_us_per_token']:.1f} µs, engine "
        f"{found['through_engine_us_per_token']:.0f} µs ({found['direct_engine_us_per_token']:.0f} "
        f"µs direct), load client {found['through_client_us_per_token']:.1f} µs"
    )
    lines.append(
        f"  streams checked      {found['streams_checked']}, wrong {found['problems']}; prefix "
        f"cache hits {found['prefix_cache_hits']:.0f}, preemptions {found['preemptions']:.0f}"
    )
    if found["first_problem"]:
        lines.append(f"  first problem        {found['first_problem'][:300]}")
    lines.append(f"  others' CPU          {found['through_others_cores']:.2f} cores (median turn)")
    return lines


def _interval(found: dict[str, Any], scale: float, digits: int) -> str:
    mean = f"{found['mean'] * scale:.{digits}f}"
    if found["low"] is None:
        return f"{mean} (one pair has no interval)"
    return f"{mean} (95 % {found['low'] * scale:.{digits}f} to {found['high'] * scale:.{digits}f})"


def verdict(found: Row, bar: float) -> bool | None:
    """Is the interval's lower end at the bar, with every stream whole? None: too few pairs."""
    if found["problems"]:
        return False
    ratio = found["ratio"]
    if ratio is None or ratio["low"] is None:
        return None
    return bool(ratio["low"] >= bar)


def as_json(levels: Sequence[Level], **about: Any) -> Row:
    """Everything: what the machine is, what was done, each turn, each pair, the summaries."""
    return {
        **about,
        "levels": [
            {"summary": summary(level), "pairs": level.pairs, "turns": level.turns}
            for level in levels
        ],
    }


def write(path: Path, found: Row) -> None:
    """Whole or not at all: a run that is ended later keeps what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(_finite(found), indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot(path: Path, levels: Sequence[Level], bar: float, title: str) -> bool:
    """The ratios and our CPU per token, by level. False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    # Text as text, and the same bytes for the same numbers.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "roundhouse"})
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), constrained_layout=True)
    names = [str(level.work.concurrency) for level in levels]
    for at, level in enumerate(levels):
        ratios = [pair["ratio"] or math.nan for pair in level.pairs]
        cost = [pair["server_us_per_token"] for pair in level.pairs]
        # Pairs stand side by side in the order of time, so that a drift can be seen.
        places = [at + (n + 1) / (len(level.pairs) + 1) * 0.6 - 0.3 for n in range(len(cost))]
        above.plot(places, ratios, "o", color="#4c78a8", markersize=4)
        found = summary(level)["ratio"]
        if found and found["low"] is not None:
            above.fill_between(
                [at - 0.35, at + 0.35], found["low"], found["high"], color="#4c78a8", alpha=0.2
            )
            above.plot([at - 0.35, at + 0.35], [found["mean"]] * 2, color="#4c78a8")
        below.plot(places, cost, "o", color="#f58518", markersize=4)
    above.axhline(1.0, color="#888888", linewidth=0.8)
    above.axhline(bar, color="#e45756", linewidth=0.8, linestyle="--", label=f"bar {bar:g}")
    above.set_ylabel("tokens/s, through / direct")
    above.legend()
    above.set_title(title, fontsize=9)
    below.set_ylabel("Roundhouse's CPU, µs per token")
    most = max((pair["server_us_per_token"] for level in levels for pair in level.pairs), default=1)
    below.set_ylim(0, 1.15 * most)
    below.set_xlabel("streams at once (a dot is a pair; band: 95 % interval)")
    for axes in (above, below):
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.6, len(names) - 0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return True
