"""Command engines under the supervisor, with the real launcher: lives and deaths."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import PORT, Engine, Runtime
from server.engines import ports
from server.engines.control import Control
from server.engines.launcher import VllmLauncher, check_static
from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.engines.watch import Timing
from server.errors import EngineError, EngineNotReady
from server.telemetry.metrics import Metrics
from tests.engines.conftest import FAKE, QUICK, SOON, alive, ready, started, until

S = EngineState
ENVIRON = {"PATH": os.environ["PATH"]}


def cmd(**script: Any) -> str:
    return shlex.join([sys.executable, "-I", "-S", str(FAKE), PORT, json.dumps(script)])


def engine(line: str | None = None, **changes: Any) -> Engine:
    values: dict[str, Any] = {
        "runtime": "command", "cmd": line or cmd(), "health_interval": 0.1, "start_timeout": 20,
        "stop_timeout": 5,
    }  # fmt: skip
    return Engine(**{**values, **changes})


class House:
    def __init__(self, folder: Path) -> None:
        self.folder, self.metrics = folder, Metrics()
        self.timing = SOON
        self.made: list[Supervisor] = []

    async def start(self, **engines: Engine) -> Supervisor:
        made = Supervisor(
            engines,
            {"command": Runtime(env={"KIND": "command"})},
            home=self.folder / "home",
            base=self.folder,
            metrics=self.metrics,
            rng=random.Random(7),
            launcher=VllmLauncher(self.folder / "home", self.folder, ENVIRON),
            policy=QUICK,
            timing=self.timing,
        )
        self.made.append(made)
        await made.start()
        return made

    def restarts(self, name: str, reason: str) -> float:
        labels = {"engine": name, "reason": reason}
        return (
            self.metrics.registry.get_sample_value("roundhouse_engine_restarts_total", labels) or 0
        )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    for supervisor in made.made:
        await supervisor.close(drain=False)


async def ask(view: EngineView, path: str) -> Any:
    async with Control(None, url=view.url) as control:
        _, body = await control.get(path, 5)
    return json.loads(body) if body.startswith(b"{") else body.decode()


async def tell(view: EngineView, what: str) -> None:
    """Like `ask`, of an engine that may die of it."""
    try:
        await ask(view, f"/do/{what}")
    except OSError:
        return


async def test_it_answers_at_a_port_and_nothing_is_left(house: House) -> None:
    supervisor = await house.start(one=engine(cmd(children=2, strays=1), env={"OWN": "1"}))
    view = await ready(supervisor, "one")
    assert view.socket is None
    assert view.url.startswith("http://127.0.0.1:")
    assert view.instances[0].url == view.url
    told = await ask(view, "/pids")
    assert (told["environ"]["KIND"], told["environ"]["OWN"]) == ("command", "1")
    assert sorted(told["fds"]) == ["0", "1", "2"]
    await supervisor.close()
    assert not any(alive(pid) for pid in (told["self"], *told["children"], *told["strays"]))


async def test_every_start_has_a_port_of_its_own(house: House) -> None:
    supervisor = await house.start(one=engine(), two=engine())
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    again = await ready(supervisor, "one", one.generation)
    assert len({one.url, two.url, again.url}) == 3
    assert house.restarts("one", "killed") == 1


@pytest.mark.parametrize("how", ["stopped", "mute", "sick"])
async def test_one_that_hangs_is_killed_after_its_misses(house: House, how: str) -> None:
    """503, too, is a miss: of vLLM it would be the end."""
    supervisor = await house.start(one=engine(cmd(deaf=True), health_misses=3))
    view = await ready(supervisor, "one")
    assert view.pid is not None
    if how == "stopped":
        os.kill(view.pid, signal.SIGSTOP)
    else:
        await tell(view, how)
    down = await until(supervisor, "one", lambda v: v.state is S.BACKOFF and bool(v.error))
    assert "3 health checks" in (down.error or "")
    await ready(supervisor, "one", view.generation)
    assert house.restarts("one", "hang") == 1


async def test_its_steps_are_not_watched(house: House) -> None:
    house.timing = Timing(hang_cpu=0.0, motion=0.0, term=0.3, drain_poll=0.01)
    supervisor = await house.start(one=engine(health_interval=0.02, health_misses=10**6))
    view = await ready(supervisor, "one")
    await tell(view, "busy")
    for _ in range(20):
        supervisor.report_failure("one", view.generation)
        assert (await ask(view, "/metrics")).startswith("# HELP")
    await tell(view, "exit0")
    await ready(supervisor, "one", view.generation)
    assert house.restarts("one", "hang") == 0
    assert house.restarts("one", "exit") == 1


async def test_a_slow_start_and_the_end_of_patience(house: House, tmp_path: Path) -> None:
    slow, never = tmp_path / "slow", tmp_path / "never"
    supervisor = await house.start(
        slow=engine(cmd(gate=str(slow))), never=engine(cmd(gate=str(never)), start_timeout=0.3)
    )
    failed = await until(supervisor, "never", lambda v: v.state is S.FAILED)
    assert failed.error_reason == "timeout"
    assert "was given up: it was not ready in time in 2 starts in a row" in (failed.error or "")
    assert "it stood at «starting the process» for" in (failed.error or "")
    assert "Nobody listens on 127.0.0.1:" in (failed.error or "")
    assert supervisor.view("slow") is not None
    slow.touch()
    await ready(supervisor, "slow")


@pytest.mark.parametrize(
    ("line", "reason", "told"),
    [
        ("no-such-program ${PORT}", "environment", "no program 'no-such-program'"),
        (cmd(say=["error: invalid argument: -x"], exit=1), "arguments", "argument: -x"),
        ("sh -c 'exec no-such-program ${PORT}'", "environment", "no-such-program"),
    ],
)
async def test_what_cannot_help_is_not_tried_again(
    house: House, line: str, reason: str, told: str
) -> None:
    supervisor = await house.start(one=engine(line))
    error = await started(supervisor)
    assert error is not None
    assert (error.reason, error.terminal) == (reason, True)
    assert told in error.message
    view = supervisor.view("one")
    assert view is not None
    assert (view.state, view.restarts, view.error) == (S.FAILED, 0, error.message)
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 10)
    assert caught.value.code == "engine_failed"
    assert "/" not in caught.value.message  # clients are told of no file


async def test_a_crash_loop_ends_with_the_last_lines(house: House) -> None:
    lines = ["loading", "ValueError: who knows"]
    supervisor = await house.start(one=engine(cmd(say=lines, exit=2)))
    error = await started(supervisor)
    assert error is not None
    assert "died 5 times within 10 minutes" in error.message
    assert error.message.endswith("(exit code 2): ValueError: who knows")
    assert error.log_tail == tuple(lines)
    assert supervisor.error("one") is error


async def test_a_port_that_was_taken_is_another_one_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), ports.LOOPBACK, 0)
    async with server:
        taken = iter([server.sockets[0].getsockname()[1]])
        free = ports.free
        monkeypatch.setattr(ports, "free", lambda: next(taken, None) or free())
        supervisor = await house.start(one=engine())
        view = await ready(supervisor, "one")
    assert view.restarts == 1
    assert house.restarts("one", "start") == 1


async def test_it_loads_with_its_first_request_and_its_log_is_kept(house: House) -> None:
    supervisor = await house.start(one=engine(cmd(say=["hello"]), load="request"))
    view = await supervisor.wait_ready("one", 20)
    assert view.pid is not None
    await supervisor.unload("one")
    assert not alive(view.pid)
    lines = supervisor.log_file("one").read_text().splitlines()
    assert lines[0].startswith("--- roundhouse: start ")
    assert lines[1] == "hello"


def test_a_missing_program_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'one'.*no program 'no-such-program'"):
        check_static({"one": engine("no-such-program ${PORT}")}, {}, base=tmp_path)
