from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.fakes.left import Left, nothing_left

SLEEPS = "import time; print(flush=True); time.sleep(600)"


def test_what_is_tidy_passes() -> None:
    with nothing_left() as folder:
        code = "import tempfile; tempfile.mkstemp(); print(tempfile.gettempdir())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert Path(done.stdout.decode().strip()) == folder
        for one in folder.iterdir():
            one.unlink()
    assert not folder.exists()


def test_a_file_is_told() -> None:
    with pytest.raises(Left, match=r"file .*tmp"), nothing_left():
        subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkstemp()"], check=True)


def test_an_orphan_is_told_and_ended() -> None:
    start = (
        "import subprocess, sys\n"
        f"one = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True,"
        " stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
        "one.stdout.readline(); print(one.pid)"
    )
    with pytest.raises(Left, match=r"process \d+: .*sleep"), nothing_left():
        done = subprocess.run([sys.executable, "-c", start], capture_output=True, check=True)
    pid = int(done.stdout)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def titled(folder: Path) -> subprocess.Popen[bytes]:
    """A process of which all that tells is a variable further back."""
    made = subprocess.Popen(
        [sys.executable, "-c", SLEEPS],
        env={"VLLM_RPC_BASE_PATH": f"{folder}/e1"},
        stdout=subprocess.PIPE,
    )
    assert made.stdout is not None
    made.stdout.readline()
    return made


def test_one_with_a_title_over_its_first_variables_is_told() -> None:
    with pytest.raises(Left, match=r"process \d+: .*sleep"), nothing_left() as folder:
        one = titled(folder)
    one.communicate()


#: Makes a segment of shared memory that nobody removes, under another name at first, as libc makes
#: semaphores; and says when it has it mapped.
SEGMENT = (
    "import mmap, os, sys\n"
    "with open(sys.argv[1], 'xb+') as file:\n"
    "    file.truncate(4096)\n"
    "    mapped = mmap.mmap(file.fileno(), 4096)\n"
    "os.rename(sys.argv[1], sys.argv[2])\n"
    "print(flush=True)\n"
    "sys.stdin.read()"
)


@pytest.fixture
def segment() -> Iterator[Path]:
    path = Path(f"/dev/shm/psm_test_{uuid4().hex}")
    yield path
    path.unlink(missing_ok=True)


def using(segment: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A process that has made it."""
    made = subprocess.Popen(
        [sys.executable, "-c", SEGMENT, f"{segment}_at_first", str(segment)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert made.stdout is not None
    assert made.stdout.readline()
    return made


def test_shared_memory_is_told(segment: Path) -> None:
    with pytest.raises(Left, match=f"shared memory {segment.name}"), nothing_left(shared=True):
        using(segment).communicate()


def test_shared_memory_of_one_that_has_to_be_ended_is_told(segment: Path) -> None:
    told = f"(?s)process .*shared memory {segment.name}"
    with pytest.raises(Left, match=told), nothing_left(shared=True):
        alive = using(segment)
    alive.communicate()


def test_what_others_use_is_theirs(segment: Path) -> None:
    with nothing_left(shared=True):
        theirs = using(segment, {**os.environ, "TMPDIR": "/tmp"})
    assert segment.exists()
    theirs.communicate()
