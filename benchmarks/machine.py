"""What this machine is, which two cores a run takes, and who else used them."""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

_TICK: Final = os.sysconf("SC_CLK_TCK")
_FILES: Final = 8192  # a thousand streams are four sockets each where the mock shares the process


class NoMachine(Exception):
    """This machine cannot carry a run; the message says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    gateway: int
    load: int


def choose() -> Cores:
    """The first two cores that this process may use and that are not two threads of one."""
    if not hasattr(os, "sched_setaffinity"):
        raise NoMachine("pinning processes to cores needs Linux")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise NoMachine(
            "one core for the gateway and one for the load are needed, and this process may use "
            f"only {len(cores)}"
        )
    first = cores[0]
    twins = _siblings(first)
    second = next((core for core in cores[1:] if core not in twins), cores[1])
    return Cores(first, second)


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return listed(path.read_text())
    except (OSError, ValueError):
        return {core}


def listed(text: str) -> set[int]:
    """`0-2,5` as the kernel writes lists of CPUs."""
    found: set[int] = set()
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def settle_in(cores: Cores) -> None:
    """Make this process the load: on its core, with files enough and no collector of garbage."""
    os.sched_setaffinity(0, {cores.load})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    gc.collect()
    gc.freeze()
    gc.disable()


def busy_seconds(cores: Cores) -> float:
    """CPU seconds that the two cores gave to anything since boot. What a hypervisor kept back
    (steal) counts, too: it was not there for us."""
    wanted = {f"cpu{cores.gateway}", f"cpu{cores.load}"}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / _TICK


@dataclass(frozen=True, slots=True)
class Mark:
    """CPU seconds at a moment: the gateway's, this process's, and all that the cores gave."""

    moment: float
    gateway: float
    load: float
    cores: float

    def share(self, before: Mark) -> dict[str, float]:
        """What was used since, per second: by the gateway, the load, and others (`foreign`)."""
        seconds = max(1e-9, self.moment - before.moment)
        gateway = (self.gateway - before.gateway) / seconds
        load = (self.load - before.load) / seconds
        foreign = (self.cores - before.cores) / seconds - gateway - load
        return {"gateway_busy": gateway, "load_busy": load, "foreign": max(0.0, foreign)}


def mark(cores: Cores, gateway: float) -> Mark:
    return Mark(time.perf_counter(), gateway, time.process_time(), busy_seconds(cores))


def facts(cores: Cores) -> dict[str, Any]:
    """What a reader of the figures needs to know. No names of hosts, people or folders."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gateway_core": cores.gateway,
        "load_core": cores.load,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "uvloop": _version("uvloop"),
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
        "commit": _git("rev-parse", "--short", "HEAD"),
        "server_changed": bool(_git("status", "--porcelain", "--", "server")),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
