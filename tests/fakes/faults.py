"""Everything that goes wrong upstream.

Three kinds. *Actions* are used by name, as an item of a stream, as `then=`, or as a whole script
(then they come before any byte): `hang`, `reset`, `close`, `cut_chunk`. *Items* are what a stream
may hold: `error_event(…)`, `bad_utf8`, `endless_line(…)`, `garbage_event`. *Scripts* are made by a
call and answer one request. Addresses that nobody answers at are context managers.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.exchange import Exchange, Gate, Script, Step
from tests.fakes.scripts import Action, error

# --- actions


async def hang(exchange: Exchange) -> None:
    """Nothing more until the peer leaves."""
    await exchange.hang()


async def reset(exchange: Exchange) -> None:
    """RST, with whatever was sent before."""
    exchange.reset()


async def close(exchange: Exchange) -> None:
    """FIN at once: a chunked body without its end, an announced length not reached."""
    exchange.close()


async def cut_chunk(exchange: Exchange) -> None:
    """FIN inside a chunk: its size says 1024 bytes, a few come."""
    await exchange.write(b'400\r\ndata: {"id":"chatcmpl-cut","choices":[{"index":0,"del')
    exchange.close()


async def bad_chunk_size(exchange: Exchange) -> None:
    """A chunk whose size is no number."""
    await exchange.write(b"zz\r\nnonsense\r\n")
    exchange.close()


# --- items of a stream

bad_utf8 = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3"}}]}\n\n'
garbage_event = 'oops {"choices": <html>'
#: No SSE at all, though the head says so.
garbage_bytes = b"\x00\x01\x02<html>502 Bad Gateway</html>\x7f\n\n\n"


def error_event(
    message: str = "EngineCore encountered an issue.",
    code: Any = 500,
    type: str = "InternalServerError",
) -> dict[str, Any]:
    """vLLM's error in mid-stream; it sends `[DONE]` after it."""
    return error(message, type, code)


def endless_line(size: int = 100 * 2**20, block: int = 2**16, begin: bytes = b"data: ") -> Action:
    """`begin` and `size` bytes without a line end; `exchange.written` tells how far it got."""

    async def action(exchange: Exchange) -> None:
        await exchange.chunk(begin)
        for start in range(0, size, block):
            await exchange.chunk(b"x" * min(block, size - start))

    return action


# --- scripts


def hang_before_head() -> Script:
    return hang


def reset_before_head() -> Script:
    """The request is in whole; then a RST."""
    return reset


def close_before_head() -> Script:
    """The request is in whole; then a clean close without a byte."""
    return close


def reset_in_head() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
        exchange.reset()

    return script


def close_in_head() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
        exchange.close()

    return script


def hang_in_head() -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
        await exchange.hang()

    return script


def slow_head(gate: Gate, head: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") -> Script:
    """One byte per ticket; `sent` counts them."""

    async def script(exchange: Exchange) -> None:
        for at in range(len(head)):
            await exchange.wait(gate.pass_one())
            await exchange.write(head[at : at + 1])
            exchange.sent.add()

    return script


def garbage(data: bytes = b"SSH-2.0-OpenSSH_9.2p1\r\n\x00\x80\r\n\r\n") -> Script:
    """No HTTP, then a close."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(data)
        exchange.close()

    return script


def huge_headers(size: int = 256 * 1024, each: int = 4096) -> Script:
    """A 200 with `size` bytes of headers."""

    async def script(exchange: Exchange) -> None:
        extra = [(f"x-huge-{at}", "h" * each) for at in range(size // each)]
        await exchange.head(200, [("content-type", "application/json"), *extra], framing="length")

    return script


def short_body(body: bytes = b'{"id": "chatcmpl-', length: int = 4096) -> Script:
    """Promises `length` bytes, sends `body`, closes cleanly."""

    async def script(exchange: Exchange) -> None:
        head = {"content-type": "application/json"}
        await exchange.head(200, head, framing="length", length=length)
        await exchange.chunk(body)
        exchange.close()

    return script


def _at_accept(action: Action) -> Step:
    return Step(action, at="accept")


def reset_on_accept() -> Step:
    """RST before a byte was read."""
    return _at_accept(reset)


def close_on_accept() -> Step:
    """The peer sees an end, or a RST when its request was already there, unread."""
    return _at_accept(close)


def hang_on_accept() -> Step:
    """Accepts and never reads a request; what comes stays unread."""

    async def action(exchange: Exchange) -> None:
        await exchange.hang()

    return _at_accept(action)


def never_read() -> Step:
    """Reads the head, then takes nothing more from the socket: the peer's body blocks."""

    async def script(exchange: Exchange) -> None:
        exchange.connection.pause_reading()
        await exchange.connection.lost.wait()

    return Step(script, at="head")


# --- addresses


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on 127.0.0.1 that refuses, and that nobody else can take meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, not listening
        yield sock.getsockname()[1]


@contextmanager
def closed_socket(path: str | Path) -> Iterator[str]:
    """A stale Unix socket file: connecting is refused."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    try:
        yield str(path)
    finally:
        Path(path).unlink(missing_ok=True)


@contextmanager
def no_answer_port() -> Iterator[int]:
    """A port whose queue is full: a connect hangs, as to a host that drops packets (Linux)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(sock.getsockname())
        try:
            yield sock.getsockname()[1]
        finally:
            for one in fill:
                one.close()
