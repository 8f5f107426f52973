"""Requests leave no reference cycles: the collector looks seldom, so what it must find adds up."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter

import pytest

from server.routing.budget import Backoff
from server.routing.settings import Settings
from server.serving import Roundhouse
from tests.api.conftest import ASK, KEY, port_of
from tests.fakes.faults import reset_before_head
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
)


def request(**more: object) -> bytes:
    body = json.dumps({**ASK, **more}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, sent: bytes, until: bytes, times: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(sent)
        await reader.readuntil(until)
    writer.close()
    await writer.wait_closed()


#: What the upstream says, whether the client wants a stream, and what the answer ends with.
ANSWERS = {
    "whole": (chat_answer("one"), False, b'"total_tokens"'),
    "stream": (chat_stream(("one", "two")), True, b"0\r\n\r\n"),
    "500": (answer_json(500, error("x")), False, b'"code":'),
    "400": (answer_json(400, error("x")), False, b'"code":'),
    "429": (answer_json(429, error("x"), {"retry-after-ms": "0"}), False, b'"code":'),
    "reset": (reset_before_head(), True, b'"code":'),
}


@pytest.mark.parametrize("answer", list(ANSWERS))
async def test_requests_leave_no_cycles(
    server: Roundhouse, upstream: ScriptedUpstream, answer: str
) -> None:
    """Nor do those that fail: an error leads to the frames that it came by, and they to the
    request's body."""
    upstream.default, stream, until = ANSWERS[answer]
    server.services.dispatcher.configure(Settings(backoff=Backoff(0.0, 0.0)))
    sent = request(stream=stream)
    await ask(port_of(server), sent, until, 3)
    gc.collect()
    gc.disable()
    try:
        await ask(port_of(server), sent, until, 20)
        for _ in range(20):  # turns in which the last ones end
            await asyncio.sleep(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(
            type(thing).__qualname__
            for thing in gc.garbage
            if type(thing).__module__.startswith("server.")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # The connection itself has one with its parser, once.
    assert not [name for name, count in found.items() if count >= 20], found
