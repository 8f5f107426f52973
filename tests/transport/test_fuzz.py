"""Peers that say anything: whatever they do, an answer comes out whole or as a known error.

The oracle has four parts. What is a valid answer comes out byte for byte, however it is cut. What
is not comes out as an UpstreamError with a known outcome, or as what h11 reads in it, too. Nothing
hangs. And the next request gets its own answer, never over a connection whose answer was broken.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import UpstreamError
from server.transport import AttemptTimeouts, Transport
from tests.transport.asking import OUTCOMES, Act, ask, raw

#: The same lines thousands of times: the other tests of this folder measure them.
pytestmark = pytest.mark.no_cover
TIMES = AttemptTimeouts(connect=2, first_byte=0.15, inter_chunk=0.15)
PATIENT = AttemptTimeouts(connect=20, first_byte=20, inter_chunk=20)
FUZZ = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

bodies = st.one_of(st.binary(max_size=64), st.integers(0, 200_000).map(lambda n: b"x" * n))
ends = st.sampled_from(["close", "reset", "half"] * 3 + ["hang"])


@st.composite
def valid(draw: Any) -> tuple[bytes, bytes, bool]:
    """(the bytes of an answer, its body, whether it ends with the connection)."""
    body = draw(bodies)
    interims = b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * draw(st.integers(0, 3))
    extra = b"".join(
        b"x-%d: %s\r\n" % (n, b"v" * draw(st.integers(0, 300))) for n in range(draw(_few))
    )
    head = interims + b"HTTP/1.1 %d X\r\n" % draw(st.sampled_from([200, 404, 500])) + extra
    kind = draw(st.sampled_from(["length", "chunked", "close"]))
    if kind == "length":
        return head + b"content-length: %d\r\n\r\n" % len(body) + body, body, False
    if kind == "close":
        return head + b"\r\n" + body, body, True
    data, rest = head + b"transfer-encoding: chunked\r\n\r\n", body
    while rest:
        size = draw(st.integers(1, max(1, len(rest))))
        extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
        data += b"%x%b\r\n%b\r\n" % (size, extension, rest[:size])
        rest = rest[size:]
    trailers = b"x-t: v\r\n" * draw(_few)
    return data + b"0\r\n" + trailers + b"\r\n", body, False


_few = st.integers(0, 3)


def cut(data: bytes, seed: int, most: int = 12) -> list[Act]:
    """In random pieces, with turns of the loop between some of them."""
    rng = random.Random(seed)
    places = sorted(rng.sample(range(1, len(data)), min(rng.randrange(most), len(data) - 1)))
    acts: list[Act] = []
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        acts.append(data[start:stop])
        if rng.random() < 0.7:
            acts.append("turn")
    return acts


async def outcome(
    transport: Transport,
    url: str,
    body: bytes,
    *,
    times: AttemptTimeouts = PATIENT,
    stream: bool = False,
) -> bytes | str:
    """The whole body, or the outcome of the error; anything else fails the test."""
    async with asyncio.timeout(60):
        try:
            response = await ask(transport, url, body, times=times)
            try:
                patience = times.inter_chunk
                response.expect(time.monotonic() + patience, patience)
                if not stream:
                    return await response.read_all(1 << 24)
                parts: list[bytes] = []

                def take(data: bytes) -> bool:
                    parts.append(data)
                    return len(parts) % 3 != 0 or not data

                while not parts or parts[-1]:
                    await response.stream(take)
                return b"".join(parts)
            finally:
                response.close()
        except UpstreamError as error:
            return error.outcome


async def play(script: list[Act], *, stream: bool = False) -> bytes | str:
    """What comes of the script; and the next two requests get their own answers."""
    transport = Transport()
    try:
        async with raw(script) as server:
            # Only a peer that hangs is waited for; a slow machine must not look like one.
            times = TIMES if "hang" in script else PATIENT
            got = await outcome(transport, server.url, b"first", times=times, stream=stream)
            server.scripts.clear()  # where it was not even asked
            # What is still on its way when the next request goes out, nobody could tell apart.
            for peer in server.peers:
                if peer.asked:
                    await peer.said.wait()
            for _ in range(6):
                await asyncio.sleep(0)
            for n in range(2):
                said = b"own answer %d" % n
                server.default = [b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + said]
                after = await outcome(transport, server.url, b"next %d" % n)
                assert after == said
            first = [number for number, body in server.requests if body == b"first"]
            later = [number for number, body in server.requests if body != b"first"]
            if isinstance(got, str):
                assert got in OUTCOMES
                assert not set(first) & set(later), "the connection of a broken answer was kept"
            return got
    finally:
        await transport.close()


@FUZZ
@given(answer=valid(), seed=st.integers(0, 1 << 30), stream=st.booleans())
async def test_valid_answers_cut_anywhere(
    answer: tuple[bytes, bytes, bool], seed: int, stream: bool
) -> None:
    data, body, until_close = answer
    script = [*cut(data, seed), *(["close"] if until_close else [])]
    assert await play(script, stream=stream) == body  # type: ignore[arg-type]


@FUZZ
@given(answer=valid(), at=st.floats(0, 1), end=ends, seed=st.integers(0, 1 << 30))
async def test_valid_answers_that_end_early(
    answer: tuple[bytes, bytes, bool], at: float, end: Any, seed: int
) -> None:
    data, body, until_close = answer
    data = data[: int(at * len(data))]
    got = await play([*(cut(data, seed) if data else []), end])
    if isinstance(got, bytes):
        assert body.startswith(got)
        if not until_close:
            assert got == body  # a cut behind the last byte that matters
        else:
            assert end in ("close", "half")


@FUZZ
@given(answer=valid(), extra=st.binary(min_size=1, max_size=200), turn=st.booleans(), end=ends)
async def test_bytes_behind_an_answer(
    answer: tuple[bytes, bytes, bool], extra: bytes, turn: bool, end: Any
) -> None:
    data, body, until_close = answer
    script: list[Act] = [data, "turn", extra] if turn else [data + extra]
    got = await play([*script, end])
    if until_close:
        assert got == body + extra if end in ("close", "half") else isinstance(got, str)
    elif end == "reset":
        assert got in (body, "reset", "truncated")  # what a reset leaves of a read
    else:
        assert got == body


def reference(data: bytes) -> bytes | None:
    """The body as h11 reads it, up to the end of the connection; None for what it refuses."""
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    peer.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    peer.send(h11.EndOfMessage())
    got = b""
    try:
        peer.receive_data(data)
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                peer.receive_data(b"")
            elif isinstance(event, h11.Data):
                got += event.data
            elif isinstance(event, h11.EndOfMessage):
                return got
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b"101",
    b"content-length: 3\r\n", b"content-length: 1\r\n", b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n", b"connection: close\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", b";", b",", b"\xff", b"1",
]  # fmt: skip


@settings(FUZZ, max_examples=300)
@given(
    answer=valid().filter(lambda made: len(made[0]) < 3000),
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from(PIECES)),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 1 << 30),
    end=st.sampled_from(["close", "half"]),
)
async def test_mutated_answers(
    answer: tuple[bytes, bytes, bool], changes: list[Any], seed: int, end: Any
) -> None:
    data = answer[0]
    for at, removed, put in changes:
        place = int(at * len(data))
        data = data[:place] + put + data[place + removed :]
    got = await play([*cut(data, seed), "turn", end])
    if isinstance(got, bytes):
        also = reference(data)
        assert also is None or also == got


@FUZZ
@given(data=st.binary(min_size=1, max_size=300), end=ends, seed=st.integers(0, 1 << 30))
async def test_garbage(data: bytes, end: Any, seed: int) -> None:
    assert await play([*cut(data, seed), end]) in OUTCOMES


@FUZZ
@given(
    acts=st.lists(
        st.one_of(st.sampled_from(PIECES), st.just("turn"), ends), min_size=0, max_size=12
    )
)
async def test_any_order_of_pieces_and_ends(acts: list[Any]) -> None:
    data = b"".join(act for act in acts if isinstance(act, bytes))
    got = await play([*acts, "close"])
    if isinstance(got, bytes) and (also := reference(data)) is not None:
        assert also.startswith(got)


@pytest.mark.parametrize("end", ["close", "reset", "half"])
@pytest.mark.parametrize("form", ["length", "chunked"])
async def test_an_answer_cut_off_at_every_byte(end: Any, form: str) -> None:
    if form == "length":
        data = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    else:
        data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for at in range(len(data)):
        assert await play([data[:at], "turn", end] if at else [end]) in ("reset", "truncated")
