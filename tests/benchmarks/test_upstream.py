"""benchmarks.upstream: the mock answers, streams and paces, however its requests are cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator

import pytest

from benchmarks import upstream
from benchmarks.load.wire import Place, Unchunker, request
from benchmarks.upstream import Pace, Upstream

STAMP = re.compile(rb'"(\d{5})\.(\d{16})\.(\d{16})"')


@contextlib.asynccontextmanager
async def mock() -> AsyncIterator[tuple[Upstream, Place]]:
    made = Upstream()
    server = await made.listen()
    port = server.sockets[0].getsockname()[1]
    try:
        yield made, Place("127.0.0.1", port, (), "mock")
    finally:
        server.close()
        made.leave()
        while made.peers:
            await asyncio.sleep(0)


class Caller:
    """A client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)  # so that most of them arrive as reads of their own

    async def answer(self) -> tuple[bytes, bytes]:
        """(head, body) of one answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        if found:
            return head, await self.reader.readexactly(int(found[1]))
        chunks, body = Unchunker(), b""
        while not chunks.ended:
            line = await self.reader.readuntil(b"\r\n")
            body += chunks.feed(line)
            if not chunks.ended:
                body += chunks.feed(await self.reader.readexactly(int(line, 16) + 2))
        assert await self.reader.readexactly(2) == b"\r\n"
        return head, body


@contextlib.asynccontextmanager
async def caller(place: Place) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection(place.host, place.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("step", [1, 37, 100_000])
async def test_whole_answers(step: int) -> None:
    async with mock() as (made, place), caller(place) as client:
        for _ in range(2):
            await client.send(*cut(request(place, stream=False, prompt=300), step))
            head, body = await client.answer()
            assert head.startswith(b"HTTP/1.1 200")
            assert body == upstream.BODY
        assert made.requests == 2
    said = json.loads(upstream.BODY)
    assert said["choices"][0]["message"]["content"] == upstream.TEXT
    assert said["usage"]["completion_tokens"] == upstream.TOKENS


async def test_streams_at_once() -> None:
    async with mock() as (_, place), caller(place) as client:
        await client.send(request(place, stream=True, prompt=10))
        head, body = await client.answer()
    assert b"text/event-stream" in head
    assert body == upstream.STREAM
    blocks = body.decode().split("\n\n")
    assert (len(blocks), blocks[-2:]) == (36, ["data: [DONE]", ""])
    said = [json.loads(block.removeprefix("data: "))["choices"][0] for block in blocks[:-2]]
    assert "".join(one["delta"].get("content", "") for one in said) == upstream.TEXT
    assert [one["finish_reason"] for one in said] == [None] * 33 + ["stop"]


async def test_a_space_in_the_json_is_no_matter() -> None:
    async with mock() as (_, place), caller(place) as client:
        body = json.dumps({"model": "mock", "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        await client.send(head + body)
        assert (await client.answer())[1] == upstream.STREAM


@pytest.mark.parametrize("step", [4096, 65_536, 10**7])
async def test_large_bodies(step: int) -> None:
    async with mock() as (made, place), caller(place) as client:
        await client.send(*cut(request(place, stream=False, prompt=1_000_000), step))
        assert (await client.answer())[1] == upstream.BODY
        assert made.requests == 1


@pytest.mark.parametrize("step", [1, 10**7])
async def test_chunked_bodies(step: int) -> None:
    body = b'{"model":"mock","stream":true}'
    data = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + upstream.framed(body)
        + b"0\r\n\r\n"
    )
    async with mock() as (_, place), caller(place) as client:
        await client.send(*cut(data, step))
        assert (await client.answer())[1] == upstream.STREAM


@pytest.mark.parametrize("step", [50, 10**7])
async def test_requests_that_do_not_wait(step: int) -> None:
    whole = request(place := Place("127.0.0.1", 1, (), "mock"), stream=False, prompt=20)
    streamed = request(place, stream=True, prompt=20)
    async with mock() as (made, at), caller(at) as client:
        await client.send(*cut(whole + streamed + whole, step))
        answers = [(await client.answer())[1] for _ in range(3)]
        assert made.requests == 3
    assert answers == [upstream.BODY, upstream.STREAM, upstream.BODY]


async def test_anything_else_is_well() -> None:
    async with mock() as (made, place), caller(place) as client:
        for path in (b"/health", b"/v1/models"):
            await client.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            head, body = await client.answer()
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["data"][0]["id"] == "mock"
        assert made.requests == 0


async def test_pace() -> None:
    async with mock() as (made, place), caller(place) as client:
        made.pace = Pace(rate=500, chunks=20)
        await client.send(request(place, stream=True, prompt=10))
        _, body = await client.answer()
        stamps = [(int(n), int(due), int(sent)) for n, due, sent in STAMP.findall(body)]
        assert [number for number, _, _ in stamps] == list(range(20))
        # Due at even distances, whatever the loop did; never sent before.
        gaps = {after[1] - before[1] for before, after in itertools.pairwise(stamps)}
        assert gaps <= {1_999_999, 2_000_000, 2_000_001}
        assert all(sent >= due for _, due, sent in stamps)
        assert body.endswith(b"data: [DONE]\n\n")
        assert (made.chunks_sent, made.open_streams) == (20, 0)


async def test_hanging_up() -> None:
    async with mock() as (made, place), caller(place) as client:
        made.pace = Pace(rate=100, chunks=90_000)
        await client.send(request(place, stream=True, prompt=10))
        await client.reader.readuntil(b"\r\n\r\n")
        assert made.open_streams == 1
        assert made.hang_up() == 1
        with contextlib.suppress(ConnectionError):
            while await client.reader.read(65_536):
                pass
        while made.open_streams:
            await asyncio.sleep(0)


async def test_a_client_that_leaves_ends_its_stream() -> None:
    async with mock() as (made, place):
        made.pace = Pace(rate=100, chunks=90_000)
        async with caller(place) as client:
            await client.send(request(place, stream=True, prompt=10))
            await client.reader.readuntil(b"\r\n\r\n")
        while made.open_streams:
            await asyncio.sleep(0)
        assert made.hang_up() == 0
