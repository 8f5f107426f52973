"""One client's connection: its idle clock, and the way of a large body past the parser."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from server.api.connection import Protocol
from tests.api.conftest import ASK, KEY, Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_answer, chat_stream

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: bytes, more: str = "", path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def large(size: int, fill: str = "a") -> bytes:
    return json.dumps({**ASK, "user": fill * size}, ensure_ascii=False).encode()


async def test_a_request_begun_within_the_answer_before_is_not_idle(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Half its head came before that answer was complete, the rest after it."""
    server = await serve(config_of(upstream, server={"timeouts": {"keep_alive": "1s"}}))
    first, second = Gate(), Gate()
    upstream.queue(chat_answer("one", gate=first), chat_stream(["a", "b"], gate=second))
    asked = post(json.dumps({**ASK, "stream": True}).encode())
    async with RawClient(port=port_of(server)) as client:
        await client.send(post(json.dumps(ASK).encode()) + asked[:20])
        await upstream.next_request()
        first.open()
        assert (await client.read_head()).status == 200
        await client.read_body()
        await client.send(asked[20:])
        await upstream.next_request()
        await asyncio.sleep(1.3)
        second.open()
        assert (await client.read_head()).status == 200
        assert (await client.read_body()).endswith(b"[DONE]\n\n")


def chunked(body: bytes, rng: random.Random) -> bytes:
    out = [
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
    ]
    at = 0
    while at < len(body):
        piece = body[at : at + rng.randrange(1, 60_000)]
        out.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += len(piece)
    return b"".join([*out, b"0\r\n\r\n"])


@pytest.mark.parametrize("seed", range(4))
async def test_large_bodies_one_behind_the_other(
    serve: Serve, upstream: ScriptedUpstream, seed: int
) -> None:
    """Past the parser and through it, in pieces of any size: each request gets its own."""
    server = await serve(config_of(upstream))
    rng = random.Random(seed)
    upstream.default = chat_answer("x")
    bodies = [large(size, "é") for size in (100, 40_000, 150_000, 300_000, 33_000)]
    upgrade = "connection: upgrade\r\nupgrade: h2c\r\n"
    sent = [
        rng.choice([post(body), post(body, upgrade), chunked(body, rng)])
        + rng.choice([HEALTH, b""])
        for body in bodies
    ]
    answers = sum(1 + piece.endswith(HEALTH) for piece in sent)
    data = b"".join(sent)

    async def send(client: RawClient) -> None:
        at = 0
        while at < len(data):
            size = rng.choice([1, 70, 5_000, 65_537, 200_000])
            await client.send(data[at : at + size])
            at += size
            if rng.random() < 0.3:
                await asyncio.sleep(0.002)

    async with RawClient(port=port_of(server)) as client:
        sending = asyncio.create_task(send(client))
        for _ in range(answers):
            assert (await client.read_head()).status == 200
            await client.read_body()
        await sending
    assert [len(asked.json()["user"]) for asked in upstream.requests] == [
        len(json.loads(body)["user"]) for body in bodies
    ]
    assert server.services.budget.held == 0


@pytest.mark.parametrize("why", ["no key", "too large", "no text"])
async def test_an_answer_before_its_large_body_is_in(
    serve: Serve, upstream: ScriptedUpstream, why: str
) -> None:
    """What is left of the body is not the next request."""
    keys = [{"name": "tests", "key": KEY}]
    server = await serve(config_of(upstream, server={"keys": keys, "limits": {"body": "1MiB"}}))
    body = large(900_000)
    if why == "too large":
        body = large(3_000_000)
    elif why == "no text":
        body = body[:200_000] + b"\xff" + body[200_000:]
    key = "" if why == "no key" else f"authorization: Bearer {KEY}\r\n"
    sent = post(body, key)
    upstream.default = chat_answer("x")
    async with RawClient(port=port_of(server)) as client:
        await client.send(sent[:210_000])
        head = await client.read_head()
        await client.read_body()
        assert head.status == {"no key": 401, "too large": 413, "no text": 400}[why]
        sending = asyncio.create_task(
            client.send(sent[210_000:] + HEALTH + post(large(80_000), f"x-api-key: {KEY}\r\n"))
        )
        for _ in range(2):
            assert (await client.read_head()).status == 200
            await client.read_body()
        await sending
    assert server.services.budget.held == 0


@pytest.mark.parametrize("size", [20, 100_000, 1_500_000])
@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
async def test_a_client_that_goes(
    serve: Serve, upstream: ScriptedUpstream, size: int, part: float
) -> None:
    """In its body or behind it: counted once, and nothing is held any more."""
    server = await serve(config_of(upstream))
    upstream.default = chat_answer("x", gate=Gate())
    body = large(size)
    sent = post(body)
    end = len(sent) - len(body) + int(len(body) * part)
    async with RawClient(port=port_of(server)) as client:
        await client.send(sent[:end])
        if part == 1.0:
            await upstream.next_request()
        else:
            await asyncio.sleep(0.05)
        client.abort()
    ended = 0.0
    async with asyncio.timeout(3):
        while not ended:
            await asyncio.sleep(0.01)
            ended = sum(
                sample.value
                for metric in server.metrics.requests.collect()
                for sample in metric.samples
                if sample.labels["status"] == "499"
            )
    assert ended == 1
    assert server.services.budget.held == 0
    assert not server.services.open
    assert all(child.value == 0 for child in server.metrics.in_flight.series.values())


@pytest.mark.no_cover
async def test_a_flood_of_requests_waits_outside(serve: Serve, upstream: ScriptedUpstream) -> None:
    """What one read brought may wait in the queue; more is read when that has been answered."""
    server = await serve(config_of(upstream))
    times = 25_000
    async with RawClient(port=port_of(server)) as client:
        sending = asyncio.create_task(client.send(HEALTH * times))
        queued = 0
        for _ in range(times):
            assert (await client.read_head()).status == 200
            await client.read_body()
            for connection in server._listeners[0]._server.server_state.connections:
                assert isinstance(connection, Protocol)
                queued = max(queued, len(connection.pipeline))
        await sending
    assert queued < 10_000  # of 33 bytes each, in 256 KiB
