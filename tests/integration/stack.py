"""A real server in a process of its own, with real engines, for the integration tests."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

REPO_ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = REPO_ROOT / ".venv-engine" / "bin" / "python"
#: Nothing here speaks TLS. httpx reads all the machine's certificates for each call that brings no
#: context of its own: 25 ms of the CPU that the engines need to start.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
#: Seconds for a tiny model on two slow cores, with other engines starting beside it and a machine
#: that has other work: 25 s where it has none.
START = 900.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(look: Callable[[], Any], *, within: float, what: str) -> Any:
    """Look every 50 ms until something is there. Processes outside the test send no events."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}")


class ServerProcess:
    """`roundhouse serve` on a config made for the test."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.home = folder / "home"
        server = {
            "port": self.port,
            "admin": f"127.0.0.1:{self.admin_port}",
            "home": str(self.home),
            "timeouts": {"total": START, "first_byte": START},
            **config.pop("server", {}),
        }
        runtimes = {"vllm": {"python": str(ENGINE_PYTHON)}}
        self.path = folder / "roundhouse.yaml"
        self.path.write_text(
            yaml.safe_dump(
                {"version": 1, "server": server, "runtimes": runtimes, **config}, sort_keys=False
            )
        )
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("ROUNDHOUSE_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("roundhouse")), "serve", str(self.path)],
                cwd=REPO_ROOT,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def get(self, path: str, *, admin: bool = False, **more: Any) -> httpx.Response:
        """Of the public listener, or of the admin's."""
        url = self.admin_url if admin else self.url
        return httpx.get(url + path, verify=_NO_TLS, **more)

    def wait_ready(self, *models: str, within: float = START) -> None:
        """Until each model has a ready target."""

        def ready() -> bool:
            return all(self.get("/ready", params={"model": m}).status_code == 200 for m in models)

        self._wait(ready, within, f"{', '.join(models)} ready")

    def wait_up(self, within: float = 60.0) -> None:
        """Until it answers at all."""
        self._wait(lambda: self.get("/health").status_code == 200, within, "the server up")

    def _wait(self, look: Callable[[], bool], within: float, what: str) -> None:
        def there() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.tail()}")
            try:
                return look()
            except httpx.TransportError:
                return False

        try:
            until(there, within=within, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self) -> str:
        """The ends of the server's and the engines' logs."""
        parts = []
        for path in (self.log, *sorted(self.home.glob("logs/*.log"))):
            text = path.read_text(errors="replace")[-4000:]
            parts.append(f"--- {path.name}\n{text}")
        return "\n".join(parts)

    def engines(self) -> dict[str, dict[str, Any]]:
        """The admin API's view, by engine name."""
        found = self.get("/engines", admin=True).json()["engines"]
        return {engine["name"]: engine for engine in found}

    def metric(self, name: str, *, engines: bool = False, **labels: str) -> float:
        """The sum of all series of a metric that have these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        path = "/metrics/engines" if engines else "/metrics"
        text = self.get(path, admin=True).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def descendants(self) -> list[psutil.Process]:
        """Guards, engines and their workers, as they are now."""
        return psutil.Process(self.pid).children(recursive=True)

    def engine_processes(self, name: str) -> list[psutil.Process]:
        """The processes of one engine: the API server first, then what it started."""
        pid = self.engines()[name]["pid"]
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]

    def stop(self, within: float = 60.0) -> int:
        """SIGTERM, and the exit code. Kills everything when that does not do."""
        assert self.process is not None
        family = (
            [psutil.Process(self.pid), *self.descendants()] if self.process.poll() is None else []
        )
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        finally:
            for one in family:
                if one.is_running() and one.pid != self.pid:
                    one.kill()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(folder: Path, config: dict[str, Any], *models: str) -> Iterator[ServerProcess]:
    """A server that has started and whose `models` are ready; stopped afterwards, with nothing
    left."""
    server = ServerProcess(folder, config)
    server.start()
    try:
        server.wait_ready(*models)
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
