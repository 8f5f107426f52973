"""One wire by hand: every order of bytes, reads and ends; consumers that fail or go."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from typing import Any

import pytest

from server.errors import UpstreamError
from server.transport.answer import Stage
from server.transport.client import WireResponse
from server.transport.wire import Wire
from tests.transport.wires import END, begun, chunk, turns

#: The fake needs no sockets, so one loop is enough.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


# --- all orders


ACTS = ("data", "end", "garbage", "lost", "eof", "read", "stream", "finish", "close", "expect")


async def act(name: str, response: WireResponse, wire: Wire, tasks: list[Any]) -> None:
    gone = wire.transport.is_closing()
    if name in ("data", "end", "garbage") and not gone:
        wire.data_received({"data": chunk(b"abc"), "end": END}.get(name, b"zz\r\n"))
    elif name == "lost" and not gone:
        wire.transport.closed = True  # type: ignore[attr-defined]
        wire.connection_lost(ConnectionResetError())
    elif name == "eof" and not gone:
        wire.eof_received()
    elif name == "read":
        tasks.append(asyncio.ensure_future(response.read()))
    elif name == "stream":
        tasks.append(asyncio.ensure_future(response.stream(lambda data: True)))
    elif name == "finish":
        response.finish()
    elif name == "close":
        response.close()
    elif name == "expect":
        response.expect(time.monotonic() + 30, 30)


@pytest.mark.parametrize("first", ACTS)
async def test_every_order_of_four(first: str) -> None:
    """Nothing but UpstreamErrors, nobody waits for ever, and only a good wire is free."""
    for rest in itertools.product(ACTS, repeat=3):
        names = (first, *rest)
        if sum(name in ("read", "stream") for name in names) > 1:
            continue  # one reader at a time
        for between in (False, True):
            response, wire, transport, pool = await begun()
            tasks: list[Any] = []
            for name in names:
                await act(name, response, wire, tasks)
                if between:
                    await turns()
            response.close()
            await turns()
            for task in tasks:
                assert task.done(), names
                if error := task.exception():
                    assert isinstance(error, UpstreamError), (names, error)
            free = wire in pool._free
            ended = "end" in names and "garbage" not in names[: names.index("end")]
            assert not free or (ended and not transport.closed), names
            assert free is (wire.stage is Stage.IDLE), names
            if "finish" not in names and not free:
                assert transport.closed, names
            pool.close()
            wire.abort()
            await asyncio.sleep(0)
            assert wire._timer is None, names


# --- consumers


async def test_a_consumer_is_given_each_read_at_once() -> None:
    response, wire, _, _ = await begun()
    got: list[bytes] = []

    def take(data: bytes) -> bool:
        got.append(data)
        return True

    task = asyncio.ensure_future(response.stream(take))
    await turns()
    wire.data_received(chunk(b"a"))
    assert got == [b"a"]
    wire.data_received(chunk(b"b") + chunk(b"c"))
    assert got == [b"a", b"bc"]
    wire.data_received(chunk(b"d") + END)
    assert got == [b"a", b"bc", b"d"]
    await task
    assert got[-1] == b""
    response.close()
    assert wire.stage is Stage.IDLE


@pytest.mark.parametrize("waiting", [False, True])
async def test_what_a_consumer_raises_comes_out(waiting: bool) -> None:
    response, wire, transport, _ = await begun(*([] if waiting else [chunk(b"a")]))

    def take(data: bytes) -> bool:
        raise KeyError(data)

    task = asyncio.ensure_future(response.stream(take))
    await turns()
    if waiting:
        wire.data_received(chunk(b"a"))
        wire.data_received(chunk(b"b"))  # for whoever reads next
    with pytest.raises(KeyError):
        await task
    if waiting:
        assert await response.read() == b"b"
    response.close()
    assert transport.closed


async def test_a_consumer_that_has_enough_is_not_asked_again() -> None:
    response, wire, _, _ = await begun()
    got: list[bytes] = []

    def take(data: bytes) -> bool:
        got.append(data)
        return False

    task = asyncio.ensure_future(response.stream(take))
    await turns()
    wire.data_received(chunk(b"a"))
    wire.data_received(chunk(b"b"))
    await task
    assert got == [b"a"]
    assert await response.read() == b"b"
    await asyncio.ensure_future(_later(wire, chunk(b"c"), response, take))
    assert got == [b"a", b"c"]
    response.close()


async def _later(wire: Wire, data: bytes, response: WireResponse, take: Any) -> None:
    asyncio.get_running_loop().call_soon(wire.data_received, data)
    await response.stream(take)


@pytest.mark.parametrize("more", [True, False, None])
@pytest.mark.parametrize("how", ["cancel", "close", "finish"])
async def test_a_consumer_that_ends_it_all_itself(more: bool | None, how: str) -> None:
    """A client that has gone is found out by writing to it, which is in mid-read."""
    response, wire, transport, _ = await begun()
    task: asyncio.Task[None]
    got: list[bytes] = []

    def take(data: bytes) -> bool:
        got.append(data)
        if how == "cancel":
            task.cancel()
        elif how == "close":
            response.close()
        else:
            response.finish()
        if more is None:
            raise KeyError
        return more

    task = asyncio.ensure_future(response.stream(take))
    await turns()
    wire.data_received(chunk(b"a") + (END if how == "finish" else b""))
    await asyncio.wait([task], timeout=1)
    assert task.done()
    assert got == [b"a"]  # it is not asked again
    if how == "cancel":
        assert task.cancelled()
    elif how == "finish" and more is None:
        assert isinstance(task.exception(), KeyError)
    response.close()
    await turns()
    assert transport.closed is (how != "finish")
    assert (wire.stage is Stage.IDLE) is (how == "finish")


async def test_cancelled_just_as_the_consumer_raised() -> None:
    """The consumer's error has nobody to go to; asyncio must not complain of it either."""
    loop = asyncio.get_running_loop()
    said: list[Any] = []
    loop.set_exception_handler(lambda loop, context: said.append(context))
    response, wire, _, _ = await begun()

    def take(data: bytes) -> bool:
        raise KeyError

    task = asyncio.ensure_future(response.stream(take))
    await turns()
    wire.data_received(chunk(b"a"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    response.close()
    del task, response, wire
    await turns()
    gc.collect()
    assert said == []


# --- a whole chunk past the parser


async def test_trailers_are_no_chunks() -> None:
    response, wire, _, _ = await begun()
    wire.data_received(b"1\r\na\r\n")
    wire.data_received(b"1\r\nb\r\n")
    assert await response.read() == b"ab"
    wire.data_received(b"0\r\n")
    wire.data_received(b"1\r\nc\r\n")  # where only a header or the end may stand
    with pytest.raises(UpstreamError) as caught:
        await response.read()
    assert caught.value.outcome == "protocol"


@pytest.mark.parametrize("begun_with", [b"1", b"1\r", b";", b"0"])
async def test_a_size_in_two_reads_is_one_size(begun_with: bytes) -> None:
    """`1` and `5\\r\\nhello\\r\\n` begin a chunk of 21 bytes, not one of 5."""
    response, wire, _, _ = await begun()
    wire.data_received(b"1\r\na\r\n" + begun_with)
    assert await response.read() == b"a"
    wire.data_received(b"5\r\nhello\r\n")
    if begun_with == b"1":
        assert await response.read() == b"hello\r\n"
        wire.data_received(b"x" * 14 + b"\r\n" + END)
        assert await response.read() == b"x" * 14
    elif begun_with == b"0":
        assert await response.read() == b"hello"
    else:
        with pytest.raises(UpstreamError):
            await response.read()
