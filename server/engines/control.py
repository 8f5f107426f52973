"""Small questions to an engine, on its socket, its port or elsewhere: is it well, is it moving, its
metrics; and what vLLM is told: to sleep, to wake up, to say one token."""

from __future__ import annotations

import asyncio
import enum
import errno
import json
import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import httpx

from server.errors import EngineError

MAX_ANSWER = 8 * 2**20
#: Seconds. Tens of gigabytes go to the host's memory, or come back from it.
SLEEP: Final = 120.0
#: A first step after a pause may compile.
CANARY: Final = 60.0
#: There is no TLS on a Unix socket; by default httpx would read all certificates for each client,
#: which blocks the loop for 100 ms. This context trusts nobody.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Health(enum.Enum):
    WELL = "well"
    MISSED = "missed"  # no answer in time, or not one we understand
    DEAD = "dead"  # nobody listens, or the engine says that its core is dead
    UNKNOWN = "unknown"  # we could not even ask: out of descriptors, or of memory


class Control:
    """HTTP to one engine. Every call has a deadline of its own and raises nothing but OSError, and
    EngineError where it says so.

    With a socket, `url` is only what the engine is told; without, it is where it listens. `tls` is
    for https. `path` is what `health` asks; `vllm`: it answers there as vLLM does.
    """

    def __init__(
        self,
        socket: str | None,
        *,
        url: str = "http://engine",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext = _NO_TLS,
        path: str = "/health",
        vllm: bool = True,
    ) -> None:
        self._path, self._vllm = path, vllm
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
        return await self._ask("GET", path, timeout)

    async def post(self, path: str, timeout: float, body: object = None) -> tuple[int, bytes]:
        """As `get`, with `body` as JSON."""
        return await self._ask("POST", path, timeout, body)

    async def _ask(
        self, method: str, path: str, timeout: float, content: object = None
    ) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(timeout),
                self._client.stream(method, path, timeout=timeout, json=content) as response,
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
        """vLLM says 200 also while it hangs or drains, 503 once its core is dead. Other programs
        say 503 for all sorts of reasons; one without that path is well when it lists its models.
        """
        try:
            status, _ = await self.get(self._path, timeout)
            if status == 404 and not self._vllm:
                status, _ = await self.get("/v1/models", timeout)
        except ConnectionRefusedError:
            return Health.DEAD
        except OSError as exc:
            return Health.UNKNOWN if exc.errno in OURS else Health.MISSED
        if status == 503 and self._vllm:
            return Health.DEAD
        return Health.WELL if status == 200 else Health.MISSED

    # --- what vLLM is told ----------------------------------------------------------------------

    async def sleep(self, level: int = 1, timeout: float = SLEEP) -> None:
        """Its weights go to the host's memory (level 1), its KV cache is dropped. Call it drained:
        what it is answering would be broken off. Raises EngineError when it did not obey."""
        await self._told(f"/sleep?level={level}", timeout)
        if not await self.asleep(timeout):
            raise _disobeyed("It was told to sleep, and says that it is awake.")

    async def wake(self, timeout: float = SLEEP) -> None:
        """The weights are back on the device. Raises EngineError when it did not obey."""
        await self._told("/wake_up", timeout)
        if await self.asleep(timeout):
            raise _disobeyed("It was told to wake up, and says that it sleeps.")

    async def asleep(self, timeout: float = 5.0) -> bool:
        status, body = await self.get("/is_sleeping", timeout)
        said = _object(body).get("is_sleeping")
        if status != 200 or not isinstance(said, bool):
            raise _disobeyed(f"It does not say whether it sleeps (status {status}).")
        return said

    async def canary(self, model: str, pooling: bool = False, timeout: float = CANARY) -> None:
        """One token, or one vector of an engine that says none (`pooling`: only that), from end to
        end: what `/health` says is no proof.

        Raises EngineError when what comes is none. An engine without any such path, for speech,
        proves nothing, unless it was said to pool.
        """
        if not pooling:
            body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
            said, answer = await self._try("/v1/completions", body, timeout)
            if said and not _a_token(answer):
                raise _disobeyed("It was asked for one token, and what it said is none.")
            if said:
                return
        for path in _POOLING:
            said, answer = await self._try(path, {"model": model, "input": "1"}, timeout)
            if said and not _finite(answer):
                raise _disobeyed("It was asked for one vector, and what it said is none.")
            if said:
                return
        if pooling:
            raise _disobeyed("It answers at no path for vectors.")

    async def _told(self, path: str, timeout: float) -> None:
        status, body = await self.post(path, timeout)
        if status == 404:
            raise EngineError(
                "This engine cannot sleep: it was started without `sleep`.", reason="environment"
            )
        if status != 200:
            raise _disobeyed(f"It refused {path} ({status}): {_excerpt(body)}")

    async def _try(self, path: str, body: object, timeout: float) -> tuple[bool, dict[str, Any]]:
        """(there is such a path, its answer). Raises EngineError for an error."""
        status, said = await self.post(path, timeout, body)
        if status == 404 and b"Not Found" in said:
            return False, {}
        if status != 200:
            raise _disobeyed(f"It answered a trial with {status}: {_excerpt(said)}")
        return True, _object(said)


#: Which of them it has depends on what it pools for.
_POOLING: Final = ("/v1/embeddings", "/classify", "/pooling")


def _disobeyed(message: str) -> EngineError:
    return EngineError(message, reason="crash")


def _excerpt(body: bytes) -> str:
    text = body[:1000].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)[:200] or "nothing more."


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _a_token(answer: dict[str, Any]) -> bool:
    """A choice with text that the engine did not give up."""
    try:
        choice = answer["choices"][0]
        return isinstance(choice["text"], str) and choice["finish_reason"] in ("stop", "length")
    except (KeyError, IndexError, TypeError):
        return False


def _finite(answer: dict[str, Any]) -> bool:
    """One item with numbers, all of them finite: memory that came back wrong makes NaN."""
    try:
        item = answer["data"][0]
        found = item.get("embedding", item.get("probs", item.get("data")))
        while found and isinstance(found[0], list):
            found = found[0]
        return bool(found) and all(math.isfinite(number) for number in found)
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


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
