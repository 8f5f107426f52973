"""One line in the log per request.

They are many, so they are made without structlog's processors when the log is JSON, and written
in batches: a line of a request that went well may come FLUSH seconds late.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import time
from typing import Final

import msgspec
import structlog

from server.telemetry import logs
from server.telemetry.redact import scrub

#: Seconds that a line may wait for others.
FLUSH: Final = 0.1
#: Characters; a client chooses these two, and a log line stays short.
_CLIENT_ID: Final = 128
_MODEL: Final = 200

_log = structlog.get_logger("roundhouse.request")
_encode = msgspec.json.Encoder().encode


def _zero() -> int:
    return 0


def _false() -> bool:
    return False


class RequestLog(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the log says of one request. No prompts, no answers, no keys: `key` is a key's name.

    Seconds are `time.monotonic()` differences. `error` is the code that the client saw, `detail`
    is for the operator. Fields that are None are left out of the line.
    """

    id: str
    endpoint: str
    status: int
    duration_s: float
    client_id: str | None = None
    key: str | None = None
    model: str | None = None
    target: str | None = None
    attempts: int = msgspec.field(default_factory=_zero)
    stream: bool = msgspec.field(default_factory=_false)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    ttft_s: float | None = None
    end: str | None = None
    error: str | None = None
    detail: str | None = None

    def emit(self) -> None:
        """Write the line, unless access lines are off: `warning` for a 5xx, else `info`."""
        settings = logs.settings
        if not settings.access or (self.status < 500 and settings.level > logging.INFO):
            return
        self.duration_s = round(self.duration_s, 6)
        if self.ttft_s is not None:
            self.ttft_s = round(self.ttft_s, 6)
        if self.client_id is not None:
            self.client_id = self.client_id[:_CLIENT_ID]
        if self.model is not None:
            self.model = self.model[:_MODEL]
        if self.status < 500 and settings.json:
            self._emit_fast()
            return
        shown = {
            name: item for name, item in msgspec.structs.asdict(self).items() if item is not None
        }
        if self.status >= 500:
            _log.warning("request", **shown)
        else:
            _log.info("request", **shown)

    def _emit_fast(self) -> None:
        # The four that hold words of others; all the rest are numbers and names of ours.
        if self.client_id is not None:
            self.client_id = scrub(self.client_id)
        if self.model is not None:
            self.model = _scrub_name(self.model)
        if self.detail is not None:
            self.detail = scrub(self.detail)
        if self.error is not None:  # an upstream's own code, for all we know
            self.error = scrub(self.error)
        try:
            fields = _encode(self)
        except (TypeError, ValueError, OverflowError):  # lone surrogates
            _log.info("request", **msgspec.structs.asdict(self))
            return
        line = f'{{"timestamp":"{_timestamp()}",{_HEAD}{fields[1:].decode()}'
        if logs.hold(line):
            try:
                asyncio.get_running_loop().call_later(FLUSH, logs.flush)
            except RuntimeError:
                logs.flush()


@functools.lru_cache(maxsize=256)
def _scrub_name(name: str) -> str:
    return scrub(name)


_HEAD: Final = '"level":"info","logger":"roundhouse.request","event":"request",'
_second = (0, "")


def _timestamp() -> str:
    """Now, as structlog's stamp looks. The date is written once a second."""
    global _second
    now = time.time()
    whole = int(now)
    if whole != _second[0]:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return f"{_second[1]}.{int((now - whole) * 1e6):06d}Z"


atexit.register(logs.flush)
