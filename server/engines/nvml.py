"""NVIDIA devices, asked by NVML. Nothing here fails without a driver: then there is no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final

#: Of `nvmlGpuP2PCapsIndex_t`, by number: the Python constant for reading is a tuple by mistake.
_READ: Final = 0
_NVLINK: Final = 2


@dataclass(frozen=True, slots=True)
class Card:
    """A device that CUDA may use here. `number`: N of `cuda:N`; `visible`: how it is called in
    CUDA_VISIBLE_DEVICES. Bytes; `total` 0: not known. `peers` are the numbers of those whose memory
    it reads directly, `nvlink` of those by NVLink. `part`: a slice of a device (MIG)."""

    number: int
    visible: str
    name: str = ""
    uuid: str = ""
    total: int = 0
    free: int = 0
    used: int = 0
    peers: tuple[int, ...] = ()
    nvlink: tuple[int, ...] = ()
    part: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    visible: str
    uuid: str
    handle: Any
    part: bool = False


def cards(visible: str | None, nvml: Any = None) -> tuple[Card, ...] | None:
    """What CUDA may use, with `visible` as its CUDA_VISIBLE_DEVICES; None: NVML does not answer.

    A device that does not answer is left out, and the others keep their numbers. Blocks, for
    seconds where the driver has to wake up.
    """
    with _session(nvml) as lib:
        if lib is None:
            return None
        there = _ask(lib, _all, lib)
        if there is None:
            return None
        chosen = dict(enumerate(_chosen(lib, there, visible)))
        found = {number: one for number, one in chosen.items() if one is not None}
        whole = {number: one.handle for number, one in found.items() if not one.part}
        return tuple(_card(lib, number, one, whole) for number, one in found.items())


def used_by(
    groups: Mapping[str, Iterable[int]], found: Iterable[Card], nvml: Any = None
) -> dict[str, dict[int, int]] | None:
    """Bytes that groups of processes have on each card (their numbers); None where NVML knows none
    of all these processes, as inside a container that has process ids of its own."""
    names = {pid: group for group, pids in groups.items() for pid in pids}
    used: dict[str, dict[int, int]] = {group: {} for group in groups}
    seen = False
    with _session(nvml) as lib:
        if lib is None:
            return None
        for card in found:
            for pid, size in _ask(lib, _running, lib, card) or ():
                if (group := names.get(pid)) is not None:
                    seen = True
                    used[group][card.number] = used[group].get(card.number, 0) + size
    return used if seen else None


# --- parts --------------------------------------------------------------------------------------


@contextmanager
def _session(nvml: Any) -> Iterator[Any]:
    """The library, in use; None where there is none, or no driver."""
    lib = nvml
    try:
        lib = lib or import_module("pynvml")
        lib.nvmlInit()
    except Exception:  # noqa: BLE001 - whatever a driver's library does, we live without it
        yield None
        return
    try:
        yield lib
    finally:
        _ask(lib, lib.nvmlShutdown)


def _ask(lib: Any, question: Callable[..., Any], *about: Any) -> Any:
    """None where NVML, or what it says, is of no use."""
    try:
        return question(*about)
    except (lib.NVMLError, ValueError, TypeError, OSError):
        return None


def _all(lib: Any) -> list[list[_Found]]:
    """By index: a device, its slices, or nothing where it does not answer."""
    return [_ask(lib, _at, lib, index) or [] for index in range(lib.nvmlDeviceGetCount())]


def _at(lib: Any, index: int) -> list[_Found]:
    handle = lib.nvmlDeviceGetHandleByIndex(index)
    mode = _ask(lib, lib.nvmlDeviceGetMigMode, handle)  # most devices do not know it
    if mode is None or mode[0] != 1:
        return [_Found(str(index), _text(lib.nvmlDeviceGetUUID(handle)), handle)]
    slices = []
    for i in range(_ask(lib, lib.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _ask(lib, lib.nvmlDeviceGetMigDeviceHandleByIndex, handle, i)
        if part is not None and (uuid := _ask(lib, lib.nvmlDeviceGetUUID, part)) is not None:
            slices.append(_Found(_text(uuid), _text(uuid), part, part=True))
    return slices


def _chosen(lib: Any, there: list[list[_Found]], visible: str | None) -> list[_Found | None]:
    """As CUDA reads the variable: indices or UUIDs (their beginnings do), up to the first that is
    wrong. None keeps the place of a device that does not answer."""
    if visible is None:
        empty: list[_Found | None] = [None]
        return [one for slot in there for one in (slot or empty)]
    chosen: list[_Found | None] = []
    for word in (part.strip() for part in visible.split(",")):
        if word.isdecimal() and int(word) < len(there):
            slot = there[int(word)]
            one = replace(slot[0], visible=slot[0].uuid if slot[0].part else word) if slot else None
        else:
            known = [one for slot in there for one in slot if word and one.uuid.startswith(word)]
            if len(known) != 1:
                break
            one = replace(known[0], visible=word)
        chosen.append(one)
    return chosen


def _card(lib: Any, number: int, one: _Found, whole: Mapping[int, Any]) -> Card:
    """`whole` are the handles of those that are no slices."""
    others = {} if one.part else {n: handle for n, handle in whole.items() if n != number}

    def linked(how: int) -> tuple[int, ...]:
        asked = {n: _ask(lib, lib.nvmlDeviceGetP2PStatus, one.handle, h, how)
                 for n, h in others.items()}  # fmt: skip
        return tuple(n for n, answer in asked.items() if answer == 0)

    name = _text(_ask(lib, lib.nvmlDeviceGetName, one.handle) or "")
    card = Card(
        number, one.visible, name, one.uuid, peers=linked(_READ), nvlink=linked(_NVLINK),
        part=one.part,
    )  # fmt: skip
    # Devices that share the host's memory have no figures of their own.
    memory = _ask(lib, lib.nvmlDeviceGetMemoryInfo, one.handle)
    if memory is None:
        return card
    return replace(card, total=int(memory.total), free=int(memory.free), used=int(memory.used))


def _running(lib: Any, card: Card) -> list[tuple[int, int]]:
    """Process and bytes; what a process uses is not always told."""
    handle = lib.nvmlDeviceGetHandleByUUID(card.uuid)
    return [
        (int(one.pid), int(one.usedGpuMemory))
        for one in lib.nvmlDeviceGetComputeRunningProcesses(handle)
        if one.usedGpuMemory is not None
    ]


def _text(value: Any) -> str:
    """Older releases of the library answer with bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
