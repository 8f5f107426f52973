"""What a whole run of the tests may not leave behind: processes, sockets, files, shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from server.engines import rundir

#: Caches of libraries, made to stay.
_CACHES: Final = ("torchinductor_", "node-compile-cache", "tsx-")
_SHARED: Final = Path("/dev/shm")


class Left(AssertionError):
    """Something of the tests is still there."""


@contextmanager
def nothing_left(*, shared: bool = False) -> Iterator[Path]:
    """Gives all processes that are started meanwhile a temporary folder of their own; at the end
    nobody may live who knows it, and nothing may lie in it. So orphans are found, too, and what
    others do on this machine is none of our business.

    `shared`: look at the shared memory as well. It has no owner: what a process of somebody else
    uses is theirs, but what they leave behind meanwhile is held to be the tests'.
    """
    here = tempfile.gettempdir()  # this process keeps its own
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir=here))
    outer, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), str(folder)
    before = _segments() if shared else set()
    try:
        yield folder
    finally:
        if outer is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = outer
        found = [*_processes(folder), *_files(folder), *_segments_left(before, shared)]
        shutil.rmtree(folder, ignore_errors=True)
    if found:
        raise Left("left behind by the tests:\n" + "\n".join(found))


def _processes(folder: Path) -> list[str]:
    """Those of the environment that was given to them. They get a moment to end."""
    known = f"={folder}".encode()
    mine = [
        one
        for one in psutil.process_iter()
        if one.pid != os.getpid() and known in _environment(one.pid)
    ]
    _, alive = psutil.wait_procs(mine, timeout=5)
    told = [f"process {one.pid}: {' '.join(_argv(one))[:200]}" for one in alive]
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=5)
    return told


def _environment(pid: int) -> bytes:
    """What is there of it: a process that gives itself a title, as vLLM's do, writes over the
    first variables, but others tell of the folder, too."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _argv(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:
        return []


def _files(folder: Path) -> list[str]:
    entries = [one for one in folder.iterdir() if not one.name.startswith(_CACHES)]
    return [f"file {one}" for one in entries] + [f"folder {one}" for one in rundir.kept()]


def _segments() -> set[str]:
    try:
        return {one.name for one in _SHARED.iterdir() if one.stat().st_uid == os.getuid()}
    except OSError:
        return set()


def _segments_left(before: set[str], shared: bool) -> list[str]:
    """Those that are new. Processes of the tests are dead by now: whoever uses one is another's."""
    new = _segments() - before if shared else set()
    if not new:
        return []
    used = {name for pid in psutil.pids() if pid != os.getpid() for name in _mapped(pid)}
    return [f"shared memory {name}" for name in sorted(new - used)]


def _mapped(pid: int) -> set[str]:
    """The names of the shared memory that a process uses."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    where = f"{_SHARED}/"
    return {line.partition(where)[2] for line in lines if where in line}
