from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from server.telemetry import access, logs

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Logging is global: put back what other tests expect."""
    root = logging.getLogger()
    names = (*logs._ROUTED, "server")
    levels = {name: logging.getLogger(name).level for name in names}
    before, handlers = root.level, list(root.handlers)
    configured, config = structlog.is_configured(), structlog.get_config()
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    if configured:  # loggers in use keep the list of processors of that time
        structlog.configure(**config)
    else:
        structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """What was logged since the last call; every line must be JSON, and stdout empty."""

    def read() -> list[dict[str, Any]]:
        out, err = capsys.readouterr()
        assert out == ""
        return [json.loads(line) for line in err.splitlines()]

    return read


def request_log(**more: Any) -> access.RequestLog:
    given: dict[str, Any] = {"id": "r1", "endpoint": "chat", "status": 200, "duration_s": 1}
    given.update(more)
    return access.RequestLog(**given)


def test_json_is_one_line_each_and_in_order(lines: Lines) -> None:
    logs.configure()
    structlog.get_logger("a.b").info("two\nlines", x=1)
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "logger", "event", "x"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["logger"], line["event"]) == ("info", "a.b", "two\nlines")


def test_a_reload_changes_loggers_in_use(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    log = structlog.get_logger("a").bind(engine="e")
    log.info("hidden")
    logs.configure("debug")
    log.debug("seen")
    assert [line["event"] for line in lines()] == ["seen"]
    logs.configure("info", "console")
    log.info("for people")
    err = capsys.readouterr().err
    assert "for people" in err
    assert "{" not in err
    logs.configure("error", "json")
    log.warning("hidden")
    try:
        raise KeyError("k")
    except KeyError:
        log.exception("failed")
    (line,) = lines()
    assert line["level"] == "error"
    assert "KeyError: 'k'" in line["exception"]


def test_auto_is_console_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    logs.configure()
    structlog.get_logger("a").info("colour")
    assert "\x1b[" in capsys.readouterr().err


def test_stdlib_loggers_take_the_same_way(lines: Lines) -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
    logs.configure()
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("httpx").info("HTTP Request: GET https://host/?key=1")
    logging.getLogger("elsewhere").info("chatter")
    assert lines() == []
    try:
        raise ValueError("api_key=abcdef")
    except ValueError:
        logging.getLogger("asyncio").exception("Task %s failed", "t")
    wrong = {"name": "aiohttp.server", "levelname": "WARNING", "msg": "two %s", "args": (1, 2)}
    logs.StdlibHandler().handle(logging.makeLogRecord(wrong))
    logging.getLogger("server.x").info("ours")
    first, second, third = lines()
    assert (first["event"], first["logger"], first["level"]) == (
        "Task t failed",
        "asyncio",
        "error",
    )
    assert "api_key=***" in first["exception"]
    assert second["event"] == "two %s"
    assert third["level"] == "info"
    logs.configure("debug")
    logging.getLogger("elsewhere").info("chatter")
    logging.getLogger("elsewhere").debug("noise")
    logging.getLogger("httpcore").info("headers")
    assert [line["event"] for line in lines()] == ["chatter"]
    assert sum(isinstance(h, logs.StdlibHandler) for h in logging.getLogger().handlers) == 1


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("api_key", "short", "***"),
        ("Authorization", "Bearer x", "***"),
        ("admin_key", "a", "***"),
        ("metrics_key", "a", "***"),
        ("hf_token", "a", "***"),
        ("password", ["a"], "***"),
        ("headers", {"x-api-key": "v", "accept": "json"}, {"x-api-key": "***", "accept": "json"}),
        ("argv", ["--api-key=verysecret", "-x"], ["--api-key=***", "-x"]),
        ("note", "got Bearer abc.def-123 back", "got Bearer *** back"),
        ("note", "sk-proj-abcdefgh12345, hf_AbCdEfGh123", "sk-***, hf_***"),
        ("note", "https://me:hunter22@host/v1", "https://me:***@host/v1"),
        ("note", "{'authorization': 'Token abcdef'}", "{'authorization': '***'}"),
        ("note", b"token: abcdef \xff", "token: *** \\xff"),
        ("note", ValueError("secret=abcd1"), "ValueError: secret=***"),
        ("key", "team-a", "team-a"),
        ("prompt_tokens", 7, 7),
        ("model", "ask-me-anything-task-12345678", "ask-me-anything-task-12345678"),
        ("target", "xai-account/grok", "xai-account/grok"),
        ("deep", [[[[[[["x"]]]]]]], [[[[[["…"]]]]]]),
        ("path", {1}, [1]),
        ("huge", 2**70, 2**70),
    ],
)
def test_redaction(lines: Lines, field: str, value: Any, shown: Any) -> None:
    logs.configure()
    structlog.get_logger("a").info("x", **{field: value})
    assert lines()[0][field] == shown


def test_long_and_odd_text_is_tamed(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log = structlog.get_logger("a")
    log.info("x", tail="y" * 100_000, lone="\ud800")
    (line,) = lines()
    assert len(line["tail"]) < 20_000
    assert "83616 characters left out" in line["tail"]
    logs.configure("info", "console")
    log.info("x", model="a\x1b[31m\nfake line")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_a_log_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure()
    for stderr in (None, open(__file__)):  # noqa: SIM115 - not writable
        monkeypatch.setattr(sys, "stderr", stderr)
        structlog.get_logger("a").error("lost")
        logging.getLogger("asyncio").error("lost")
        if stderr is not None:
            stderr.close()
        structlog.get_logger("a").error("lost")


def test_request_line(lines: Lines) -> None:
    logs.configure()
    request_log(duration_s=1.23456789, model="m" * 300, key="team-a", ttft_s=0.1).emit()
    request_log(status=502, error="upstream_reset", detail="Bearer abcdefgh").emit()
    first, second = lines()
    assert first["level"] == "info"
    assert first["logger"] == "roundhouse.request"
    assert first["duration_s"] == 1.234568
    assert first["key"] == "team-a"
    assert len(first["model"]) == 200
    assert "target" not in first
    assert (second["level"], second["detail"]) == ("warning", "Bearer ***")
    logs.configure(access=False)
    request_log().emit()
    assert lines() == []
    logs.configure("warning")
    request_log().emit()
    request_log(status=500).emit()
    assert [line["status"] for line in lines()] == [500]


def test_a_request_line_has_no_room_for_prompts() -> None:
    assert set(access.RequestLog.__struct_fields__) == {
        *("id", "client_id", "key", "endpoint", "model", "target", "attempts", "status", "stream"),
        *("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "ttft_s"),
        *("duration_s", "end", "error", "detail"),
    }


def test_capture_logs_still_works_on_loggers_in_use() -> None:
    logs.configure()
    log = structlog.get_logger("a")
    log.info("first")
    with structlog.testing.capture_logs() as caught:
        log.info("second", x=1)
    assert caught == [{"event": "second", "x": 1, "log_level": "info"}]


def test_an_upstreams_code_is_scrubbed_like_the_rest(lines: Lines) -> None:
    logs.configure("info", "json")
    request_log(status=400, error="api_key=sk-0123456789abcdef", detail="token: abcdefgh").emit()
    (line,) = lines()
    assert "0123456789" not in json.dumps(line)
    assert "abcdefgh" not in json.dumps(line)


def test_lines_of_several_threads_are_all_written(lines: Lines) -> None:
    """One holds lines, the others write what is held: none is lost, and none written twice."""
    logs.configure("info", "json")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            logs.flush()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=write) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for n in range(20_000):
            logs.hold(json.dumps({"n": n}))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    logs.flush()
    assert sorted(line["n"] for line in lines()) == list(range(20_000))
