"""Results as SVG, with Matplotlib where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import cases
from benchmarks.gateways import DIRECT, OURS
from benchmarks.summary import Table

_OURS: Final = "#1f6f5c"
_OTHERS: Final = "#9aa5a1"
_LINES: Final = ("#b4652a", "#4c78a8", "#8a5a9c", "#7a7a7a", "#c2a83e")

#: Bars that differ by more than this are drawn on a logarithmic scale.
_WIDE: Final = 30


class NoMatplotlib(Exception):
    """It is not installed; the message says how to."""


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the plots for which there are turns."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise NoMatplotlib(
            'no plots: Matplotlib is not installed (pip install "roundhouse-llm[plots]")'
        ) from None
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "roundhouse"  # ids that do not change from run to run
    table = Table(results["turns"])
    made: list[Path] = []
    for name, plot in (
        ("throughput.svg", _throughput),
        ("paced.svg", _paced),
        ("latency.svg", _latency),
    ):
        path = folder / name
        if plot(table, path):
            made.append(path)
    return made


def _throughput(table: Table, path: Path) -> bool:
    return _bars(
        table,
        path,
        [
            (cases.REQUESTS, "rate", "requests/s, 32 connections"),
            (cases.STREAMS, "rate", "streams/s (35 events), 32 connections"),
            (cases.REQUESTS, "cpu_us", "CPU µs per request"),
            (cases.STREAMS, "cpu_us", "CPU µs per stream"),
        ],
    )


def _paced(table: Table, path: Path) -> bool:
    return _bars(
        table,
        path,
        [
            (cases.PACED_200, "cpu_us", "CPU µs per chunk, 200 streams × 50/s"),
            (cases.PACED_1000, "cpu_us", "CPU µs per chunk, 1,000 streams × 10/s"),
            (cases.PACED_1000, "late_p99_ms", "p99 of lateness, ms, 1,000 streams × 10/s"),
            (cases.PACED_1000, "rss_mb", "RSS MB with 1,000 streams"),
        ],
    )


def _bars(table: Table, path: Path, panels: Sequence[tuple[cases.Case, str, str]]) -> bool:
    """One panel of horizontal bars each; a dot is a turn."""
    found = [panel for panel in panels if panel[0].name in table.cases]
    if not found:
        return False
    names = [name for name in reversed(table.contenders) if name != DIRECT]

    def fill(axes: Any, at: int) -> None:
        case, value, title = found[at]
        shown: list[float] = []
        for place, name in enumerate(names):
            row = table.row(case.name, name)
            length = math.nan if row is None else row.values.get(value, math.nan)
            if math.isnan(length):
                continue
            shown.append(length)
            bar = axes.barh(place, length, color=_OURS if name == OURS else _OTHERS)
            axes.bar_label(
                bar, [f"{length:,.0f}" if length >= 100 else f"{length:.3g}"], fontsize=8, padding=4
            )
            dots = [turn["values"].get(value) for turn in table.turns(case.name, name)]
            dots = [dot for dot in dots if dot is not None]
            axes.plot(dots, [place] * len(dots), ".", color="black", markersize=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(title, fontsize=10)
        positive = [length for length in shown if length > 0]
        if positive and max(positive) > _WIDE * min(positive):
            axes.set_xscale("log")
            axes.set_xlim(min(positive) / 3, max(positive) * 5)
        elif positive:
            axes.set_xlim(0, max(positive) * 1.25)

    return _save(path, len(found), fill)


def _latency(table: Table, path: Path) -> bool:
    """Added p50 (solid) and p99 (dashed) over the number of connections."""
    panels = [
        (stream, prompt)
        for stream in (False, True)
        for prompt in dict.fromkeys(case.prompt for case in cases.LATENCY)
        if any(case.name in table.cases for case in _row_of(stream, prompt))
    ]
    if not panels:
        return False
    names = [name for name in table.contenders if name != DIRECT]
    others = [name for name in names if name != OURS]

    def fill(axes: Any, at: int) -> None:
        stream, prompt = panels[at]
        first = "first_" if stream else ""
        for name in names:
            color = _OURS if name == OURS else _LINES[others.index(name) % len(_LINES)]
            for quantile, style in (("p50_ms", "-"), ("p99_ms", "--")):
                points = [
                    (case.connections, table.added(case.name, name, first + quantile).middle)
                    for case in _row_of(stream, prompt)
                    if table.row(case.name, name) is not None
                ]
                # On a logarithmic scale what is lost in the noise of the direct path has no place.
                points = [point for point in points if point[1] > 0]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    style,
                    marker=".",
                    color=color,
                    label=name if style == "-" else None,
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({case.connections for case in cases.LATENCY})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("connections")
        axes.set_ylabel("ms added")
        what = "first event of a stream" if stream else "answer"
        axes.set_title(f"{what}, {prompt // cases.KIB} KiB prompt (p50 –, p99 - -)", fontsize=10)
        if at == 0:
            axes.legend(fontsize=8)

    return _save(path, len(panels), fill)


def _row_of(stream: bool, prompt: int) -> list[cases.Case]:
    return [case for case in cases.LATENCY if case.stream == stream and case.prompt == prompt]


def _save(path: Path, panels: int, fill: Callable[[Any, int], None]) -> bool:
    from matplotlib import pyplot

    columns = min(2, panels)
    rows = -(-panels // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(5.5 * columns, 3 * rows), constrained_layout=True, squeeze=False
    )
    flat = [axes for line in grid for axes in line]
    for at, axes in enumerate(flat):
        if at < panels:
            fill(axes, at)
        else:
            axes.axis("off")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return True
