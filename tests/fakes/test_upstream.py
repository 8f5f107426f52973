"""The fake keeps its word: framing, faults as the kernel shows them, and time by events."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
from pathlib import Path

import pytest

from tests.fakes.client import Head, RawClient
from tests.fakes.http1 import PeerGone
from tests.fakes.tls import make_tls
from tests.fakes.upstream import (
    Exchange,
    Gate,
    Script,
    ScriptedUpstream,
    Step,
    answer_json,
    bad_utf8,
    before_body,
    chat_answer,
    chat_stream,
    close,
    closed_port,
    closed_socket,
    comment,
    completion_stream,
    cut_chunk,
    embeddings_answer,
    endless_line,
    error_event,
    finish_connection,
    garbage,
    hang,
    hang_on_accept,
    huge_headers,
    interim,
    models_answer,
    never_read,
    no_answer_port,
    reset,
    reset_in_head,
    reset_on_accept,
    short_body,
    slow_head,
    sse,
)

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [], "stream": True}


def client_of(upstream: ScriptedUpstream, **how: object) -> RawClient:
    return RawClient(port=upstream.port, **how)  # type: ignore[arg-type]


async def ask(upstream: ScriptedUpstream, body: object = ASK) -> tuple[Head, bytes]:
    async with client_of(upstream) as client:
        await client.post(CHAT, body)
        return await client.read_head(), await client.read_body()


def events_of(body: bytes) -> list[str]:
    return [e.removeprefix("data: ") for e in body.decode().split("\n\n") if e]


async def test_records_requests_and_keeps_the_connection() -> None:
    async with ScriptedUpstream(routes={"/health": answer_json()}) as upstream:
        upstream.queue(chat_answer("Hi"), models_answer("a"), embeddings_answer())
        async with client_of(upstream) as client:
            await client.post(CHAT + "?x=1", ASK, [("X-One", "1"), ("X-One", "2")])
            assert (await client.read_head()).status == 200
            answer = json.loads(await client.read_body())
            assert answer["choices"][0]["message"]["content"] == "Hi"
            for path in ("/health", "/v1/models", "/v1/embeddings"):
                await client.get(path)
                assert (await client.read_head()).status == 200
                assert json.loads(await client.read_body()) is not None
        first = await upstream.next_request()
        assert (first.method, first.path, first.target) == ("POST", CHAT, CHAT + "?x=1")
        assert [v for k, v in first.headers if k == "X-One"] == ["1", "2"]
        assert first.json() == ASK
        assert {r.connection.number for r in upstream.requests} == {1}
        assert not first.disconnected.is_set()
        await upstream.connections[0].peer_closed.wait()
        assert upstream.open_connections == 0


@pytest.mark.parametrize(
    ("usage", "seen"),
    [("none", 0), ("chunk", 1), ("null", 1), ("finish", 1), ("every", 5), ("auto", 1)],
)
async def test_usage_variants(usage: str, seen: int) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(chat_stream(["a", "ü"], usage=usage))  # type: ignore[arg-type]
        _, body = await ask(upstream, {**ASK, "stream_options": {"include_usage": True}})
    *chunks, last = events_of(body)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert last == "[DONE]"
    assert sum(chunk.get("usage") is not None for chunk in parsed) == seen
    assert "".join(c["delta"].get("content", "") for p in parsed for c in p["choices"]) == "aü"


async def test_tools_reasoning_completions_and_crlf() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(
            chat_stream([], tools=[("f", ['{"a"', ":1}"])], reasoning=["hm"], finish="tool_calls"),
            completion_stream(["x"], separator="\r\n"),
        )
        _, body = await ask(upstream)
        assert [e for e in events_of(body) if '"arguments":":1}"' in e]
        _, body = await ask(upstream)
        assert body.endswith(b"data: [DONE]\r\n\r\n")


async def test_gates_and_disconnect_without_sleeping() -> None:
    gate = Gate()
    async with ScriptedUpstream(chat_stream(["a", "b", "c"], gate=gate)) as upstream:
        async with client_of(upstream) as client:
            await client.post(CHAT, ASK)
            exchange = await upstream.next_request()
            await client.read_head()
            gate.release(2)
            await exchange.sent.at_least(2)
            assert b"role" in await client.read_event()
            assert exchange.sent.count == 2
            client.abort()
            gone = await upstream.disconnected()
        assert gone is exchange
        assert exchange.disconnected_at is not None
        await exchange.finished.wait()
        assert not exchange.completed


@pytest.mark.parametrize("framing", ["chunked", "close", "both"])
async def test_split_bytes_come_out_whole(framing: str) -> None:
    script = chat_stream(
        ["zähl ", "bis 🙂"],
        splits=random.Random(7),
        before=[comment("keep-alive")],
        framing=framing,
    )
    async with ScriptedUpstream(script) as upstream:
        head, body = await ask(upstream)
    assert body.startswith(b": keep-alive\n\n")
    assert "bis 🙂".encode() in body
    assert (head.header("transfer-encoding") == "chunked") == (framing != "close")
    assert (head.header("content-length") is not None) == (framing == "both")


async def test_gzip_bytes_one_by_one_and_interim() -> None:
    byte_gate = Gate()
    byte_gate.open()
    async with ScriptedUpstream() as upstream:
        upstream.queue(
            answer_json(200, {"a": 1}, encoding="gzip"),
            sse([{"a": 1}], encoding="gzip"),
            sse([{"a": 1}], byte_gate=byte_gate),
            interim(answer_json(429, {}, {"retry-after": "3"}), 103, times=2),
        )
        _, body = await ask(upstream)
        assert json.loads(gzip.decompress(body)) == {"a": 1}
        _, body = await ask(upstream)
        assert gzip.decompress(body) == b'data: {"a":1}\n\n'
        _, body = await ask(upstream)
        assert body == b'data: {"a":1}\n\n'
        assert upstream.requests[-1].sent.count == len(body)
        async with client_of(upstream) as client:
            await client.post(CHAT, ASK)
            heads = [await client.read_head() for _ in range(3)]
    assert [head.status for head in heads] == [103, 103, 429]
    assert heads[-1].header("Retry-After") == "3"


RESET, CLOSED = ConnectionResetError, None


@pytest.mark.parametrize(
    ("script", "how"),
    [
        (reset_on_accept(), RESET),
        (reset, RESET),
        (close, CLOSED),
        (reset_in_head(), RESET),
        (sse([{}], then=reset), RESET),
        (sse([{}, {}], after=1, then=cut_chunk), CLOSED),
        (sse([{}], then=close), CLOSED),
        (short_body(), CLOSED),
    ],
)
async def test_broken_connections(script: Script | Step, how: type[Exception] | None) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(script)
        async with client_of(upstream) as client:
            try:
                await client.post(CHAT, ASK)
                await client.read_head()
                await client.read_body()
            except (PeerGone, ConnectionError):
                pass
            else:
                pytest.fail("the answer looked whole")
            if how is RESET:
                await client.connection.lost.wait()
                assert isinstance(client.connection.lost_error, RESET)
            else:
                assert client.connection.lost_error is None
        assert upstream.queued == 0


async def test_bad_bytes_pass_as_they_are() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(
            sse([error_event(), bad_utf8, endless_line(1 << 20), "[DONE]"]),
            garbage(b"nonsense\r\n\r\n"),
            huge_headers(64 * 1024),
        )
        _, body = await ask(upstream)
        assert b"\xff\xfe" in body
        assert len(body) > 1 << 20
        async with client_of(upstream) as client:
            await client.get("/")
            assert await client.connection.read_some() == b"nonsense\r\n\r\n"
        head, _ = await ask(upstream)
        assert sum(len(v) for _, v in head.headers) > 60_000


async def test_hangs_end_with_the_peer() -> None:
    gate = Gate()
    async with ScriptedUpstream() as upstream:
        upstream.queue(hang_on_accept(), hang, chat_stream(after=2, then=hang), slow_head(gate))
        async with client_of(upstream) as client:
            await client.post(CHAT, ASK)
            await upstream.accepted.at_least(1)
        for events in (0, 2):
            async with client_of(upstream) as client:
                await client.post(CHAT, ASK)
                exchange = await upstream.next_request()
                await exchange.sent.at_least(events)
            assert await upstream.disconnected() is not None
        async with client_of(upstream) as client:
            await client.post(CHAT, ASK)
            gate.release(5)
            await (await upstream.next_request()).sent.at_least(5)
            assert await client.connection.read_exactly(5) == b"HTTP/"


async def test_back_pressure_shows_both_ways() -> None:
    async with ScriptedUpstream(sndbuf=4096) as upstream:
        upstream.queue(sse([endless_line(64 << 20)]), never_read())
        async with client_of(upstream, rcvbuf=4096) as client:
            await client.post(CHAT, ASK)
            exchange = await upstream.next_request()
            await client.read_head()
            client.pause()
            client.abort()
            await exchange.finished.wait()
            assert exchange.written < 16 << 20
        async with client_of(upstream) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.post(CHAT, b"x" * (64 << 20))


async def test_expect_continue_early_answers_and_stale_connections() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(
            answer_json(), before_body(answer_json(413)), finish_connection(chat_answer())
        )
        async with client_of(upstream) as client:
            await client.get("/", [("expect", "100-continue"), ("content-length", "2")])
            assert (await client.read_head()).status == 100
            await client.send(b"{}")
            assert (await client.read_head()).status == 200
        assert upstream.requests[0].body == b"{}"
        async with client_of(upstream) as client:
            await client.get("/", [("transfer-encoding", "chunked")])
            assert (await client.read_head()).status == 413
        async with client_of(upstream) as client:
            await client.request(
                "POST",
                CHAT,
                [("transfer-encoding", "chunked")],
                b"2;x=y\r\n{}\r\n0\r\na: b\r\n\r\n",
            )
            assert (await client.read_head()).header("connection") is None
            await client.read_body()
            await client.closed()
        assert upstream.requests[2].body == b"{}"


async def test_scripts_by_hand_and_their_mistakes() -> None:
    async def broken(exchange: Exchange) -> None:
        raise ValueError("mine")

    async def use(upstream: ScriptedUpstream) -> None:
        async with upstream:
            with contextlib.suppress(ConnectionError):
                await ask(upstream)

    with pytest.raises(AssertionError, match="a script of the upstream failed") as caught:
        await use(ScriptedUpstream(broken))
    assert isinstance(caught.value.__cause__, ValueError)
    unscripted = ScriptedUpstream()
    with pytest.raises(AssertionError, match="a script of the upstream failed") as caught:
        await use(unscripted)
    assert "no script for POST" in str(caught.value.__cause__)


async def test_unix_socket_tls_restart_and_dead_addresses(tmp_path: Path) -> None:
    path = str(tmp_path / "up.sock")
    async with ScriptedUpstream(chat_answer(), uds=path) as upstream, RawClient(uds=path) as client:
        await client.post(CHAT, ASK)
        assert (await client.read_head()).status == 200
    tls = make_tls()
    async with ScriptedUpstream(chat_answer(), ssl=tls.server) as upstream:
        assert upstream.url.startswith("https://127.0.0.1:")
        async with client_of(upstream, ssl=tls.client) as client:
            await client.post(CHAT, ASK)
            assert (await client.read_head()).status == 200
    upstream = ScriptedUpstream(chat_answer())
    for _ in range(2):
        async with upstream:
            assert (await ask(upstream))[0].status == 200
        with pytest.raises(ConnectionRefusedError):
            await RawClient(port=upstream.port).connect()
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        await RawClient(port=port).connect()
    with closed_socket(tmp_path / "dead.sock") as dead, pytest.raises(ConnectionRefusedError):
        await RawClient(uds=dead).connect()
    with no_answer_port() as port, socket.socket() as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.connect(("127.0.0.1", port))
