"""Ports, with real listeners of real processes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.engines import ports

LISTEN = """
import socket, sys
sock = socket.socket()
sock.bind(("127.0.0.1", int(sys.argv[1])))
sock.listen()
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def listener(port: int) -> Iterator[int]:
    """A process in a session of its own that listens there; its pid."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LISTEN, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"listening\n"
        yield child.pid
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def test_free_ports_can_be_bound_and_are_given_once() -> None:
    found = [ports.free() for _ in range(50)]
    assert len(set(found)) == 50
    with socket.socket() as sock:
        sock.bind((ports.LOOPBACK, found[0]))


def test_no_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    with pytest.raises(OSError, match="Too many"):
        ports.free()


def test_nobody_listens_and_nobody_is_a_stranger() -> None:
    assert not ports.stranger(ports.free(), os.getpid())


def test_the_engines_own_process_is_none() -> None:
    port = ports.free()
    with listener(port) as pid:
        assert not ports.stranger(port, pid)
        # A process that left its session is found below the guard.
        assert not ports.stranger(port, 2**22, parent=os.getpid())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_this_server_and_its_other_engines_are(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((address, 0))
        sock.listen()
        assert ports.stranger(sock.getsockname()[1], 2**22)
    port = ports.free()
    with listener(port):
        assert ports.stranger(port, 2**22)


async def test_an_outgoing_connection_is_no_listener() -> None:
    async with await asyncio.start_server(
        lambda reader, writer: writer.close(), ports.LOOPBACK
    ) as it:
        _, writer = await asyncio.open_connection(*it.sockets[0].getsockname())
        assert not ports.stranger(writer.get_extra_info("sockname")[1], 2**22)
        writer.close()
        await writer.wait_closed()


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"
LINE = (
    "   0: {address}:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {user} 0 77 1\n"
)


@pytest.mark.parametrize(
    ("address", "user", "stranger"),
    [
        ("0100007F", os.getuid() + 1, True),  # another user was quicker
        ("0" * 32, os.getuid() + 1, True),
        ("0000000000000000FFFF00000100007F", os.getuid() + 1, True),
        ("0200007F", os.getuid() + 1, False),  # 127.0.0.2: we do not come there
        ("0100007F", 0, False),  # a container's proxy
        ("0100007F", os.getuid(), False),  # whose it is nobody can tell
    ],
)
def test_listeners_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, user: int, stranger: bool
) -> None:
    table = tmp_path / "tcp"
    table.write_text(HEAD + LINE.format(address=address, user=user))
    monkeypatch.setattr(ports, "_TABLES", (table, tmp_path / "none"))
    assert ports.stranger(8080, os.getpid()) is stranger
    assert not ports.stranger(8081, os.getpid())
