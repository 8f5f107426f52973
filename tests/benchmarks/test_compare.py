"""benchmarks.compare over a real mock, with gateways that are none, and very short turns."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import __main__ as bench
from benchmarks import cases, compare, gateways, machine, report
from benchmarks.cases import Plan
from benchmarks.compare import Comparison
from benchmarks.contenders import Running
from benchmarks.contenders.base import Contender
from benchmarks.gateways import Gateway, Gateways
from benchmarks.machine import Cores, Mark, NoMachine
from benchmarks.upstream import Upstream

CORES: Final = Cores(0, 0)
SLEEPS: Final = "print(flush=True); import time; time.sleep(600)"
SPINS: Final = "print(flush=True)\nwhile True: pass"


class Fake:
    """A process that does nothing of use, and the mock itself as what answers."""

    def __init__(self, name: str, code: str = SLEEPS, *, url: str = "", fails: str = "") -> None:
        self._name, self.code, self.url, self.fails = name, code, url, fails
        self.process: subprocess.Popen[bytes] | None = None
        self.before: Callable[[], object] = lambda: None

    @property
    def name(self) -> str:
        return self._name

    def installed(self) -> str | None:
        return "9.9"

    def missing(self) -> str:
        return f"{self.name} is nowhere"

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        assert folder.is_dir()
        self.before()
        if self.fails:
            raise RuntimeError(self.fails)
        with subprocess.Popen(
            [sys.executable, "-S", "-c", self.code], stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            self.process = process
            assert process.stdout is not None
            process.stdout.readline()  # its interpreter has started, and burns no more CPU
            try:
                yield Running(self.name, "9.9", self.url or upstream, "mock", {}, process.pid, 0.1)
            finally:
                process.kill()


@contextlib.asynccontextmanager
async def mocked() -> AsyncIterator[tuple[Upstream, str]]:
    mock = Upstream()
    server = await mock.listen()
    try:
        yield mock, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        mock.leave()
        while mock.peers:
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for a gateway to come to rest."""
    monkeypatch.setattr(gateways, "_SETTLE", 0.0)
    monkeypatch.setattr(gateways, "_WATCH", 0.2)
    monkeypatch.setattr(gateways, "_LOOK", 0.01)
    monkeypatch.setattr(gateways, "_QUIET", 1.0)
    monkeypatch.setattr(compare, "_AWAKE", 0.0)


def small(rounds: int = 2) -> Plan:
    """A case of each kind, small."""
    return Plan(
        (
            cases.Case("requests", "throughput", False, 3, 100),
            cases.Case("streams", "throughput", True, 3, 100),
            cases.Case("paced-200x50", "paced", True, 3, 100, 100.0),
            cases.Case("request-1x4k", "latency", False, 1, 4096),
        ),
        rounds,
        0.08,
    )


async def compared(
    plan: Plan, tmp_path: Path, *fakes: Contender, hear: Callable[[str], None] = lambda _: None
) -> tuple[Comparison, list[str]]:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        hear(text)

    async with mocked() as (mock, url):
        named = {fake.name: fake for fake in fakes}
        async with Gateways(named, url, core=0, folder=tmp_path, say=say) as running:
            comparison = Comparison(running, mock, plan, CORES, say)
            await comparison.run()
    return comparison, said


