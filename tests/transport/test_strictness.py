"""What is taken for an answer, and what is not: where two readers could see two answers."""

from __future__ import annotations

import asyncio
import time

import pytest

from server.errors import UpstreamError
from server.transport import AttemptTimeouts, Transport
from server.transport.answer import HEAD_LIMIT
from tests.transport.asking import Act, RawServer, answer, ask, raw, rest_of, whole

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
TIMES = AttemptTimeouts(5, 5, 5)

#: Good, and its connection serves the next request, too.
KEPT: dict[str, tuple[bytes, bytes]] = {
    "length": (answer(b"abc"), b"abc"),
    "nothing": (answer(b""), b""),
    "space behind the length": (OK + b"content-length: 2 \r\n\r\nab", b"ab"),
    "capitals": (OK + b"CONTENT-LENGTH: 2\r\n\r\nab", b"ab"),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "latin-1 in a header": (answer(b"ab", b"x: caf\xe9"), b"ab"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n", b""),
    "chunks": (CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    "chunk extension": (CHUNKED + b"2;a=b\r\nab\r\n0\r\n\r\n", b"ab"),
    "trailers": (CHUNKED + b"2\r\nab\r\n0\r\nx: y\r\n\r\n", b"ab"),
    "capital Chunked": (OK + b"Transfer-Encoding: Chunked \r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" * 16 + answer(b"ab"), b"ab"),
    "early hints": (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + answer(b"ab"), b"ab"),
    "interim with a length": (
        b"HTTP/1.1 103 Hints\r\ncontent-length: 5\r\n\r\n" + answer(b"ab"),
        b"ab",
    ),
    "lines before": (b"\r\n\r\n" + answer(b"ab"), b"ab"),
    "1.0 that keeps": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab",
        b"ab",
    ),
    "a large head": (answer(b"ab", b"x: " + b"h" * 60_000), b"ab"),
    "a large answer in one read": (answer(b"x" * 200_000), b"x" * 200_000),
}

#: Good, but its connection is of no more use.
DROPPED: dict[str, tuple[bytes, bytes]] = {
    "until close": (OK + b"\r\nabc", b"abc"),
    "until close, nothing": (OK + b"\r\n", b""),
    "asked to close": (answer(b"ab", b"connection: close"), b"ab"),
    "asked twice": (answer(b"ab", b"connection: keep-alive", b"Connection: close"), b"ab"),
    "1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab"),
    "1.0 in chunks": (
        CHUNKED.replace(b"1.1", b"1.0", 1).replace(b"\r\n", b"\r\nconnection: keep-alive\r\n", 1)
        + b"2\r\nab\r\n0\r\n\r\n",
        b"ab",
    ),
    "a second answer behind": (answer(b"ab") + answer(b"poison"), b"ab"),
    "half a second answer": (answer(b"ab") + b"HTTP/1.1 2", b"ab"),
    "one byte behind": (answer(b"ab") + b"H", b"ab"),
    "garbage behind": (answer(b"ab") + b"\x00\x01", b"ab"),
    "longer than said": (OK + b"content-length: 2\r\n\r\nabpoison", b"ab"),
    "a body of no content": (b"HTTP/1.1 204 N\r\ncontent-length: 5\r\n\r\npoison", b""),
    "behind the last chunk": (CHUNKED + b"1\r\na\r\n0\r\n\r\npoison", b"a"),
}

