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
import threading
from collections.abc import MutableMapping
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


class Settings:
    """What a reload may change."""

    level: int = logging.INFO
    access: bool = True
    json: bool = True


#: Shared with every logger in use, so changed in place, never replaced.
_processors: list[Processor] = []
settings = Settings()


class Output:
    """Writes lines to today's `sys.stderr`; a log that cannot be written fails nobody."""

    def __init__(self, name: str = "roundhouse") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        if _held:
            line = "\n".join([*_taken(), line])
        _write(line)

    debug = info = warning = error = critical = exception = log = msg


#: Lines that wait to be written together, in order, before any other line.
_held: list[str] = []
_taking: Final = threading.Lock()


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def hold(line: str) -> bool:
    """Keep a line for the next `flush`, or for the next line of another kind. True for the first
    one held: whoever gets it sees to the flush."""
    _held.append(line)
    return len(_held) == 1


def flush() -> None:
    """Write what is held."""
    if taken := _taken():
        _write("\n".join(taken))


def _taken() -> list[str]:
    # Other threads log too, if seldom: what is held between a look and a clearing would be lost.
    with _taking:
        taken = _held[:]
        del _held[: len(taken)]
    return taken


class Logger(structlog.stdlib.BoundLogger):
    """Asks for the level at each call, so that it may be cached for good."""

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any
    ) -> Any:
        if _LEVELS.get(method_name, logging.CRITICAL) < settings.level:
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
    settings.level = _LEVELS[level]
    settings.access = access
    if format == "auto":
        format = "console" if sys.stderr is not None and sys.stderr.isatty() else "json"
    settings.json = format == "json"
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
    debug = settings.level <= logging.DEBUG
    root = logging.getLogger()
    if not any(isinstance(handler, StdlibHandler) for handler in root.handlers):
        root.addHandler(StdlibHandler())
    root.setLevel(max(settings.level, logging.INFO if debug else logging.WARNING))
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(settings.level, logging.WARNING))
    logging.getLogger("server").setLevel(settings.level)
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
