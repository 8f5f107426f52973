"""How a pull is shown: on terminals of several widths, in a pipe, as JSON lines."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server.cli.weights.common import since
from server.cli.weights.meter import Meter, text_of
from server.engines.store.progress import Look, Progress
from server.engines.store.words import duration_of, size_of, stage_of
from tests.cli.conftest import Run
from tests.cli.terminal import ESCAPES, Start, open_terminals, start
from tests.cli.test_pull import FILE, REPO, hub
from tests.fakes.hub import FakeHub, at, cut

__all__ = ["hub", "open_terminals", "start"]


class Screen:
    """A pseudo-terminal of so many columns as this process's standard error."""

    def __init__(self, columns: int) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(slave, "w")
        self._data = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux: the other side is closed
                return
            if not data:
                return
            self._data += data

    def lines(self) -> list[str]:
        """All that was shown, redrawn lines as well, without escapes. Ends the terminal."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        text = ESCAPES.sub("", self._data.decode())
        return [line.rstrip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Screen]:
    def make(columns: int) -> Screen:
        found = Screen(columns)
        for name in ("LINES", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        # Rich asks the terminals of the process, which in a test has none.
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", found.stream)
        return found

    return make


class Steps:
    """A progress whose clock moves a second with each step of 256 MiB, of 4 GiB."""

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = Progress(lambda: self.now)

    def plan(self) -> None:
        self.progress.plan(2, 4 << 30)

    def step(self) -> None:
        self.progress.came(256 << 20)
        self.now += 1

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (120, "50 %, 2.0 GiB of 4.0 GiB, 0 of 2 files, 256 MiB/s, 8 s left"),
        (80, "50 %, 2.0 GiB of 4.0 GiB, 0 of 2 files, 256 MiB/s, 8 s left"),
        (64, "50 %, 2.0 GiB of 4.0 GiB, 256 MiB/s, 8 s left"),
        (40, "50 %, 256 MiB/s, 8 s left"),
        (20, "50 %, 8 s left"),
        (10, "50 %"),
    ],
)
def test_a_line_that_is_redrawn_and_never_broken(
    columns: int, says: str, screen: Callable[[int], Screen]
) -> None:
    shown, steps = screen(columns), Steps()
    with Meter("o/a", steps.progress, clock=steps.clock) as meter:
        meter.tick()
        steps.plan()
        for _ in range(8):
            steps.step()
            meter.tick()
    lines = shown.lines()
    assert lines[0] == "o/a"
    assert lines[-1].endswith(says)
    bar = lines[-1].removesuffix(says)
    assert len(bar) == (25 if columns >= 100 else 11 if columns >= 60 else 0)
    assert all(len(line) <= columns for line in lines)


def test_notes_stand_above_the_bar_once(screen: Callable[[int], Screen]) -> None:
    shown, steps = screen(80), Steps()
    with Meter("org/a\x1b[2J", steps.progress, before="asking the hub") as meter:
        steps.plan()
        for _ in range(3):
            steps.progress.say("[red]waiting[/red] \x07until it is done")
            steps.step()
            meter.tick()
    lines = shown.lines()
    assert lines[0] == "org/a[2J"  # the escape is gone: what is left of it is text
    # What looks like markup is text, too, and no bell rings.
    assert [line for line in lines if "waiting" in line] == ["[red]waiting[/red] until it is done"]
    assert lines[-1].endswith("256 MiB/s, 13 s left")


def test_a_dumb_terminal_gets_lines(
    screen: Callable[[int], Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, steps = screen(80), Steps()
    monkeypatch.setenv("TERM", "dumb")
    with Meter("org/a", steps.progress, clock=steps.clock) as meter:
        steps.plan()
        steps.step()
        meter.tick()
    assert shown.lines() == ["org/a: 6 %, 256 MiB of 4.0 GiB, 0 of 2 files, 256 MiB/s, 15 s left"]


def test_json_lines(screen: Callable[[int], Screen], capsys: pytest.CaptureFixture[str]) -> None:
    shown, steps = screen(80), Steps()
    with Meter("org/a", steps.progress, as_json=True, clock=steps.clock) as meter:
        meter.tick()  # nothing is known yet, and nothing is said
        steps.plan()
        for _ in range(2):
            steps.step()
            meter.tick()
            meter.tick()  # not a second later
        steps.progress.say("ö")
        meter.event("done", name="org/a")
    assert shown.lines() == []
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "event": "progress",
            "files": 2,
            "files_done": 0,
            "size": 4 << 30,
            "done": done << 20,
            "rate": 256 << 20,
            "seconds_left": left,
        }
        for done, left in ((256, 15), (512, 14))
    ] + [{"event": "done", "name": "org/a"}, {"event": "note", "message": "ö"}]


# --- the command on a terminal


def test_a_bar_on_a_terminal(start: Start, hub: FakeHub) -> None:
    hub.add(REPO)
    halfway, go_on = threading.Event(), threading.Event()
    hub.fault(FILE, at(halfway, 300, go_on))
    terminal = start("pull", REPO)
    terminal.until("3 of 4 files")
    go_on.set()
    terminal.until("4 of 4 files")
    terminal.until("verified.")
    assert terminal.ended() == 0
    # The library asked for nothing but this model.
    assert all(REPO in one.path or one.path == f"/cdn/{FILE}" for one in hub.seen)


def test_ctrl_c_and_again(start: Start, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    hub.fault(FILE, at(threading.Event(), 300, hub.gone))
    terminal = start("pull", REPO)
    terminal.until("3 of 4 files")
    terminal.type("\x03")
    terminal.until("Stopped. What has come is kept")
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown
    assert not list(nowhere.glob("hf/hub/.locks/**/*.lock"))
    again = start("pull", REPO)
    again.until("verified.")
    assert again.ended() == 0
    assert hub.bytes_asked(FILE) == [None, "bytes=300-"]


def test_a_kill_and_again(start: Start, hub: FakeHub) -> None:
    hub.add(REPO)
    hub.fault(FILE, at(threading.Event(), 300, hub.gone))
    terminal = start("pull", REPO)
    terminal.until("3 of 4 files")
    terminal.process.kill()
    terminal.process.wait()
    again = start("pull", REPO)
    again.until("verified.")
    assert again.ended() == 0
    assert hub.bytes_asked(FILE) == [None, "bytes=300-"]


def test_a_cut_is_told_above_the_bar(start: Start, hub: FakeHub) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    terminal = start("pull", REPO)
    terminal.until(f"{FILE}: ")
    terminal.until("trying again")
    terminal.until("verified.")
    assert terminal.ended() == 0


def test_a_narrow_terminal(start: Start, hub: FakeHub) -> None:
    hub.add(REPO)
    terminal = start("pull", REPO, columns=30)
    terminal.until("100 %")
    terminal.until("verified.")
    assert terminal.ended() == 0


@pytest.mark.parametrize(("columns", "whole"), [(120, True), (50, False)])
def test_a_table_on_a_terminal(
    columns: int, whole: bool, run: Run, start: Start, hub: FakeHub
) -> None:
    hub.add(REPO)
    assert run("pull", REPO).exit_code == 0
    terminal = start("ls", columns=columns)
    assert terminal.ended() == 0
    assert REPO in terminal.shown
    assert "verified" in terminal.shown
    assert "USED BY" in terminal.shown
    assert ("c0ffee000000" in terminal.shown) is whole
    assert ("SINCE" in terminal.shown) is whole


def test_a_removal_on_a_terminal(start: Start, hub: FakeHub) -> None:
    terminal = start("rm", "org/none")
    terminal.until("Error: org/none is not here. `roundhouse ls` shows all.")
    assert terminal.ended() == 1


def test_a_refusal_on_a_terminal(start: Start, hub: FakeHub) -> None:
    terminal = start("pull", "org/none")
    terminal.until("Error: The hub has no model org/none")
    assert terminal.ended() == 1
    assert "Traceback" not in terminal.shown


# --- how it reads


def test_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.plan(2, 4 << 30)
    with Meter("a", progress, clock=lambda: now[0]) as meter:
        for _ in range(8):
            progress.came(256 << 20)
            now[0] += 1
            meter.tick()
            progress.say("again and again")
    assert capsys.readouterr().err.splitlines() == [
        "a: 6 %, 256 MiB of 4.0 GiB, 0 of 2 files, 256 MiB/s, 15 s left",
        "again and again",
        "a: 37 %, 1.5 GiB of 4.0 GiB, 0 of 2 files, 256 MiB/s, 10 s left",
    ]


def test_words() -> None:
    assert [size_of(n) for n in (0, 1023, 1536, 150 << 20, 5 << 40, 5 << 60)] == [
        "0 B", "1023 B", "1.5 KiB", "150 MiB", "5.0 TiB", "5242880 TiB",
    ]  # fmt: skip
    assert [duration_of(n) for n in (5, 300, 7500)] == ["5 s", "5 min", "2 h 5 min"]
    assert since("") == "-"
    assert since("not a time") == "not a time"
    assert since("2020-01-01T00:00:00+00:00").endswith("d ago")
    assert text_of(Look(2, 2, 10, 10, 5.0, 0.0)) == "100 %, 10 B of 10 B, 2 of 2 files"
    assert stage_of(Look(0, 0, 0, 0, None, None)) == "pulling weights"
    assert stage_of(Look(2, 0, 1000, 340, None, None)) == "pulling weights: 34% of 1000 B"


@pytest.mark.parametrize("as_json", [False, True])
def test_one_that_waits_says_that_and_no_figures(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    now, progress = [0.0], Progress(lambda: now[0])
    progress.plan(1, 1 << 30)
    with Meter(REPO, progress, as_json=as_json, clock=lambda: now[0]) as meter:
        for _ in range(40):
            progress.say("Process 7 is at this model.")
            meter.tick()
            now[0] += 0.2
        waited = "".join(capsys.readouterr())
        now[0] += 5.0
        meter.tick()
    assert waited.count("Process 7") == 1
    assert len(waited.splitlines()) == 1
    assert ("progress" if as_json else " 0 B of 1.0 GiB") in "".join(capsys.readouterr())
