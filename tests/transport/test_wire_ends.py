"""One wire by hand: slow readers, time, early and late ends, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from server.errors import UpstreamError, UpstreamTimeout
from server.transport.client import WireResponse
from server.transport.wire import READ_AHEAD, Wire
from tests.transport.asking import answer, rest_of
from tests.transport.wires import END, HEAD, begun, chunk, made, turns

#: The fake needs no sockets, so one loop is enough.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


# --- back-pressure


async def test_a_slow_reader_pauses_the_peer_and_wakes_it_again() -> None:
    response, wire, transport, pool = await begun()
    wire.data_received(chunk(b"x" * READ_AHEAD))
    assert transport.reading
    wire.data_received(chunk(b"y"))
    assert not transport.reading
    assert len(await response.read()) == READ_AHEAD + 1
    assert transport.reading
    wire.data_received(chunk(b"x" * (READ_AHEAD + 1)))
    assert not transport.reading
    response.finish()
    assert transport.reading
    wire.data_received(END)
    assert wire in pool._free


async def test_a_wire_lost_while_paused_is_read_to_its_end() -> None:
    response, wire, transport, _ = await begun(chunk(b"x" * (READ_AHEAD + 1)))
    transport.closed = True
    wire.connection_lost(ConnectionResetError())
    assert len(await response.read()) == READ_AHEAD + 1
    with pytest.raises(UpstreamError) as caught:
        await response.read()
    assert caught.value.outcome == "truncated"


async def test_a_paused_wire_is_not_kept() -> None:
    """What its peer has said meanwhile is not known."""
    response, wire, transport, pool = await begun(END)
    wire._paused = True
    response.close()
    assert transport.closed
    assert wire not in pool._free


async def test_broken_in_a_read_larger_than_the_read_ahead() -> None:
    response, _, transport, _ = await begun(chunk(b"x" * (READ_AHEAD + 1)) + b"zz\r\n")
    assert transport.closed
    assert len(await response.read()) == READ_AHEAD + 1
    with pytest.raises(UpstreamError):
        await response.read()


# --- time


async def test_bytes_move_the_time_on_but_not_beyond_the_cap() -> None:
    response, wire, _, _ = await begun()
    now = time.monotonic()
    response.expect(now + 0.03, 0.06, cap=now + 0.15)
    loop = asyncio.get_running_loop()
    for at in range(20):
        loop.call_later(0.02 * at, _say, wire, b"a")
    data, error = await rest_of(response)
    assert error.outcome == "stall"
    assert 4 <= len(data) <= 8
    assert 0.14 <= time.monotonic() - now < 10
    response.close()


async def test_time_that_a_slow_reader_takes_is_not_the_peers() -> None:
    response, wire, _, _ = await begun(chunk(b"a"))
    response.expect(time.monotonic() + 0.01, 0.05)
    await asyncio.sleep(0.04)
    assert wire._timer is None  # nothing rings while nobody reads
    assert await response.read() == b"a"
    asyncio.get_running_loop().call_later(0.03, wire.data_received, chunk(b"b"))
    assert await response.read() == b"b"
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await response.read()
    assert time.monotonic() - began < 10


async def test_a_slow_reader_does_not_move_the_cap() -> None:
    response, _, _, _ = await begun(chunk(b"a"))
    now = time.monotonic()
    response.expect(now + 0.01, 60, cap=now + 0.02)
    await asyncio.sleep(0.04)
    assert await response.read() == b"a"
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(response.read(), 1)


async def test_a_timer_that_rings_early_is_set_again() -> None:
    response, wire, _, _ = await begun()
    response.expect(time.monotonic() + 0.02)
    response.expect(time.monotonic() + 0.06)
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await response.read()
    assert time.monotonic() - began > 0.04
    response.expect(time.monotonic() + 1)  # too late to matter
    response.close()
    await turns()
    assert wire._timer is None
    response.expect(time.monotonic() + 1)
    assert wire._timer is None


async def test_a_sooner_time_holds_at_once() -> None:
    response, _, _, _ = await begun()
    response.expect(time.monotonic() + 60, 60)
    response.expect(time.monotonic() + 0.01)
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(response.read(), 1)


async def test_the_timer_of_an_earlier_request_does_no_harm() -> None:
    wire, _, pool = made()
    for due in (0.02, 60):
        wire.start(b"h", b"", time.monotonic() + due)
        wire.data_received(answer(b""))
        await wire.head()
        WireResponse(wire).close()
        assert wire in pool._free
        pool._free.clear()
    await asyncio.sleep(0.03)
    wire.start(b"h", b"", time.monotonic() + 0.03)
    with pytest.raises(UpstreamTimeout) as caught:
        await wire.head()
    assert caught.value.outcome == "first_byte_timeout"


def _say(wire: Wire, data: bytes) -> None:
    if not wire.transport.is_closing():
        wire.data_received(chunk(data))


# --- ends


def _kept(got: list[bytes], data: bytes) -> bool:
    got.append(data)
    return True


async def test_read_after_close_is_no_proper_end() -> None:
    response, _, _, _ = await begun(chunk(b"a"))
    response.close()
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            await response.read()
        assert caught.value.outcome == "truncated"
    with pytest.raises(UpstreamError):
        await response.stream(lambda data: True)


async def test_an_old_answer_does_not_reach_into_the_next() -> None:
    response, wire, _, pool = await begun(chunk(b"old") + END)
    assert await response.read() == b"old"
    assert await response.read() == b""
    assert pool.take() is wire
    wire.start(b"h", b"", time.monotonic() + 60)
    wire.data_received(HEAD + chunk(b"new"))
    await wire.head()
    other = WireResponse(wire)
    got: list[bytes] = []
    await response.stream(lambda data: _kept(got, data))
    response.expect(0.0)
    response.finish()
    response.close()
    assert got == [b""]
    assert await other.read() == b"new"
    other.close()


async def test_an_answer_while_the_body_is_still_going_out() -> None:
    response, wire, transport, pool = await begun(chunk(b"no") + END)
    transport.unsent = 1
    assert await response.read() == b"no"
    assert await response.read() == b""
    assert transport.closed
    assert wire not in pool._free


async def test_an_end_closes_at_once_though_the_body_is_not_out() -> None:
    wire, transport, _ = made()
    wire.start(b"h", b"x" * 100_000, time.monotonic() + 60)
    assert wire.eof_received() is False
    assert transport.closed
    with pytest.raises(UpstreamError) as caught:
        await wire.head()
    assert caught.value.outcome == "reset"


async def test_what_a_loop_says_late_is_ignored() -> None:
    response, wire, transport, _ = await begun()
    response.close()
    wire.data_received(chunk(b"a"))
    wire.eof_received()
    await turns()
    wire.data_received(b"more")
    assert transport.closed


async def test_a_lost_wire_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        response, wire, transport, _ = await begun(chunk(b"a"))
        response.expect(time.monotonic() + 60, 60)
        response.close()
        await turns()
        transport.wire = None  # type: ignore[assignment]
        left = weakref.ref(wire)
        del response, wire, transport
        assert left() is None
    finally:
        gc.enable()