async def test_every_case_has_a_turn_of_everybody_in_every_round(tmp_path: Path) -> None:
    plan = small()
    found, said = await compared(plan, tmp_path, Fake("roundhouse"), Fake("peer"))
    order = [(one["round"], one["case"], one["contender"]) for one in found.turns]
    names = ["roundhouse", "peer", "direct"]
    assert order == [
        (number, case.name, name)
        for number in range(2)
        for case in plan.cases
        for name in (names if number == 0 else names[::-1])
    ]
    assert [one["errors"] for one in found.turns] == [0] * 24
    assert not any(one["failed"] for one in found.turns)
    assert len([line for line in said if line.startswith("[")]) == 24
    for one in found.turns:
        values = one["values"]
        assert {"cpu_us", "gateway_busy", "load_busy", "foreign"} <= values.keys()
        if one["case"] == "paced-200x50":
            assert (values["begun"], values["lost"], values["doubled"]) == (3, 0, 0)
            assert values["left_open"] == 0
            assert values["chunks"] > 0
        else:
            assert values["answers"] > 0
    # And all that can be written down.
    facts = [one.facts() for one in found.gateways.running.values() if one.pid is not None]
    results = {
        "date": "2026-11-21T05:00:00Z", "command": "x", "finished": True, "left_out": {},
        "options": {"rounds": 2, "seconds": 0.08}, "machine": machine.facts(CORES),
        "contenders": facts, "notes": found.notes, "turns": found.turns,
    }  # fmt: skip
    text = report.markdown(json.loads(json.dumps(bench.finite(results))))
    assert text.count("| peer") == 5


async def test_a_gateway_that_does_not_start_is_left_out(tmp_path: Path) -> None:
    broken = Fake("broken", fails="no such thing")
    found, said = await compared(small(1), tmp_path, Fake("roundhouse"), broken)
    assert found.gateways.failed == {"broken": "RuntimeError: no such thing"}
    assert {one["contender"] for one in found.turns} == {"roundhouse", "direct"}
    assert any("broken did not start" in line for line in said)


async def test_one_that_is_still_starting_when_the_run_ends_is_ended(tmp_path: Path) -> None:
    slow, begun, go_on = Fake("slow"), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    slow.before = wait

    async def start() -> None:
        async with Gateways(
            {"slow": slow}, "http://127.0.0.1:1", core=0, folder=tmp_path, say=said
        ):
            pytest.fail("it was ended before")

    def said(text: str) -> None:
        assert text == "slow is still starting; it is ended then"
        go_on.set()

    task = asyncio.ensure_future(start())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.process is not None
    assert slow.process.returncode is not None


async def test_a_gateway_that_fails_sits_out_and_stops_nothing(tmp_path: Path) -> None:
    refusing = Fake("refusing", url="http://127.0.0.1:1")
    plan = Plan(small().cases[:1], 3, 0.05)
    found, _ = await compared(plan, tmp_path, Fake("roundhouse"), refusing)
    took = [one for one in found.turns if one["contender"] == "refusing"]
    assert [one["round"] for one in took] == [0, 1]
    assert all(one["failed"] and one["errors"] for one in took)
    assert "no connection" in took[0]["first_error"]
    assert len(found.turns) == 8
    assert "refusing failed at requests, 3 connections" in found.notes[0]


async def test_a_gateway_that_dies_has_no_more_turns(tmp_path: Path) -> None:
    brief = Fake("brief")

    def kill(text: str) -> None:
        if text.startswith("[") and " brief " in text:
            assert brief.process is not None
            brief.process.kill()
            brief.process.wait()

    ours = Fake("roundhouse")
    found, _ = await compared(Plan(small().cases[:2], 2, 0.05), tmp_path, ours, brief, hear=kill)
    assert len([one for one in found.turns if one["contender"] == "brief"]) == 1
    assert len([one for one in found.turns if one["contender"] == "roundhouse"]) == 4
    assert found.notes == ["brief died in requests, 3 connections; it has no more turns"]


async def test_a_turn_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(compare, "turn", for_ever)
    monkeypatch.setattr(compare, "_WATCHDOG", 0.01)
    found, _ = await compared(Plan(small().cases[:1], 1, 0.01), tmp_path, Fake("roundhouse"))
    assert [one["first_error"] for one in found.turns] == ["the turn hung and was ended"] * 2


