"""The wall around the tests: sockets reach this machine and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

INTERNET = (socket.AF_INET, socket.AF_INET6)


class NetworkRefused(RuntimeError):
    """A test tried to reach an address beyond this machine. The message names it."""


def is_local(host: Any) -> bool:
    """Whether a destination is this machine. "Any address" as a destination is."""
    if host is None:
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_beyond_loopback(what: str, host: Any, port: Any = None) -> None:
    """Raises `NetworkRefused` unless `host` is this machine."""
    if not is_local(host):
        where = host if port is None else f"{host}:{port}"
        raise NetworkRefused(
            f"a test tried to {what} {where}; tests reach only loopback addresses and Unix sockets"
        )


@contextlib.contextmanager
def guard_network() -> Iterator[None]:
    """Holds for plain sockets, for asyncio, which ends in them, and for uvloop, which does not.

    Nobody out there needs to be trusted, then: one authority stands for all of the system's, which
    every HTTP client would read anew, 30 ms each time.
    """
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        authority = os.path.join(folder, "authority.pem")
        trustme.CA().cert_pem.write_to_path(authority)
        patch.setenv("SSL_CERT_FILE", authority)
        for name in ("connect", "connect_ex", "sendto"):
            _guard_socket(patch, name)
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            _guard_look_up(patch, name)
        _guard_uvloop(patch)
        yield


def _guard_socket(patch: pytest.MonkeyPatch, name: str) -> None:
    real = getattr(socket.socket, name)

    def guarded(sock: socket.socket, *args: Any) -> Any:
        if sock.family in INTERNET and args and isinstance(args[-1], tuple):
            refuse_beyond_loopback("connect to", *args[-1][:2])
        return real(sock, *args)

    patch.setattr(socket.socket, name, guarded)


def _guard_look_up(patch: pytest.MonkeyPatch, name: str) -> None:
    real = getattr(socket, name)

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_beyond_loopback("look up", host)
        return real(host, *args, **kwargs)

    patch.setattr(socket, name, guarded)


def _guard_uvloop(patch: pytest.MonkeyPatch) -> None:
    """libuv connects and looks names up by itself."""
    try:
        import uvloop
    except ImportError:
        return
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop

    for name, what in (("create_connection", "connect to"), ("getaddrinfo", "look up")):
        real = getattr(loop, name)

        def guarded(
            self: Any, *args: Any, _real: Any = real, _what: str = what, **kwargs: Any
        ) -> Any:
            names = list(args)
            if _what == "connect to":
                names.pop(0)  # the protocol's factory
            host = names[0] if names else kwargs.get("host")
            refuse_beyond_loopback(_what, host)
            return _real(self, *args, **kwargs)

        patch.setattr(loop, name, guarded)
