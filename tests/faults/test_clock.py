"""The wall clock jumps by a day, either way: nothing times out, nothing fires, nothing is lost."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_answer, chat_stream, hang, sse
from tests.faults.conftest import ASK, CHAT, ONE, House, Serve, answered_by, config_of, events_of

DAY = 86_400.0
#: Rooms whose waits, deadlines and ages are counted on the monotonic clock alone,
ROOMS = ("routing", "access", "transport", "engines")
#: but for these files, which need the date.
DATES = {
    "routing/attempt.py": "a Retry-After may be a date, and answers have one",
    "routing/ratelimits.py": "a provider may say by a date when its limit is whole again",
    "engines/store/records.py": "weights tell when they were pulled",
}
#: What tells the date. `datetime` objects have no other way to be made from now.
WALL_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


class Wall:
    """The process's wall clock, and how far it is off."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.off = 0.0
        seconds, nanoseconds = time.time, time.time_ns
        patch.setattr(time, "time", lambda: seconds() + self.off)
        patch.setattr(time, "time_ns", lambda: nanoseconds() + int(self.off * 1e9))

    def jump(self, by: float) -> None:
        self.off += by


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@pytest.mark.parametrize("by", [DAY, -DAY])
async def test_nothing_happens(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream, wall: Wall, by: float
) -> None:
    gates = [Gate(1) for _ in range(10)]
    one.queue(*(chat_stream(["a", "b"], gate=gate) for gate in gates))
    one.default = chat_answer("beside them")
    clients = [RawClient(port=house.port) for _ in range(10)]
    for client in clients:
        await client.connect()
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        await client.read_event()
    answered_by(await house.ask(), ONE)
    before = len(one.connections)
    assert wall.off == 0
    for _ in range(5):
        wall.jump(by)
        answered_by(await house.ask(), ONE)
        wall.jump(-by)
        answered_by(await house.ask(), ONE)
    wall.jump(by)
    assert len(one.connections) == before  # kept ones have not aged, either
    for gate in gates:
        gate.open()
    for client in clients:
        assert (await events_of(client))[-1] == b"data: [DONE]"
        client.close()
    assert await house.metric("stream_end_total", reason="done") == 10
    assert await house.metric("attempts_total", target=ONE, outcome="ok") == 21
    assert await house.metric("attempts_total") == 21
    assert await house.metric("shed_total") == 0
    assert await house.metric("config_reloads_total") == 0
    assert await house.metric("request_duration_seconds_sum") < DAY / 2
    assert two.requests == []


@pytest.mark.parametrize("by", [DAY, -DAY])
async def test_what_is_due_is_due(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, wall: Wall, by: float
) -> None:
    """Time-outs neither come early nor stay away."""
    one.queue(sse([*stream_of("a"), hang]))
    house = await serve(config_of(one, two, provider={"timeouts": {"inter_chunk": "300ms"}}))
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        await client.read_event()
        wall.jump(by)
        assert b'"upstream_timeout"' in (await events_of(client))[-1]
    assert await house.metric("stream_end_total", reason="stall") == 1


def stream_of(text: str) -> list[dict[str, object]]:
    return [{"choices": [{"index": 0, "delta": {"content": text}}]}]


# --- the house


def readers(source: str) -> Iterator[str]:
    """Every name in the source that reads the wall clock: `time.time`, `datetime.now`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{x.name}" for x in node.names if x.name in WALL_CLOCK["time"])
        elif isinstance(node, ast.Attribute):
            holder = node.value
            name = getattr(holder, "id", getattr(holder, "attr", ""))
            if node.attr in WALL_CLOCK.get(name, ()):
                yield f"{name}.{node.attr}"


def test_only_those_read_the_wall_clock_that_must(repo_root: Path) -> None:
    found = {
        str(path.relative_to(repo_root / "server"))
        for room in ROOMS
        for path in (repo_root / "server" / room).rglob("*.py")
        if list(readers(path.read_text(encoding="utf-8")))
    }
    assert found == set(DATES)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\ntime.time()", ["time.time"]),
        ("from time import time_ns", ["time.time_ns"]),
        ("def f(clock=time.time): ...", ["time.time"]),
        ("import datetime\ndatetime.datetime.now()", ["datetime.now"]),
        ("date.today()", ["date.today"]),
        ("time.monotonic() + loop.time() + self.time.elapsed", []),
    ],
)
def test_the_wall_clock_is_found(source: str, expected: list[str]) -> None:
    assert list(readers(source)) == expected
