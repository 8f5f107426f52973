"""The supervisor over real guards and fake engines: lives, deaths, waiting, reloads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from server.engines.state import EngineState
from server.errors import Draining, EngineError, EngineNotReady
from tests.engines.conftest import (
    House,
    alive,
    ask,
    engine,
    failed,
    gone,
    ready,
    started,
    tell,
    until,
)

S = EngineState


async def test_start_ready_close(house: House) -> None:
    supervisor = await house.start(one=engine())
    assert supervisor.view("one") is not None
    assert await started(supervisor) is None
    view = await supervisor.wait_ready("one", 0)
    assert view.state is S.READY
    assert view.socket is not None
    assert len(os.fsencode(view.socket)) < 80
    run = Path(view.socket).parents[1]
    assert run.stat().st_mode & 0o777 == 0o700
    assert Path(view.socket).parent.stat().st_mode & 0o777 == 0o700
    assert house.count("roundhouse_engine_starts_total", engine="one", result="ready") == 1
    assert house.count("roundhouse_engine_state", engine="one", state="ready") == 1
    assert house.count("roundhouse_engine_start_seconds_count", engine="one") == 1
    assert supervisor.views() == (view,)
    assert supervisor.first_error() is None
    assert supervisor.eta("one") == 0
    await supervisor.close()
    assert view.pid is not None
    assert not alive(view.pid)
    assert not run.exists()
    log = supervisor.log_file("one")
    assert "Application startup complete" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


async def test_the_engine_gets_no_descriptors_and_goes_first_when_memory_ends(house: House) -> None:
    supervisor = await house.start(one=engine())
    pids = await ask(await ready(supervisor, "one"), "/pids")
    assert sorted(pids["fds"]) == ["0", "1", "2"]
    assert pids["oom"] == "500"
    assert pids["environ"].get("ENGINE") == "fake"
    assert not any(name.startswith("ROUNDHOUSE") for name in pids["environ"])


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "killed")]
)
async def test_a_death_by_signal_is_followed_by_a_restart(
    house: House, number: int, reason: str
) -> None:
    house.launcher.scripts["one"] = {"children": 2, "strays": 1}
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    pids = await ask(view, "/pids")
    os.kill(pids["self"], number)
    down = await until(supervisor, "one", lambda v: v.state is S.BACKOFF and bool(v.error))
    assert down.socket is None
    assert down.error_reason == "crash"
    await gone(*pids["children"], *pids["strays"])
    again = await ready(supervisor, "one", view.generation)
    assert again.pid != view.pid
    assert again.restarts == 1
    assert again.error is None
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason=reason) == 1


async def test_exit_code_zero_is_a_failure_too(house: House) -> None:
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    await tell(view, "exit0")
    await ready(supervisor, "one", view.generation)
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason="exit") == 1


async def test_a_core_that_is_dead_is_no_miss_but_a_death(house: House) -> None:
    supervisor = await house.start(one=engine(health_misses=1000))
    view = await ready(supervisor, "one")
    await tell(view, "sick")
    await ready(supervisor, "one", view.generation)
    assert view.pid is not None
    assert not alive(view.pid)
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason="exit") == 1


@pytest.mark.parametrize("how", ["stopped", "mute"])
async def test_an_engine_that_hangs_is_killed_after_its_misses(house: House, how: str) -> None:
    house.launcher.scripts["one"] = {"deaf": True}
    supervisor = await house.start(one=engine(health_misses=3))
    view = await ready(supervisor, "one")
    assert view.pid is not None
    if how == "stopped":
        os.kill(view.pid, signal.SIGSTOP)
    else:
        await tell(view, "mute")
    down = await until(supervisor, "one", lambda v: v.state is S.BACKOFF and bool(v.error))
    assert "3 health checks" in (down.error or "")
    assert down.error_reason == "hang"
    assert not alive(view.pid)
    await ready(supervisor, "one", view.generation)
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason="hang") == 1


async def test_work_without_a_step_is_a_hang(house: House) -> None:
    supervisor = await house.start(one=engine(health_interval=0.2, health_misses=1000))
    view = await ready(supervisor, "one")
    await tell(view, "busy")
    down = await until(supervisor, "one", lambda v: v.state is S.BACKOFF and bool(v.error))
    assert "made no step" in (down.error or "")


async def test_a_line_of_the_log_or_a_report_asks_for_a_check_now(house: House) -> None:
    supervisor = await house.start(
        one=engine(health_interval=3600), two=engine(health_interval=3600)
    )
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    await tell(one, "sick")
    await tell(two, "sick")
    supervisor.report_failure("nobody", 1)
    supervisor.report_failure("one", one.generation + 1)  # an older or newer process: not this one
    supervisor.report_failure("one", one.generation)
    await ready(supervisor, "one", one.generation)
    await tell(two, "say?vllm.v1.engine.exceptions.EngineDeadError:%20gone")
    await ready(supervisor, "two", two.generation)


async def test_killing_the_guard_leaves_nothing_and_the_engine_comes_back(house: House) -> None:
    house.launcher.scripts["one"] = {"children": 1}
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    pids = await ask(view, "/pids")
    guard = psutil.Process(pids["self"]).parent()
    assert guard is not None
    assert guard.pid != os.getpid()
    guard.kill()
    await until(supervisor, "one", lambda v: v.stage.startswith("next start"))
    assert not alive(pids["self"])
    assert not any(alive(pid) for pid in pids["children"])
    await ready(supervisor, "one", view.generation)


async def test_five_crashes_and_it_is_given_up_until_an_operator_loads_it(house: House) -> None:
    house.launcher.scripts["one"] = {"say": ["something odd", "RuntimeError: boom"], "exit": 1}
    supervisor = await house.start(one=engine())
    error = await started(supervisor)
    assert error is not None
    assert "5 times within 10 minutes" in error.message
    assert "RuntimeError: boom" in error.message
    assert error.log_tail == ("something odd", "RuntimeError: boom")
    assert not error.terminal
    assert supervisor.error("one") is error
    view = supervisor.view("one")
    assert view is not None
    assert (view.state, view.error_reason, view.restarts) == (S.FAILED, "crash", 4)
    assert house.launcher.launches == ["one"] * 5
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason="start") == 5
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 10)
    assert caught.value.code == "engine_failed"
    assert caught.value.headers() == {"retry-after": "60"}
    house.launcher.scripts["one"] = {}
    await supervisor.load("one")
    await ready(supervisor, "one")


@pytest.mark.parametrize(
    ("script", "reason", "text"),
    [
        (failed(), "weights", "no such folder"),
        (
            {"say": ["entry.py: error: unrecognized arguments: --nope"], "exit": 2},
            "arguments",
            "--nope",
        ),
        ({"exit": 2}, "arguments", "exit code 2"),
    ],
)
async def test_what_cannot_help_is_not_tried_again(
    house: House, script: dict[str, object] | EngineError, reason: str, text: str
) -> None:
    house.launcher.scripts["one"] = script
    supervisor = await house.start(one=engine(), two=engine())
    error = await started(supervisor)
    assert error is not None
    assert error.terminal
    assert error.reason == reason
    assert text in error.message
    assert "'one'" in error.message
    assert house.launcher.launches.count("one") == 1
    assert supervisor.first_error() is error


async def test_a_start_has_a_deadline(house: House, tmp_path: Path) -> None:
    house.launcher.scripts["one"] = {"gate": str(tmp_path / "never"), "children": 1}
    supervisor = await house.start(one=engine(start_timeout=0.3))
    view = await until(supervisor, "one", lambda v: v.state is S.BACKOFF and bool(v.error))
    assert view.error_reason == "timeout"
    assert house.count("roundhouse_engine_starts_total", engine="one", result="failed") >= 1
    assert house.count("roundhouse_engine_restarts_total", engine="one", reason="timeout") >= 1


async def test_stages_are_seen_while_it_starts(house: House, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    lines = ["Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]"]
    house.launcher.scripts["one"] = {"gate": str(gate), "say": lines}
    supervisor = await house.start(one=engine())
    await until(supervisor, "one", lambda v: v.stage == "loading weights (50%)")
    gate.touch()
    await ready(supervisor, "one")
    seconds = "roundhouse_engine_stage_seconds"
    for stage in ("checking", "starting the process", "loading weights", "ready"):
        assert house.count(f"{seconds}_count", engine="one", stage=stage) == 1
    took = house.count(f"{seconds}_sum", engine="one", stage="loading weights")
    await supervisor.unload("one")  # by then what was learned is on the disk
    (stages,) = json.loads((house.home / "estimates.json").read_text())["stages"].values()
    assert stages["loading weights"] == [pytest.approx(took, abs=0.001)]
    gate.unlink()
    await supervisor.load("one")
    view = await until(supervisor, "one", lambda v: v.stage == "loading weights (50%)")
    assert view.eta is not None
    assert 0 < view.eta <= max(1.0, took + stages["ready"][0])


async def test_a_stop_waits_for_open_requests(house: House) -> None:
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    house.busy["one"] = 1
    stopping = asyncio.create_task(supervisor.unload("one"))
    draining = await until(supervisor, "one", lambda v: v.state is S.DRAINING)
    assert draining.socket is None
    assert view.pid is not None
    assert alive(view.pid)
    house.busy["one"] = 0
    assert (await stopping).state is S.STOPPED
    assert not alive(view.pid)
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 10)
    assert caught.value.code == "engine_stopped"
    assert (await supervisor.unload("one")).state is S.STOPPED
    assert (await supervisor.load("one")).name == "one"
    await ready(supervisor, "one", view.generation)


async def test_a_stop_has_a_deadline_and_the_deaf_are_killed(house: House) -> None:
    house.launcher.scripts["one"] = {"deaf": True}
    supervisor = await house.start(one=engine(stop_timeout=0.1))
    view = await ready(supervisor, "one")
    house.busy["one"] = 1
    await supervisor.unload("one")
    assert view.pid is not None
    assert not alive(view.pid)


async def test_a_close_can_be_hurried(house: House) -> None:
    supervisor = await house.start(one=engine(stop_timeout=3600))
    await ready(supervisor, "one")
    house.busy["one"] = 1
    closing = asyncio.create_task(supervisor.close())
    await until(supervisor, "one", lambda v: v.state is S.DRAINING)
    with pytest.raises(Draining):
        await supervisor.wait_ready("one", 10)
    await supervisor.close(drain=False)
    await closing
    with supervisor.subscribe() as feed:
        assert [view.state async for view in feed] == [S.STOPPED]


async def test_a_start_can_be_cancelled(house: House, tmp_path: Path) -> None:
    house.launcher.scripts["one"] = {"gate": str(tmp_path / "never")}
    supervisor = await house.start(one=engine())
    view = await until(supervisor, "one", lambda v: v.pid is not None)
    await supervisor.unload("one")
    assert view.pid is not None
    assert not alive(view.pid)
    assert house.count("roundhouse_engine_starts_total", engine="one", result="cancelled") == 1
