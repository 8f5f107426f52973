"""What the rest of the server sees of upstream HTTP: addresses, time-outs, and an answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from server.errors import UpstreamProtocol, UpstreamTooLarge


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a target listens: a base URL, and a Unix socket's path when it is one.

    `proxy` is the URL of an HTTP proxy to go through, which may hold a password. `ca` is the
    absolute path of a PEM file: its authorities are trusted, and the system's are not. No
    connection is shared with an endpoint of the same address that trusts others.
    """

    base_url: str
    uds: str | None = None
    proxy: str | None = field(default=None, repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptTimeouts:
    """Seconds; see `config.schema.Timeouts`. `connect` covers look-up, connection and TLS."""

    connect: float
    first_byte: float
    inter_chunk: float


class Response(ABC):
    """An answer whose head is in. `close()` is immediate and may be called at any time.

    `status` is the HTTP status; `headers` have lower-case names, of repeated ones the last.
    """

    status: int
    headers: Mapping[str, str]

    @abstractmethod
    def expect(self, by: float, patience: float | None = None, cap: float = math.inf) -> None:
        """Who reads gives up at `by`, `time.monotonic()` seconds, with UpstreamTimeout (`stall`).

        Bytes that come in move that on to `patience` seconds from then, if it is given, but never
        beyond `cap`.
        """

    @abstractmethod
    async def read(self) -> bytes:
        """All bytes since the last read, at least one; `b""` at the proper end of the answer.

        Not reading pauses the peer. Raises UpstreamTruncated, UpstreamProtocol, UpstreamTimeout
        (`stall`), all of them only after the last byte that came in.
        """

    def complete(self) -> bytes | None:
        """The whole body, when all of it is in and nothing was read yet; else None."""
        return None

    async def stream(self, consumer: Callable[[bytes], bool]) -> None:
        """Give each read to `consumer` until it returns False or the answer ends (`b""`).

        What `consumer` raises comes out here. Raises what `read` raises.
        """
        while consumer(data := await self.read()) and data:
            pass

    async def read_all(self, limit: int, *, progress: Callable[[], None] | None = None) -> bytes:
        """The whole body; `progress` hears of each read. Over `limit` bytes: UpstreamTooLarge, or
        UpstreamProtocol where it does not begin as an object of JSON does."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if progress is not None:
                progress()
            if size > limit:
                begun = parts[0].lstrip()
                kind = UpstreamTooLarge if begun[:1] in (b"{", b"") else UpstreamProtocol
                raise kind("The upstream's answer is too large.", detail=f"more than {limit} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @abstractmethod
    def finish(self) -> None:
        """All that matters was read: the connection is kept if the rest comes within LINGER."""

    @abstractmethod
    def close(self) -> None:
        """Drop the answer. Unless it was read to its end or finished, its connection closes now."""
