"""Open connections to the hub, so that who waits for a silent one can be sent home."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2


class Lines:
    """Those of one pull, from its several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False

    @contextlib.contextmanager
    def holding(self, response: httpx2.Response) -> Iterator[None]:
        """While its bytes are read."""
        stream = response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream is not None else None
        if not isinstance(found, socket.socket):
            yield
            return
        with self._lock:
            self._open.add(found)
            cut = self._cut
        if cut:
            _shut(found)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(found)

    def cut(self) -> None:
        """Whoever reads from one finds its end now, and so does whoever opens one later."""
        with self._lock:
            self._cut = True
            for one in self._open:
                _shut(one)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        # Not its own method: that of a TLS socket takes the cipher from under the reader.
        socket.socket.shutdown(one, socket.SHUT_RDWR)
