"""Names: a slow one is its own trouble alone, and what was found is remembered for a while."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from server.errors import ConnectFailed
from server.transport import AttemptTimeouts, Endpoint, Transport, threads
from server.transport import names as names_module
from server.transport.library import LibraryTransport
from server.transport.names import look_up
from tests.fakes.faults import no_answer_port
from tests.fakes.upstream import ScriptedUpstream, answer_bytes, finish_connection
from tests.transport.asking import ask, whole

#: One more than any loop has threads for look-ups.
MANY = 40
ONE, HUNG, ABSENT = "one.localhost", "hung.localhost", "absent.localhost"


class System:
    """The system's look-ups: `says` by name. HUNG has no answer before `go`, then a failure."""

    def __init__(self) -> None:
        self.says: dict[str, list[str]] = {ONE: ["127.0.0.1"]}
        self.asked: list[str] = []
        self.go = threading.Event()

    def getaddrinfo(self, host: str, port: Any, *args: Any, **more: Any) -> list[Any]:
        self.asked.append(host)
        if host == HUNG:
            assert self.go.wait(60)
        if host not in self.says:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))
            for address in self.says[host]
        ]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    monkeypatch.setattr(socket, "getaddrinfo", system.getaddrinfo)
    yield system
    system.go.set()


def answering() -> ScriptedUpstream:
    """Each answer ends its connection, so that the next request needs a new one."""
    return ScriptedUpstream(finish_connection(answer_bytes(200, b"x")))


async def failing(transport: Transport, url: str, seconds: float = 5) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await ask(transport, url, times=AttemptTimeouts(seconds, 5, 5))
    return caught.value


# --- one that hangs


async def test_a_name_that_hangs_holds_up_no_other(transport: Transport, system: System) -> None:
    async with answering() as upstream:
        hung = [
            asyncio.create_task(failing(transport, f"http://{HUNG}:9", 60)) for _ in range(MANY)
        ]
        while not system.asked:
            await asyncio.sleep(0)
        assert await whole(transport, f"http://{ONE}:{upstream.port}") == b"x"
        assert system.asked == [HUNG, ONE]
        system.go.set()
        assert {(await each).outcome for each in hung} == {"dns"}
        assert system.asked == [HUNG, ONE]


async def test_many_names_that_hang_hold_up_no_other(system: System) -> None:
    """Flags make them different look-ups of one name."""
    hung = [asyncio.create_task(look_up(HUNG, flags)) for flags in range(MANY)]
    while len(system.asked) < MANY:
        await asyncio.sleep(0)
    assert await look_up(ONE) == ("127.0.0.1",)
    system.go.set()
    failed = await asyncio.gather(*hung, return_exceptions=True)
    assert {type(each) for each in failed} == {socket.gaierror}


async def test_a_proxy_s_name_that_hangs_holds_up_no_other(system: System) -> None:
    library = LibraryTransport()
    due = asyncio.get_running_loop().time() + 60

    async def through(proxy: str) -> None:
        with pytest.raises(ConnectFailed) as caught:
            await library.send(
                Endpoint("http://up.localhost", proxy=proxy),
                "POST",
                "/",
                headers={},
                body=b"",
                timeouts=AttemptTimeouts(60, 60, 60),
                due=due,
            )
        assert caught.value.outcome == "dns"

    hung = [asyncio.create_task(through(f"http://{HUNG}:{port}")) for port in range(1, MANY)]
    while not system.asked:
        await asyncio.sleep(0)
    await through(f"http://{ABSENT}:9")
    system.go.set()
    await asyncio.gather(*hung)
    await library.close()


async def test_a_look_up_counts_as_connecting_and_teaches_when_it_comes(
    transport: Transport, system: System
) -> None:
    async with answering() as upstream:
        url = f"http://{HUNG}:{upstream.port}"
        assert (await failing(transport, url, 0.02)).outcome == "connect_timeout"
        assert (await failing(transport, url, 0.02)).outcome == "connect_timeout"
        system.says[HUNG] = ["127.0.0.1"]
        system.go.set()
        while transport._names.known(HUNG) is None:
            await asyncio.sleep(0)
        assert await whole(transport, url) == b"x"
        assert system.asked == [HUNG]


# --- what is remembered


async def test_an_answer_holds_for_a_while(
    transport: Transport, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering() as upstream:
        url = f"http://{ONE}:{upstream.port}"
        for _ in range(3):
            assert await whole(transport, url) == b"x"
        assert system.asked == [ONE]
        transport._names.forget(ONE)
        monkeypatch.setattr(names_module, "KEPT", 0.0)
        for _ in range(2):
            assert await whole(transport, url) == b"x"
        assert system.asked == [ONE] * 3


async def test_that_there_is_no_such_name_is_not_remembered(
    transport: Transport, system: System
) -> None:
    for _ in range(2):
        error = await failing(transport, f"http://{ABSENT}:9")
        assert (error.outcome, error.sent) == ("dns", False)
    assert system.asked == [ABSENT] * 2


async def test_a_name_that_has_moved_is_looked_up_anew(
    transport: Transport, system: System
) -> None:
    async with answering() as upstream:
        url = f"http://{ONE}:{upstream.port}"
        assert await whole(transport, url) == b"x"
        port = upstream.port
    assert (await failing(transport, url)).outcome == "refused"
    system.says[ONE] = ["127.0.0.2"]
    assert transport._names.known(ONE) == ("127.0.0.1",)
    async with ScriptedUpstream(answer_bytes(200, b"y"), host="127.0.0.2", port=port):
        assert await whole(transport, url) == b"y"
        assert transport._names.known(ONE) == ("127.0.0.2",)


async def test_an_address_that_does_not_answer_is_looked_up_anew(
    transport: Transport, system: System
) -> None:
    with no_answer_port() as port:
        for _ in range(2):
            error = await failing(transport, f"http://{ONE}:{port}", 0.05)
            assert error.outcome == "connect_timeout"
    async with answering() as upstream:
        assert await whole(transport, f"http://{ONE}:{upstream.port}") == b"x"
    assert system.asked == [ONE] * 3


async def test_addresses_are_tried_in_their_order(transport: Transport, system: System) -> None:
    system.says[ONE] = ["127.0.0.3", "127.0.0.2", "127.0.0.1"]
    async with answering() as upstream:
        assert await whole(transport, f"http://{ONE}:{upstream.port}") == b"x"
    assert system.asked == [ONE]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_an_address_needs_no_look_up(transport: Transport, system: System, host: str) -> None:
    with no_answer_port() as port:
        await failing(transport, f"http://{host}:{port}", 0.05)
    assert system.asked == []


# --- odd


async def test_a_scope_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("fe80::1", 0, 0, 3)
    answer = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", where)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: [answer, answer])
    assert await look_up(ONE) == ("fe80::1%3",)


async def test_no_thread_is_left(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(socket.gaierror):
            await look_up(ONE)
    assert await look_up(ONE) == ("127.0.0.1",)


def test_the_loop_may_end_before_the_look_up(system: System) -> None:
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await look_up(HUNG)

    asyncio.run(leave())
    (thread,) = [each for each in threading.enumerate() if each.name == "names"]
    assert thread.daemon
    system.go.set()
    thread.join()
    assert threads._running == {}


async def test_failures_leave_no_circles(system: System) -> None:
    async def fail() -> None:
        try:
            await look_up(ABSENT)
        except socket.gaierror:
            return

    await fail()
    gc.collect()
    gc.disable()
    try:
        await fail()
        assert gc.collect() == 0
    finally:
        gc.enable()
