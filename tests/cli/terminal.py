"""The command on a real pseudo-terminal, in a process of its own: for the tests of its commands."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 30.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process whose standard streams are a terminal of so many columns, and what it has shown:
    `shown` without escapes, `raw` with them."""

    def __init__(
        self,
        folder: Path,
        repo_root: Path,
        *arguments: str,
        columns: int = 120,
        term: str = "xterm",
    ) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environ = {**os.environ, "PYTHONPATH": str(repo_root), "TERM": term}
        environ = {name: environ[name] for name in environ if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.stand_in", str(folder), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environ,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""
        self.raw = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str) -> str:
        """Reads until `text` is shown; what was shown since the last call."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} was not shown, but: {self.shown!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:  # Linux: the other side is closed
                data = b""
            assert data, f"it ended without {text!r}: {self.shown!r}"
            self._take(data)
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def ended(self) -> int:
        """The exit code; what is still shown is in `shown`."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            if not data:
                return self.process.wait(PATIENCE)
            self._take(data)

    def _take(self, data: bytes) -> None:
        self.raw += data
        self.shown += ESCAPES.sub("", data.decode(errors="replace"))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


Start = Callable[..., Terminal]


@pytest.fixture
def open_terminals() -> Iterator[list[Terminal]]:
    found: list[Terminal] = []
    yield found
    for terminal in found:
        terminal.close()


@pytest.fixture
def start(nowhere: Path, repo_root: Path, open_terminals: list[Terminal]) -> Start:
    def start_it(*arguments: str, columns: int = 120, term: str = "xterm") -> Terminal:
        terminal = Terminal(nowhere, repo_root, *arguments, columns=columns, term=term)
        open_terminals.append(terminal)
        return terminal

    return start_it
