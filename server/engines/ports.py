"""Ports of loopback: a free one, and whose process listens on it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from server.engines import guard

LOOPBACK: Final = "127.0.0.1"
_LISTEN: Final = "0A"
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: Given to engines that have perhaps not bound them yet: not to be given twice.
_given: deque[int] = deque(maxlen=256)


def free() -> int:
    """A port on which nobody listens, and that was not given lately. Raises OSError.

    It is let go of before the engine binds it: somebody may be quicker, see `stranger`.
    """
    held = []
    try:
        while True:
            held.append(sock := socket.socket())
            sock.bind((LOOPBACK, 0))
            port = int(sock.getsockname()[1])
            if port not in _given:
                _given.append(port)
                return port
    finally:
        for sock in held:
            sock.close()


def stranger(port: int, pgid: int, parent: int | None = None) -> bool:
    """Does a process listen on this port that is certainly none of the engine's?

    `pgid` is the engine's first process, `parent` its guard. The engine's own processes, and those
    of the system that answer for a container, may listen. Another user's may not: he could have
    read the port in the engine's arguments, and would be sent its requests. Nor may this server's
    own, other engines among them. Where /proc tells nothing, nobody is a stranger.
    """
    sockets = _listening(port)
    if not sockets:
        return False
    ours = guard.members(pgid) | (guard.descendants(parent) if parent is not None else set())
    foreign = {inode: user for inode, user in sockets.items() if inode not in _held(ours, sockets)}
    if any(user not in (0, os.getuid()) for user in foreign.values()):
        return True
    me = os.getpid()
    return bool(foreign and _held(({me} | guard.descendants(me)) - ours, foreign))


def _listening(port: int) -> dict[int, int]:
    """inode → user of the sockets that a connection to this port of loopback may reach."""
    found = {}
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, hexadecimal = fields[1].rpartition(":")
            if fields[3] == _LISTEN and int(hexadecimal, 16) == port and _reaches(address):
                found[int(fields[9])] = int(fields[7])
    return found


def _reaches(address: str) -> bool:
    """127.0.0.1, or any address; as the kernel writes them, also in IPv6's clothes."""
    return address.strip("0") == "" or address.endswith("0100007F")


def _held(pids: Iterable[int], sockets: Iterable[int]) -> set[int]:
    """Those of the sockets' inodes that the processes have open."""
    names = {f"socket:[{inode}]": inode for inode in sockets}
    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if (link := os.readlink(entry.path)) in names:
                        found.add(names[link])
    return found
