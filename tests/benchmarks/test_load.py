"""benchmarks.load: what is lost, doubled, cut or wrong is found; what is right is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from benchmarks import upstream
from benchmarks.load import closed as closed_load
from benchmarks.load.closed import Closed, closed
from benchmarks.load.paced import Paced, paced
from benchmarks.load.wire import BadAnswer, Place, Unchunker, check, request, unchunk
from benchmarks.upstream import Pace, Upstream, framed

JSON = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
SSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [event + b"\n\n" for event in upstream.STREAM.split(b"\n\n")[:-1]]


def whole(body: bytes = upstream.BODY) -> bytes:
    return JSON % len(body) + body


def streamed(events: list[bytes]) -> bytes:
    return SSE + b"".join(framed(event) for event in events) + b"0\r\n\r\n"


# --- answers ------------------------------------------------------------------------------------


def test_right_answers() -> None:
    check(whole(), stream=False)
    check(streamed(EVENTS), stream=True)
    # Written anew by a gateway: the text is what counts.
    other = {"choices": [{"message": {"content": upstream.TEXT}}], "id": "other"}
    check(whole(json.dumps(other).encode()), stream=False)
    check(streamed([event.replace(b"chatcmpl-mock", b"other") for event in EVENTS]), stream=True)
    # CR LF for line ends, a comment between events, one chunk for all.
    check(streamed([b": hello\n\n", *EVENTS]), stream=True)
    check(streamed([upstream.STREAM.replace(b"\n", b"\r\n")]), stream=True)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        pytest.param([*EVENTS[:5], *EVENTS[6:]], "not what was sent", id="lost"),
        pytest.param([*EVENTS[:6], *EVENTS[5:]], "not what was sent", id="doubled"),
        pytest.param([*EVENTS[:5], EVENTS[6], EVENTS[5], *EVENTS[7:]], "not what", id="swapped"),
        pytest.param(EVENTS[:-1], "no \\[DONE\\]", id="no end"),
        pytest.param(EVENTS[:10], "no \\[DONE\\]", id="cut"),
        pytest.param([*EVENTS[:5], b"data: {oops\n\n", *EVENTS[5:]], "no chunk", id="no JSON"),
        pytest.param([], "no \\[DONE\\]", id="nothing"),
    ],
)
def test_wrong_streams(events: list[bytes], says: str) -> None:
    with pytest.raises(BadAnswer, match=says):
        check(streamed(events), stream=True)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (whole(upstream.BODY.replace(b"token07", b"token70")), "not what was sent"),
        (whole(b'{"choices":[]}'), "no chat completion"),
        (whole(b"<html>"), "no chat completion"),
        (whole().replace(b"200 OK", b"503 No"), "status 503"),
        (b"garbage", "no HTTP answer"),
        (b"garbage and some more\r\n\r\n", "no HTTP answer"),
    ],
)
def test_wrong_answers(raw: bytes, says: str) -> None:
    with pytest.raises(BadAnswer, match=says):
        check(raw, stream=False)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 60, 10**6])
def test_the_chunked_coding_comes_off_at_any_cut(step: int) -> None:
    data = streamed(EVENTS)[len(SSE) :]
    chunks = Unchunker()
    found = b"".join(chunks.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert found == upstream.STREAM
    assert chunks.ended


@pytest.mark.parametrize("data", [b"5\r\nhel", b"5\r\nhello\r\n", b"zz\r\n", b""])
def test_a_chunked_coding_that_is_none(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        unchunk(data)


def test_requests_are_as_large_as_they_should_be() -> None:
    place = Place.of("http://127.0.0.1:80", {"authorization": "Bearer x"}, "m")
    head, _, body = request(place, stream=True, prompt=5000).partition(b"\r\n\r\n")
    said = json.loads(body)
    assert (said["model"], said["stream"]) == ("m", True)
    assert len(said["messages"][0]["content"]) == 5000
    assert b"authorization: Bearer x" in head
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"


# --- closed loops -------------------------------------------------------------------------------

Script = Callable[[int], list[bytes]]


@contextlib.asynccontextmanager
async def scripted(script: Script, *, close: bool = False) -> AsyncIterator[Place]:
    """A peer that writes what `script` gives for its n-th request, piece by piece."""
    count = 0
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        ended = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError)
        with contextlib.suppress(*ended):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                count += 1
                for piece in script(count):
                    writer.write(piece)
                    await writer.drain()
                if close:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Place("127.0.0.1", server.sockets[0].getsockname()[1], (), "mock")
    finally:
        server.close()
        while any(not task.done() for task in tasks):
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        for writer in writers:  # a cancelled task did not wait for it
            writer.transport.abort()
        await turns()


async def turns() -> None:
    """Closed transports let go of their sockets in turns of the loop to come."""
    for _ in range(5):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def mocked() -> AsyncIterator[tuple[Upstream, Place]]:
    mock = Upstream()
    server = await mock.listen()
    try:
        yield mock, Place("127.0.0.1", server.sockets[0].getsockname()[1], (), "mock")
    finally:
        server.close()
        mock.leave()
        while mock.peers:
            await asyncio.sleep(0)
        await turns()


async def short(place: Place, *, stream: bool = False, connections: int = 2) -> Closed:
    return await closed(
        place,
        stream=stream,
        prompt=50,
        connections=connections,
        warm_up=0.01,
        seconds=0.04,
        at_least=4,
        longest=5.0,
        leave=0.05,
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_good_answers_are_counted(stream: bool) -> None:
    async with mocked() as (_, place):
        found = await short(place, stream=stream)
    assert (found.errors, found.first_error, found.unfinished) == (0, "", 0)
    assert len(found.total) == len(found.first) >= 4
    assert all(first <= total for first, total in zip(found.first, found.total, strict=True))
    assert found.rate == len(found.total) / found.seconds


@pytest.mark.parametrize("step", [1, 40])
async def test_answers_in_pieces(step: int) -> None:
    data = streamed(EVENTS)
    async with scripted(lambda _: [data[at : at + step] for at in range(0, len(data), step)]) as at:
        found = await short(at, stream=True, connections=1)
    assert (found.errors, found.first_error) == (0, "")
    assert len(found.total) >= 4


@pytest.mark.parametrize(
    ("bad", "stream"),
    [
        pytest.param(streamed([*EVENTS[:5], *EVENTS[6:]]), True, id="lost"),
        pytest.param(streamed([*EVENTS[:6], *EVENTS[5:]]), True, id="doubled"),
        pytest.param(streamed(EVENTS[:9]), True, id="cut"),
        pytest.param(whole(upstream.BODY.replace(b"token07", b"token70")), False, id="wrong"),
        pytest.param(whole().replace(b"200 OK", b"500 No"), False, id="status"),
    ],
)
async def test_every_second_answer_is_bad(bad: bytes, stream: bool) -> None:
    good = streamed(EVENTS) if stream else whole()
    async with scripted(lambda count: [bad if count % 2 else good]) as place:
        found = await short(place, stream=stream)
    assert found.errors > 0
    assert found.first_error
    # One goes out while the other is read: they can differ by what was under way at the ends.
    assert abs(found.errors - len(found.total)) <= 4


async def test_a_connection_that_breaks_off_in_mid_answer() -> None:
    async with scripted(lambda _: [whole()[:-20]], close=True) as place:
        found = await short(place)
    assert found.total == []
    assert "in mid-answer" in found.first_error


async def test_a_connection_that_says_close_is_no_error() -> None:
    said = whole().replace(b"Content", b"Connection: close\r\nContent", 1)
    async with scripted(lambda _: [said], close=True) as place:
        found = await short(place)
    assert (found.errors, found.first_error) == (0, "")
    assert len(found.total) >= 4


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_load, "_AGAIN", 0.01)
    async with scripted(lambda _: []) as place:
        pass
    found = await short(place)
    assert found.total == []
    assert found.errors > 0
    assert "no connection" in found.first_error


async def test_answers_that_never_come_are_unfinished() -> None:
    async with scripted(lambda _: [whole()[:-1]]) as place:
        found = await closed(
            place,
            stream=False,
            prompt=5,
            connections=3,
            warm_up=0,
            seconds=0.05,
            longest=0.05,
            leave=0.02,
        )
    assert (found.total, found.errors, found.unfinished) == ([], 0, 3)


async def test_a_slow_peer_is_waited_for() -> None:
    """Both times are over long before the first answer."""
    calls = 0

    def script(count: int) -> list[bytes]:
        nonlocal calls
        calls = count
        return [whole()]

    async with scripted(script) as place:
        found = await closed(
            place,
            stream=False,
            prompt=5,
            connections=1,
            warm_up=0,
            seconds=0,
            at_least=7,
            longest=9,
        )
    assert len(found.total) >= 7
    assert calls >= 14  # as many before, uncounted


async def test_the_window_is_called_at_both_ends() -> None:
    seen: list[int] = []
    async with scripted(lambda count: [whole()]) as place:
        await closed(
            place, stream=False, prompt=5, connections=1, warm_up=0.01, seconds=0.05,
            window=lambda: seen.append(1),
        )  # fmt: skip
    assert len(seen) == 2


# --- paced streams ------------------------------------------------------------------------------


def stamp(number: int) -> bytes:
    return framed(upstream.event(f'{{"content":"{number:05d}.{number:016d}.{number:016d}"}}'))


async def few(place: Place, *, streams: int = 2, begin_within: float = 5.0) -> Paced:
    return await paced(
        place, streams=streams, prompt=20, warm_up=0.03, seconds=0.05, begin_within=begin_within
    )


async def test_paced_streams_are_whole() -> None:
    async with mocked() as (mock, place):
        mock.pace = Pace(rate=100, chunks=90_000)
        found = await few(place, streams=30)
        while mock.open_streams:
            await asyncio.sleep(0)
    assert (found.begun, found.errors, found.silent, found.first_error) == (30, 0, 0, "")
    assert (found.lost, found.doubled) == (0, 0)
    assert found.chunks == len(found.late) == len(found.added) > 0
    assert all(late >= added > 0 for late, added in zip(found.late, found.added, strict=True))


@pytest.mark.parametrize("step", [1, 13, 10**6])
@pytest.mark.parametrize(
    ("numbers", "lost", "doubled"),
    [
        ([0, 1, 2, 3], 0, 0),
        ([0, 2, 3], 1, 0),
        ([0, 1, 1, 2], 0, 1),
        ([0, 1, 2, 1, 2, 3], 0, 2),
        ([0, 5], 4, 0),
    ],
)
async def test_lost_and_doubled_chunks(
    numbers: list[int], lost: int, doubled: int, step: int
) -> None:
    data = SSE + b"".join(map(stamp, numbers))
    async with scripted(lambda _: [data[at : at + step] for at in range(0, len(data), step)]) as at:
        found = await few(at, streams=1)
    assert (found.lost, found.doubled, found.errors) == (lost, doubled, 0)


async def test_a_seam_of_two_chunks_within_a_stamp_loses_nothing() -> None:
    event = upstream.event('{"content":"00000.0000000000000000.0000000000000000"}')
    half = len(event) // 2
    data = [SSE, framed(event[:half]), framed(event[half:]), stamp(1)]
    async with scripted(lambda _: data) as place:
        found = await few(place, streams=1)
    assert (found.lost, found.doubled, found.errors) == (0, 0, 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (SSE + stamp(0) + b"0\r\n\r\n", "ended early"),
        (b"HTTP/1.1 429 No\r\nContent-Length: 4\r\n\r\nbusy", "429"),
        (SSE + stamp(0) + b"nonsense\r\n", "no size of a chunk"),
    ],
)
async def test_streams_that_fail(data: bytes, says: str) -> None:
    async with scripted(lambda _: [data]) as place:
        found = await few(place)
    assert found.errors == 2
    assert says in found.first_error


async def test_streams_that_break_off() -> None:
    async with scripted(lambda _: [SSE + stamp(0)], close=True) as place:
        found = await few(place)
    assert found.errors == 2
    assert "connection lost" in found.first_error


async def test_streams_that_do_not_begin() -> None:
    async with scripted(lambda _: []) as place:
        found = await few(place, begin_within=0.05)
    assert (found.begun, found.errors) == (0, 2)
    assert "2 streams did not begin" in found.first_error


async def test_streams_that_fall_silent() -> None:
    async with scripted(lambda _: [SSE + stamp(0)]) as place:
        found = await paced(place, streams=2, prompt=9, warm_up=0.05, seconds=0.05, silence=0.01)
    assert (found.begun, found.silent, found.errors) == (2, 2, 0)


async def test_no_stream_at_all() -> None:
    async with scripted(lambda _: []) as place:
        pass
    found = await few(place)
    assert (found.begun, found.errors) == (0, 2)
    assert "no connection" in found.first_error
