"""What is left of a run: JSON with every sample, a page to read, and a chart."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.soak import judge
from benchmarks.soak.judge import Check, Facts
from benchmarks.soak.run import Result, Settings, percentile


def document(result: Result, settings: Settings, started: str, *, early: bool) -> dict[str, Any]:
    """The whole run as JSON values. Every key is always there; what was not measured is null."""
    facts, ledger = result.facts, result.ledger
    found = judge.checks(facts)
    rss = [(one.at, one.rss) for one in facts.samples]
    return {
        "verdict": "passed" if judge.passed(found) else "failed",
        "started": started,
        "ended_early": early,
        "seconds": round(facts.seconds, 1),
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "pinned": result.pinned,
        },
        "settings": _settings(settings),
        "checks": [asdict(check) for check in found],
        "figures": {
            "rss_growth_mib": judge.growth(rss, facts.seconds),
            "rss_slope_mib_per_hour": judge.slope(rss, facts.seconds),
            "rss_at_rest_before_mib": facts.before.rss,
            "rss_at_rest_after_mib": facts.after.rss if facts.after else None,
            "rss_max_mib": max((one.rss for one in facts.samples), default=None),
            "loop_lag_p50_seconds": judge.quantile(facts.lag, 0.5),
            "loop_lag_p99_seconds": judge.quantile(facts.lag, 0.99),
            "upstream_told_p50_seconds": percentile(result.told, 0.5),
            "upstream_told_p99_seconds": percentile(result.told, 0.99),
            "upstream_told_max_seconds": max(result.told, default=None),
            "chunks_per_second": ledger.chunks / facts.seconds,
            "gateway_cpu": result.gateway_cpu,
            "harness_cpu": result.harness_cpu,
            "harness_lag_p99_seconds": percentile([one.harness_lag for one in facts.samples], 0.99),
        },
        "before": asdict(facts.before),
        "after": asdict(facts.after) if facts.after else None,
        "counts": {
            "asked": dict(ledger.asked),
            "outcomes": dict(ledger.outcomes),
            "faults": dict(ledger.faults),
            "chunks": ledger.chunks,
            "lost": ledger.lost,
            "doubled": ledger.doubled,
            "unexpected": ledger.unexpected,
            "upstream_requests": result.requests,
        },
        "unexpected": ledger.texts,
        "samples": [asdict(sample) for sample in facts.samples],
    }


def _settings(settings: Settings) -> dict[str, Any]:
    found = asdict(settings)
    del found["command"]  # holds paths of one machine
    return found


def markdown(report: dict[str, Any]) -> str:
    """The page."""
    figures, counts = report["figures"], report["counts"]
    rows = [
        f"| {check['name']} | {check['value']} | {check['limit']} | {_mark(check['held'])} |"
        for check in report["checks"]
    ]
    outcomes = [f"| {kind} | {count} |" for kind, count in sorted(counts["outcomes"].items())]
    parts = [
        f"# Soak run of {report['started'][:10]}: {report['verdict']}",
        f"{report['seconds']:g} s, {report['settings']['streams']} streams kept open, "
        f"{counts['chunks']} chunks read and checked, {sum(counts['faults'].values())} faults "
        "ordered" + (", ended early." if report["ended_early"] else "."),
        "| check | value | limit | |\n|---|---|---|---|\n" + "\n".join(rows),
        "| answers | |\n|---|---|\n" + "\n".join(outcomes),
        "| figure | |\n|---|---|\n"
        + "\n".join(f"| {name} | {_figure(value)} |" for name, value in figures.items()),
    ]
    if report["unexpected"]:
        parts.append("## Unexpected\n\n" + "\n".join(f"- {text}" for text in report["unexpected"]))
    return "\n\n".join(parts) + "\n"


def _mark(held: bool | None) -> str:
    return {True: "held", False: "**not held**", None: "not judged"}[held]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def table(found: Sequence[Check]) -> str:
    """The checks for a terminal."""
    signs = {True: "ok  ", False: "FAIL", None: "  – "}
    width = max(len(check.name) for check in found)
    return "\n".join(
        f"{signs[check.held]}  {check.name:<{width}}  {check.value}  ({check.limit})"
        for check in found
    )


def write(report: dict[str, Any], facts: Facts, folder: Path) -> list[Path]:
    """soak.json, soak.md and, where matplotlib is, soak.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "soak.json", folder / "soak.md"
    data.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(markdown(report), encoding="utf-8")
    written = [data, page]
    if facts.samples and importlib.util.find_spec("matplotlib") is not None:
        written.append(_draw(facts, folder / "soak.svg"))
    return written


def _draw(facts: Facts, file: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    samples = facts.samples
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)  # no window system is asked
    memory, streams, inside, lag = figure.subplots(2, 2, sharex=True).flat
    at = [one.at / 60 for one in samples]
    memory.set_title("Memory of the server, MiB")
    memory.plot(at, [one.rss for one in samples], label="RSS")
    known = [(one.at / 60, one.uss) for one in samples if one.uss is not None]
    memory.plot(*zip(*known, strict=True), label="USS")
    for window in judge.windows(facts.seconds):
        memory.axvspan(window[0] / 60, window[1] / 60, alpha=0.12)
    memory.legend()
    streams.set_title("Open streams and descriptors")
    streams.plot(at, [one.open_streams for one in samples], label="streams")
    streams.plot(at, [one.descriptors for one in samples], label="descriptors")
    streams.set_ylim(bottom=0)
    streams.legend()
    inside.set_title("Tasks in the server")
    counted = [(one.at / 60, one.tasks) for one in samples if one.tasks is not None]
    if counted:
        inside.plot(*zip(*counted, strict=True))
    inside.set_ylim(bottom=0)
    lag.set_title("Event-loop lag, 99th percentile, ms")
    lags = [(one.at / 60, one.lag * 1e3) for one in samples if one.lag is not None]
    if lags:
        lag.plot(*zip(*lags, strict=True))
        lag.axhline(judge.LAG * 1e3, linestyle=":")
    lag.set_ylim(bottom=0)
    for axes in (inside, lag):
        axes.set_xlabel("minutes")
    figure.savefig(file)
    return file
