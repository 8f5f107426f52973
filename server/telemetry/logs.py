"""The log: one line per event on stderr, JSON or for a person, from structlog and stdlib alike.

`configure` may be called again at any time (a reload): loggers already in use follow, since they
share one list of processors and ask for the level at each call. Timestamps are ISO 8601, UTC.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from server.telemetry import redact

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
#: At level debug libraries speak from INFO on, these from WARNING: httpcore shows headers, httpx
#: whole URLs, and the two of uvicorn repeat what we say ourselves.
_QUIET: Final = (
    "asyncio",
    "httpcore",
    "httpx",
    "uvicorn.access",
    "uvicorn.error",
    "aiohttp.access",
)
#: They may have brought handlers of their own.
_ROUTED: Final = ("uvicorn", "uvicorn.access", "uvicorn.error", "aiohttp", "asyncio", "httpx")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_encode = msgspec.json.Encoder().encode


class _Settings:
    """What a reload may change."""

    level: int = logging.INFO
    access: bool = True


#: Shared with every logger in use, so changed in place, never replaced.
_processors: list[Processor] = []
_settings = _Settings()


class Output:
    """Writes lines to today's `sys.stderr`; a log that cannot be written fails nobody."""

    def __init__(self, name: str = "roundhouse") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = log = msg


class Logger(structlog.stdlib.BoundLogger):
    """Asks for the level at each call, so that it may be cached for good."""

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any
    ) -> Any:
        if _LEVELS.get(method_name, logging.CRITICAL) < _settings.level:
            return None
        return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)


class StdlibHandler(logging.Handler):
    """Sends the records of stdlib loggers down the same processors."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - somebody's wrong format arguments
            text = str(record.msg)
        event: EventDict = {"event": text, "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        method = record.levelname.lower()
        try:
            done: Any = event
            for processor in _processors:
                done = processor(None, method, done)
            Output().msg(done)
        except structlog.DropEvent:
            pass
        except Exception:  # noqa: BLE001 - a handler never raises into the code that logs
            Output().msg("a log record could not be rendered")


def configure(level: Level = "info", format: Format = "auto", *, access: bool = True) -> None:
    """Set up structlog and stdlib logging, or change them. `auto` is console on a terminal.

    uvicorn must run with `log_config=None`, or it puts its own handlers back.
    """
    _settings.level = _LEVELS[level]
    _settings.access = access
    if format == "auto":
        format = "console" if sys.stderr is not None and sys.stderr.isatty() else "json"
    _processors[:] = [
        _name_and_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact,
        *([_escape, _console()] if format == "console" else [_json]),
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=Logger,
        logger_factory=Output,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    _configure_stdlib()


def _configure_stdlib() -> None:
    debug = _settings.level <= logging.DEBUG
    root = logging.getLogger()
    if not any(isinstance(handler, StdlibHandler) for handler in root.handlers):
        root.addHandler(StdlibHandler())
    root.setLevel(max(_settings.level, logging.INFO if debug else logging.WARNING))
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(_settings.level, logging.WARNING))
    logging.getLogger("server").setLevel(_settings.level)
    logging.captureWarnings(True)


# --- processors


def _name_and_level(logger: Any, method: str, event: EventDict) -> EventDict:
    if method == "exception":
        method = "error"
    event["level"] = "warning" if method == "warn" else method
    if "logger" not in event:
        event["logger"] = logger.name
    return event


def _redact(logger: Any, method: str, event: EventDict) -> EventDict:
    return {name: redact.value(name, item) for name, item in event.items()}


def _json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    line = {
        "timestamp": event.pop("timestamp", None),
        "level": event.pop("level", None),
        "logger": event.pop("logger", None),
        "event": event.pop("event", None),
        **event,
    }
    try:
        return _encode(line).decode()
    except (TypeError, ValueError, OverflowError):  # lone surrogates, integers over 64 bits
        return json.dumps(line, default=str)


def _escape(logger: Any, method: str, event: EventDict) -> EventDict:
    """A client's bytes must not draw on a terminal, nor start a line of their own."""
    for name, item in event.items():
        if isinstance(item, str):
            text = _CONTROL.sub(_visible, item)
            event[name] = text if name in ("exception", "stack") else text.replace("\n", "\\n")
    return event


def _visible(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _console() -> Processor:
    colors = sys.stderr is not None and sys.stderr.isatty()
    return structlog.dev.ConsoleRenderer(
        colors=colors,
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
        pad_event_to=24,
    )


# --- one line per request

_log = structlog.get_logger("roundhouse.request")
#: A client chooses these two; a log line stays short.
_CLIENTS_OWN: Final = {"client_id": 128, "model": 200}


@dataclass(slots=True, kw_only=True)
class RequestLog:
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
    attempts: int = 0
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft_s: float | None = None
    end: str | None = None
    error: str | None = None
    detail: str | None = None

    def emit(self) -> None:
        """Write the line, unless access lines are off: `warning` for a 5xx, else `info`."""
        if not _settings.access:
            return
        line: dict[str, Any] = {}
        for name in _FIELDS:
            item = getattr(self, name)
            if item is None:
                continue
            if name in _CLIENTS_OWN:
                item = item[: _CLIENTS_OWN[name]]
            line[name] = round(item, 6) if isinstance(item, float) else item
        if self.status >= 500:
            _log.warning("request", **line)
        else:
            _log.info("request", **line)


_FIELDS: Final = tuple(field.name for field in fields(RequestLog))
