"""Supervisors over fake engines: real guards, real processes, real sockets, short times."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.config.engine import Engine, Runtime
from server.config.placement import Placement as Settings
from server.engines.backoff import Policy
from server.engines.control import Control
from server.engines.fitting import Fitted
from server.engines.placement import Device, Option
from server.engines.runtimes import Launch, Placement
from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.engines.watch import Timing
from server.errors import EngineError
from server.telemetry.metrics import Metrics
from tests.engines.replica_house import Fleets

FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"
QUICK = Policy(first=0.01, cap=0.05, jitter=0.0)
SOON = Timing(hang_cpu=0.2, motion=0.05, term=0.3, drain_poll=0.01, look=0.05, gather=1.0)
#: Room for two engines that take 1 each.
TWO_FIT = (Device("cuda:0", "cuda", 2, sleeps=True), Device("cpu", "cpu", 100, cores=(0, 1)))


def failed(reason: str = "weights", *, terminal: bool = True) -> EngineError:
    """An error for the launcher to raise."""
    return EngineError("There is no such folder.", reason=reason, terminal=terminal)


def fake_launch(scratch: str | Path, socket: str, **script: Any) -> Launch:
    return Launch(
        argv=(sys.executable, "-I", "-S", str(FAKE), socket, json.dumps(script)),
        env={"ENGINE": "fake"},
        cwd="/",
        remove=(str(scratch),),
        facts={"device": "cpu"},
    )


def needs(each: int = 1, **changes: Any) -> Fitted:
    """What an engine takes of `TWO_FIT`'s GPU; an Option's fields may be given."""
    return Fitted((Option(**{"kind": "cuda", **changes}, each=each),))


class FakeLauncher:
    """`scripts[name]`: what the engine of that name does next time; an error is raised. `fits`:
    what it needs, or an error; `holds`: until then it is looked for."""

    def __init__(self) -> None:
        self.scripts: dict[str, dict[str, Any] | EngineError] = {}
        self.launches: list[str] = []
        self.engines: Mapping[str, Engine] = {}
        self.devices: tuple[Device, ...] = (Device("cpu", "cpu", 2**40, cores=(0, 1)),)
        self.fits: dict[str, Fitted | EngineError] = {}
        self.holds: dict[str, asyncio.Event] = {}
        self.fitted: list[str] = []
        self.cancelled: list[str] = []
        self.places: list[tuple[str, Placement | None]] = []

    def configure(self, engines: Mapping[str, Engine], **_: Any) -> None:
        self.engines = engines

    async def machine(self) -> tuple[Device, ...]:
        return self.devices

    async def fit(
        self, name: str, engine: Engine, runtime: Runtime | None, *, note: Callable[[str], None]
    ) -> Fitted:
        self.fitted.append(name)
        if (hold := self.holds.get(name)) is not None:
            note("pulling weights (10%)")
            try:
                await hold.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
        default = Fitted((Option(self.devices[0].kind, 1),))
        found = self.fits.get(name, default)
        if isinstance(found, EngineError):
            raise found
        return found

    async def prepare(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        *,
        scratch: str,
        socket: str,
        fitted: Fitted | None = None,
        placement: Placement | None = None,
    ) -> Launch:
        self.launches.append(name)
        self.places.append((name, placement))
        script = self.scripts.get(name, {})
        if isinstance(script, EngineError):
            raise script
        return fake_launch(scratch, socket, **script)


def engine(**changes: Any) -> Engine:
    values: dict[str, Any] = {
        "weights": "fake", "health_interval": 0.1, "start_timeout": 20, "stop_timeout": 5,
        "residency": 0,
    }  # fmt: skip
    return Engine(**{**values, **changes})


class House:
    """A supervisor and what a test wants to know of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.launcher = FakeLauncher()
        self.metrics = Metrics()
        #: Requests in flight, by engine or, for instances beyond the first, by `engine@1`.
        self.busy: dict[str, int] = {}
        #: How often requests in flight were asked for.
        self.looks, self.looked = 0, asyncio.Event()
        self.placement = Settings(starvation=60, drain=5)
        self.made: list[Supervisor] = []
        self.clock: Callable[[], float] | None = None
        self.policy, self.timing = QUICK, SOON

    async def start(self, **engines: Engine) -> Supervisor:
        extra: dict[str, Any] = {} if self.clock is None else {"clock": self.clock}
        supervisor = Supervisor(
            engines,
            {},
            home=self.home,
            metrics=self.metrics,
            in_flight=self.in_flight,
            placement=self.placement,
            rng=random.Random(7),
            launcher=self.launcher,
            policy=self.policy,
            timing=self.timing,
            **extra,
        )
        self.made.append(supervisor)
        await supervisor.start()
        return supervisor

    def in_flight(self, name: str, replica: int) -> int:
        self.looks += 1
        self.looked.set()
        return self.busy.get(f"{name}@{replica}" if replica else name, 0)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "home")
    yield made
    for supervisor in made.made:
        await supervisor.close(drain=False)


@pytest.fixture
def room(house: House) -> House:
    """Two of the engines one, two and three fit."""
    house.launcher.devices = TWO_FIT
    for name in ("one", "two", "three"):
        house.launcher.fits[name] = needs(1)
    return house


@pytest.fixture
async def fleets() -> AsyncIterator[Fleets]:
    made = Fleets()
    yield made
    for fleet in made.made:
        await fleet.close()
    left = [task for task in asyncio.all_tasks() if "server/engines" in str(task.get_coro())]
    assert not left


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test did, no process of it may be alive afterwards."""
    before = set(psutil.Process().children(recursive=True))  # servers that all tests share
    yield
    now = {child for child in psutil.Process().children(recursive=True) if child.is_running()}
    left = list(now - before)
    _, left = psutil.wait_procs(left, timeout=2)
    for process in left:
        process.kill()
    assert not left, f"left running: {left}"


async def until(
    supervisor: Supervisor, name: str, accept: Callable[[EngineView], bool]
) -> EngineView:
    """The first view, now or later, that is accepted."""
    async with asyncio.timeout(20):
        with supervisor.subscribe() as feed:
            async for view in feed:
                if view.name == name and accept(view):
                    return view
    raise AssertionError("the feed ended")


def state(supervisor: Supervisor, name: str) -> EngineState:
    view = supervisor.view(name)
    assert view is not None
    return view.state


async def started(supervisor: Supervisor) -> EngineError | None:
    """Once all engines that load at the start have been ready or have no room, or one of them has
    failed: that failure."""
    async with asyncio.timeout(20):
        with supervisor.subscribe() as feed:
            while (error := supervisor.first_error()) is None and supervisor.starting():
                await anext(feed)
    return error


async def ready(supervisor: Supervisor, name: str, generation: int = 0) -> EngineView:
    return await until(
        supervisor,
        name,
        lambda view: view.state is EngineState.READY and view.generation > generation,
    )


async def ask(view: EngineView, path: str) -> Any:
    """A question to a ready fake engine; JSON where it answers any."""
    assert view.socket is not None
    async with Control(view.socket) as control:
        _, body = await control.get(path, 5)
    return json.loads(body) if body.startswith(b"{") else body.decode()


async def tell(view: EngineView, what: str) -> None:
    """Like `ask`, of an engine that may die of it."""
    try:
        await ask(view, f"/do/{what}")
    except OSError:
        return


async def gone(*pids: int) -> None:
    """Until none of these processes is alive."""
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.01)  # the kernel tells of other people's children in no other way


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
