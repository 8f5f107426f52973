"""`roundhouse serve` with one engine, and the two doors to that engine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import yaml

import roundhouse
from benchmarks.engine.load import Door
from benchmarks.engine.machine import Crew
from benchmarks.engine.stats import DIRECT, THROUGH

ROOT: Final = Path(__file__).resolve().parents[2]
ENGINE: Final = "engine"
#: The Python that `make setup-engine` makes.
ENGINE_PYTHON: Final = str(ROOT / ".venv-engine" / "bin" / "python")


class StackError(Exception):
    """The server or its engine did not come up. The message ends with their logs."""


def config(
    engine: dict[str, Any], *, python: str | None, ports: tuple[int, int], key: str, home: Path
) -> dict[str, Any]:
    """One engine behind one key; everything else is the product's default."""
    made: dict[str, Any] = {
        "version": 1,
        "server": {
            "port": ports[0],
            "admin": f"127.0.0.1:{ports[1]}",
            "home": str(home),
            "keys": [{"name": "benchmark", "key": key}],
        },
        "engines": {ENGINE: engine},
        "models": {"model": {"targets": [{"engine": ENGINE}]}},
    }
    if python is not None:
        made["runtimes"] = {"vllm": {"python": python}}
    return made


class Server:
    """A process of `roundhouse serve` on a config, with an admin listener at `ports[1]`."""

    def __init__(self, folder: Path, made: dict[str, Any], ports: tuple[int, int]) -> None:
        self.folder, self.ports = folder, ports
        self.home = folder / "home"
        self.path = folder / "roundhouse.yaml"
        self.path.write_text(yaml.safe_dump(made, sort_keys=False))
        self.log = folder / "server.log"
        env = {k: v for k, v in os.environ.items() if not k.startswith("ROUNDHOUSE_")}
        env |= _as_installed(folder / "installed")
        with self.log.open("wb") as log:
            # By -c and the working directory, so that it is this checkout's server whatever is
            # installed; in a session of its own, as a service manager would start it.
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from server.cli import main; main()", "serve", self.path],
                cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def views(self) -> list[dict[str, Any]]:
        """The engines as the admin API shows them; empty until there is one."""
        try:
            found: list[dict[str, Any]] = json.loads(self.ask("/engines"))["engines"]
        except (URLError, OSError, ValueError, LookupError):
            return []
        return found

    def ask(self, path: str) -> bytes:
        """A page of the admin listener."""
        with urlopen(f"http://127.0.0.1:{self.ports[1]}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def wait_ready(self, within_s: float) -> None:
        """Until all engines are."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StackError(f"the server ended ({self.process.returncode})\n{self.tail()}")
            states = {view["state"] for view in self.views()}
            if states == {"ready"}:
                return
            if "failed" in states:
                raise StackError(f"the engine failed\n{self.tail()}")
            time.sleep(0.25)
        raise StackError(f"not ready within {within_s:g} s\n{self.tail()}")

    def tail(self) -> str:
        """The ends of the logs."""
        logs = [self.log, *sorted(self.home.glob("logs/*.log"))]
        ends = (f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs)
        return "\n".join(ends)

    def stop(self, within_s: float = 60.0) -> None:
        """SIGTERM, and a kill of whatever is left."""
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


class Stack(Server):
    """A running server whose one engine is ready."""

    def __init__(self, folder: Path, engine: dict[str, Any], python: str | None) -> None:
        ports = (free_port(), free_port())
        self.key = new_key()
        made = config(engine, python=python, ports=ports, key=self.key, home=folder / "home")
        super().__init__(folder, made, ports)

    def view(self) -> dict[str, Any]:
        """The engine as the admin API shows it; empty until there is one."""
        return next(iter(self.views()), {})

    def doors(self) -> dict[str, Door]:
        """To the engine's own Unix socket, and to the server's port. The engine knows its model by
        the engine's name, the server by the model's."""
        argv = self.engine_argv()
        uds = argv[argv.index("--uds") + 1]
        return {
            DIRECT: Door(DIRECT, ENGINE, uds=uds),
            THROUGH: Door(THROUGH, "model", port=self.ports[0], key=self.key),
        }

    def engine_argv(self) -> list[str]:
        return psutil.Process(int(self.view()["pid"])).cmdline()

    def crew(self) -> Crew:
        return Crew(self.process.pid, int(self.view()["pid"]))

    def engine_counts(self) -> dict[str, float]:
        """Counters of vLLM's that say whether a turn was what it should be."""
        wanted = ("prefix_cache_hits", "num_preemptions", "generation_tokens", "prompt_tokens")
        return counts(self.ask("/metrics/engines").decode(), wanted)


def counts(exposition: str, wanted: Collection[str]) -> dict[str, float]:
    """vLLM's counters of these names (without prefix and `_total`), each over all its series."""
    found = dict.fromkeys(wanted, 0.0)
    for line in exposition.splitlines():
        name = line.partition("{")[0].removeprefix("vllm:").removesuffix("_total")
        if name in found and line.startswith("vllm:"):
            found[name] += float(line.rpartition(" ")[2])
    return found


def new_key() -> str:
    return f"sk-benchmark-{secrets.token_hex(16)}"


def _as_installed(folder: Path) -> dict[str, str]:
    """The server asks for its distribution's version. A bare checkout has none: one is written,
    and the variable that leads to it given back."""
    try:
        metadata.version("roundhouse-llm")
    except metadata.PackageNotFoundError:
        info = folder / f"roundhouse_llm-{roundhouse.__version__}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: roundhouse-llm\nVersion: {roundhouse.__version__}\n"
        )
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}
    return {}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(
    folder: Path, engine: dict[str, Any], python: str | None, *, within_s: float
) -> Iterator[Stack]:
    """A ready stack; stopped afterwards, also when this process is told to end."""
    stack: Stack | None = None
    before = signal.signal(signal.SIGTERM, leave)
    try:
        stack = Stack(folder, engine, python)
        stack.wait_ready(within_s)
        yield stack
    finally:
        if stack is not None:
            stack.stop()
        signal.signal(signal.SIGTERM, before)


def leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
