"""One request at a time, against a scripted upstream on a real socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.loadtest.answer import Reading
from server.loadtest.bench import Settings
from server.loadtest.caller import Caller
from server.loadtest.plan import Ends, Load
from server.loadtest.prompts import Synthetic
from server.loadtest.sample import Sample
from server.transport import Transport
from tests.fakes.exchange import Gate, Script, Step
from tests.fakes.scripts import Item
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    chat_stream,
    close,
    close_on_accept,
    closed_port,
    cut_chunk,
    done,
    error,
    hang,
    redirect,
    reset,
    short_body,
    sse,
)

Ask = Callable[..., Any]
#: Time-outs, the first that suits this machine in its present state is taken: 5 ms to 10 s.
TIMES = [0.005 * 2**n for n in range(12)]


def settings(url: str = "http://127.0.0.1:1", **more: Any) -> Settings:
    more.setdefault("fields", {"max_tokens": 8})
    return Settings(
        url, "fake", Synthetic(4, seed=1), (Load(concurrency=1),), Ends(requests=1), 1, **more
    )


def caller(url: str, transport: Transport, clock: Callable[[], float], **more: Any) -> Caller:
    timeout = more.pop("timeout", 60.0)
    asked = settings(url, **more)
    return Caller(
        transport, url, asked.headers(), asked.body, asked.streamed, timeout=timeout, clock=clock
    )


@asynccontextmanager
async def answered(*scripts: Script | Step, **more: Any) -> AsyncIterator[tuple[Sample, Any]]:
    """What one request measures; the clock ticks once for each look at it."""
    ticks = itertools.count(1)
    transport = Transport()
    async with ScriptedUpstream() as upstream:
        upstream.queue(*scripts)
        ask = caller(upstream.url, transport, lambda: float(next(ticks)), **more)
        try:
            sample = await ask(0)
            yield sample, upstream.requests[-1] if upstream.requests else None
        finally:
            await transport.close()


async def test_the_request() -> None:
    more = {"key": "sk-1", "fields": {"max_tokens": 8, "ignore_eos": True, "temperature": 0.0}}
    async with answered(chat_stream(), **more) as (sample, exchange):
        assert sample.failure is None
        assert (exchange.method, exchange.target) == ("POST", "/v1/chat/completions")
        assert exchange.header("authorization") == "Bearer sk-1"
        assert exchange.header("content-type") == "application/json"
        (message,) = exchange.json().pop("messages")
        assert message["role"] == "user"
        assert {k: v for k, v in exchange.json().items() if k != "messages"} == {
            "model": "fake",
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 8,
            "ignore_eos": True,
            "temperature": 0.0,
        }


async def test_the_chunk_with_the_role_is_no_first_token() -> None:
    """Each event comes by itself, so each is read at a time of its own."""
    gate = Gate()
    now = 0.0
    transport = Transport()
    async with ScriptedUpstream() as upstream:
        upstream.queue(chat_stream(["a", "b", "c"], gate=gate, prompt_tokens=9))
        ask = asyncio.create_task(
            watched(caller(upstream.url, transport, lambda: now), seen := asyncio.Queue[int]())
        )
        exchange = await upstream.next_request()
        assert exchange.header("authorization") is None
        for event in range(1, 8):  # role, a, b, c, finish, usage, [DONE]
            now = float(event)
            gate.release()
            assert await seen.get() > 0
        sample = await ask
        await transport.close()
    assert sample.failure is None
    assert (sample.due, sample.sent, sample.first, sample.ended) == (0.0, 0.0, 2.0, 7.0)
    assert list(sample.gaps) == [1.0, 1.0]
    assert (sample.output_tokens, sample.prompt_tokens, sample.finish) == (3, 9, "stop")
    assert sample.tpot == 2.5  # (7 - 2) / (3 - 1)


async def watched(ask: Caller, seen: asyncio.Queue[int]) -> Sample:
    """Asks, and tells of every piece that was fed to the reader."""

    class Watched(Reading):
        def feed(self, data: bytes, now: float) -> None:
            super().feed(data, now)
            seen.put_nowait(len(data))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.loadtest.caller.Reading", Watched)
        return await ask(0)


async def test_a_request_counts_from_when_it_was_due() -> None:
    transport = Transport()
    async with ScriptedUpstream() as upstream:
        upstream.queue(chat_stream())
        sample = await caller(upstream.url, transport, lambda: 10.0)(3, due=4.0)
        await transport.close()
    assert (sample.index, sample.due, sample.sent, sample.e2e) == (3, 4.0, 10.0, 6.0)


async def test_without_usage() -> None:
    async with answered(chat_stream(["a", "b"], usage="none")) as (sample, _):
        assert sample.failure is None
        assert sample.tokens_are_chunks
        assert sample.tokens == 2


async def test_no_stream() -> None:
    async with answered(chat_answer(completion_tokens=5), streamed=False) as (sample, exchange):
        assert sample.failure is None
        assert exchange.json()["stream"] is False
        assert "stream_options" not in exchange.json()
        assert (sample.first, sample.tokens, sample.chunks) == (None, 5, 0)
        assert sample.ended == 2.0  # one look when it was sent, one when it was whole


CUT: list[Item] = [{"choices": [{"index": 0, "delta": {"content": "a"}}]}]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (chat_stream(ends=False), "truncated"),
        (sse([*CUT, cut_chunk]), "truncated"),
        (sse([*CUT, close]), "truncated"),
        (sse([*CUT, reset]), "truncated"),
        (sse([*CUT, error("x", code="engine_died"), done]), "error event engine_died"),
        (sse([*CUT, done]), "no finish_reason"),
        (answer_json(500, error("boom", code="internal_error")), "HTTP 500 internal_error"),
        (answer_json(429, error("slow", type="rate_limit_error")), "HTTP 429 rate_limit_error"),
        (answer_json(429, {}), "HTTP 429"),
        (answer_bytes(502, b"<html>bad gateway"), "HTTP 502"),
        (redirect("/elsewhere"), "HTTP 307"),
        (answer_bytes(200, b"never", content_type="text/html"), "no chat stream"),
        (chat_answer(), "no chat stream"),  # a server that does not stream
        (close_on_accept(), "reset"),
    ],
)
async def test_failures_are_told_apart(script: Script | Step, kind: str) -> None:
    async with answered(script) as (sample, _):
        assert sample.failure is not None
        assert sample.failure.kind == kind
        assert sample.failure.text
        assert sample.ended > sample.sent


async def test_an_answer_that_breaks_off() -> None:
    async with answered(short_body(), streamed=False) as (sample, _):
        assert sample.failure is not None
        assert sample.failure.kind == "truncated"
    async with answered(answer_json(200, {"choices": []}), streamed=False) as (sample, _):
        assert sample.failure is not None
        assert sample.failure.kind == "no finish_reason"


async def test_nobody_there() -> None:
    transport = Transport()
    with closed_port() as port:
        sample = await caller(f"http://127.0.0.1:{port}", transport, lambda: 0.0)(0)
    await transport.close()
    assert sample.failure is not None
    assert sample.failure.kind == "connect refused"


@pytest.mark.parametrize("script", [hang, sse([*CUT, hang])])
async def test_time_is_up(script: Script) -> None:
    for timeout in TIMES:
        async with answered(script, timeout=timeout) as (sample, exchange):
            assert sample.failure is not None
            assert sample.failure.kind == "time-out"
            if exchange is not None:  # not up before the upstream was reached
                await exchange.disconnected.wait()
                return
    pytest.fail("the upstream was never reached")


async def test_a_connection_is_used_again() -> None:
    transport = Transport()
    async with ScriptedUpstream() as upstream:
        upstream.queue(chat_stream(), answer_json(429, error("slow")), chat_stream())
        ask = caller(upstream.url, transport, lambda: 0.0)
        failures = [(await ask(number)).failure for number in range(3)]
        assert [f and f.kind for f in failures] == [None, "HTTP 429 server_error", None]
        assert len(upstream.connections) == 1
        await transport.close()


async def test_a_server_that_holds_on_after_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is whole at `[DONE]`; waiting for the rest is no part of it, and bounded."""
    monkeypatch.setattr("server.loadtest.caller.TAIL", 0.01)
    async with answered(chat_stream(then=hang)) as (sample, exchange):
        assert sample.failure is None
        await exchange.disconnected.wait()
    for timeout in TIMES:
        monkeypatch.setattr("server.loadtest.caller.TAIL", 2 * timeout)
        async with answered(chat_stream(then=hang), timeout=timeout) as (sample, _):
            if sample.failure is None:
                return
            assert sample.failure.kind == "time-out"  # up before `[DONE]`
    pytest.fail("`[DONE]` never came in time")
