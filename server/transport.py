"""Upstream HTTP behind one small seam: send → head, then "all bytes since the last read".

No type of an HTTP library leaves this module, and every exception of one becomes an UpstreamError
with its outcome. Nothing is ever sent twice: no redirects, no retries, no decompression.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import payload as aiohttp_payload
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from server.errors import (
    ConnectFailed,
    UpstreamError,
    UpstreamProtocol,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTruncated,
)

#: Idle connections are retired after this many seconds, before the peers' own keep-alive ends
#: (engines are started with 75 s, providers keep a minute or more).
IDLE: Final = 30.0
#: Bytes read ahead per connection before the socket is paused.
READ_AHEAD: Final = 64 * 1024
#: Seconds that the end of a finished answer may take, for its connection to be kept.
LINGER: Final = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a target listens: a base URL, and a Unix socket's path when it is one."""

    base_url: str
    uds: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptTimeouts:
    """Seconds; see `config.schema.Timeouts`. `connect` covers look-up, connection and TLS."""

    connect: float
    first_byte: float
    inter_chunk: float


class _Body(aiohttp_payload.BytesPayload):
    """The request's bytes in one write: aiohttp would warn above 1 MiB, or cut it up."""

    def __init__(self, value: bytes) -> None:
        aiohttp_payload.Payload.__init__(self, value, content_type="application/json")
        self._size = len(value)


class _Wire(ResponseHandler):
    """A connection that always tells the reader of an answer when it ends early.

    aiohttp leaves the reader waiting where the framing breaks in mid-body, and where the pool is
    closed under it.
    """

    #: It has been handed out before.
    used = False

    def connection_lost(self, exc: BaseException | None) -> None:
        payload, broken = self._payload, self.exception()
        super().connection_lost(exc)
        _end(payload, broken)

    def close(self) -> None:
        payload = self._payload
        super().close()
        _end(payload, None)


def _end(payload: StreamReader | None, why: BaseException | None) -> None:
    if payload is not None and not payload.is_eof() and payload.exception() is None:
        payload.set_exception(why or aiohttp.ClientPayloadError("the connection was closed"))


class _Pool(aiohttp.BaseConnector):
    """A pool that never hands out a connection on which unasked bytes have come in.

    aiohttp would take them for the answer to the next request, which may be anybody's.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE, **how)
        self._factory = functools.partial(_Wire, loop=asyncio.get_running_loop())  # type: ignore[assignment]

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        while True:
            connection = await super().connect(*args, **kwargs)
            wire = connection.protocol
            assert isinstance(wire, _Wire)
            # A new peer may speak first (a proxy's 503): that is its answer, to this request.
            if not (wire.used and wire.should_close):
                wire.used = True
                return connection
            connection.close()


class _Tcp(_Pool, aiohttp.TCPConnector):
    pass


class _Unix(_Pool, aiohttp.UnixConnector):
    pass


class Response:
    """An answer whose head is in. `close()` is immediate and may be called at any time."""

    __slots__ = ("_finished", "_lingering", "_response", "headers", "status")

    def __init__(
        self, response: aiohttp.ClientResponse, lingering: set[aiohttp.ClientResponse]
    ) -> None:
        self._response = response
        self._lingering = lingering
        self._finished = False
        self.status = response.status
        #: Lower-case names; of repeated ones the last.
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}

    async def read(self) -> bytes:
        """All bytes since the last read, at least one; `b""` at the proper end of the answer.

        Not reading pauses the peer. Raises UpstreamTruncated, UpstreamProtocol, both only after
        the last byte that came in.
        """
        content = self._response.content
        try:
            return await content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            # aiohttp raises at once, over bytes that had come in before and were not read yet.
            if data := content._read_nowait(-1):
                return data
            raise translate(error, reading=True) from error

    async def read_all(self, limit: int, *, progress: Callable[[], None] = lambda: None) -> bytes:
        """The whole body; `progress` hears of each read. Over `limit` bytes: UpstreamProtocol."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            progress()
            if size > limit:
                raise UpstreamProtocol(
                    "The upstream's answer is too large.", detail=f"more than {limit} bytes"
                )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """All that matters was read: the connection is kept if the rest comes within LINGER."""
        self._finished = True
        if not self._response.closed:
            self._lingering.add(self._response)
            asyncio.get_running_loop().call_later(LINGER, self._drop)

    def close(self) -> None:
        """Drop the answer. Unless it was read to its end or finished, its connection closes now."""
        if not self._finished:
            self._response.close()

    def _drop(self) -> None:
        self._lingering.discard(self._response)
        self._response.close()


