"""What a run prints for people: one step in full, or one row for each step of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from server.loadtest.figures import PERCENTILES
from server.loadtest.goodput import Limits
from server.loadtest.report import Report

#: Key of a report → its name in the table of one step.
_ROWS: Final = {
    "ttft_seconds": "first token (TTFT)",
    "ttft_service_seconds": "  from being sent",
    "inter_chunk_seconds": "between chunks",
    "tpot_seconds": "per output token (TPOT)",
    "e2e_seconds": "end to end (E2E)",
    "e2e_service_seconds": "  from being sent",
}
#: Only shown where it differs.
_SERVICE: Final = frozenset({"ttft_service_seconds", "e2e_service_seconds"})
_STAR: Final = "* the largest measured: there are too few for this percentile"


def duration(seconds: float | None) -> str:
    """Three digits with a unit: `98.0 µs`, `4.21 ms`, `212 ms`, `1.23 s`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds == 0:
        return "0 ms"
    if seconds < 0.0001:
        return f"{_digits(seconds * 1e6)} µs"
    if seconds < 0.9995:
        return f"{_digits(seconds * 1000)} ms"
    return f"{_digits(seconds)} s"


def _digits(number: float) -> str:
    return (
        f"{number:.0f}"
        if number >= 99.95
        else f"{number:.1f}"
        if number >= 9.995
        else f"{number:.2f}"
    )


def rate(number: float) -> str:
    """`3.97/s`, `1234/s`"""
    return f"{_digits(number)}/s"


def one(report: Report) -> list[str]:
    """One step in full."""
    lines = [f"  {name.ljust(10)}  {text}" for name, text in _facts(report)]
    shown = [
        (name, found)
        for key, name in _ROWS.items()
        if (found := report.spreads[key]) is not None and (key not in _SERVICE or report.sent_late)
    ]
    if shown:
        heads = ["", *(f"P{p}{_star(report, p)}" for p in PERCENTILES), "MEAN"]
        body = [
            [name, *(duration(found.at(p)) for p in PERCENTILES), duration(found.mean)]
            for name, found in shown
        ]
        lines += ["", *columns([heads, *body])]
        if "*" in "".join(heads):
            lines += ["", f"  {_STAR}"]
    for note in _notes(report):
        lines += ["", f"  {note}"]
    return lines


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    failed = report.failures.total()
    text = f"{report.ok} answered in {duration(report.wall_seconds)}, "
    text += f"{rate(report.per_second(report.ok))}; {failed} failed; "
    yield "requests", f"{text}{_digits(report.in_flight)} in flight on average"
    if (out := report.output_tokens) is not None:
        text = f"{out} out, {rate(report.per_second(out))}"
        if (speed := report.spreads["output_tokens_per_second"]) is not None:
            text += f" ({rate(speed.p50)} for each request, median)"
        if (fed := report.prompt_tokens) is not None:
            text += f"; {fed} in"
            if (cached := report.cached_tokens) is not None and fed:
                text += f", {cached / fed:.0%} from the server's cache"
        yield "tokens", text
    if report.limits is not None:
        share = report.good / len(report.samples) if report.samples else 0.0
        good = rate(report.per_second(report.good))
        yield "goodput", f"{good}, {share:.1%} of the requests within {_limits(report.limits)}"
    lag = duration(report.strain.lag)
    yield "client", f"{report.strain.cpu_share:.0%} of a core; event loop late by {lag} (p99)"


def _limits(limits: Limits) -> str:
    found = limits.as_json().items()
    return ", ".join(f"{key.removesuffix('_seconds')} {duration(value)}" for key, value in found)


def _star(report: Report, percent: int) -> str:
    """For the whole column: does it hold for any row?"""
    found = (report.spreads[key] for key in _ROWS)
    return "*" if any(s is not None and s.is_maximum(percent) for s in found) else ""


def sweep(reports: Sequence[Report]) -> list[str]:
    """One row for each step. Latencies are medians and p99."""
    with_goodput = any(report.limits is not None for report in reports)
    head = ["LOAD", "OK", "FAILED", "REQ/S", "TOK/S", "IN FLIGHT"]
    head += ["TTFT P50", "P99", "TPOT P50", "P99", "E2E P50", "P99"]
    head += ["GOODPUT"] if with_goodput else []
    rows = [_row(report, with_goodput) for report in reports]
    lines = columns([head, *rows])
    if any("*" in cell for row in rows for cell in row):
        lines += ["", f"  {_STAR}"]
    steps_of: dict[str, list[str]] = {}
    for report in reports:
        for note in _notes(report):
            steps_of.setdefault(note, []).append(report.load.label)
    for note, steps in steps_of.items():
        where = "every step" if len(steps) == len(reports) > 1 else "; ".join(steps)
        lines += ["", f"  {where}: {note}"]
    return lines


def _row(report: Report, with_goodput: bool) -> list[str]:
    out = report.output_tokens
    cells = [
        report.load.label,
        str(report.ok),
        str(report.failures.total()),
        _digits(report.per_second(report.ok)),
        "-" if out is None else _digits(report.per_second(out)),
        _digits(report.in_flight),
    ]
    for key in ("ttft_seconds", "tpot_seconds", "e2e_seconds"):
        found = report.spreads[key]
        star = "*" if found is not None and found.is_maximum(99) else ""
        cells += [
            duration(found.p50 if found else None),
            (duration(found.p99) if found else "-") + star,
        ]
    if with_goodput:
        cells.append(rate(report.per_second(report.good)))
    return cells


def _notes(report: Report) -> list[str]:
    """What a reader must know to read the figures right."""
    found = [
        f"{count} × {kind}: {report.failure_texts[kind]}"
        for kind, count in report.failures.most_common()
    ]
    if report.hopeless:
        found.append(f"Stopped: the first {len(report.samples)} requests have all failed.")
    if report.cut:
        found.append(f"Requests in flight at the stop, counted nowhere: {report.cut}.")
    if chunks := report.tokens_are_chunks:
        found.append(f"Tokens are chunks: {chunks} of {report.ok} answers came without usage.")
    streamed = [sample for sample in report.whole if sample.streamed]
    if silent := sum(sample.first is None for sample in streamed):
        found.append(f"Answers without any content, and so without TTFT: {silent}.")
    if (warning := report.strain.warning()) is not None:
        found.append(f"Warning: {warning}")
    return found


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, figures to the right, two spaces apart."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
