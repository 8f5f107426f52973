from __future__ import annotations

import asyncio
import io
import sys

import pytest

from server.loadtest.drive import Tally
from server.loadtest.plan import Ends
from server.loadtest.progress import Shown, line
from tests.loadtest.made import failed, sample


def shown(ends: Ends, done: int = 4) -> Shown:
    found = Shown("8 at a time", ends)
    tally = Tally(start=10.0, in_flight=8)
    for _ in range(done):
        tally.add(sample())
    found.follow(tally)
    return found


@pytest.mark.parametrize(
    ("ends", "left"),
    [
        (Ends(), ""),
        (Ends(seconds=30.0), ", about 28 s left"),
        (Ends(seconds=1.0), ", about 0 s left"),
        (Ends(requests=10), ", about 3 s left"),  # two a second
        (Ends(requests=10, seconds=30.0), ", about 3 s left"),
    ],
)
def test_the_line(ends: Ends, left: str) -> None:
    text = "8 at a time: 4 done, 8 in flight, 2 req/s, 10 tok/s, 0 failed"
    assert shown(ends).text(12.0) == text + left


def test_before_anything_is_known() -> None:
    assert Shown("2/s", Ends()).text(0.0) == "2/s: warming up"
    assert shown(Ends(requests=10), done=0).text(10.0).endswith("0 failed")
    found = shown(Ends())
    assert found.tally is not None
    found.tally.add(failed())
    assert "5 done, 8 in flight, 2 req/s, 10 tok/s, 1 failed" in found.text(12.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_it_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    drawn = asyncio.Event()
    times = 0

    async def sleep(seconds: float) -> None:
        nonlocal times
        times += 1
        if times == 3:
            drawn.set()
            await asyncio.get_running_loop().create_future()

    async with line(shown(Ends()), lambda: 12.0, sleep):
        await drawn.wait()
    assert "4 done, 8 in flight" in terminal.getvalue()


async def test_nothing_of_it_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    async with line(shown(Ends()), lambda: 12.0):
        pass
    assert pipe.getvalue() == ""
