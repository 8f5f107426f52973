"""The command on a real pseudo-terminal, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import DONE, FakeServer
from tests.cli.terminal import Start, open_terminals, start

__all__ = ["open_terminals", "start"]


def test_chat_on_a_terminal(start: Start, fake: FakeServer) -> None:
    fake.models("guide")
    fake.stream("Hel", "lo\x1b[2J", DONE)
    terminal = start("chat", "--base-url", fake.url)
    assert "Talking to guide. /help says" in terminal.until(">>> ")
    terminal.type("Hi\n")
    # The escape is gone: what is left of it is text.
    assert "Hello[2J" in terminal.until(">>> ")
    terminal.type("\x04")
    assert terminal.ended() == 0


def test_run_on_a_terminal(start: Start, nowhere: Path) -> None:
    terminal = start("run")
    assert "guide: loading weights (loading, about" in terminal.until(">>> ")
    terminal.type("first\n")
    terminal.until("you said: first")
    terminal.until(">>> ")
    terminal.type("slow\n")
    terminal.until("you said: slow")
    terminal.type("\x03")
    terminal.until("(stopped)")
    terminal.until(">>> ")
    assert not (nowhere / "stopped").exists()
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert (nowhere / "stopped").exists()
    assert "Traceback" not in terminal.shown


def test_ctrl_c_while_it_loads_leaves_nothing(start: Start, nowhere: Path) -> None:
    terminal = start("run", "never/never")
    terminal.until("loading weights")
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert (nowhere / "stopped").exists()
    assert "Traceback" not in terminal.shown


def test_tables_are_drawn(start: Start, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": [{"name": "a", "state": "ready", "since_s": 5}]})
    terminal = start("ps", "--admin-url", fake.url)
    assert terminal.ended() == 0
    assert "─" in terminal.shown
    assert "ready" in terminal.shown


# --- run in a pipe


def piped(
    folder: Path, repo_root: Path, *arguments: str, question: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cli.stand_in", str(folder), "run", *arguments],
        input=question,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        timeout=60,
    )


def test_run_in_a_pipe(nowhere: Path, repo_root: Path) -> None:
    done = piped(nowhere, repo_root, "org/Model", "--system", "Be short.", question="hi\n")
    assert (done.returncode, done.stdout) == (0, "you said: hi\n")
    # A line for each stage, not for each look.
    assert done.stderr == "model: loading weights (loading, about 2 s)\n"
    assert (nowhere / "stopped").exists()


def test_run_what_cannot_start(nowhere: Path, repo_root: Path) -> None:
    done = piped(nowhere, repo_root, "broken/broken", question="hi")
    assert (done.returncode, done.stderr) == (4, "Error: No memory.\n")
    assert (nowhere / "stopped").exists()


def test_run_with_nothing_to_ask(nowhere: Path, repo_root: Path) -> None:
    done = piped(nowhere, repo_root, question="")
    assert done.returncode == 2
    assert not (nowhere / "started").exists()
