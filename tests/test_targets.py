"""Engines and providers as targets: what they send, when they are ready, what they pass on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.dialects.table import DIALECTS
from server.engines.replicas import Replica
from server.engines.state import EngineState, EngineView, Instance
from server.errors import EngineNotReady, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.parameters import fill_of
from server.targets import EngineTarget, ProviderTarget, ReplicaTarget, Target
from server.transport import AttemptTimeouts, Transport
from tests.fakes.upstream import ScriptedUpstream, answer_json
from tests.routing.conftest import request_of

TIMES = AttemptTimeouts(5, 5, 5)
STATES = {
    None: (False, False),
    EngineState.STOPPED: (False, True),
    EngineState.WAITING: (False, True),
    EngineState.STARTING: (False, True),
    EngineState.READY: (True, True),
    EngineState.DRAINING: (False, True),
    EngineState.ASLEEP: (False, True),
    EngineState.BACKOFF: (False, True),
    EngineState.FAILED: (False, False),
}


class FakeEngines:
    """A supervisor with one engine, `qwen`."""

    def __init__(self, view: EngineView | None) -> None:
        self.one = view
        self.calls: list[tuple[object, ...]] = []

    def view(self, name: str) -> EngineView | None:
        assert name == "qwen"
        return self.one

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        self.calls.append(("wait", name, timeout))
        assert self.one is not None
        return self.one

    def instances(self, name: str) -> tuple[Instance, ...]:
        assert self.one is not None
        return tuple(one for one in self.one.instances if one.state is EngineState.READY)

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None:
        self.calls.append(("used", name, replica, keep_alive))

    def want(self, name: str) -> None:
        self.calls.append(("want", name))

    def report_failure(self, name: str, generation: int) -> None:
        self.calls.append(("failed", name, generation))

    def eta(self, name: str) -> float | None:
        return 12.0

    def hopeless(self, name: str) -> EngineNotReady | None:
        return None


def engine(
    state: EngineState | None, socket: str | None = None
) -> tuple[EngineTarget, FakeEngines]:
    view = None if state is None else EngineView("qwen", state, socket=socket, generation=7)
    engines = FakeEngines(view)
    return EngineTarget("qwen", engines, TIMES), engines


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.close()


def test_every_state_is_judged() -> None:
    assert set(STATES) - {None} == set(EngineState)


@pytest.mark.parametrize("state", STATES)
def test_readiness(state: EngineState | None) -> None:
    target, _ = engine(state)
    assert (target.ready, target.may_become_ready) == STATES[state]
    assert target.label == "engine/qwen"
    assert target.retry_ambiguous


async def test_an_engine_passes_on_to_its_supervisor() -> None:
    target, engines = engine(EngineState.STARTING)
    target.max_wait = 20
    await target.wait(5)
    await target.wait(50)
    target.want()
    mark = target.mark()
    target.failed(mark)
    assert engines.calls == [
        ("wait", "qwen", 5),
        ("wait", "qwen", 20),
        ("want", "qwen"),
        ("failed", "qwen", 7),
    ]
    assert engine(None)[0].mark() == 0


@pytest.mark.parametrize(
    ("surface", "path"),
    [
        (Surface.CHAT, "/v1/chat/completions"),
        (Surface.COMPLETIONS, "/v1/completions"),
        (Surface.EMBEDDINGS, "/v1/embeddings"),
        (Surface.TOKENIZE, "/tokenize"),
        (Surface.DETOKENIZE, "/detokenize"),
    ],
)
async def test_an_engine_is_sent_to_by_its_socket(
    transport: Transport, tmp_path: Path, surface: Surface, path: str
) -> None:
    uds = str(tmp_path / "s")
    async with ScriptedUpstream(answer_json(), uds=uds) as upstream:
        target, _ = engine(EngineState.READY, uds)
        request = request_of(stream=False, surface=surface)
        request.tenant = "t1"
        assert target.refuses(request) is None
        response = await target.send(request, transport)
        response.close()
        sent = await upstream.next_request()
        assert (sent.path, sent.json()["model"]) == (path, "qwen")
        salted = surface in (Surface.CHAT, Surface.COMPLETIONS)
        assert sent.json().get("cache_salt") == ("t1" if salted else None)
        assert sent.header("x-request-id") == "req_1"
        assert sent.header("authorization") is None


@pytest.mark.parametrize("state", [None, EngineState.STARTING, EngineState.READY])
async def test_an_engine_that_is_not_there(transport: Transport, state: EngineState | None) -> None:
    target, _ = engine(state)
    with pytest.raises(EngineNotReady):
        await target.send(request_of(), transport)


async def test_a_provider(transport: Transport) -> None:
    async with ScriptedUpstream(answer_json()) as upstream:
        headers = {"authorization": "Bearer up", "x-extra": "1"}
        target = ProviderTarget("openai", "gpt", f"{upstream.url}/v1", headers, TIMES)
        assert (target.label, target.ready, target.may_become_ready) == ("openai/gpt", True, True)
        assert not target.retry_ambiguous
        request = request_of(stream=False, cache_salt="x")
        request.tenant = "t1"
        response = await target.send(request, transport)
        response.close()
        sent = await upstream.next_request()
        assert (sent.path, sent.json()["model"]) == ("/v1/chat/completions", "gpt")
        assert "cache_salt" not in sent.json()
        assert request.dropped == ("cache_salt",)
        assert (sent.header("authorization"), sent.header("x-extra")) == ("Bearer up", "1")
        assert sent.header("x-request-id") is None
        await target.wait(0)
        target.want()
        target.failed(target.mark())


async def test_a_provider_behind_a_proxy(transport: Transport) -> None:
    async with ScriptedUpstream(answer_json()) as proxy:
        target = ProviderTarget(
            "p",
            "m",
            "http://far.example/v1",
            {},
            TIMES,
            proxy=f"http://u:hush@127.0.0.1:{proxy.port}",
        )
        assert "hush" not in repr(target)
        response = await target.send(request_of(stream=False), transport)
        response.close()
        sent = await proxy.next_request()
        assert sent.target == "http://far.example/v1/chat/completions"


@pytest.mark.parametrize("surface", [Surface.TOKENIZE, Surface.DETOKENIZE])
def test_what_a_provider_does_not_have(surface: Surface) -> None:
    target = ProviderTarget("openai", "gpt", "http://127.0.0.1:1/v1", {}, TIMES)
    refusal = target.refuses(request_of(stream=False, surface=surface))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "unsupported_endpoint")
    assert target.refuses(request_of()) is None


WANTED: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object"}, "odd": True},
}


async def test_what_the_operator_fills_in_is_left_out_where_it_cannot_be_said() -> None:
    """Also where only a part of it cannot; what the client says so is refused."""
    target = ProviderTarget(
        "cohere",
        "m",
        "http://127.0.0.1:1",
        {},
        TIMES,
        dialect=DIALECTS["cohere"],
        fill=fill_of({"response_format": WANTED, "temperature": 0.5, "store": True}),
    )
    request = request_of(stream=False)
    outgoing = await target.translate(request)
    body = json.loads(outgoing.body)
    assert "response_format" not in body
    assert (body["temperature"], request.dropped) == (0.5, ())
    refusal = target.unsaid(request_of(stream=False, response_format=WANTED))
    assert refusal is not None
    assert refusal.param == "response_format.json_schema.odd"


def test_both_are_targets() -> None:
    """mypy holds the types; this holds that the protocol names nothing they lack."""
    names = {name for name in vars(Target) if not name.startswith("_")} | {
        "label",
        "timeouts",
        "retry_ambiguous",
    }
    for target in (engine(None)[0], ProviderTarget("p", "m", "http://127.0.0.1:1", {}, TIMES)):
        assert all(hasattr(target, name) for name in names)
    assert asyncio.iscoroutinefunction(EngineTarget.send)


class FakeFleet:
    """External engines without a replica."""

    def view(self, name: str) -> EngineView | None:
        return None

    def replicas(self, name: str) -> tuple[Replica, ...]:
        return ()

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        raise EngineNotReady("None is well.")

    def report_failure(self, name: str, address: str) -> None:
        return


def test_what_is_a_replicas_own_is_not_told() -> None:
    """Our own engines have nothing to hide: neither keys nor addresses."""
    replica = Replica(
        "a", "http://gpu-box.example:8000", "m", {"authorization": "Bearer lab-key-77"}
    )
    target = ReplicaTarget("e", replica, FakeFleet(), TIMES)
    said = "lab-key-77 at gpu-box.example"
    error = UpstreamStatus(400, message=said, detail=said)
    engine(None)[0].scrub(error)
    assert (error.message, error.detail) == (said, said)
    target.scrub(error)
    assert (error.message, error.detail) == ("… at …", "… at gpu-box.example")


def test_a_providers_target_knows_its_own() -> None:
    """Those of a config know all of their account's keys."""
    headers = {"authorization": "Bearer lab-key-77"}
    target = ProviderTarget("p", "m", "http://gpu-box.example/v1", headers, TIMES)
    error = UpstreamStatus(400, message="lab-key-77 at gpu-box.example")
    target.scrub(error)
    assert error.message == "… at …"
