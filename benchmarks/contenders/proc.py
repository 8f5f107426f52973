"""What a process tree holds and has used, read from the kernel. Linux only.

**Memory** is the sum of the processes' resident sets, in bytes. Pages that several of them share
are counted once for each, so a gateway that forks workers looks larger than it is.

**CPU time** is user and system time together, in seconds with nanosecond sources: a process's CPU
clock (`clock_getcpuclockid`), which also holds its threads that have ended, else the first field of
`/proc/PID/task/*/schedstat`, which does not and lags by up to a scheduler tick.

A process that has ended is gone from the kernel's books, so a `Tree` keeps the last figure that it
read of each. Lost is only what a process used between the last reading and its end; one that is
born and ends between two readings is lost whole. Read as often as that matters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from a later one with its number by when it began (clock ticks)."""

    pid: int
    began: int

    def alive(self) -> bool:
        """It exists and is no zombie."""
        found = _stat(self.pid)
        return found is not None and found.began == self.began and found.state not in "ZX"


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a whole tree. `cpu_seconds` since its root began; `processes` that live now."""

    rss_bytes: int
    cpu_seconds: float
    processes: int


class Tree:
    """The process `pid`, its descendants, and all of the session that it leads, if it leads one.

    The session is what keeps sight of a worker whose parent has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._cpu: dict[Process, int] = {}

    def read(self) -> Usage:
        """What the tree holds now and has used so far. CPU time never goes back."""
        resident = 0
        members = tree(self.pid)
        for member in members:
            resident += _resident(member.pid)
            used = _cpu(member.pid)
            if used > self._cpu.get(member, 0) and _began(member.pid) == member.began:
                self._cpu[member] = used
        return Usage(resident, sum(self._cpu.values()) / 1e9, len(members))


def usage(pid: int) -> Usage:
    """One reading of the tree of `pid`: what has ended before is not in it."""
    return Tree(pid).read()


def tree(pid: int) -> list[Process]:
    """The processes of the tree of `pid` that live now; empty if none does."""
    every = {found.pid: found for found in _every()}
    children: dict[int, list[int]] = {}
    for found in every.values():
        children.setdefault(found.parent, []).append(found.pid)
    members = {found.pid for found in every.values() if found.session == pid}
    queue = [*members, *({pid} & every.keys())]
    while queue:
        one = queue.pop()
        members.add(one)
        queue += [child for child in children.get(one, ()) if child not in members]
    return [Process(one, every[one].began) for one in sorted(members) if every[one].state != "Z"]


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    state: str
    parent: int
    session: int
    began: int


def _every() -> Iterator[_Stat]:
    for name in os.listdir(_PROC):
        if name.isdigit() and (found := _stat(int(name))) is not None:
            yield found


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # A process chooses its own name, and may put blanks and brackets into it.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def _began(pid: int) -> int | None:
    found = _stat(pid)
    return None if found is None else found.began


def _resident(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_bytes().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def _cpu(pid: int) -> int:
    """Nanoseconds of one process; 0 if it is gone."""
    try:
        # The kernel's number of a process's CPU clock: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return _schedstat(pid)


def _schedstat(pid: int) -> int:
    total = 0
    try:
        tasks = os.listdir(_PROC / str(pid) / "task")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for task in tasks:
        try:
            text = (_PROC / str(pid) / "task" / task / "schedstat").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += int(text.split()[0])
    return total
