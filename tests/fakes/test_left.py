from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
