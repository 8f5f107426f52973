"""Small questions to an engine, over its Unix socket or to a replica elsewhere: is it well, is it
moving, its metrics."""

from __future__ import annotations

import asyncio
import enum
import errno
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import httpx

MAX_ANSWER = 8 * 2**20
#: There is no TLS on a Unix socket; by default httpx would read all certificates for each client,
#: which blocks the loop for 100 ms. This context trusts nobody.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Health(enum.Enum):
    WELL = "well"
    MISSED = "missed"  # no answer in time, or not one we understand
    DEAD = "dead"  # nobody listens, or the engine says that its core is dead
    UNKNOWN = "unknown"  # we could not even ask: out of descriptors, or of memory


class Control:
    """HTTP to one engine. Every call has a deadline of its own and raises nothing but OSError.

    With a socket, `url` is only what the engine is told; without, it is where it listens. `tls` is
    for https.
    """

    def __init__(
        self,
        socket: str | None,
        *,
        url: str = "http://engine",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext = _NO_TLS,
    ) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=socket,
                verify=tls,
                limits=httpx.Limits(max_connections=4, max_keepalive_connections=1),
            ),
            base_url=url,
            # Bodies are taken as they come.
            headers={"accept-encoding": "identity", **(headers or {})},
            trust_env=False,
        )

    async def __aenter__(self) -> Control:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, timeout: float) -> tuple[int, bytes]:
        """(status, body). Raises TimeoutError, ConnectionRefusedError (nobody listens, no socket),
        or another OSError, with its errno where there is one.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                self._client.stream("GET", path, timeout=timeout) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise OSError("an answer of more than 8 MiB")
                return response.status_code, bytes(body)
        except httpx.TimeoutException as exc:
            raise TimeoutError from exc
        except httpx.ConnectError as exc:
            cause = _cause(exc)
            if cause is None or cause.errno in (errno.ECONNREFUSED, errno.ENOENT):
                raise ConnectionRefusedError from exc
            raise OSError(cause.errno, cause.strerror or "connect") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise ConnectionError(type(exc).__name__) from exc

    async def health(self, timeout: float) -> Health:
        """vLLM says 200 also while it hangs or drains, 503 once its core is dead."""
        try:
            status, _ = await self.get("/health", timeout)
        except ConnectionRefusedError:
            return Health.DEAD
        except OSError as exc:
            return Health.UNKNOWN if exc.errno in OURS else Health.MISSED
        if status == 503:
            return Health.DEAD
        return Health.WELL if status == 200 else Health.MISSED


def _cause(exc: BaseException | None) -> OSError | None:
    """The OSError with a number that httpx and httpcore wrapped."""
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno is not None:
            return exc
        # A name with several addresses: each of them failed.
        first = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else None
        exc = first or exc.__cause__ or exc.__context__
    return None


#: Faults of this process, not of the engine that was to be asked.
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_RUNNING = re.compile(rb"^vllm:num_requests_running(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)
_STEPS = re.compile(rb"^vllm:iteration_tokens_total_count(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)


@dataclass(slots=True)
class Motion:
    """Tells a hang that `/health` cannot see: requests run, and no step is made for `limit` s."""

    limit: float
    steps: float | None = None
    still_since: float | None = None

    def stuck(self, metrics: bytes, now: float) -> bool:
        running = sum(float(value) for value in _RUNNING.findall(metrics))
        counts = [float(value) for value in _STEPS.findall(metrics)]
        steps = sum(counts)
        if not counts or running <= 0 or steps != self.steps:
            self.steps, self.still_since = steps, None
            return False
        if self.still_since is None:
            self.still_since = now
        return now - self.still_since >= self.limit
