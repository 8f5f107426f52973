"""What every test stands on: no network beyond this machine, and where the repository's files are."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO_ROOT = Path(__file__).resolve().parent.parent
RECORDINGS_DIR = Path(
    os.environ.get("RECORDINGS_DIR") or REPO_ROOT.parent / "shared" / "recordings"
)


class NetworkRefusedError(RuntimeError):
    """A test tried to reach an address beyond this machine. The message names it."""


def _is_local(host: Any) -> bool:
    if host is None:
        return True
    name = host.decode("idna", "replace") if isinstance(host, bytes) else str(host)
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    # "Any address" as a destination means this machine, too.
    return address.is_loopback or address.is_unspecified


def refuse_beyond_loopback(what: str, host: Any, port: Any = None) -> None:
    """Raises `NetworkRefusedError` unless `host` is this machine."""
    if not _is_local(host):
        where = host if port is None else f"{host}:{port}"
        raise NetworkRefusedError(
            f"a test tried to {what} {where!s}; tests reach loopback addresses and Unix sockets only"
        )


@pytest.fixture(scope="session", autouse=True)
def network_guard() -> Iterator[None]:
    """Holds for the whole session and for asyncio, whose connects end in these same functions."""
    patch = pytest.MonkeyPatch()
    internet = (socket.AF_INET, socket.AF_INET6)
    real = {
        name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")
    }

    def guarded(name: str) -> Any:
        def call(sock: socket.socket, *args: Any) -> Any:
            if sock.family in internet and args and isinstance(args[-1], tuple):
                refuse_beyond_loopback("connect to", *args[-1][:2])
            return real[name](sock, *args)

        return call

    for name in real:
        patch.setattr(socket.socket, name, guarded(name))

    real_getaddrinfo = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_beyond_loopback("look up", host, port)
        return real_getaddrinfo(host, port, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)

    for name in ("gethostbyname", "gethostbyname_ex"):
        look_up = getattr(socket, name)

        def by_name(host: Any, look_up: Any = look_up) -> Any:
            refuse_beyond_loopback("look up", host)
            return look_up(host)

        patch.setattr(socket, name, by_name)

    yield
    patch.undo()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root folder."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def recordings_dir() -> Path:
    """Recorded answers of providers (JSON lines); tests that need them skip where they are absent."""
    if not RECORDINGS_DIR.is_dir():
        pytest.skip(
            f"no recordings at {RECORDINGS_DIR}: set RECORDINGS_DIR to a folder that holds them"
        )
    return RECORDINGS_DIR