#: No answers at all.
REFUSED: dict[str, bytes] = {
    "0.9": b"<html>poison</html>",
    "0.9 said": b"HTTP/0.9 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "2.0 that keeps": b"HTTP/2.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
    "1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "small http": b"http/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "status 0": b"HTTP/1.1 000 OK\r\ncontent-length: 6\r\n\r\npoison",
    "status 99": b"HTTP/1.1 099 OK\r\ncontent-length: 6\r\n\r\npoison",
    "four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 6\r\n\r\npoison",
    "another protocol": b"HTTP/1.1 101 S\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\npoison",
    "101 and nothing else": b"HTTP/1.1 101 S\r\n\r\n" + answer(b"poison"),
    "interim without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + answer(b"poison"),
    "two lengths": OK + b"content-length: 6\r\ncontent-length: 2\r\n\r\npoison",
    "the same length twice": OK + b"content-length: 6\r\ncontent-length: 6\r\n\r\npoison",
    "lengths in a list": OK + b"content-length: 6, 6\r\n\r\npoison",
    "no number": OK + b"content-length: six\r\n\r\npoison",
    "a sign": OK + b"content-length: +6\r\n\r\npoison",
    "hex": OK + b"content-length: 0x6\r\n\r\npoison",
    "an empty length": OK + b"content-length: \r\n\r\npoison",
    "a length beyond all": OK + b"content-length: 99999999999999999999999\r\n\r\npoison",
    "length and chunks": OK
    + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "chunks and length": OK
    + b"transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "gzip": OK + b"transfer-encoding: gzip\r\n\r\npoison",
    "gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "chunked in two lines": OK
    + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "xchunked": OK + b"transfer-encoding: xchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "a tab behind chunked": OK + b"transfer-encoding: chunked\t\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "a sign behind chunked": OK + b"transfer-encoding: chunked\x0b\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "identity": OK + b"transfer-encoding: identity\r\n\r\npoison",
    "folded": OK + b"x: a\r\n b\r\ncontent-length: 6\r\n\r\npoison",
    "folded length": OK + b"content-length:\r\n 6\r\n\r\npoison",
    "folded coding": OK + b"transfer-encoding:\r\n chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "bare LF behind the status": b"HTTP/1.1 200 OK\ncontent-length: 6\r\n\r\npoison",
    "bare LF behind a header": OK + b"x: a\ncontent-length: 6\r\n\r\npoison",
    "bare LF at the end": OK + b"content-length: 6\r\n\npoison",
    "bare CR": OK + b"x: a\rcontent-length: 1\r\ncontent-length: 6\r\n\r\npoison",
    "space before the colon": OK + b"content-length : 6\r\n\r\npoison",
    "space before a header": OK + b" content-length: 6\r\n\r\npoison",
    "no name": OK + b": 6\r\n\r\npoison",
    "NUL in a header": OK + b"x: a\0b\r\ncontent-length: 6\r\n\r\npoison",
    "a header that is no text": OK + b"x\xe9: a\r\ncontent-length: 6\r\n\r\npoison",
    "data behind an interim that closes": b"HTTP/1.1 100 C\r\nconnection: close\r\n\r\n"
    + answer(b"poison"),
    "a long head": answer(b"poison", b"x: " + b"h" * HEAD_LIMIT),
    "many headers": answer(b"poison", *[b"x-%d: %s" % (n, b"h" * 1000) for n in range(70)]),
}