async def test_one_that_burns_the_core_while_idle_is_stopped_between(tmp_path: Path) -> None:
    spinner, quiet = Fake("spinner", SPINS), Fake("quiet")
    async with (
        mocked() as (mock, url),
        Gateways(
            {"spinner": spinner, "quiet": quiet}, url, core=0, folder=tmp_path, say=lambda _: None
        ) as running,
    ):
        burning = running.running["spinner"]
        assert burning.idle > gateways.IDLE
        assert burning.facts()["stopped_between"]
        assert not running.running["quiet"].stopped_between
        assert state(burning) == "T"
        plan = Plan(small().cases[:1], 1, 0.05)
        comparison = Comparison(running, mock, plan, CORES, lambda _: None)
        await comparison.run()
        assert {one["contender"] for one in comparison.turns} == {"spinner", "quiet", "direct"}
        busy = {one["contender"]: one["values"]["gateway_busy"] for one in comparison.turns}
        assert busy["spinner"] > 0
        assert state(burning) == "T"
    assert spinner.process is not None
    assert spinner.process.returncode is not None


def state(gateway: Gateway) -> str:
    text = Path(f"/proc/{gateway.pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0]


# --- the machine --------------------------------------------------------------------------------


def test_one_core_is_too_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    with pytest.raises(NoMachine, match="only 1"):
        machine.choose()
    assert bench.main([]) == 2
    assert "needs two cores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "twins", "chosen"),
    [({0, 1}, {0}, (0, 1)), ({0, 1, 2, 3}, {0, 1}, (0, 2)), ({4, 5}, {4, 5}, (4, 5))],
)
def test_the_two_cores_are_not_two_threads_of_one(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], twins: set[int], chosen: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(machine, "_siblings", lambda _: twins)
    assert machine.choose() == Cores(*chosen)


@pytest.mark.parametrize(
    ("text", "found"), [("0\n", {0}), ("0-2,5", {0, 1, 2, 5}), ("1,3", {1, 3})]
)
def test_lists_of_cpus(text: str, found: set[int]) -> None:
    assert machine.listed(text) == found


def test_what_others_used_is_the_rest() -> None:
    before, after = Mark(10.0, 1.0, 5.0, 100.0), Mark(12.0, 2.9, 6.0, 103.4)
    found = after.share(before)
    assert found == pytest.approx({"gateway_busy": 0.95, "load_busy": 0.5, "foreign": 0.25})


def test_ticks_are_coarse_and_never_below_nothing() -> None:
    before, after = Mark(0.0, 0.0, 0.0, 0.0), Mark(1.0, 0.5, 0.5, 0.99)
    assert after.share(before)["foreign"] == 0.0


def test_settling_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: pinned.append(cores))
    try:
        machine.settle_in(Cores(0, 1))
        assert pinned == [{1}]
        assert not gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()


# --- the plan -----------------------------------------------------------------------------------


def test_orders_are_forwards_and_backwards() -> None:
    assert [cases.order("ABC", number) for number in range(3)] == [
        ["A", "B", "C"], ["C", "B", "A"], ["A", "B", "C"],
    ]  # fmt: skip


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in cases.ALL}) == len(cases.ALL) == 16
    assert set(cases.QUICK) < set(cases.ALL)
    assert [case.name for case in cases.chosen(["throughput"], quick=False)] == [
        "requests", "streams",
    ]  # fmt: skip


def test_a_default_run_takes_about_twenty_minutes() -> None:
    minutes = Plan(cases.ALL, 5, 3.0).estimate(6, 5) / 60
    assert 15 < minutes < 25
    assert Plan(cases.QUICK, 2, 1.2).estimate(6, 5) / 60 < 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "nobody"], "no gateway 'nobody'"),
        (["--only", ""], "there are"),
        (["--cases", "speed"], "there are throughput, paced, latency"),
        (["--rounds", "0"], "above 0"),
        (["--seconds", "nan"], "above 0"),
        (["--seconds", "inf"], "above 0"),
    ],
)
def test_options_that_are_none(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
