"""What translating a dialect costs the server, beside the bytes of OpenAI's dialect that pass.

python -m benchmarks.translation                  # 10 rounds, about 4 minutes
python -m benchmarks.translation --rounds 3       # a look
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import machine
from benchmarks.__main__ import finite
from benchmarks.cases import order
from benchmarks.contenders.roundhouse import Roundhouse
from benchmarks.gateways import Gateway
from benchmarks.load.wire import Place
from benchmarks.measure import NOISY
from benchmarks.translation.figures import BLOCK, Turn, costs, tables, verdict
from benchmarks.translation.spoken import SPOKEN
from benchmarks.translation.steps import Client, Mock, Part, WrongAnswer

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
#: Seconds that a turn may take, and the gateway to come to rest behind it.
_LONGEST: Final = 60.0
_SETTLE: Final = 5.0


class Translating(Roundhouse):
    """Roundhouse with an account at every provider, all of them the mock."""

    def config(
        self, upstream: str, port: int, admin: int, key: str, folder: Path
    ) -> dict[str, Any]:
        made = super().config(upstream, port, admin, key, folder)
        for dialect, spoken in SPOKEN.items():
            made["providers"][dialect] = {
                "dialect": dialect,
                "base_url": upstream + spoken.base,
                "api_key": "none-that-counts",
            }
            made["models"][dialect] = {"targets": [{"provider": dialect, "model": "mock"}]}
        return made


class Run:
    """All turns, in rounds that go forwards and backwards by turns."""

    def __init__(self, options: argparse.Namespace, cores: machine.Cores) -> None:
        self.options, self.cores = options, cores
        self.turns: list[Turn] = []
        short, long = options.short, options.long
        #: Each with how many answers it takes: a short stream is quickly over.
        self.parts = {
            Part(dialect, pieces, block): options.streams * (1 if pieces == long else 4)
            for dialect in SPOKEN
            for pieces, block in ((short, 1), (long, 1), (short, BLOCK), (long, BLOCK), (short, 0))
        }

    async def all(self, gateway: Gateway, mock: Mock, say: Callable[[str], None]) -> None:
        numbers = range(self.options.clients)
        clients = [await Client.connected(gateway.place, mock, number) for number in numbers]
        named = {str(number): part for number, part in enumerate(self.parts)}
        for number in range(self.options.rounds):
            for name in order(list(named), number):
                self.turns.append(await self.turn(number, named[name], gateway, mock, clients))
            say(f"round {number + 1} of {self.options.rounds}")
        for client in clients:
            client.leave()

    async def turn(
        self, number: int, part: Part, gateway: Gateway, mock: Mock, clients: list[Client]
    ) -> Turn:
        """Everybody asks once, which is not counted, then all of it is."""
        each = max(1, self.parts[part] // len(clients))
        mock.take(part)
        async with asyncio.timeout(_LONGEST):
            await _together(clients, part, 1)
            await gateway.quiet(_SETTLE)
            before = machine.mark(self.cores, gateway.usage().cpu_seconds)
            await _together(clients, part, each)
            # What an answer leaves behind, its line in the log say, is its cost, too.
            await gateway.quiet(_SETTLE)
            after = machine.mark(self.cores, gateway.usage().cpu_seconds)
        cpu = (after.gateway - before.gateway) / (each * len(clients)) * 1e6
        return Turn(number, part, cpu, noisy=after.share(before)["foreign"] > NOISY)


async def _together(clients: list[Client], part: Part, times: int) -> None:
    await asyncio.gather(*(client.ask(part, times) for client in clients))


async def measure(run: Run, say: Callable[[str], None]) -> None:
    """Start the server, take all turns, end it."""
    mock = Mock()
    server = await mock.listen()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="roundhouse-bench-") as folder:
        starting = Translating().run(url, core=run.cores.gateway, folder=Path(folder))
        running = await asyncio.to_thread(starting.__enter__)
        try:
            place = Place.of(running.url, running.headers, running.model)
            gateway = Gateway(running.name, running.version, place, running.pid)
            await run.all(gateway, mock, say)
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    server.close()
    mock.leave()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.translation", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument("--rounds", type=int, default=10)
    made.add_argument("--clients", type=int, default=16, help="streams at a time")
    made.add_argument("--streams", type=int, default=64, help="long streams of a turn")
    made.add_argument("--short", type=int, default=8, help="events with text of a short stream")
    made.add_argument("--long", type=int, default=208, help="of a long one")
    made.add_argument("--out", type=Path, help="folder (default benchmarks/results/<date>-…)")
    return made


def command(arguments: Sequence[str]) -> str:
    """The command line for the report, without the folder of one machine."""
    said = list(arguments)
    if "--out" in said:
        at = said.index("--out")
        del said[at : at + 2]
    return shlex.join(["python", "-m", "benchmarks.translation", *said])


def report(about: dict[str, Any], run: Run) -> tuple[str, bool]:
    """In Markdown, and whether the bar is met."""
    found = costs(run.turns, run.options.short, run.options.long)
    said, met = verdict(found)
    noisy = sum(turn.noisy for turn in run.turns)
    facts = about["machine"]
    changed = " with changes of server/ that are in no commit" if facts["server_changed"] else ""
    made = (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, Python {facts['python']}; "
        f"commit {facts['commit'] or 'unknown'}{changed}; load average before "
        f"{facts['load_average_before'][0]}; others used over {NOISY:.0%} of a core in {noisy} of "
        f"{len(run.turns)} turns. `{about['command']}`: medians of {run.options.rounds} rounds, "
        f"{run.options.clients} streams at a time."
    )
    title = f"# What translation costs, {about['date'][:10]}"
    return "\n\n".join((title, made, tables(found), said)) + "\n", met


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    try:
        cores = machine.choose()
    except machine.NoMachine as error:
        print(f"Two cores are needed: {error}", file=sys.stderr)
        return 2
    about: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command(arguments),
        "machine": machine.facts(cores),
    }
    machine.settle_in(cores)
    run = Run(options, cores)
    try:
        uvloop.run(measure(run, lambda text: print(text, file=sys.stderr, flush=True)))
    except WrongAnswer as wrong:
        print(f"A wrong answer: {wrong}", file=sys.stderr)
        return 1
    text, met = report(about, run)
    print(text)
    out = options.out or RESULTS / f"{about['date'][:10]}-translation"
    out.mkdir(parents=True, exist_ok=True)
    (out / "translation.md").write_text(text, "utf-8")
    turns = [asdict(turn) for turn in run.turns]
    beside = out / "translation.json.new"
    beside.write_text(json.dumps(finite({**about, "turns": turns}), indent=1) + "\n", "utf-8")
    os.replace(beside, out / "translation.json")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
