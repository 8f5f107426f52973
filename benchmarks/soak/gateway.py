"""A `roundhouse serve` process in front of the mock, and what the kernel and /metrics say of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.soak.plans import KEY, PAIRED, SINGLE

_MIB: Final = 2**20
_SAMPLE: Final = re.compile(
    r'^([a-zA-Z_:][\w:]*)(?:\{(?:.*?\ble="([^"]+)")?[^}]*\})? (\S+)$', re.MULTILINE
)
TASKS: Final = "roundhouse_tasks"
LAG: Final = "roundhouse_event_loop_lag_seconds"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Usage:
    """What the kernel counts: MiB, numbers, seconds. `pss` and `uss` None: not asked for."""

    rss: float
    pss: float | None
    uss: float | None
    descriptors: int
    threads: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Inside:
    """What the server says of itself; None: not that. `lag`: upper bound → how many so far."""

    tasks: float | None
    lag: Mapping[float, float] | None


def read_metrics(text: str) -> Inside:
    """The two measures of the inside, out of an exposition."""
    tasks: float | None = None
    lag: dict[float, float] = {}
    for name, bound, value in _SAMPLE.findall(text):
        if name == TASKS:
            tasks = float(value)
        elif name == f"{LAG}_bucket" and bound:
            lag[float(bound)] = lag.get(float(bound), 0.0) + float(value)
    return Inside(tasks, lag or None)


class Gateway:
    """The process. `command` starts it, with the config's path behind it."""

    def __init__(
        self,
        folder: Path,
        mock_port: int,
        *,
        command: Sequence[str] = (),
        inter_chunk: float = 10.0,
        cpu: int | None = None,
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.log = folder / "server.log"
        self._cpu = cpu
        roundhouse = str(Path(sys.executable).with_name("roundhouse"))
        self._path = folder / "roundhouse.yaml"
        self._command = [*(command or (roundhouse, "serve")), str(self._path)]
        self._path.write_text(
            yaml.safe_dump(_config(self, folder, mock_port, inter_chunk), sort_keys=False)
        )
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, within: float = 60) -> None:
        """Until it is ready. Raises RuntimeError with the log's end."""
        env = {name: v for name, v in os.environ.items() if not name.startswith("ROUNDHOUSE_")}
        with self.log.open("wb") as log:
            self.process = await asyncio.to_thread(
                subprocess.Popen,
                self._command,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the run, not the server under it
            )
        if self._cpu is not None:
            os.sched_setaffinity(self.process.pid, {self._cpu})
        try:
            async with asyncio.timeout(within):
                while not await self._ready():
                    if self.process.poll() is not None:
                        raise RuntimeError(f"the server ended:\n{self.tail()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise RuntimeError(f"not ready within {within:g} s:\n{self.tail()}") from None

    async def _ready(self) -> bool:
        try:
            status, _ = await get(self.port, "/ready")
        except OSError:
            return False
        return status == 200

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        """The log's end."""
        return self.log.read_text(errors="replace")[-4000:]

    def usage(self, *, smaps: bool = False) -> Usage:
        """Now. `smaps` costs the server a moment of its memory map's lock."""
        return usage(self.pid, smaps=smaps)

    async def inside(self) -> Inside:
        """What /metrics says now."""
        _, body = await get(self.admin_port, "/metrics")
        return read_metrics(body.decode())

    async def stop(self, within: float = 40) -> int:
        """SIGTERM, and the exit code; killed when that does not do."""
        assert self.process is not None
        process = self.process
        process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, within)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)


def usage(pid: int, *, smaps: bool = False) -> Usage:
    """What /proc says of a process. Raises OSError when it is gone."""
    place = Path("/proc") / str(pid)
    status = _fields((place / "status").read_text())
    rolled = _fields((place / "smaps_rollup").read_text()) if smaps else {}
    stat = (place / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        rss=status["VmRSS"] / 1024,
        pss=rolled["Pss"] / 1024 if smaps else None,
        uss=(rolled["Private_Clean"] + rolled["Private_Dirty"]) / 1024 if smaps else None,
        descriptors=len(os.listdir(place / "fd")),
        threads=status["Threads"],
        cpu=(int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _fields(text: str) -> dict[str, int]:
    """`Name:   123 kB` lines; others are left out."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


async def get(port: int, path: str) -> tuple[int, bytes]:
    """GET on a connection of its own, which is closed with the answer: no scrape leaves anything
    open that could be taken for a leak."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
        )
        raw = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), body


def _config(gateway: Gateway, folder: Path, mock_port: int, inter_chunk: float) -> dict[str, Any]:
    mock = f"http://127.0.0.1:{mock_port}"
    return {
        "version": 1,
        "server": {
            "port": gateway.port,
            "admin": f"127.0.0.1:{gateway.admin_port}",
            "home": str(folder / "home"),
            "keys": [{"name": "soak", "key": KEY}],
        },
        "log": {"format": "json"},
        # Never open: each fault is to be met by the request that it was made for.
        "routing": {"breaker": {"failures": 10**9, "rate": 1.0, "volume": 10**9}},
        "providers": {
            "faulty": {
                "dialect": "openai",
                "base_url": f"{mock}/a/v1",
                "api_key": "sk-upstream",
                # So that every fault before the commit point reaches the second target.
                "retry_ambiguous": True,
                "timeouts": {"connect": 5.0, "first_byte": 30.0, "inter_chunk": inter_chunk},
            },
            "sound": {
                "dialect": "openai",
                "base_url": f"{mock}/b/v1",
                "api_key": "sk-upstream",
                "timeouts": {"connect": 5.0, "first_byte": 30.0, "inter_chunk": inter_chunk},
            },
        },
        "models": {
            SINGLE: {"targets": [{"provider": "faulty", "model": "mock"}]},
            PAIRED: {
                "targets": [
                    {"provider": "faulty", "model": "mock"},
                    {"provider": "sound", "model": "mock"},
                ]
            },
        },
    }


__all__ = [
    "LAG",
    "TASKS",
    "Gateway",
    "Inside",
    "Usage",
    "free_port",
    "get",
    "read_metrics",
    "usage",
]
