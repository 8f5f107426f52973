"""Too few file descriptors: an error of ours, whoever notices."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

import pytest

from server.errors import ConnectFailed, Overloaded
from server.transport import Endpoint, Transport, descriptors
from server.transport.head import Address
from server.transport.pool import Pool
from server.transport.wire import Wire
from tests.fakes.upstream import ScriptedUpstream, answer_json
from tests.transport.asking import TIMES, ask


class Failing(Pool):
    """Its connecting raises this."""

    def __init__(self, error: OSError) -> None:
        super().__init__(Address("127.0.0.1", 9, False))
        self._error = error

    async def _open(self, place: Address) -> Wire:
        raise self._error


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
async def test_of_a_connect(code: int) -> None:
    with pytest.raises(Overloaded) as caught:
        await Failing(OSError(code, os.strerror(code))).connect(5)
    assert (caught.value.code, caught.value.retryable) == ("out_of_descriptors", False)
    assert caught.value.headers() == {"retry-after": "1"}


async def test_of_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there is no such name, since it could not read its own files."""
    failing = Failing(socket.gaierror(socket.EAI_NONAME, "x"))
    with pytest.raises(ConnectFailed):
        await failing.connect(5)
    monkeypatch.setattr(descriptors, "spare", lambda: False)
    with pytest.raises(Overloaded):
        await failing.connect(5)


async def test_behind_a_proxy(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: Any, **more: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", none_left)
    with pytest.raises(Overloaded):
        await transport.send(
            Endpoint("http://127.0.0.1:9", proxy="http://127.0.0.1:9"),
            "POST",
            "/",
            headers={},
            body=b"",
            timeouts=TIMES,
        )


def test_without_a_limit_there_is_always_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert descriptors.spare()


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EMFILE, False), (errno.ENFILE, False), (errno.ENOENT, True)]
)
def test_a_look_that_fails(code: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox without /dev/null has descriptors all the same."""

    def fails(*args: Any) -> int:
        raise OSError(code, "x")

    monkeypatch.setattr(os, "open", fails)
    assert descriptors.spare() is expected


async def test_nothing_idle_to_give_up(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "spare", lambda: False)
    async with ScriptedUpstream(answer_json(200, {})) as upstream:
        with pytest.raises(Overloaded):
            await ask(transport, upstream)
        assert upstream.accepted.count == 0


async def test_idle_connections_are_given_up(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        ScriptedUpstream(answer_json(200, {})) as known,
        ScriptedUpstream(answer_json(200, {})) as new,
    ):
        response = await ask(transport, known)
        await response.read_all(100)
        monkeypatch.setattr(descriptors, "spare", lambda: known.open_connections == 0)
        response = await ask(transport, new)
        assert await response.read_all(100) == b"{}"
        await known.connections[0].lost.wait()
