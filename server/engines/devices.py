"""What this machine has to run engines on: GPUs, cores, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
#: What vLLM's three processes take beside weights and KV cache, measured with 0.32 on a CPU.
RUNTIME_MEMORY = int(2.5 * GIB)


@dataclass(frozen=True, slots=True)
class Devices:
    """`cores`: one logical CPU per physical core that this process may use. `memory`: bytes."""

    gpus: int = 0
    cores: tuple[int, ...] = (0,)
    memory: int = 0


def probe() -> Devices:
    """Look. Blocks for some milliseconds (seconds where there is a GPU)."""
    return Devices(gpus=gpus(), cores=cores(), memory=memory())


def gpus(proc: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """NVIDIA GPUs that can be seen; CUDA_VISIBLE_DEVICES is heeded."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    try:
        found = len(list(proc.iterdir()))
    except OSError:
        found = _by_tool()
    return found if visible is None else min(found, len(visible.split(",")))


def _by_tool() -> int:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=15, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> tuple[int, ...]:
    """The first logical CPU of each physical core we may run on."""
    if sys.platform == "linux":
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    seen: set[str] = set()
    first = []
    for cpu in sorted(allowed):
        try:
            file = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
            siblings = file.read_text().strip()
        except OSError:
            siblings = str(cpu)
        if siblings not in seen:
            seen.add(siblings)
            first.append(cpu)
    return tuple(first)


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be had without swapping, within the container's limit (cgroup v2)."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = (cgroup / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no limit: the file says "max"
        return available
    cache = sum(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    return max(0, min(available, limit - used + cache))


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def shortage(*, weights: int, kv_cache: int, available: int) -> str | None:
    """Why an engine does not fit this machine's memory, as a paragraph; None when it fits."""
    need = weights + kv_cache + RUNTIME_MEMORY
    if need <= available:
        return None
    room = available - weights - RUNTIME_MEMORY
    text = (
        f"needs about {gib(need)} of memory (weights {gib(weights)}, KV cache {gib(kv_cache)}, "
        f"vLLM itself {gib(RUNTIME_MEMORY)}), and {gib(available)} are available: "
        f"{gib(need - available)} too little. "
    )
    if room >= 2**28:
        return text + f"`kv_cache: {room // 2**20}MiB` would fit."
    return text + "Use smaller weights, or free memory."
