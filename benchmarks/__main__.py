"""Roundhouse beside the gateways that are installed, in turns, on one machine.

make bench                                   about 20 minutes with four peers
make bench BENCH="--quick"                   3 to 4 minutes
python -m benchmarks --only roundhouse,vllm-router --cases throughput
python -m benchmarks --report FOLDER         write an old run's tables and plots anew
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import cases, machine, plots, report
from benchmarks.compare import Comparison
from benchmarks.contenders import CONTENDERS as ALL
from benchmarks.contenders import Contender
from benchmarks.contenders.roundhouse import Before
from benchmarks.gateways import DIRECT, OURS, Gateways
from benchmarks.upstream import Upstream

#: The direct path has turns of its own: its figures are what the others' are compared with.
CONTENDERS: Final = {name: one for name, one in ALL.items() if name != DIRECT}
RESULTS: Final = Path(__file__).resolve().parent / "results"


def parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").splitlines()
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=about[0],
        epilog="\n".join(about[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--rounds", type=_positive(int), help="turns of each (default 5)")
    made.add_argument("--seconds", type=_positive(float), help="counted in a turn (default 3)")
    made.add_argument("--only", type=_names, help="these gateways, separated by commas")
    made.add_argument(
        "--cases", type=_groups, default=cases.GROUPS, help="of throughput,paced,latency"
    )
    made.add_argument(
        "--before", type=Path, help="a checkout of another commit, measured beside as `before`"
    )
    made.add_argument("--quick", action="store_true", help="2 short rounds of fewer cases")
    made.add_argument("--out", type=Path, help="folder (default benchmarks/results/<date>)")
    made.add_argument("--report", type=Path, help="only write this folder's report anew")
    return made


def _positive(kind: type[int] | type[float]) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not value > 0 or math.isinf(value):
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no gateway {', '.join(unknown)!r}; there are {', '.join(CONTENDERS)}"
        )
    return names


def _groups(text: str) -> list[str]:
    groups = [name for name in text.split(",") if name]
    unknown = [name for name in groups if name not in cases.GROUPS]
    if unknown or not groups:
        raise argparse.ArgumentTypeError(
            f"no cases {', '.join(unknown)!r}; there are {', '.join(cases.GROUPS)}"
        )
    return groups


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    if options.report is not None:
        return _again(options.report)
    try:
        cores = machine.choose()
    except machine.NoMachine as error:
        print(f"make bench needs two cores: {error}", file=sys.stderr)
        return 2
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (1.2 if options.quick else 3.0)
    plan = cases.Plan(cases.chosen(options.cases, quick=options.quick), int(rounds), seconds)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command(arguments),
        "options": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "quick": options.quick,
            "cases": [case.name for case in plan.cases],
        },
        "machine": machine.facts(cores),
        "contenders": [],
        "left_out": {},
        "notes": [],
        "turns": [],
        "finished": False,
    }
    contenders = dict(CONTENDERS)
    if options.before is not None:
        contenders[Before.name] = Before(options.before)
    only = options.only and [*options.only, *([Before.name] if options.before else [])]
    wanted = _installed(contenders, only, results["left_out"])
    if not wanted:
        print("nothing to measure", file=sys.stderr)
        return 2
    out = options.out or RESULTS / results["date"][:16].replace(":", "")
    machine.settle_in(cores)
    try:
        chosen = {name: contenders[name] for name in wanted}
        uvloop.run(_run(chosen, plan, cores, results, out))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nended early", file=sys.stderr)
    if not results["turns"]:
        return 1
    _write(results, out)
    _finish(results, out)
    return 0 if results["finished"] else 130


def command(arguments: Sequence[str]) -> str:
    """The command line for the report, without folders: they are of this machine alone."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        if skip or word.startswith(("--out=", "--before=")):
            skip = False
        elif word in ("--out", "--before"):
            skip = True
        else:
            kept.append(word)
    return shlex.join(["python", "-m", "benchmarks", *kept])


def _installed(
    contenders: Mapping[str, Contender], only: list[str] | None, left_out: dict[str, str]
) -> list[str]:
    names = only or list(contenders)
    wanted = []
    for name in names:
        if contenders[name].installed() is None:
            left_out[name] = contenders[name].missing()
            print(f"{name} is not measured: {left_out[name]}")
        else:
            wanted.append(name)
    if only is None and wanted == [OURS]:
        print("No peer is installed: `make bench-peers` installs them. Roundhouse alone, then.")
    return wanted


async def _run(
    chosen: Mapping[str, Contender],
    plan: cases.Plan,
    cores: machine.Cores,
    results: dict[str, Any],
    out: Path,
) -> None:
    ours = asyncio.current_task()
    assert ours is not None
    # Gateways are sessions of their own: nobody else would end them.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)
    upstream = Upstream()
    server = await upstream.listen()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    minutes = plan.estimate(len(chosen) + 1, len(chosen)) / 60
    print(
        f"{len(chosen)} gateways and the direct path, {plan.rounds} rounds of {len(plan.cases)} "
        f"cases: about {minutes:.0f} minutes, a few more with slow gateways.",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="roundhouse-bench-") as folder:
        gateways = Gateways(chosen, url, core=cores.gateway, folder=Path(folder), say=_say)
        async with gateways:
            results["left_out"].update(gateways.failed)
            if OURS in gateways.failed:
                return
            results["contenders"] = [
                one.facts() for one in gateways.running.values() if one.name != DIRECT
            ]
            comparison = Comparison(gateways, upstream, plan, cores, _say)
            results["turns"], results["notes"] = comparison.turns, comparison.notes
            await comparison.run(after_round=lambda: _write(results, out))
            results["finished"] = True
    server.close()


def _say(text: str) -> None:
    print(text, flush=True)


def _write(results: dict[str, Any], out: Path) -> None:
    """Whole or not at all: after every round, so that a run that is ended keeps what it had."""
    out.mkdir(parents=True, exist_ok=True)
    beside = out / "results.json.new"
    beside.write_text(json.dumps(finite(results), indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(beside, out / "results.json")


def finite(value: Any) -> Any:
    """JSON has no NaN: null instead. Figures need no more than six digits."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _finish(results: dict[str, Any], out: Path) -> None:
    text = report.markdown(finite(results))
    (out / "report.md").write_text(text, "utf-8")
    print("\n" + text)
    try:
        plots.draw(finite(results), out)
    except plots.NoMatplotlib as error:
        print(error)
    print(f"{out}: results.json, report.md and plots")


def _again(folder: Path) -> int:
    try:
        results = json.loads((folder / "results.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        print(f"no results in {folder}: {error}", file=sys.stderr)
        return 2
    _finish(results, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
