from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from server.cli import command
from server.config.providers_table import ROWS


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeServer:
    """A server on a real loopback socket that answers what a test tells it to."""

    url: str = ""
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def json(self, method: str, path: str, body: Any, status: int = 200) -> None:
        self.answers[method, path] = (status, body)

    def steps(self, method: str, path: str, *bodies: Any) -> None:
        """One after the other, the last again and again."""
        self.answers[method, path] = (200, deque(bodies))

    def error(self, method: str, path: str, status: int, message: str, code: str = "c") -> None:
        error = {"message": message, "type": "t", "param": None, "code": code}
        self.json(method, path, {"error": error}, status)

    def stream(self, *events: Any, path: str = "/v1/chat/completions") -> None:
        """Events: bytes as they are, text as a delta, others as JSON."""
        self.answers["POST", path] = (200, [framed(event) for event in events])

    def models(self, *names: str) -> None:
        data = [{"id": name, "object": "model", "owned_by": "roundhouse"} for name in names]
        self.json("GET", "/v1/models", {"object": "list", "data": data})


def framed(event: Any) -> bytes:
    if isinstance(event, bytes):
        return event
    if isinstance(event, str):
        event = {"choices": [{"index": 0, "delta": {"content": event}}]}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(size)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            fake.seen.append(Seen(self.command, self.path, headers, body))
            status, answer = fake.answers.get((self.command, self.path), (404, b"nothing here"))
            chunks: Iterable[bytes]
            if isinstance(answer, deque):
                answer = answer.popleft() if len(answer) > 1 else answer[0]
            if isinstance(answer, list | Iterator):
                chunks = answer
            else:
                chunks = [answer if isinstance(answer, bytes) else json.dumps(answer).encode()]
            self.send_response(status)
            self.end_headers()
            # A client that has its [DONE] may leave before the rest: its right, and no traceback.
            with suppress(ConnectionError):
                for chunk in chunks:
                    self.wfile.write(chunk)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    found = FakeServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(found)) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test of the command runs in an empty folder, without settings in the environment."""
    for name in [n for n in os.environ if n.startswith("ROUNDHOUSE_")]:
        monkeypatch.delenv(name)
    for name in (variable for row in ROWS.values() for variable in row.variables):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., Result]


class _Entry(click.Command):
    """What the console script runs, as click's runner wants it."""

    def main(self, *args: Any, **extra: Any) -> Any:
        raise SystemExit(command.run(extra.get("args") or (args[0] if args else [])))


@pytest.fixture
def run() -> Run:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run_it(*arguments: str, input: str | None = None) -> Result:
        runner = CliRunner()
        result = runner.invoke(_Entry("roundhouse"), list(arguments), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_it
