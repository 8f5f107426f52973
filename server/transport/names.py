"""Addresses of names: one look-up of a name at a time, each in a thread of its own.

The loops look names up in a few threads that everybody shares (libuv gives two to this), so that
one name whose servers are silent would hold up all others.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import time
from typing import Final

from server.transport import threads

#: Seconds for which what was found is taken to hold.
KEPT: Final = 30.0

Found = tuple[str, ...]


async def look_up(host: str, flags: int = 0) -> Found:
    """The addresses of a host as the system has them, the best first.

    Raises socket.gaierror, or ValueError for what is no name. Cancelling leaves the look-up
    running, since the system's cannot be broken off; who asks meanwhile shares its answer.
    """
    return await threads.answer(_ask(host, flags))


def _ask(host: str, flags: int) -> asyncio.Future[Found]:
    try:
        return threads.ask("names", (host, flags), functools.partial(_addresses, host, flags))
    except RuntimeError as error:
        raise socket.gaierror(socket.EAI_MEMORY, str(error)) from None


def _addresses(host: str, flags: int) -> Found:
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    found: list[str] = []
    for *_, where in answers:
        scope = where[3] if len(where) == 4 else 0
        found.append(f"{where[0]}%{scope}" if scope else str(where[0]))
    return tuple(dict.fromkeys(found))


class Names:
    """What was found lately. A name without an answer is asked for again each time."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Found]] = {}

    def known(self, host: str) -> Found | None:
        """The addresses of a host that need no look-up: it is one itself, or was asked for."""
        if is_address(host):
            return (host,)
        until, found = self._known.get(host, (0.0, None))
        return found if time.monotonic() < until else None

    async def look_up(self, host: str) -> Found:
        """See `look_up`. An answer that comes after all have left is remembered, too."""
        running = _ask(host, 0)
        running.add_done_callback(functools.partial(self._learn, host))
        try:
            return await threads.answer(running)
        finally:
            del running

    def _learn(self, host: str, running: asyncio.Future[Found]) -> None:
        if running.exception() is None:
            self._known[host] = time.monotonic() + KEPT, running.result()

    def forget(self, host: str) -> None:
        """Its addresses were of no use."""
        self._known.pop(host, None)


@functools.lru_cache(maxsize=1024)
def is_address(host: str) -> bool:
    """Is this an IP address, and no name?"""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