class Transport:
    """Connection pools: one for TCP and TLS, one per Unix socket."""

    def __init__(self) -> None:
        self._tcp: aiohttp.ClientSession | None = None
        self._unix: dict[str, aiohttp.ClientSession] = {}
        self._lingering: set[aiohttp.ClientResponse] = set()

    async def send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: AttemptTimeouts,
    ) -> Response:
        """Send one request and wait for the answer's head.

        Raises ConnectFailed (nothing was sent), UpstreamReset, UpstreamTimeout, UpstreamProtocol.
        Cancelling closes the connection.
        """

        async def once() -> aiohttp.ClientResponse:
            return await self._session(endpoint.uds).request(
                method,
                endpoint.base_url + path,
                data=_Body(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
                allow_redirects=False,
            )

        try:
            async with asyncio.timeout(timeouts.first_byte):
                try:
                    response = await once()
                except aiohttp.ClientConnectionError as error:
                    if not _unsent(error):
                        raise
                    response = await once()
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise translate(error) from error
            raise UpstreamTimeout(
                "The upstream did not answer in time.",
                outcome="first_byte_timeout",
                detail=f"no head within {timeouts.first_byte:g} s",
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translate(error) from error
        return Response(response, self._lingering)

    def _session(self, uds: str | None) -> aiohttp.ClientSession:
        if uds is None:
            if self._tcp is None:
                self._tcp = self._open(_Tcp(ttl_dns_cache=10))
            return self._tcp
        session = self._unix.get(uds)
        if session is None:
            session = self._unix[uds] = self._open(_Unix(path=uds))
        return session

    @staticmethod
    def _open(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
            read_bufsize=READ_AHEAD,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept"),
            headers={"accept-encoding": "identity", "user-agent": "roundhouse"},
        )

    async def forget(self, uds: str) -> None:
        """Close the pool of a Unix socket whose engine is gone."""
        if session := self._unix.pop(uds, None):
            await session.close()

    async def close(self) -> None:
        """Close every connection."""
        sessions = [*self._unix.values(), *([self._tcp] if self._tcp else [])]
        self._unix.clear()
        self._tcp = None
        for response in self._lingering:
            response.close()
        self._lingering.clear()
        for session in sessions:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await session.close()


def _unsent(error: aiohttp.ClientConnectionError) -> bool:
    """Is it certain that no byte went out, since an idle connection closed as we came to write?"""
    cause = error.__cause__ or error
    return (
        isinstance(cause, aiohttp.ClientConnectionResetError)
        and str(cause) == "Cannot write to closing transport"
    )


def translate(error: BaseException, *, reading: bool = False) -> UpstreamError:
    """The UpstreamError that an exception of the HTTP library or the system stands for.

    `reading`: the head was in already, so a lost connection is a truncated answer.
    """
    detail = f"{type(error).__name__}: {error}"
    unreachable: tuple[str, str] | None = None
    match error:
        case _ if reading:
            pass
        case aiohttp.ConnectionTimeoutError():
            unreachable = "connect_timeout", "The upstream could not be reached in time."
        case aiohttp.ClientConnectorDNSError():
            unreachable = "dns", "The upstream's name could not be resolved."
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLError():
            unreachable = "tls", "No secure connection to the upstream could be made."
        case aiohttp.ClientConnectorError():
            unreachable = "refused", "The upstream refused the connection."
    if unreachable is not None:
        outcome, message = unreachable
        return ConnectFailed(message, outcome=outcome, detail=detail)
    match error:
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            if reading or isinstance(error, aiohttp.ClientPayloadError):
                return UpstreamTruncated(
                    "The upstream's answer ended before it was complete.", detail=detail
                )
            return UpstreamReset("The upstream closed the connection.", detail=detail)
        case _:
            return UpstreamProtocol("The upstream sent something that is no answer.", detail=detail)
