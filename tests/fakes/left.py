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
def nothing_left(*, files: bool = True, shared: bool = False) -> Iterator[Path]:
    """Gives all processes that are started meanwhile a temporary folder of their own; at the end
    nobody may live who knows it, and nothing may lie in it. So orphans are found, too, and what
    others do on this machine is none of our business.

    `files`: look at what lies in the folder, which goes in any case. `shared`: look at the shared
    memory as well, which has no owner: only where nobody else runs.
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
        found = [*_processes(folder), *_files(folder, files), *_segments_left(before, shared)]
        shutil.rmtree(folder, ignore_errors=True)
    if found:
        raise Left("left behind by the tests:\n" + "\n".join(found))


def _processes(folder: Path) -> list[str]:
    """Those of the environment that was given to them. They get a moment to end."""
    mine = []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and one.environ().get("TMPDIR", "").startswith(str(folder)):
                mine.append(one)
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(mine, timeout=5)
    told = [f"process {one.pid}: {' '.join(_argv(one))[:200]}" for one in alive]
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=5)
    return told


def _argv(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:
        return []


def _files(folder: Path, look: bool) -> list[str]:
    entries = [one for one in folder.iterdir() if look and not one.name.startswith(_CACHES)]
    return [f"file {one}" for one in entries] + [f"folder {one}" for one in rundir.kept()]


def _segments() -> set[str]:
    try:
        return {one.name for one in _SHARED.iterdir() if one.stat().st_uid == os.getuid()}
    except OSError:
        return set()


def _segments_left(before: set[str], shared: bool) -> list[str]:
    return [f"shared memory {name}" for name in sorted(_segments() - before)] if shared else []
