"""`roundhouse` as PID 1. A child subreaper stands for it here: orphans come to it just the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")

FIRST = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
from server.cli.first import stand_over
code = stand_over()
if code is not None:
    sys.exit(code)
"""


@contextmanager
def first(work: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A first process whose second one does `work`; with what that prints."""
    with subprocess.Popen(
        [sys.executable, "-c", FIRST + textwrap.dedent(work)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(7)", 7),
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
def test_it_ends_as_the_second_one_ends(work: str, code: int) -> None:
    with first(work) as (process, _):
        assert process.wait(60) == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_are_passed_on_once(name: str) -> None:
    work = f"""
        import signal
        awaited = [signal.{name}, signal.SIGALRM]
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
        print("waits", flush=True)
        print(signal.sigwait(awaited).name, flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0.2)  # a second one would come before it
        print(signal.sigwait(awaited).name, flush=True)
    """
    with first(work) as (process, said):
        assert said.readline() == "waits\n"
        process.send_signal(getattr(signal, name))
        assert said.readline() == f"{name}\n"
        assert said.readline() == "SIGALRM\n"
        assert process.wait(60) == 0


def test_orphans_are_waited_for_and_the_second_ones_children_left_to_it() -> None:
    work = """
        import subprocess
        # Each shell ends at once and leaves an orphan, which says its number and ends as well.
        orphans = []
        for _ in range(20):
            said = subprocess.run(
                ["sh", "-c", "sh -c 'echo $$' &"], stdout=subprocess.PIPE, check=True
            )
            orphans.append(int(said.stdout))
        mine = subprocess.Popen(["sh", "-c", "exit 3"])
        for pid in orphans:
            while os.path.exists(f"/proc/{pid}"):
                os.sched_yield()
        print(mine.wait())
    """
    with first(work) as (process, said):
        assert said.read() == "3\n"
        assert process.wait(60) == 0


def test_the_second_one_has_the_signals_as_they_were() -> None:
    work = """
        import signal
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
    """
    with first(work) as (process, said):
        assert said.read() == "set()\n"
        assert process.wait(60) == 0
