"""A soak run: `make soak`, or

    python -m benchmarks.soak --minutes 10

Ctrl-C ends it early, with the verdict on what was seen. Exit code 0: every check held.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.soak import judge, report
from benchmarks.soak.plans import Mix
from benchmarks.soak.run import Settings, Soak


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default: 10)")
    parser.add_argument("--streams", type=int, default=1000, help="kept open (default: 1000)")
    parser.add_argument("--rate", type=int, default=10, help="chunks a second of a stream")
    parser.add_argument(
        "--length", default="5-60", metavar="S-S", help="seconds that a stream lasts (5-60)"
    )
    parser.add_argument("--faults", type=float, default=1.0, help="percent of requests (1)")
    parser.add_argument("--aborts", type=float, default=20.0, help="percent of streams (20)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="folder (default: benchmarks/results/soak-DATE)")
    parser.add_argument("--no-pin", action="store_true", help="leave processes on all cores")
    parser.add_argument(
        "--command",
        default="",
        help="starts the server, with the config's path behind it (default: roundhouse serve)",
    )
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> Settings:
    shortest, _, longest = options.length.partition("-")
    mix = Mix(
        shortest=float(shortest),
        longest=float(longest or shortest),
        rate=options.rate,
        faults=options.faults / 100,
        leave_in_stream=options.aborts / 100,
    )
    return replace(
        Settings(),
        seconds=options.minutes * 60,
        streams=options.streams,
        mix=mix,
        seed=options.seed,
        pin=not options.no_pin,
        command=tuple(shlex.split(options.command)),
    )


def _say(text: str) -> None:
    print(text, flush=True)


async def _main(options: argparse.Namespace) -> int:
    settings = _settings(options)
    now = datetime.datetime.now(datetime.UTC)
    out = options.out or Path("benchmarks/results") / f"soak-{now:%Y-%m-%d}"
    with tempfile.TemporaryDirectory(prefix="roundhouse-soak-") as folder:
        soak = Soak(settings, Path(folder), _say)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, soak.stop.set)
        result = await soak.run()
        early = soak.stop.is_set()
        made = report.document(result, settings, now.isoformat(timespec="seconds"), early=early)
        files = report.write(made, result.facts, out)
        found = judge.checks(result.facts)
        if not judge.passed(found):  # somebody will want to read it
            files.append(Path(shutil.copy(Path(folder) / "server.log", out)))
    for text in result.ledger.texts:
        _say(f"unexpected: {text}")
    _say(report.table(found))
    _say(f"{made['verdict']}; written: {', '.join(str(file) for file in files)}")
    return 0 if judge.passed(found) else 1


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("A soak run reads /proc: it needs Linux.")
    sys.exit(uvloop.run(_main(_options())))
