"""The wall around the tests holds for every way out."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import uvloop

from tests.fakes.network import NetworkRefused, is_local

# Documentation addresses: nobody answers there.
FAR = "203.0.113.7"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("0.0.0.0", True),
        ("localhost", True),
        (b"localhost", True),
        ("unit.localhost", True),
        (None, True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        (FAR, False),
        ("2001:db8::1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_counts_as_this_machine(host: Any, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize("name", ["connect", "connect_ex"])
def test_a_socket_is_refused_and_the_address_named(name: str) -> None:
    with socket.socket() as sock, pytest.raises(NetworkRefused, match=rf"{FAR}:443"):
        getattr(sock, name)((FAR, 443))


def test_a_datagram_is_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(NetworkRefused, match=FAR),
    ):
        sock.sendto(b"x", (FAR, 53))


@pytest.mark.parametrize("name", ["gethostbyname", "gethostbyname_ex"])
def test_a_look_up_is_refused(name: str) -> None:
    with pytest.raises(NetworkRefused, match=r"example\.org"):
        getattr(socket, name)("example.org")


async def test_asyncio_is_refused() -> None:
    with pytest.raises(NetworkRefused, match=FAR):
        await asyncio.open_connection(FAR, 443)
    with pytest.raises(NetworkRefused, match=r"example\.org"):
        await asyncio.open_connection("example.org", 443)


async def test_the_http_clients_are_refused() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.RaisesGroup(NetworkRefused, flatten_subgroups=True):  # anyio wraps it
            await client.get(f"http://{FAR}/")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(NetworkRefused, match=FAR):
            await session.get(f"http://{FAR}/")


def test_uvloop_is_refused() -> None:
    async def reach(host: str) -> None:
        await asyncio.open_connection(host, 443)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for host in (FAR, "example.org"):
            with pytest.raises(NetworkRefused, match=host):
                runner.run(reach(host))


def test_loopback_and_unix_sockets_are_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _, writer = runner.run(asyncio.open_connection(*server.getsockname()))
            runner.run(_close(writer))
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
