"""The connections to one address: opened when none is free, kept while they are of use."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections import deque
from typing import Final

from server.errors import ConnectFailed, UpstreamError
from server.transport import descriptors, trust
from server.transport.answer import Stage
from server.transport.head import Address, no_answer
from server.transport.names import Found, Names
from server.transport.wire import Wire

#: Idle connections are retired after this many seconds, or sooner where the peer says or shows
#: that it closes them sooner itself (engines are started with 75 s, providers keep a minute).
IDLE: Final = 30.0
#: A peer that was seen to close an idle connection is met with this part of its patience, for
#: this many seconds. A restart of it looks the same, so that is not for ever.
_SHORTER: Final = 0.8
_REMEMBER: Final = 300.0
#: Sooner than this many seconds no peer's closing teaches anything.
_LEARN_FROM: Final = 2.0


class Pool:
    """Connections to one address. Free ones are taken newest first, so that a burst's rest ages."""

    def __init__(self, address: Address, names: Names | None = None) -> None:
        self.address = address
        self._names = names or Names()
        self._loop = asyncio.get_running_loop()
        self._free: deque[Wire] = deque()
        self._all: set[Wire] = set()
        self._opening = 0
        self._keep = IDLE
        self._learned = 0.0
        self._sweep: asyncio.TimerHandle | None = None
        self.closed = False

    def __len__(self) -> int:
        """Connections that are open, or being opened."""
        return len(self._all) + self._opening

    def take(self) -> Wire | None:
        """A free connection that is surely open and silent, or None."""
        free = self._free
        while free:
            wire = free.pop()
            if wire.usable:
                return wire
            wire.abort()
        return None

    async def connect(self, seconds: float) -> Wire:
        """A new connection. Raises ConnectFailed, Overloaded for want of a descriptor."""
        self._opening += 1
        try:
            wire = await self._connect(seconds)
        finally:
            self._opening -= 1
        if self.closed or wire.stage is Stage.CLOSED or wire.transport.is_closing():
            wire.abort()
            raise _failed("refused", "the connection was closed as soon as it was made")
        self._all.add(wire)
        return wire

    async def _connect(self, seconds: float) -> Wire:
        place = self.address
        try:
            async with asyncio.timeout(seconds):
                return await self._open(place)
        except TimeoutError as error:
            detail = str(error) or f"no connection within {seconds:g} s"
            raise _failed("connect_timeout", detail) from None
        except (ssl.SSLError, ssl.CertificateError) as error:
            detail = trust.told(f"{type(error).__name__}: {error}", place.ca)
            raise _failed("tls", detail) from error
        except (OSError, EOFError) as error:
            if isinstance(error, OSError) and descriptors.lacking(error):
                raise descriptors.out_of() from error
            if isinstance(error, socket.gaierror):
                raise _failed("dns", f"{type(error).__name__}: {error}") from error
            # A peer that hangs up in mid-handshake speaks no TLS.
            hung_up = isinstance(error, (ConnectionError, EOFError))
            refused = isinstance(error, ConnectionRefusedError) or not hung_up
            outcome = "tls" if place.tls and not refused else "refused"
            raise _failed(outcome, f"{type(error).__name__}: {error}") from error
        except (ValueError, OverflowError, UnicodeError) as error:
            raise no_answer(f"{type(error).__name__}: {error}") from error

    async def _open(self, place: Address) -> Wire:
        loop = self._loop
        if place.uds is not None:
            _, wire = await loop.create_unix_connection(lambda: Wire(self, loop), place.uds)
            return wire
        names, host = self._names, place.host
        known = names.known(host)
        try:
            return await self._reach(place, known or await names.look_up(host))
        except asyncio.CancelledError:  # mostly the time for connecting: it may have moved
            names.forget(host)
            raise
        except OSError as error:
            names.forget(host)
            if known is None or known == (host,) or _is_final(error):
                raise
            found = await names.look_up(host)
            if not set(found) - set(known):
                raise
        return await self._reach(place, found)

    async def _reach(self, place: Address, addresses: Found) -> Wire:
        """The first of these that takes the connection. Their order is the system's; one that is
        dead costs its time-out."""
        *others, last = addresses
        for address in others:
            try:
                return await self._reach_one(place, address)
            except OSError as error:
                if _is_final(error):
                    raise
        return await self._reach_one(place, last)

    async def _reach_one(self, place: Address, address: str) -> Wire:
        loop = self._loop
        context: ssl.SSLContext | None = None
        if place.tls:
            context = tls_context() if place.ca is None else await trust.trusting(place.ca)
        _, wire = await loop.create_connection(
            lambda: Wire(self, loop),
            address,
            place.port,
            ssl=context,
            server_hostname=place.host if place.tls else None,
        )
        return wire

    def free(self, wire: Wire) -> None:
        """Called by a wire whose answer is over."""
        if self.closed:
            wire.abort()
            return
        said = wire.headers.get("keep-alive")
        if said is not None:
            self._heed(said)
        self._free.append(wire)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keep, self._retire)

    def gone(self, wire: Wire, *, idle: bool) -> None:
        """Called by a wire that has lost its connection."""
        self._all.discard(wire)
        if idle and wire in self._free:
            self._free.remove(wire)
            patience = time.monotonic() - wire.idle_since
            if _LEARN_FROM <= patience < self._keep and not self.closed:
                self._shorten(patience * _SHORTER)

    def _heed(self, said: str) -> None:
        """`Keep-Alive: timeout=5`."""
        _, _, value = said.lower().partition("timeout=")
        digits = value.split(",")[0].strip()
        if digits.isascii() and digits.isdigit() and len(digits) < 9 and int(digits) <= IDLE:
            self._shorten(max(int(digits) - 1.0, int(digits) * 0.5))

    def _shorten(self, keep: float) -> None:
        """Keep idle connections for no longer than this, from now on."""
        self._learned = time.monotonic()
        if keep >= self._keep:
            return
        self._keep = keep
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = self._loop.call_later(0, self._retire)

    def _retire(self) -> None:
        self._sweep = None
        now = time.monotonic()
        if self._keep < IDLE and now - self._learned > _REMEMBER:
            self._keep = IDLE
        while self._free and self._free[0].idle_since + self._keep <= now + 0.01:
            self._free.popleft().abort()
        if self._free:
            wait = self._free[0].idle_since + self._keep - now
            self._sweep = self._loop.call_later(max(wait, 0.05), self._retire)

    def drop_idle(self) -> int:
        """Close the free connections; their number."""
        dropped = len(self._free)
        while self._free:
            self._free.popleft().abort()
        return dropped

    def close(self) -> None:
        """Close every connection, also those with an answer under way."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._free.clear()
        for wire in list(self._all):
            wire.abort()


def _is_final(error: OSError) -> bool:
    """Would another address of the same name fare no better?"""
    return isinstance(error, ssl.SSLError) or descriptors.lacking(error)


def _failed(outcome: str, detail: str) -> UpstreamError:
    return ConnectFailed(_SAID[outcome], outcome=outcome, detail=detail)


_SAID: Final = {
    "connect_timeout": "The upstream could not be reached in time.",
    "dns": "The upstream's name could not be resolved.",
    "tls": "No secure connection to the upstream could be made.",
    "refused": "The upstream refused the connection.",
}


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The system's authorities, and names checked. Made once: reading them takes a while."""
    return trust.made()
