"""The supervisor over fake engines: waiting requests, reloads, and what operators ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.engines.state import EngineState
from server.engines.supervisor import Supervisor
from server.errors import EngineNotReady, Overloaded
from tests.engines.conftest import House, alive, engine, failed, gone, ready, started, tell, until

S = EngineState


async def test_the_first_request_loads_and_waiting_is_bounded(house: House, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    house.launcher.scripts["one"] = {"gate": str(gate)}
    supervisor = await house.start(one=engine(load="request", max_waiting=2))
    assert await started(supervisor) is None
    view = supervisor.view("one")
    assert view is not None
    assert view.state is S.STOPPED
    assert supervisor.eta("one") is None
    waiting = [asyncio.create_task(supervisor.wait_ready("one", 20)) for _ in range(2)]
    await until(supervisor, "one", lambda v: v.state is S.STARTING)
    view = supervisor.view("one")
    assert view is not None
    assert view.waiting == 2
    assert house.count("roundhouse_engine_waiting_requests", engine="one") == 2
    with pytest.raises(Overloaded) as full:
        await supervisor.wait_ready("one", 20)
    assert full.value.headers()["retry-after"] == "30"
    assert house.count("roundhouse_shed_total", reason="engine_queue") == 1
    gate.touch()
    one, two = await asyncio.gather(*waiting)
    assert one.state is two.state is S.READY
    assert house.count("roundhouse_engine_waiting_requests", engine="one") == 0


async def test_a_wait_that_ends_tells_the_measured_estimate(house: House, tmp_path: Path) -> None:
    supervisor = await house.start(one=engine())
    await ready(supervisor, "one")
    await supervisor.unload("one")
    house.launcher.scripts["one"] = {"gate": str(tmp_path / "never")}
    await supervisor.load("one")
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 0.05)
    assert caught.value.code == "engine_loading"
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after < 20
    assert (house.home / "estimates.json").is_file()
    eta = supervisor.eta("one")
    assert eta is not None
    assert eta >= 1


async def test_a_waiting_request_hears_of_a_failure_and_of_a_removal(
    house: House, tmp_path: Path
) -> None:
    house.launcher.scripts["one"] = failed()
    house.launcher.scripts["two"] = {"gate": str(tmp_path / "never")}
    supervisor = await house.start(one=engine(load="request"), two=engine())
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 20)
    assert caught.value.code == "engine_failed"
    waiting = asyncio.create_task(supervisor.wait_ready("two", 20))
    await until(supervisor, "two", lambda v: v.pid is not None)
    await supervisor.apply({"one": engine(load="request")}, {})
    with pytest.raises(EngineNotReady, match="removed"):
        await waiting
    with pytest.raises(EngineNotReady, match="gone"):
        await supervisor.wait_ready("two", 1)
    assert supervisor.view("two") is None
    assert supervisor.eta("two") is None
    assert supervisor.error("two") is None


async def test_a_reload_touches_only_what_changed(house: House) -> None:
    config = {"same": engine(), "soft": engine(), "hard": engine(), "away": engine()}
    supervisor = await house.start(**config)
    before = {name: await ready(supervisor, name) for name in config}
    new = {
        "same": engine(),
        "soft": engine(max_waiting=1, health_interval=0.2),
        "hard": engine(args={"max-model-len": 512}),
        "new": engine(),
    }
    await supervisor.apply(new, {})
    hard = await ready(supervisor, "hard", before["hard"].generation)
    await ready(supervisor, "new")
    assert hard.pid != before["hard"].pid
    for name in ("same", "soft"):
        view = supervisor.view(name)
        assert view is not None
        assert (view.pid, view.generation) == (before[name].pid, before[name].generation)
    assert before["away"].pid is not None
    await gone(before["away"].pid)
    assert supervisor.view("away") is None
    assert house.launcher.engines == new
    await supervisor.apply({**new, "away": engine()}, {})
    await ready(supervisor, "away")


async def test_a_reload_starts_what_is_wanted_now_and_retries_what_failed(house: House) -> None:
    house.launcher.scripts["bad"] = failed()
    supervisor = await house.start(bad=engine(), later=engine(load="request"))
    await until(supervisor, "bad", lambda v: v.state is S.FAILED)
    house.launcher.scripts["bad"] = {}
    await supervisor.apply({"bad": engine(), "later": engine(load="startup")}, {})
    await ready(supervisor, "bad")
    await ready(supervisor, "later")


async def test_a_removed_engine_drains_before_its_name_is_used_again(house: House) -> None:
    supervisor = await house.start(one=engine())
    old = await ready(supervisor, "one")
    house.busy["one"] = 1
    await supervisor.apply({}, {})
    await supervisor.apply({"one": engine()}, {})
    assert old.pid is not None
    assert alive(old.pid)
    assert house.launcher.launches == ["one"]
    house.busy["one"] = 0
    new = await ready(supervisor, "one", old.generation)
    assert not alive(old.pid)
    assert new.pid != old.pid


async def test_a_fault_of_ours_fails_the_engine_and_not_the_loop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.launcher, "prepare", broken)
    supervisor = await house.start(one=engine())
    error = await started(supervisor)
    assert error is not None
    assert "fault in Roundhouse" in error.message
    assert (await supervisor.unload("one")).state is S.STOPPED


async def test_load_skips_a_back_off(house: House) -> None:
    house.policy = type(house.policy)(first=3600, cap=3600)
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    await tell(view, "exit0")
    await until(supervisor, "one", lambda v: v.stage.startswith("next start"))
    eta = supervisor.eta("one")
    assert eta is not None
    assert eta > 2000
    await supervisor.load("one")
    view = await ready(supervisor, "one", view.generation)
    await tell(view, "exit0")
    await until(supervisor, "one", lambda v: v.stage.startswith("next start"))
    await supervisor.unload("one")


async def test_an_unwanted_supervisor_can_be_closed(tmp_path: Path, house: House) -> None:
    supervisor = Supervisor({}, {}, home=tmp_path, metrics=house.metrics)
    await supervisor.close()
    assert supervisor.views() == ()
    assert await started(supervisor) is None


async def test_an_engine_that_nobody_asks_for_is_counted_too(house: House) -> None:
    await house.start(one=engine(load="request"))
    states = {
        state: house.count("roundhouse_engine_state", engine="one", state=state) for state in S
    }
    assert states == {state: state is S.STOPPED for state in S}
