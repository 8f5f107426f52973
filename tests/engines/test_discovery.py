from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import dns.rcode
import pytest

from server.engines import discovery
from server.engines.discovery import LookUpFailed, Place, Srv, addresses, fixed, found, resolve
from tests.fakes.dns import NameServer

SRV = "_http._tcp.qwen.test."


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with NameServer() as server:
        yield server


def asking(names: NameServer, lifetime: float = 5.0) -> Srv:
    return Srv(["127.0.0.1"], names.port, lifetime)


def test_fixed_places_keep_their_order_and_stand_once() -> None:
    urls = [
        "http://10.0.0.9:8000",
        "https://vllm.example",
        "http://10.0.0.1",
        "http://[2001:db8::1]:8000",
        "http://10.0.0.9:8000",
    ]
    assert [place.address for place in fixed(urls)] == [
        "10.0.0.9:8000",
        "vllm.example:443",
        "10.0.0.1:80",
        "[2001:db8::1]:8000",
    ]
    assert [place.base_url for place in fixed(urls)] == urls[:4]


def test_found_places_have_one_order() -> None:
    hosts = [("10.0.0.2", 8000), ("10.0.0.1", 8000), ("2001:db8::1", 80), ("10.0.0.2", 8000)]
    assert found(hosts) == found(reversed(hosts))
    assert found(hosts) == (
        Place("10.0.0.1:8000", "http://10.0.0.1:8000"),
        Place("10.0.0.2:8000", "http://10.0.0.2:8000"),
        Place("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
    )


async def test_addresses_of_this_machine() -> None:
    assert ("127.0.0.1", 8000) in await resolve("dns://localhost:8000")
    assert await resolve("dns://127.0.0.1:8000") == [("127.0.0.1", 8000)]


@pytest.mark.parametrize(
    ("fault", "empty"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), False),
        (UnicodeError("label too long"), False),
    ],
)
async def test_no_such_name_is_an_answer_and_a_failure_is_none(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, empty: bool
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise fault

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    if empty:
        assert await addresses("localhost", 80) == []
    else:
        with pytest.raises(LookUpFailed):
            await addresses("localhost", 80)


async def test_names_that_hang_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    go, real = threading.Event(), socket.getaddrinfo

    def look_up(host: str, *args: Any, **more: Any) -> Any:
        if host != "localhost":
            assert go.wait(60)
        return real("localhost", *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hung = [asyncio.create_task(addresses(f"{n}.localhost", 80)) for n in range(40)]
    await asyncio.sleep(0)  # they have begun
    try:
        assert ("127.0.0.1", 80) in await addresses("localhost", 80)
    finally:
        go.set()
    assert all(("127.0.0.1", 80) in each for each in await asyncio.gather(*hung))


async def test_srv_targets_are_replicas(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names.say(SRV, "SRV", "0 0 8000 one.test.", "10 5 8001 two.test.", "0 0 8000 six.test.")
    names.say("one.test.", "A", "127.0.0.1")
    names.say("one.test.", "AAAA", "::1")  # the same replica: not asked for
    names.say("two.test.", "A", "127.0.0.2", "127.0.0.3")
    names.say("six.test.", "AAAA", "::1")
    monkeypatch.setattr(discovery, "Srv", lambda: asking(names))
    hosts = await resolve(f"dns+srv://{SRV}")
    assert sorted(hosts) == [
        ("127.0.0.1", 8000),
        ("127.0.0.2", 8001),
        ("127.0.0.3", 8001),
        ("::1", 8000),
    ]
    assert ("udp", "one.test.", "AAAA") not in names.asked


async def test_a_long_answer_comes_over_tcp(names: NameServer) -> None:
    names.cut = True
    names.say(SRV, "SRV", *(f"0 0 {port} one.test." for port in range(8000, 8100)))
    names.say("one.test.", "A", "127.0.0.1")
    hosts = await asking(names).look_up(SRV)
    assert sorted(hosts) == [("127.0.0.1", port) for port in range(8000, 8100)]
    assert ("tcp", SRV, "SRV") in names.asked


async def test_srv_that_says_there_is_nothing(names: NameServer) -> None:
    assert await asking(names).look_up(SRV) == []  # no such name
    names.say(SRV, "TXT", '"a name without such records"')
    assert await asking(names).look_up(SRV) == []
    names.say(SRV, "SRV", "0 0 0 .")  # the service is not offered here
    assert await asking(names).look_up(SRV) == []


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_srv_without_an_answer(names: NameServer, rcode: dns.rcode.Rcode) -> None:
    names.say(SRV, "SRV", "0 0 8000 one.test.")
    names.rcode = rcode
    with pytest.raises(LookUpFailed):
        await asking(names, 1.0).look_up(SRV)


async def test_a_silent_server_has_a_deadline(names: NameServer) -> None:
    names.silent = True
    with pytest.raises(LookUpFailed):
        await asking(names, 0.05).look_up(SRV)


@pytest.mark.parametrize("kind", [None, "TXT"])
async def test_half_an_answer_is_none(names: NameServer, kind: str | None) -> None:
    names.say(SRV, "SRV", "0 0 8000 one.test.", "0 0 8000 two.test.")
    names.say("one.test.", "A", "127.0.0.1")
    if kind is not None:
        names.say("two.test.", kind, '"no address"')
    with pytest.raises(LookUpFailed):
        await asking(names).look_up(SRV)


async def test_no_name_at_all() -> None:
    with pytest.raises(LookUpFailed):
        await Srv(["127.0.0.1"]).look_up("a" * 64 + ".test")
    with pytest.raises(LookUpFailed):
        await Srv(["127.0.0.1"]).look_up("a..test")


async def test_a_look_up_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int) -> list[tuple[str, int]]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(discovery, "addresses", never)
    monkeypatch.setattr(discovery, "LOOK_UP", 0.01)
    with pytest.raises(LookUpFailed, match="no answer within"):
        await resolve("dns://localhost:8000")
