"""The guard alone, and a server that is killed: nothing may survive."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.engines import guard
from server.engines.control import Control, Health
from tests.engines.conftest import FAKE, House, alive, engine, gone, ready

SERVER = """
import asyncio, json, sys
from pathlib import Path
from server.config.engine import Engine
from server.engines.supervisor import Supervisor
from server.telemetry.metrics import Metrics
from tests.engines.conftest import FakeLauncher, started

async def main():
    launcher = FakeLauncher()
    launcher.scripts = {"one": {"children": 2, "strays": 2, "deaf": True}, "two": {}}
    engines = {name: Engine(weights="fake") for name in ("one", "two")}
    supervisor = Supervisor(engines, {}, home=Path(sys.argv[1]), metrics=Metrics(),
                            launcher=launcher)
    await supervisor.start()
    await started(supervisor)
    print("\\n" + json.dumps([view.socket for view in supervisor.views()]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def pids(socket: str) -> dict[str, Any]:
    async with Control(socket) as control:
        return dict(json.loads((await control.get("/pids", 5))[1]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_when_the_server_dies_everything_goes(
    tmp_path: Path, repo_root: Path, how: signal.Signals
) -> None:
    place = tempfile.mkdtemp(prefix="rh-")  # pytest's own are too long for sockets
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(tmp_path),
        stdout=subprocess.PIPE, cwd=repo_root,
        env={**os.environ, "XDG_RUNTIME_DIR": place, "PYTHONPATH": str(repo_root)},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        async for line in server.stdout:
            if line.startswith(b"["):
                break
        run = Path(json.loads(line)[0]).parents[1]
        one, two = [await pids(socket) for socket in json.loads(line)]
        guard_one = psutil.Process(one["self"]).ppid()
        all_pids = [one["self"], *one["children"], *one["strays"], two["self"], guard_one]
        assert all(alive(pid) for pid in all_pids)
        assert len({os.getpgid(pid) for pid in [one["self"], *one["children"]]}) == 1
        assert os.getsid(guard_one) not in (os.getsid(0), os.getsid(one["self"]))
        server.send_signal(how)
        await server.communicate()
        await gone(*all_pids)
    finally:
        if server.returncode is None:
            server.kill()
            await server.communicate()
    assert run.parent == Path(place)
    os.rmdir(place)  # and with it sockets, folders, the run directory: it is empty


async def test_nothing_is_left_of_a_server_that_is_killed_when_no_engine_runs(house: House) -> None:
    """Since nothing is there then, which is seen without killing this one."""
    supervisor = await house.start(one=engine())
    view = await ready(supervisor, "one")
    assert view.socket is not None
    run = Path(view.socket).parents[1]
    assert run.exists()
    await supervisor.unload("one")
    assert not run.exists()
    await supervisor.load("one")
    assert (await ready(supervisor, "one", view.generation)).socket is not None
    assert run.exists()


class Alone:
    """A guard with this test as its server."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def say(self, **command: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def order(self, argv: list[str], **more: object) -> None:
        self.say(argv=argv, env={}, cwd="/", **more)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline() or b"{}"))

    def end(self) -> int:
        with self.process:
            return self.process.wait(10)


@pytest.fixture
def alone() -> Iterator[Alone]:
    made = Alone()
    yield made
    if made.process.returncode is None:  # the test failed: the end of its pipe ends everything
        made.process.communicate(timeout=10)


async def listening(socket: Path) -> None:
    """Until the fake engine answers; the file is there a little before that."""
    async with asyncio.timeout(20), Control(str(socket)) as control:
        while await control.health(5) is not Health.WELL:
            await asyncio.sleep(0.01)


def sleeper(seconds: int = 600) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({seconds})"]


def test_reports_and_commands(alone: Alone) -> None:
    alone.order(sleeper())
    started = alone.hear()
    assert started["event"] == "started"
    assert os.getsid(started["pid"]) == started["pid"]
    alone.say(do="term")
    assert alone.hear() == {"event": "exit", "code": None, "signal": signal.SIGTERM}
    assert alone.hear() == {"event": "gone", "left": 0}
    assert alone.end() == 0


def test_signals_to_the_guard_are_not_for_it(alone: Alone) -> None:
    alone.order(sleeper())
    pid = alone.hear()["pid"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        alone.process.send_signal(number)
    alone.say(do="kill")
    assert alone.hear()["signal"] == signal.SIGKILL
    assert alone.hear()["event"] == "gone"
    assert alone.end() == 0
    assert not alive(pid)


def test_the_engine_has_its_signals_back(alone: Alone) -> None:
    ask = "import signal, sys; sys.exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)"
    alone.order([sys.executable, "-I", "-S", "-c", ask])
    alone.hear()
    assert alone.hear()["code"] == 0
    assert alone.hear()["event"] == "gone"
    alone.end()


def test_what_cannot_be_run_is_refused(alone: Alone) -> None:
    alone.order(["/nowhere/python"])
    refused = alone.hear()
    assert refused["event"] == "refused"
    assert "/nowhere/python" in refused["message"]
    alone.end()


def test_no_order_no_engine(alone: Alone) -> None:
    assert alone.process.stdin is not None
    alone.process.stdin.close()
    assert alone.end() == 1


async def test_sockets_and_shared_memory_are_removed(alone: Alone, tmp_path: Path) -> None:
    shm = Path("/dev/shm") / f"psm_roundhouse_test_{os.getpid()}"
    scratch = tmp_path / "e1"
    scratch.mkdir()
    alone.order(
        [sys.executable, "-I", "-S", str(FAKE), str(scratch / "s"), json.dumps({"shm": str(shm)})],
        remove=[str(scratch), str(tmp_path / "never-was")],
    )
    pid = alone.hear()["pid"]
    await listening(scratch / "s")
    assert alive(pid)
    assert shm.exists()
    alone.say(do="kill")
    assert alone.end() == 0
    assert not shm.exists()
    assert not scratch.exists()


@pytest.mark.parametrize("how", ["kill", "exit", "server"])
def test_the_last_one_removes_the_run_directory(tmp_path: Path, how: str) -> None:
    """The server may be killed when it has no guard any more that would know."""
    run, other = tmp_path / "run", tmp_path / "run" / "e2"
    (run / "e1").mkdir(parents=True)
    other.mkdir()
    argv = [sys.executable, "-c", ""] if how == "exit" else sleeper()
    for each in ("e1", "e2"):
        one = Alone()
        one.order(argv, remove=[str(run / each)], parent=str(run))
        assert one.hear()["event"] == "started"
        if how == "server":
            one.process.communicate(timeout=10)
        elif how == "kill":
            one.say(do="kill")
        assert one.end() == 0
        assert other.exists() == (each == "e1")
    assert not run.exists()


@pytest.mark.parametrize("how", ["term", "kill", "exit", "server"])
async def test_pythons_shared_memory_is_not_left_however_it_ends(
    alone: Alone, tmp_path: Path, how: str
) -> None:
    socket = tmp_path / "s"
    alone.order([sys.executable, "-I", "-S", str(FAKE), str(socket), '{"shared": true}'])
    pid = alone.hear()["pid"]
    await listening(socket)
    name = (await pids(str(socket)))["shared"]
    file = Path("/dev/shm") / name.lstrip("/")
    assert file.exists()
    if how == "exit":
        os.kill(pid, signal.SIGKILL)
    elif how == "server":
        assert alone.process.stdin is not None
        alone.process.stdin.close()
    else:
        alone.say(do=how)
    assert alone.end() == 0
    assert not file.exists()


# --- the same code, without a process of its own --------------------------------------------------


def test_remove_takes_what_it_can(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    (folder / "in").mkdir(parents=True)
    file.touch()
    guard.remove([str(folder), str(file), str(tmp_path / "none")])
    assert not folder.exists()
    assert not file.exists()


def test_a_semaphore_is_known_by_what_it_is_called_now() -> None:
    """libc makes it under another name, by which its maker has it mapped."""
    code = (
        "import multiprocessing, sys\n"
        "one = multiprocessing.get_context('spawn').Semaphore()\n"
        "print(one._semlock.name, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip().lstrip("/")
        assert guard.shared_memory([child.pid]) == {f"/dev/shm/sem.{name}"}
        child.communicate()
    assert guard.shared_memory([child.pid]) == set()


def test_a_tracker_that_does_not_end_is_killed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TRACKER_DEADLINE", 0.0)
    child = subprocess.Popen([*sleeper(), "multiprocessing.resource_tracker"])
    try:
        pids = {child.pid}
        while not guard.trackers(pids):  # exec shows its arguments a little late
            assert child.poll() is None
        alone = guard.kill_but_trackers(pids, None)
        assert alone is not None
        assert guard.kill_but_trackers(pids, alone) == alone
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_looking_at_processes() -> None:
    child = subprocess.Popen(sleeper(), start_new_session=True)
    try:
        assert guard.members(child.pid) == {child.pid}
        assert child.pid in guard.descendants(os.getpid())
        assert guard.shared_memory([child.pid, 2**22 + 1]) == set()
    finally:
        guard.kill_all([child.pid, 2**22 + 1])
        child.wait()
    assert guard.members(child.pid) == set()


def test_other_systems_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert guard.main() == 1
    assert json.loads(capfd.readouterr().out)["event"] == "refused"


def test_a_failing_prctl_is_an_error() -> None:
    with pytest.raises(OSError, match="prctl"):
        guard.prctl(-1, 0)
