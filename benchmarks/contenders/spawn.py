"""Starts a gateway as a session of its own, waits for its first good answer, and ends it.

Nothing here is asynchronous: whoever holds an event loop calls it in a thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import proc
from benchmarks.contenders.base import MODEL, GatewayDiedError, Running

#: Seconds that a gateway may take to its first answer. LiteLLM imports for long on a busy core.
START_TIMEOUT: Final = 180.0
STOP_TIMEOUT: Final = 3.0
POLL: Final = 0.02
TAIL: Final = 20
# Settings of the person who runs the benchmark, which must not reach a gateway.
UNWANTED: Final = (
    *("ROUNDHOUSE_", "LITELLM_", "OPENAI_", "PORTKEY_"),
    *("NODE_", "OTEL_", "PYTHON", "RUST_", "UVICORN_"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """How one gateway is started. `env` is added to an environment without proxies and keys."""

    name: str
    version: str
    argv: Sequence[str]
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout: float = START_TIMEOUT


@contextlib.contextmanager
def started(command: Command, *, core: int | None, folder: Path) -> Iterator[Running]:
    """Runs `command` until the context is left; its output goes to `folder/{name}.log`."""
    log = folder / f"{command.name}.log"
    began = time.perf_counter()
    process = _spawn(command, core, folder, log)
    try:
        _wait(process, command, log)
        took = time.perf_counter() - began
        yield Running(
            name=command.name,
            version=command.version,
            url=f"http://127.0.0.1:{command.port}",
            model=MODEL,
            headers=dict(command.headers),
            pid=process.pid,
            start_seconds=took,
        )
    finally:
        end(process)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def chat(port: int, headers: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
    """Status and body of one chat that is no stream. Raises OSError or HTTPException."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"content-type": "application/json", **headers},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the session that `process` leads: politely, then by force. Nothing of it is left."""
    # A leader that was waited for gives its number back while others of its group may live on.
    members = proc.tree(process.pid)
    _signal(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    _signal(process.pid, signal.SIGKILL)
    process.wait()
    for member in members:
        if member.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
    until = time.monotonic() + STOP_TIMEOUT
    while any(member.alive() for member in members) and time.monotonic() < until:
        time.sleep(POLL)


def _spawn(command: Command, core: int | None, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output, _on(core):
        try:
            return subprocess.Popen(
                list(command.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=_environment(command.env),
                start_new_session=True,
            )
        except OSError as error:
            raise GatewayDiedError(f"{command.name} cannot be started: {error}") from error


def _wait(process: subprocess.Popen[bytes], command: Command, log: Path) -> None:
    """Returns after a chat has been answered with text."""
    until = time.monotonic() + command.start_timeout
    last = "no answer"
    while time.monotonic() < until:
        if (code := process.poll()) is not None:
            raise GatewayDiedError(_report(f"{command.name} ended with {code}", log))
        try:
            status, body = chat(command.port, command.headers, timeout=10.0)
        except (OSError, http.client.HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
        else:
            if status == 200 and _has_text(body):
                return
            last = f"{status} {body[:300].decode(errors='replace')}"
        time.sleep(POLL)
    gave = f"{command.name} gave no good answer in {command.start_timeout:.0f} s; the last: {last}"
    raise GatewayDiedError(_report(gave, log))


def _has_text(body: bytes) -> bool:
    try:
        answer: Any = json.loads(body)
        return bool(answer["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError):
        return False


def _report(what: str, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    said = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    return f"{what}. The last lines of its log:\n{said}"


@contextlib.contextmanager
def _on(core: int | None) -> Iterator[None]:
    """Moves this thread to `core`, so that what it spawns is born there, and back."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(UNWANTED) and not name.lower().endswith("_proxy")
    }
    return {**kept, "NO_PROXY": "*", "no_proxy": "*", **extra}


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
