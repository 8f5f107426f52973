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
    before = _segments() if shared else {}
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


def _segments() -> dict[str, int]:
    """Our user's, with their inodes."""
    try:
        with os.scandir(_SHARED) as entries:
            return {one.name: one.inode() for one in entries if one.stat().st_uid == os.getuid()}
    except OSError:
        return {}


def _segments_left(before: dict[str, int], shared: bool) -> list[str]:
    """Those that are new. Processes of the tests are dead by now: whoever uses one is another's."""
    now = _segments() if shared else {}
    new = {name: inode for name, inode in now.items() if name not in before}
    if not new:
        return []
    used = {inode for pid in psutil.pids() if pid != os.getpid() for inode in _mapped(pid)}
    return [f"shared memory {name}" for name in sorted(new) if new[name] not in used]


def _mapped(pid: int) -> set[int]:
    """The shared memory that a process uses. By inodes: a semaphore's maker has it mapped by a name
    that it had at first."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {int(line.split()[4]) for line in lines if f" {_SHARED}/" in line}
