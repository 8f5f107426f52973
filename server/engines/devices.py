"""What this machine has to run engines on: GPUs, cores, memory, and who uses it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from server.engines import nvml
from server.engines.nvml import Card
from server.engines.placement import Device
from server.errors import EngineError

GIB = 2**30
#: What vLLM's three processes take beside weights and KV cache, measured with 0.32 on a CPU.
RUNTIME_MEMORY = int(2.5 * GIB)
#: The memory of a device that does not tell how much it has.
UNKNOWN: Final = 2**50
#: What others use changes all the time; it is rounded up to this, so that plans do not waver.
_STEP: Final = GIB // 4


@dataclass(frozen=True, slots=True)
class Devices:
    """`gpus` that can be seen, and what is known of each (`cards`). `cores`: one logical CPU per
    physical core that this process may use. Bytes: `memory` is to be had, of `total`."""

    gpus: int = 0
    cores: tuple[int, ...] = (0,)
    memory: int = 0
    total: int = 0
    cards: tuple[Card, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """N of each `cuda:N`."""
        return tuple(card.number for card in self.cards) or tuple(range(self.gpus))

    @property
    def visible(self) -> str | None:
        """CUDA_VISIBLE_DEVICES for a process that may use all of them; None where the numbers are
        their names."""
        names = {card.number: card.visible for card in self.cards}
        if all(name == str(number) for number, name in names.items()):
            return None
        return ",".join(names.get(n, str(n)) for n in range(max(names) + 1))


def probe() -> Devices:
    """Look. Blocks for some milliseconds (seconds where there is a GPU that sleeps)."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = nvml.cards(seen)
    if cards is None:
        names = [part.strip() for part in seen.split(",")] if seen else []
        cards = tuple(Card(i, names[i] if i < len(names) else str(i)) for i in range(gpus()))
    return Devices(len(cards), cores(), memory(), total_memory(), cards)


def gpus(proc: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """NVIDIA GPUs that can be seen, where NVML does not answer; CUDA_VISIBLE_DEVICES is heeded."""
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


def total_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that there are, within the container's limit."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):
        return total


def silent() -> EngineError:
    """A driver that hangs may come back, if only with the machine."""
    return EngineError(
        "The devices of this machine do not answer. See whether `nvidia-smi` does; a driver that "
        "hangs needs a reset of the device, or a restart of the machine.",
        reason="crash",
    )


# --- what engines may have ----------------------------------------------------------------------


@dataclass
class Others:
    """What programs that are not engines of ours use of each device.

    Where NVML does not tell whose memory it is (in a container it knows no process of ours), what
    was used when no engine ran is taken.
    """

    _before: dict[str, int] = field(default_factory=dict)

    def machine(self, found: Devices, caps: Mapping[str, int]) -> tuple[Device, ...]:
        """For the planner: `cpu`, `cuda:0`, … `caps` is the config's `placement.memory`: the most
        that engines may take of a device, `cuda` standing for each GPU. Blocks like `probe`."""
        pids = descendants()
        used = used_by({"engines": pids}, found)["engines"]
        cpu = max(0, found.total - found.memory - used.get("cpu", 0))
        # The first core takes interrupts: the best one to leave to the server.
        cores = found.cores[1:] if len(found.cores) > 1 else found.cores
        devices = [_device("cpu", "cpu", found.total, cpu, caps.get("cpu"), cores)]
        for card in found.cards:
            name = f"cuda:{card.number}"
            if name in used or not pids:
                self._before[card.uuid] = max(0, card.used - used.get(name, 0))
            others = min(card.used, self._before.get(card.uuid, 0))
            cap = caps.get(name, caps.get("cuda"))
            devices.append(_device(name, "cuda", card.total, others, cap))
        return tuple(devices)


def _device(
    name: str, kind: str, total: int, others: int, cap: int | None, cores: tuple[int, ...] = ()
) -> Device:
    if not total:  # what is not known, the operator's word stands for
        total, others = UNKNOWN if cap is None else cap, 0
    reserved = min(total, -(-others // _STEP) * _STEP)
    if cap is not None:
        reserved = max(reserved, total - cap)
    return Device(name, kind, total, reserved, cores, sleeps=kind == "cuda")


def descendants() -> set[int]:
    """All processes that this one has started: engines and their guards."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def groups(leaders: Iterable[int]) -> dict[int, set[int]]:
    """The processes in the group of each of these."""
    found: dict[int, set[int]] = {leader: set() for leader in leaders}
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has just ended
            if (leader := os.getpgid(pid)) in found:
                found[leader].add(pid)
    return found


def used_by(who: Mapping[str, Iterable[int]], found: Devices) -> dict[str, dict[str, int]]:
    """Bytes that sets of processes use: who → device → bytes. A GPU that does not tell whose memory
    it is has no entry. Blocks for some milliseconds."""
    sets = {name: set(pids) for name, pids in who.items()}
    used = {name: {"cpu": sum(map(_anonymous, pids))} for name, pids in sets.items()}
    if found.cards and (on_cards := nvml.used_by(sets, found.cards)) is not None:
        for name, sizes in on_cards.items():
            used[name] |= {f"cuda:{card.number}": sizes.get(card.number, 0) for card in found.cards}
    return used


def _anonymous(pid: int) -> int:
    """Bytes that are a process's own: neither files, which the kernel may drop, nor shared."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
