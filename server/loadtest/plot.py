"""Charts of a run, by matplotlib from the extra `plots`; imported only when one is asked for."""

from __future__ import annotations

import importlib.util
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


def _over_load(axes: Axes, reports: Sequence[Report], key: str) -> None:
    for percent in PERCENTILES:
        points = [
            (_load(report), found.at(percent))
            for report in reports
            if (found := report.spreads[key]) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=f"p{percent}")
    axes.set_xlabel(_load_label(reports))
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _distribution(axes: Axes, report: Report, key: str) -> None:
    """The share of answers that took at most so long: every measured value is a step of it."""
    attribute = key.removesuffix("_seconds")
    values = sorted(v for s in report.whole if (v := getattr(s, attribute)) is not None)
    if values:
        axes.step(values, [at / len(values) for at in range(1, len(values) + 1)], where="post")
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of the answers")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _tokens_over_load(axes: Axes, reports: Sequence[Report]) -> None:
    points = [(_load(r), r.per_second(r.output_tokens or 0)) for r in reports]
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set_xlabel(_load_label(reports))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _tokens_over_time(axes: Axes, report: Report) -> None:
    """Each answer's tokens, spread evenly over the time in which they came."""
    seconds = max(1, int(report.wall_seconds) + 1)
    bins = [0.0] * seconds
    for sample in report.whole:
        begin = (sample.first if sample.first is not None else sample.sent) - report.start
        end = max(sample.ended - report.start, begin + 1e-9)
        for at in range(int(begin), min(int(end) + 1, seconds)):
            shared = min(end, at + 1) - max(begin, at)
            bins[at] += (sample.tokens or 0) * shared / (end - begin)
    axes.step(range(seconds), bins, where="post")
    axes.set_xlabel("seconds from the start")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
