"""A whole run: a stack, its levels in turn, and what is printed and written of them."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engine import machine, report
from benchmarks.engine.compare import Level, Row, compare, summary
from benchmarks.engine.load import Work
from benchmarks.engine.stack import StackError, running


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do. `out` names the JSON; the chart gets the same name with .svg."""

    title: str
    engine: dict[str, Any]
    python: str | None
    works: Sequence[Work]
    pairs: int
    bar: float
    out: Path
    start_s: float = 600.0
    about: dict[str, Any] = field(default_factory=dict)


def python_path(text: str | Path) -> str:
    """Absolute, because the config that names it lies elsewhere. Links are kept: a virtual
    environment's Python is one."""
    return str(Path(text).expanduser().absolute())


def run(plan: Plan) -> int:
    """The exit code: 0 when every level is at the bar (or has too few pairs to say), 1 when one is
    below it or a stream was wrong, 2 when nothing came up."""
    _allow_files(2 * max(work.concurrency for work in plan.works) + 512)
    facts = machine.facts()
    print(f"{plan.title}\n{_told(facts)}", flush=True)
    levels: list[Level] = []
    with tempfile.TemporaryDirectory(prefix="roundhouse-engine-bench-") as folder:
        try:
            begun = time.monotonic()
            with running(Path(folder), plan.engine, plan.python, within_s=plan.start_s) as stack:
                ready_s = time.monotonic() - begun
                argv = [_without(part, folder) for part in stack.engine_argv()[1:]]
                print(f"ready after {ready_s:.0f} s: {' '.join(argv)}\n", flush=True)
                about = {
                    "title": plan.title,
                    "machine": facts,
                    "settings": {
                        "bar": plan.bar,
                        "engine": {k: _without(v, folder) for k, v in plan.engine.items()},
                        "engine_argv": argv,
                        "levels": [asdict(work) for work in plan.works],
                        **plan.about,
                    },
                }
                for number, work in enumerate(plan.works):
                    levels.append(Level(work))
                    print(f"{work.concurrency} streams of {work.tokens} tokens\n{report.HEAD}")

                    def told(pair: Row) -> None:
                        print(report.line(pair), flush=True)
                        report.write(plan.out, report.as_json(levels, **about))

                    compare(
                        stack, levels[-1], pairs=plan.pairs,
                        first_number=number * (2 * plan.pairs + 2), told=told,
                    )  # fmt: skip
                    print(*report.closing(summary(levels[-1])), "", sep="\n", flush=True)
        except StackError as error:
            print(error)
            return 2
    return _end(plan, levels)


def _end(plan: Plan, levels: Sequence[Level]) -> int:
    chart = plan.out.with_suffix(".svg")
    drawn = report.plot(chart, levels, plan.bar, plan.title)
    print(f"{plan.out}" + (f"\n{chart}" if drawn else "\nno chart: matplotlib is not installed"))
    code = 0
    for level in levels:
        reached = report.verdict(summary(level), plan.bar)
        word = {True: "reached", False: "NOT reached", None: "too few pairs to say"}[reached]
        print(f"{level.work.concurrency} streams: lower end at {plan.bar:g} or above: {word}")
        code = 1 if reached is False else code
    return code


def _told(facts: dict[str, Any]) -> str:
    gpus = ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in facts["gpus"]) or "no GPU"
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {gpus}; "
        f"pinned: {facts['pinned']}; load average before the start {facts['load_average'][0]}; "
        f"commit {facts['commit'] or 'unknown'}{' with changes' if facts['tree_changed'] else ''}"
    )


def _without(value: Any, folder: str) -> Any:
    """No path of one machine gets into what is written: folders become their last name."""
    if not isinstance(value, str) or not value.startswith(("/", folder)):
        return value
    return f"…/{Path(value).name}"


def _allow_files(wanted: int) -> None:
    """Each stream takes a file here and two in the server, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
