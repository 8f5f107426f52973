"""File descriptors: upstreams leave a few of them to new clients, engines and files."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Final

from server.errors import Overloaded

#: Descriptors that no connection to an upstream may take.
RESERVE: Final = 32
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})


def spare() -> bool:
    """May another connection be opened? The system gives the lowest number that is free, so that
    a new descriptor's own says how many are in use."""
    try:
        number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno not in _NONE_LEFT
    os.close(number)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit == resource.RLIM_INFINITY or number < limit - RESERVE


def lacking(error: OSError) -> bool:
    """Is this failure to connect ours, for want of a descriptor? A look-up that got none to read
    its files by says that there is no such name."""
    if isinstance(error, socket.gaierror):  # whose numbers are of another kind
        return not spare()
    return error.errno in _NONE_LEFT


def out_of() -> Overloaded:
    """The error of a request that needs a connection when there are too few left."""
    return Overloaded(
        "The server has too many open connections to ask an upstream at the moment.",
        code="out_of_descriptors",
        retry_after=1,
    )
