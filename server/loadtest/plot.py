"""Charts of a run, by matplotlib from the extra `plots`; imported only when one is asked for."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.loadtest.figures import PERCENTILES
from server.loadtest.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES: Final = (".svg", ".png")
_MEASURES: Final = {
    "ttft_seconds": "First token (TTFT)",
    "tpot_seconds": "Per output token (TPOT)",
    "e2e_seconds": "End to end (E2E)",
}
_DOTS_PER_INCH: Final = 150


def complaint(file: str) -> str | None:
    """Why no chart can be written to that file, and the way out; None when one can."""
    if Path(file).suffix.lower() not in SUFFIXES:
        return f"a chart is written as .svg or .png; {file!r} ends with neither."
    if importlib.util.find_spec("matplotlib") is None:
        return (
            "a chart needs matplotlib, from the extra `plots`: "
            "pip install 'roundhouse-llm[plots]' (in a checkout: pip install 'matplotlib>=3.10')."
        )
    return None


def draw(reports: Sequence[Report], title: str, file: str) -> None:
    """Latencies over load and throughput for a sweep; the distributions of a single step.

    Raises OSError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)  # no window system is asked
    figure.suptitle(title)
    (rates, *latencies) = figure.subplots(2, 2).flat
    for axes, (key, name) in zip(latencies, _MEASURES.items(), strict=True):
        axes.set_title(name)
        if len(reports) > 1:
            _over_load(axes, reports, key)
        else:
            _distribution(axes, reports[0], key)
    rates.set_title("Output tokens a second")
    if len(reports) > 1:
        _tokens_over_load(rates, reports)
    else:
        _tokens_over_time(rates, reports[0])
    figure.savefig(file, dpi=_DOTS_PER_INCH)


def _load(report: Report) -> float:
    return report.load.rate if report.load.rate is not None else report.load.concurrency or 0


def _load_label(reports: Sequence[Report]) -> str:
    open_loop = reports[0].load.rate is not None
    return "requests asked a second" if open_loop else "requests at a time"


def _unit(longest: float) -> tuple[str, float]:
    """The unit to draw in, and how many of it make a second."""
    return ("s", 1.0) if longest >= 1 else ("ms", 1e3)


def _over_load(axes: Axes, reports: Sequence[Report], key: str) -> None:
    found = [(_load(report), spread) for report in reports if (spread := report.spreads[key])]
    unit, scale = _unit(max((spread.p99 for _, spread in found), default=1.0))
    for percent in PERCENTILES if found else ():
        values = [spread.at(percent) * scale for _, spread in found]
        axes.plot([load for load, _ in found], values, marker="o", label=f"p{percent}")
        axes.legend()
    axes.set_xlabel(_load_label(reports))
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _distribution(axes: Axes, report: Report, key: str) -> None:
    """The share of answers that took at most so long: every measured value is a step of it."""
    attribute = key.removesuffix("_seconds")
    values = sorted(v for s in report.whole if (v := getattr(s, attribute)) is not None)
    unit, scale = _unit(values[-1] if values else 1.0)
    if values:
        axes.ecdf([value * scale for value in values])
    axes.set_xlabel(unit)
    axes.set_ylabel("share of the answers")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _tokens_over_load(axes: Axes, reports: Sequence[Report]) -> None:
    rates = [report.per_second(report.output_tokens or 0) for report in reports]
    axes.plot([_load(report) for report in reports], rates, marker="o")
    axes.set_xlabel(_load_label(reports))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _tokens_over_time(axes: Axes, report: Report) -> None:
    edges, rates = tokens_over_time(report)
    axes.stairs(rates, edges)
    axes.set_xlabel("seconds from the start")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def tokens_over_time(report: Report) -> tuple[list[float], list[float]]:
    """Edges of intervals of a second (the last is what is left), and the output tokens a second in
    each. An answer's tokens are spread evenly from its first token to its end."""
    wall = max(report.wall_seconds, 1e-9)
    edges = [float(at) for at in range(math.ceil(wall))] + [wall]
    tokens = [0.0] * (len(edges) - 1)
    for sample in report.whole:
        begin = (sample.sent if sample.first is None else sample.first) - report.start
        end = max(sample.ended - report.start, begin + 1e-9)
        for at in range(int(begin), min(math.ceil(end), len(tokens))):
            shared = min(end, edges[at + 1]) - max(begin, edges[at])
            tokens[at] += (sample.tokens or 0) * max(0.0, shared) / (end - begin)
    widths = [after - before for before, after in itertools.pairwise(edges)]
    return edges, [number / width for number, width in zip(tokens, widths, strict=True)]
