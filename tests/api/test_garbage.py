"""Requests leave no reference cycles: the collector looks seldom, so what it must find adds up."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter

import pytest

from server.serving import Roundhouse
from tests.api.conftest import ASK, KEY, port_of
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream


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


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_leave_no_cycles(
    server: Roundhouse, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.default = chat_stream(("one", "two")) if stream else chat_answer("one")
    sent = request(stream=stream)
    until = b"0\r\n\r\n" if stream else b'"total_tokens"'
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
