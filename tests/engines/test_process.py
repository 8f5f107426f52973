"""`EngineProcess` where the supervisor's tests do not reach."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.engines import guard, process
from server.engines.endings import Exit
from server.engines.logs import LogFile
from server.engines.process import EngineProcess
from server.engines.runtimes import Launch
from server.errors import EngineError
from tests.engines.conftest import alive, fake_launch


def make(tmp_path: Path, launch: Launch | None = None, **script: Any) -> EngineProcess:
    scratch = tmp_path / "e1"
    scratch.mkdir()
    socket = str(scratch / "s")
    return EngineProcess(
        launch or fake_launch(scratch, socket, **script),
        socket=socket,
        file=LogFile(tmp_path / "e.log"),
        parent=str(tmp_path / "none"),
    )


async def test_start_ready_stop(tmp_path: Path) -> None:
    made = make(tmp_path, say=["hello"])
    pid = await made.start()
    assert await made.wait_ready(20) > 0
    assert made.tail(5)[0] == "hello"
    assert await made.stop(5) == Exit(signal=signal.SIGTERM)
    assert not alive(pid)
    assert not (tmp_path / "e1").exists()
    assert str(made.exited.result()) == "killed by SIGTERM"
    await made.kill()


async def test_killed_in_its_start(tmp_path: Path) -> None:
    made = make(tmp_path, gate=str(tmp_path / "never"))
    os.kill(await made.start(), signal.SIGKILL)
    with pytest.raises(EngineError, match="memory ran out") as caught:
        await made.wait_ready(20)
    assert not caught.value.terminal
    await made.kill()


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    made = make(tmp_path, Launch(argv=("/nowhere/python",), env={}, cwd="/"))
    with pytest.raises(EngineError, match="/nowhere/python") as caught:
        await made.start()
    assert caught.value.terminal
    assert made.gone.done()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    made = make(tmp_path, Launch(argv=(sys.executable,), env={}, cwd=str(tmp_path / "none")))
    with pytest.raises(EngineError, match="none: No such file"):
        await made.start()


@pytest.mark.parametrize(("number", "passes"), [(errno.EAGAIN, True), (errno.EACCES, False)])
async def test_a_program_that_cannot_be_started_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    """No more processes are allowed, or no memory is left: that passes."""
    guard_file = tmp_path / "guard.py"
    guard_file.write_text(
        f"""print('{{"event": "refused", "message": "x: no", "errno": {number}}}')"""
    )
    monkeypatch.setattr(process, "GUARD", guard_file)
    made = make(tmp_path)
    with pytest.raises(EngineError, match="could not be started: x: no") as caught:
        await made.start()
    assert caught.value.terminal is not passes
    assert caught.value.reason == ("crash" if passes else "environment")


async def test_no_descriptor_is_left_for_a_guard(tmp_path: Path) -> None:
    made = make(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(EngineError, match="Too many open files") as caught:
            await made.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.reason, caught.value.terminal) == ("crash", False)
    assert made.gone.done()


async def test_a_guard_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    made = make(tmp_path)
    with pytest.raises(EngineError, match="guard could not be started"):
        await made.start()
    assert made.gone.done()


@pytest.mark.parametrize("text", ["import sys; sys.exit(0)", "import time; time.sleep(600)"])
async def test_a_guard_that_is_no_guard(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(text)
    monkeypatch.setattr(process, "GUARD", broken)
    monkeypatch.setattr(process, "SPAWN_DEADLINE", 0.3)
    monkeypatch.setattr(guard, "REAP_DEADLINE", -1.9)
    made = make(tmp_path)
    with pytest.raises(EngineError, match=r"guard (died|did not start)"):
        await made.start()
    assert made.gone.done()


async def test_a_stopped_guard_is_gone_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path, children=1)
    pid = await made.start()
    await made.wait_ready(20)
    parent = psutil.Process(pid).parent()
    assert parent is not None
    parent.suspend()
    with monkeypatch.context() as patch:
        patch.setattr(guard, "REAP_DEADLINE", -1.9)
        patch.setattr(process, "BURY_DEADLINE", 10.0)
        await made.kill()
    assert not guard.members(pid)


def test_how_an_exit_reads() -> None:
    assert str(Exit(code=0)) == "exit code 0"
    assert str(Exit(signal=signal.SIGKILL)) == "killed by SIGKILL"
    assert str(Exit(signal=99)) == "killed by signal 99"
    assert str(Exit()) == "lost"


@pytest.mark.parametrize("ours", [True, False])
def test_a_group_without_its_guard_is_buried(ours: bool) -> None:
    """As the first process of a container the server inherits the orphans, else somebody else."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    if not ours:
        child.kill()
        child.wait()
    process._bury(child.pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    child.wait()
