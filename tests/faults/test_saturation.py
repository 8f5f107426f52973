"""200 requests at one time against 8 places and 8 that may wait: 200 or 503, and nothing in
between. /health answers all the while."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import httpx
import pytest

from tests.fakes.exchange import Exchange, Gate
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream
from tests.faults.checked import End, Load, Outcome, Question, loading, pieces_for
from tests.faults.conftest import config_of
from tests.faults.process import served

ASKED: Final = 200
PLACES: Final = 8
WAVES: Final = 5
LIMITS: Final = {"max_in_flight": PLACES, "max_waiting": PLACES}
SERVER_LIMITS: Final = {"in_flight": PLACES, "waiting": PLACES}
#: Until its input ends.
PROBE: Final = """
import json, select, sys, time
from contextlib import closing
from http.client import HTTPConnection

times = []
while not select.select([sys.stdin], [], [], 0)[0]:
    start = time.monotonic()
    with closing(HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)) as http:
        http.request("GET", "/health")
        assert http.getresponse().status == 200
    times.append(time.monotonic() - start)
    if len(times) == 1:
        print("looking", flush=True)
print(json.dumps(times))
"""


class Busy:
    """An upstream that answers when the test lets it, and counts how many it has at one time."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.inside = self.most = 0

    async def __call__(self, exchange: Exchange) -> None:
        pieces, stream = pieces_for(exchange, "one")
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await exchange.wait(self.gate.pass_one())
            await (chat_stream(pieces) if stream else chat_answer("".join(pieces)))(exchange)
        finally:
            self.inside -= 1


def limited(kind: str, one: ScriptedUpstream, two: ScriptedUpstream) -> dict[str, Any]:
    """The model `m` with two targets, limited in one of three places."""
    limits = {"limits": SERVER_LIMITS} if kind == "server" else {}
    config = config_of(one, two, server=limits)
    if kind == "model":
        config["models"]["m"] |= LIMITS
    elif kind == "target":
        config["models"]["m"]["targets"][0] |= LIMITS
    return config


@asynccontextmanager
async def watched(port: int) -> AsyncIterator[list[float]]:
    """Asks /health over and over, each time on a connection of its own; afterwards the list has
    the seconds that each answer took. In a process of its own, since the load keeps ours busy."""
    times: list[float] = []
    probe = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROBE, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert probe.stdout is not None
    assert await probe.stdout.readline() == b"looking\n"
    try:
        yield times
    finally:
        told, _ = await probe.communicate(b"")  # and no more
    times += json.loads(told)
    assert probe.returncode == 0


async def wave(load: Load, busy: Busy, first: int) -> list[Outcome]:
    """ASKED at one time. Those that were let in are answered once all others were refused."""
    asked = [
        asyncio.create_task(load.ask(Question(number, "m", stream=number % 2 == 0)))
        for number in range(first, first + ASKED)
    ]
    ended = asyncio.as_completed(asked)
    for _ in range(ASKED - 2 * PLACES):
        await next(ended)
    busy.gate.release(2 * PLACES)
    return await asyncio.gather(*asked)


@pytest.mark.parametrize("kind", ["target", "model", "server"])
async def test_only_200_and_503(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path, kind: str
) -> None:
    one.default = busy = Busy()
    two.default = chat_answer("nobody asks for this one")
    async with (
        served(tmp_path, limited(kind, one, two)) as server,
        httpx.AsyncClient() as http,
        loading(server.port) as load,
    ):
        async with watched(server.port) as times:
            for number in range(WAVES):  # each finds all places free again
                await wave(load, busy, number * ASKED)
        p95 = quantiles(times, n=20)[-1]
        print(
            f"{kind}: /health answered {len(times)} times, p95 {p95 * 1000:.1f} ms,"
            f" at most {max(times) * 1000:.1f} ms"
        )
        ends = Counter(outcome.end for outcome in load.outcomes)
        assert ends == {
            End.ANSWERED: WAVES * 2 * PLACES,
            End.ERROR: WAVES * (ASKED - 2 * PLACES),
        }, [str(each) for each in load.outcomes if each.end is End.WRONG]
        for outcome in load.outcomes:
            assert outcome.head is not None
            if outcome.end is End.ERROR:
                assert (outcome.status, outcome.word) == (503, "overloaded")
                assert int(outcome.head.header("retry-after") or "") >= 1
                assert outcome.head.header("x-should-retry") is None
            else:
                assert outcome.head.header("x-roundhouse-attempts") == "1"
                assert outcome.head.header("x-roundhouse-fallback-from") is None
        assert busy.most == PLACES
        assert len(one.requests) == ends[End.ANSWERED]
        assert two.requests == []  # our own overload is no reason to fall back
        for name, labels, value in (
            ("shed_total", {"reason": f"{kind}_queue"}, ends[End.ERROR]),
            ("shed_total", {}, ends[End.ERROR]),
            ("requests_total", {"endpoint": "chat", "status": "200"}, ends[End.ANSWERED]),
            ("requests_total", {"endpoint": "chat", "status": "503"}, ends[End.ERROR]),
            ("queue_wait_seconds_count", {"kind": kind}, ends[End.ANSWERED]),
            ("attempts_total", {"outcome": "ok"}, ends[End.ANSWERED]),
            ("attempts_total", {}, ends[End.ANSWERED]),
            ("fallbacks_total", {}, 0),
            ("queue_depth", {}, 0),
            ("requests_in_flight", {}, 0),
        ):
            assert await server.metric(name, http, **labels) == value, name
