"""Whose certificates are believed: the system's authorities, or those of an endpoint's own file."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import stat
import time
from dataclasses import dataclass
from typing import Final

from server.errors import ConnectFailed, RoundhouseError
from server.transport import descriptors, threads

#: Seconds for which a file is taken to be as it was when somebody looked.
KEPT: Final = 1.0
#: Files that are remembered; beyond, the one that was looked at longest ago is forgotten.
FILES: Final = 64


@dataclass(frozen=True, slots=True)
class _Read:
    """A file's authorities, and by what a later look tells that they are still its own."""

    mark: tuple[int, ...]
    context: ssl.SSLContext
    until: float


_known: Final[dict[str, _Read]] = {}


def made(ca: str | None = None) -> ssl.SSLContext:
    """A context that trusts the authorities of a PEM file and no others, or the system's; names are
    checked. Takes milliseconds. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def trusting(ca: str) -> ssl.SSLContext:
    """The context for this PEM file's authorities. The same one as long as the file is the same: a
    file that was renewed is read anew, in a thread, for connections from KEPT seconds later on.

    Raises ConnectFailed (`tls`) for a file that is missing or broken; Overloaded
    (`out_of_descriptors`).
    """
    known = _known.get(ca)
    if known is not None and time.monotonic() < known.until:
        return known.context
    try:
        return (await _looked(ca, known)).context
    except (OSError, ValueError, RuntimeError) as error:  # ssl.SSLError is an OSError
        raise _useless(ca, error) from None


async def _looked(ca: str, known: _Read | None) -> _Read:
    running = threads.ask("trust", ca, functools.partial(_look, ca, known))
    running.add_done_callback(functools.partial(_learn, ca))
    try:
        return await threads.answer(running)
    finally:
        del running  # see `threads.answer`


def _look(ca: str, known: _Read | None) -> _Read:
    """In a thread: a file may be far away."""
    until = time.monotonic() + KEPT
    found = os.stat(ca)
    if not stat.S_ISREG(found.st_mode):  # a pipe would never end
        raise ValueError("no regular file")
    # Older than what is read next: who writes meanwhile is noticed the next time.
    mark = found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
    if known is not None and known.mark == mark:
        return _Read(mark, known.context, until)
    context = made(ca)
    if not context.cert_store_stats()["x509"]:
        raise ValueError("no certificate in it")
    return _Read(mark, context, until)


def _learn(ca: str, running: asyncio.Future[_Read]) -> None:
    if running.exception() is not None:
        return
    _known.pop(ca, None)  # so that the one looked at longest ago stands first
    while len(_known) >= FILES:
        del _known[next(iter(_known))]
    _known[ca] = running.result()


def _useless(ca: str, error: Exception) -> RoundhouseError:
    if isinstance(error, OSError) and descriptors.lacking(error):
        return descriptors.out_of()
    return ConnectFailed(
        "No secure connection to the upstream could be made.",
        outcome="tls",
        detail=f"the authorities of {ca} could not be read: {type(error).__name__}: {error}",
    )


def told(detail: str, ca: str | None) -> str:
    """What went wrong with TLS, and who was to vouch for the peer."""
    return detail if ca is None else f"{detail} (by the authorities of {ca})"
