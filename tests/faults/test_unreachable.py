"""Refused, DNS, TLS, no answer to a connect: the next target, or 502 when none is left."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.tls import make_tls
from tests.fakes.upstream import (
    Exchange,
    ScriptedUpstream,
    Step,
    chat_answer,
    chat_stream,
    closed_port,
    no_answer_port,
)
from tests.faults.conftest import ONE, TWO, Serve, answered_by, config_of

KINDS = ["refused", "dns", "tls", "tls_by_a_plain_peer", "connect_timeout"]
#: A record of TLS that carries a handshake.
HANDSHAKE = b"\x16\x03"
NO_SUCH_HOST = "no-such-host.localhost"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """One name that the resolver does not know."""
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **more: Any) -> Any:
        if host in (NO_SUCH_HOST, NO_SUCH_HOST.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@contextlib.asynccontextmanager
async def unreachable(kind: str) -> AsyncIterator[str]:
    """A base URL that cannot be reached. Afterwards: whoever it is was told nothing."""
    with contextlib.ExitStack() as stack:
        if kind == "refused":
            yield f"http://127.0.0.1:{stack.enter_context(closed_port())}"
        elif kind == "connect_timeout":
            yield f"http://127.0.0.1:{stack.enter_context(no_answer_port())}"
        elif kind == "dns":
            yield f"http://{NO_SUCH_HOST}:9"
        elif kind == "tls":  # by an authority that nobody knows
            async with ScriptedUpstream(chat_answer("no"), ssl=make_tls().server) as stranger:
                yield stranger.url
                assert stranger.requests == []
        else:
            heard = PlainPeer()
            async with ScriptedUpstream(Step(heard, at="accept")) as peer:
                yield peer.url.replace("http://", "https://")
                assert heard.heard
                assert all(data.startswith(HANDSHAKE) for data in heard.heard)  # never in the clear


class PlainPeer:
    """A server that speaks no TLS, and keeps the first bytes of every connection."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.heard.append(await exchange.connection.read_some())
        await exchange.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        exchange.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, names: None) -> str:
    return str(request.param)


def connecting(kind: str) -> dict[str, Any]:
    """A short time to connect where that is what passes."""
    return {"timeouts": {"connect": "200ms" if kind == "connect_timeout" else "10s"}}


def outcome_of(kind: str) -> str:
    return "tls" if kind.startswith("tls") else kind


@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_target_answers(
    serve: Serve, two: ScriptedUpstream, kind: str, stream: bool
) -> None:
    two.default = chat_stream(["from two"]) if stream else chat_answer("from two")
    async with unreachable(kind) as url:
        house = await serve(config_of(url, two, server=connecting(kind)))
        answer = await house.ask(stream=stream)
        answered_by(answer, TWO)
        assert answer.headers["x-roundhouse-fallback-from"] == ONE
        reason = outcome_of(kind)
        assert await house.metric("attempts_total", target=ONE, outcome=reason) >= 1
        assert await house.metric("attempts_total", target=ONE) == await house.metric(
            "attempts_total", target=ONE, outcome=reason
        )
        assert await house.metric("attempts_total", target=TWO, outcome="ok") == 1
        assert await house.metric("fallbacks_total", model="m", reason=reason) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_none_left_is_a_502(serve: Serve, kind: str, stream: bool) -> None:
    async with unreachable(kind) as first, unreachable(kind) as second:
        house = await serve(config_of(first, second, server=connecting(kind)))
        answer = await house.ask(stream=stream)
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        assert "127.0.0.1" not in answer.text
        reason = outcome_of(kind)
        for target in (ONE, TWO):
            assert await house.metric("attempts_total", target=target, outcome=reason) >= 1
        assert await house.metric("attempts_total", outcome="ok") == 0
        assert await house.metric("fallbacks_total") == 0
        assert await house.metric("requests_total", model="m", status="502") == 1


async def test_a_target_that_hangs_costs_its_connect_timeout_alone(
    serve: Serve, two: ScriptedUpstream
) -> None:
    """Not the first byte's 300 s, nor the whole request's 600 s."""
    two.default = chat_answer("from two")
    with no_answer_port() as port:
        url = f"http://127.0.0.1:{port}"
        house = await serve(config_of(url, two, server={"timeouts": {"connect": "100ms"}}))
        answered_by(await house.ask(), TWO)  # the client of the test waits 30 s
        assert await house.metric("attempts_total", target=ONE, outcome="connect_timeout") >= 1
