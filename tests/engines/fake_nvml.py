"""NVML as its Python bindings have it: the same functions and errors, and what a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from server.engines.devices import GIB


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class NoPermission(NVMLError):
    pass


class DriverNotLoaded(NVMLError):
    pass


class LibraryNotFound(NVMLError):
    pass


class GpuIsLost(NVMLError):
    pass


@dataclass
class Gpu:
    """`parts`: uuid → bytes, of a device in slices. `fails`: functions that raise, by name."""

    uuid: str
    name: str = "NVIDIA H200"
    total: int = 140 * GIB
    used: int = GIB
    peers: dict[str, set[int]] = field(default_factory=dict)
    parts: dict[str, int] | None = None
    running: list[tuple[int, int | None]] = field(default_factory=list)
    fails: dict[str, type[NVMLError]] = field(default_factory=dict)
    whole: bool = True


def gpus(count: int) -> list[Gpu]:
    """Alike, and all linked with one another."""
    return [
        Gpu(f"GPU-{n:08x}", peers={uuid: {0, 2} for m in range(count)
                                   if m != n and (uuid := f"GPU-{m:08x}")})
        for n in range(count)
    ]  # fmt: skip


class Nvml:
    """To be used in the module's place. `opened` counts what is not shut down."""

    NVMLError = NVMLError

    def __init__(self, devices: list[Gpu], *, init: type[Exception] | None = None) -> None:
        self.devices, self.init, self.opened = devices, init, 0

    def nvmlInit(self) -> None:
        if self.init is not None:
            raise self.init
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def _asked(self, gpu: Gpu, function: str) -> Gpu:
        assert self.opened > 0
        if (error := gpu.fails.get(function)) is not None:
            raise error
        return gpu

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        return self._asked(self.devices[index], "handle")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Gpu:
        return next(gpu for gpu in self.devices if gpu.uuid == uuid)

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:
        return self._asked(gpu, "uuid").uuid

    def nvmlDeviceGetName(self, gpu: Gpu) -> bytes:
        return self._asked(gpu, "name").name.encode()

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> Any:
        self._asked(gpu, "memory")
        return SimpleNamespace(total=gpu.total, used=gpu.used, free=gpu.total - gpu.used)

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:
        if gpu.parts is None:
            raise NotSupported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:
        parts = list((gpu.parts or {}).items())
        if index >= len(parts):
            raise NVMLError
        uuid, total = parts[index]
        return Gpu(uuid, gpu.name + " MIG", total, used=0, whole=False)

    def nvmlDeviceGetP2PStatus(self, one: Gpu, other: Gpu, how: int) -> int:
        assert one.whole
        assert other.whole
        self._asked(one, "links")
        return 0 if how in one.peers.get(other.uuid, ()) else 5

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Gpu) -> list[Any]:
        self._asked(gpu, "running")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in gpu.running]
