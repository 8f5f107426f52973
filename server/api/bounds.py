"""What connections may take: the config's limits, and the system's."""

from __future__ import annotations

import contextlib
import resource

from server.api.listener import Bounds
from server.config.schema import Server


def bounds_of(server: Server) -> Bounds:
    """What the config allows connections, within what the system allows us."""
    # Each exchange may hold one descriptor up and one down; the rest is for engines and files.
    descriptors = max(16, (_raise_descriptor_limit() - 128) // 2)
    return Bounds(
        header_timeout=server.timeouts.header,
        header_limit=server.limits.headers,
        connection_limit=min(server.limits.connections, descriptors),
        keep_alive=server.timeouts.keep_alive,
        write_timeout=server.timeouts.write,
    )


def _raise_descriptor_limit() -> int:
    """As many open files as the system lets us have; their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 2**20
