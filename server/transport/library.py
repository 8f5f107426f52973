"""Upstream HTTP through a proxy, by aiohttp: slower than our own wires, and at home in odd places.

Nothing is ever sent twice here either: no redirects, no retries, no decompression.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import math
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import yarl
from aiohttp import payload as aiohttp_payload
from aiohttp.abc import AbstractResolver, ResolveResult
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
from server.transport import descriptors, trust
from server.transport.names import look_up
from server.transport.pool import IDLE, tls_context
from server.transport.seam import AttemptTimeouts, Endpoint, Response
from server.transport.wire import READ_AHEAD

#: Seconds that the end of a finished answer may take, for its connection to be kept.
LINGER: Final = 1.0


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


class _Names(AbstractResolver):
    """The names of proxies, looked up as all others are; the pool remembers what was found."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await look_up(host, socket.AI_ADDRCONFIG)
        ]

    async def close(self) -> None:
        return


class _Pool(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which unasked bytes have come in.

    aiohttp would take them for the answer to the next request, which may be anybody's.
    """

    def __init__(self) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=IDLE,
            ttl_dns_cache=10,
            ssl=tls_context(),
            resolver=_Names(),
        )
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


class LibraryResponse(Response):
    """An answer that aiohttp reads."""

    def __init__(
        self, response: aiohttp.ClientResponse, lingering: set[aiohttp.ClientResponse]
    ) -> None:
        self._response = response
        self._lingering = lingering
        self._finished = False
        self._due, self._cap = math.inf, math.inf
        self._patience: float | None = None
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.headers.items()}

    def expect(self, by: float, patience: float | None = None, cap: float = math.inf) -> None:
        self._due, self._patience, self._cap = min(by, cap), patience, cap

    async def read(self) -> bytes:
        content = self._response.content
        try:
            left = None if self._due == math.inf else max(0.0, self._due - time.monotonic())
            async with asyncio.timeout(left):
                data = await content.readany()
        except TimeoutError:
            raise UpstreamTimeout(
                "The upstream stopped in the middle of the answer.", outcome="stall"
            ) from None
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            # aiohttp raises at once, over bytes that had come in before and were not read yet.
            if data := content._read_nowait(-1):
                return data
            raise translate(error, reading=True) from error
        if self._patience is not None:
            self._due = min(time.monotonic() + self._patience, self._cap)
        return data

    def finish(self) -> None:
        self._finished = True
        if not self._response.closed:
            self._lingering.add(self._response)
            asyncio.get_running_loop().call_later(LINGER, self._drop)

    def close(self) -> None:
        if not self._finished:
            self._response.close()

    def _drop(self) -> None:
        self._lingering.discard(self._response)
        self._response.close()


class LibraryTransport:
    """aiohttp's pool, for endpoints with a proxy."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Pool(),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
            read_bufsize=READ_AHEAD,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept"),
            headers={"accept-encoding": "identity", "user-agent": "roundhouse"},
        )
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
        due: float,
    ) -> Response:
        """See `Transport.send`. `due`: when the head must be in."""
        assert endpoint.proxy is not None
        proxy, login = _proxy(endpoint.proxy)
        secure = endpoint.base_url[:6].lower() == "https:"
        trusted: ssl.SSLContext | bool = True  # the pool's own, then
        if secure and endpoint.ca is not None:
            trusted = await _trusting(endpoint.ca, min(timeouts.connect, due - time.monotonic()))
        if not secure:  # then the request itself is what the proxy reads
            headers = {**headers, **login}

        async def once() -> aiohttp.ClientResponse:
            return await self._session.request(
                method,
                endpoint.base_url + path,
                data=_Body(body),
                headers=headers,
                proxy=proxy,
                proxy_headers=login if secure else None,
                ssl=trusted,  # part of the key under which connections are kept
                timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
                allow_redirects=False,
            )

        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                try:
                    response = await once()
                except aiohttp.ClientConnectionError as error:
                    if not _unsent(error):
                        raise
                    response = await once()
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise translate(error) from None
            raise UpstreamTimeout(
                "The upstream did not answer in time.", outcome="first_byte_timeout"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, OSError) and descriptors.lacking(error):
                raise descriptors.out_of() from None
            raise translate(error, ca=endpoint.ca) from None  # aiohttp's own holds the login
        if response.status == 407:  # of our account at the proxy, and not the upstream's to say
            response.close()
            raise ConnectFailed(
                "The proxy to the upstream refused.", outcome="refused", detail="407 of the proxy"
            )
        return LibraryResponse(response, self._lingering)

    async def close(self) -> None:
        """Close every connection."""
        for response in self._lingering:
            response.close()
        self._lingering.clear()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await self._session.close()


async def _trusting(ca: str, seconds: float) -> ssl.SSLContext:
    """`trust.trusting`, in the time for connecting."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await trust.trusting(ca)
    except TimeoutError:
        raise ConnectFailed(
            "The upstream could not be reached in time.",
            outcome="connect_timeout",
            detail=f"{ca} could not be read within {seconds:g} s",
        ) from None


@functools.lru_cache(maxsize=64)
def _proxy(url: str) -> tuple[yarl.URL, dict[str, str]]:
    """A proxy's URL without its login, which aiohttp would name in its errors, and the header with
    it. Raises ValueError for what is no URL."""
    parts = yarl.URL(url)
    if parts.user is None and parts.password is None:
        return parts, {}
    login = f"{parts.user or ''}:{parts.password or ''}".encode()
    header = f"Basic {base64.b64encode(login).decode()}"
    return parts.with_user(None), {"proxy-authorization": header}


def _unsent(error: aiohttp.ClientConnectionError) -> bool:
    """Is it certain that no byte went out, since an idle connection closed as we came to write?"""
    cause = error.__cause__ or error
    return (
        isinstance(cause, aiohttp.ClientConnectionResetError)
        and str(cause) == "Cannot write to closing transport"
    )


def translate(
    error: BaseException, *, reading: bool = False, ca: str | None = None
) -> UpstreamError:
    """The UpstreamError that an exception of the HTTP library or the system stands for.

    `reading`: the head was in already, so a lost connection is a truncated answer. `ca`: the file
    whose authorities were to vouch for the upstream.
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
        case aiohttp.ClientHttpProxyError():
            unreachable = "refused", "The proxy to the upstream refused."
        case aiohttp.ClientConnectorError():
            unreachable = "refused", "The upstream refused the connection."
    if unreachable is not None:
        outcome, message = unreachable
        detail = trust.told(detail, ca) if outcome == "tls" else detail
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
