"""What this machine is. All that `verdict` judges is read here, and nothing is judged here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA device. Version and capability are empty where nvidia-smi did not say."""

    name: str
    driver: tuple[int, ...] = ()
    capability: tuple[int, ...] = ()


@dataclass(frozen=True)
class Facts:
    """`memory_available` and `disk_free` in bytes; None where the system does not tell."""

    system: str
    machine: str
    libc: tuple[str, tuple[int, ...]]
    flags: frozenset[str]
    memory_available: int | None
    disk_free: int
    gpus: tuple[Gpu, ...] = ()


def read_facts(root: Path, env: dict[str, str] | None = None) -> Facts:
    """Reads this machine; `root` says which disk."""
    system = platform.system()
    libc_name, libc_version = platform.libc_ver() if system == "Linux" else ("", "")
    return Facts(
        system=system,
        machine=_machine(platform.machine()),
        libc=(libc_name, version_tuple(libc_version)),
        flags=cpu_flags(_read("/proc/cpuinfo")),
        memory_available=memory_available(),
        disk_free=shutil.disk_usage(root).free,
        gpus=nvidia_gpus(env),
    )


def _machine(name: str) -> str:
    lowered = name.lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(lowered, lowered)


def version_tuple(text: str) -> tuple[int, ...]:
    """`580.65.06` → (580, 65, 6); stops at the first part that is no number."""
    parts: list[int] = []
    for part in text.strip().split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags of the first CPU: `flags` on x86, `Features` on ARM."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def memory_available() -> int | None:
    """The smaller of what the kernel calls available and what a container's limit leaves."""
    figures = [
        figure
        for figure in (meminfo_available(_read("/proc/meminfo")), cgroup_left())
        if figure is not None
    ]
    return min(figures) if figures else None


def meminfo_available(meminfo: str) -> int | None:
    """`MemAvailable` of /proc/meminfo, in bytes."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def cgroup_left(base: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What this control group may still take; its page cache counts as free."""
    limit, used = _read(base / "memory.max").strip(), _read(base / "memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None
    cached = 0
    for line in _read(base / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            cached = int(line.split()[1])
    return max(0, int(limit) - int(used) + cached)


def nvidia_gpus(env: dict[str, str] | None = None) -> tuple[Gpu, ...]:
    """What nvidia-smi lists; where only the kernel driver is there, its devices without details."""
    path = (os.environ if env is None else env).get("PATH", os.defpath)
    # On WSL the tool is there but not on the path.
    tool = shutil.which("nvidia-smi", path=f"{path}{os.pathsep}/usr/lib/wsl/lib")
    if tool:
        query = "--query-gpu=name,driver_version,compute_cap"
        try:
            done = subprocess.run(
                [tool, query, "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return parse_smi(done.stdout)
    devices = Path("/proc/driver/nvidia/gpus")
    if not devices.is_dir():
        return ()
    return tuple(Gpu("an NVIDIA GPU") for _ in sorted(devices.iterdir()))


def parse_smi(output: str) -> tuple[Gpu, ...]:
    """nvidia-smi's `name, driver_version, compute_cap` lines."""
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    return tuple(
        Gpu(row[0], version_tuple(row[1]), version_tuple(row[2])) for row in rows if len(row) == 3
    )


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