#: Broken in the body: what came before the break, at most.
BROKEN: dict[str, tuple[bytes, bytes]] = {
    "bare LF behind a size": (CHUNKED + b"2\nab\r\n0\r\n\r\n", b""),
    "bare LF behind a chunk": (CHUNKED + b"2\r\nab\n0\r\n\r\n", b"ab"),
    "bare LF at the end": (CHUNKED + b"2\r\nab\r\n0\n\n", b"ab"),
    "bare LF in a trailer": (CHUNKED + b"2\r\nab\r\n0\r\nx: y\n\r\n", b"ab"),
    "a space behind a size": (CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", b""),
    "a CR too many": (CHUNKED + b"2\r\r\nab\r\n0\r\n\r\n", b""),
    "hex with 0x": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", b""),
    "a sign": (CHUNKED + b"-2\r\nab\r\n0\r\n\r\n", b""),
    "a size beyond all": (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nab", b""),
    "no size": (CHUNKED + b"\r\nab\r\n0\r\n\r\n", b""),
    "longer than its size": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", b"ab"),
    "no end of a chunk": (CHUNKED + b"2\r\nab0\r\n\r\n", b"ab"),
    "NUL in an extension": (CHUNKED + b"2;\0\r\nab\r\n0\r\n\r\n", b""),
    "LF in an extension": (CHUNKED + b'2;a="\n"\r\nab\r\n0\r\n\r\n', b""),
    "a length in a trailer": (CHUNKED + b"1\r\na\r\n0\r\ncontent-length: 9\r\n\r\n", b"a"),
    "a trailer that is none": (CHUNKED + b"1\r\na\r\n0\r\nfoo\r\n\r\n", b"a"),
    "an endless trailer": (CHUNKED + b"1\r\na\r\n0\r\nx: " + b"y" * 300_000, b"a"),
    "endless trailers": (CHUNKED + b"1\r\na\r\n0\r\n" + b"x: yyyy\r\n" * 40_000, b"a"),
    "an endless extension": (CHUNKED + b"1\r\na\r\n1;" + b"y" * 300_000, b"a"),
    "an endless size": (CHUNKED + b"1\r\na\r\n" + b"0" * 300_000, b"a"),
}


def cuts(data: bytes) -> list[list[Act]]:
    """All at once, and (what is not long) in single bytes."""
    if len(data) > 2000:
        third = len(data) // 3
        return [[data], [data[:third], "turn", data[third:-1], "turn", data[-1:]]]
    singly: list[Act] = []
    for at in range(len(data)):
        singly += [data[at : at + 1], "turn"]
    return [[data], singly]


async def next_is_right(transport: Transport, server: RawServer, *, kept: bool) -> None:
    """The next request gets its own answer, and not from a connection that is of no more use."""
    for peer in server.peers:  # whatever is on its way has arrived
        if not kept:
            await peer.gone.wait()
    before = len(server.peers)
    assert await whole(transport, server.url, b"next") == b"own"
    assert server.requests[-1][1] == b"next"
    assert (len(server.peers) == before) is kept


@pytest.mark.parametrize("name", KEPT)
async def test_good_answers(transport: Transport, name: str) -> None:
    data, body = KEPT[name]
    for script in cuts(data):
        async with raw(script) as server:
            assert await whole(transport, server.url) == body
            await next_is_right(transport, server, kept=True)


@pytest.mark.parametrize("name", DROPPED)
async def test_good_answers_on_connections_that_are_not_kept(
    transport: Transport, name: str
) -> None:
    data, body = DROPPED[name]
    for script in cuts(data):
        end: list[Act] = ["close"] if name.startswith("until close") else []
        async with raw([*script, *end]) as server:
            assert await whole(transport, server.url) == body
            await next_is_right(transport, server, kept=False)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_answer(transport: Transport, name: str) -> None:
    for script in cuts(REFUSED[name]):
        async with raw([*script, "hang"]) as server:
            with pytest.raises(UpstreamError) as caught:
                await ask(transport, server.url)
            assert (caught.value.outcome, caught.value.sent) == ("protocol", True)
            await next_is_right(transport, server, kept=False)


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_bodies(transport: Transport, name: str) -> None:
    data, before = BROKEN[name]
    for script in cuts(data):
        async with raw([*script, "hang"]) as server:
            response = await ask(transport, server.url)
            response.expect(time.monotonic() + 5)
            got, error = await rest_of(response)
            assert (error.outcome, got) == ("protocol", before)
            await next_is_right(transport, server, kept=False)


async def test_small_chunk_sizes_that_come_alone_are_no_fault(transport: Transport) -> None:
    """Each size in a read of its own, far more of them in all than a head may hold."""
    script: list[Act] = [CHUNKED]
    for _ in range(300):
        script += [b"0" * 600 + b"1\r\n", "turn", b"a\r\n", "turn"]
    async with raw([*script, b"0\r\n\r\n"]) as server:
        assert await whole(transport, server.url) == b"a" * 300
        await next_is_right(transport, server, kept=True)


async def test_a_head_in_small_pieces_ends_at_its_limit(transport: Transport) -> None:
    script: list[Act] = [OK, *[b"x: " + b"h" * 4000 + b"\r\n"] * 17, "hang"]
    async with raw(script) as server:
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, server.url)
        assert caught.value.outcome == "protocol"
        assert "head of more than" in str(caught.value.detail)


@pytest.mark.parametrize("said", [b"\r\n", b"H", answer(b"poison"), b"\x00", b"HTTP/1.1 408 T"])
async def test_unasked_bytes_on_an_idle_connection(transport: Transport, said: bytes) -> None:
    for turns in (0, 1, 5):
        async with raw() as server:
            assert await whole(transport, server.url) == b"own"
            server.peers[0].say(said)  # asyncio writes at once, uvloop at the end of the turn
            if turns or type(asyncio.get_running_loop()).__module__.startswith("asyncio"):
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert await whole(transport, server.url) == b"own"
                assert len(server.peers) == 2
            await server.peers[0].gone.wait()


async def test_a_peer_that_speaks_before_it_is_asked(transport: Transport) -> None:
    """It may be taken for the answer, since it could be one, but never for a later one."""
    for said in (answer(b"early"), b"SSH-2.0-x\r\n", b"H"):
        async with raw() as server:
            server.first = [said]
            try:
                came: bytes | str = await whole(transport, server.url)
            except UpstreamError as error:
                came = error.outcome
            assert came in (b"early", b"own", "refused", "protocol", "reset")
            assert await whole(transport, server.url, b"next") == b"own"


@pytest.mark.parametrize("status", [200, 404, 503, 599, 999])
async def test_statuses_come_as_they_are(transport: Transport, status: int) -> None:
    data = b"HTTP/1.1 %d X\r\ncontent-length: 1\r\n\r\na" % status
    async with raw([data]) as server:
        response = await ask(transport, server.url)
        assert (response.status, await response.read_all(9)) == (status, b"a")
