"""Engines of this server as targets: where they answer, what they are told, who is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.engines.state import EngineState, EngineView, Instance
from server.engines.suspects import Suspects
from server.errors import EngineNotReady, Overloaded, UnavailableError
from server.targets import EngineTarget, InstanceTarget
from server.transport import AttemptTimeouts, Transport
from tests.fakes.upstream import ScriptedUpstream, answer_json
from tests.routing.conftest import request_of

TIMES = AttemptTimeouts(5, 5, 5)
STOPPED = EngineNotReady("An operator stopped it.", code="engine_stopped")


class FakeEngines:
    """A supervisor with one engine, `qwen`."""

    def __init__(self, state: EngineState = EngineState.READY, **more: Any) -> None:
        self.one: EngineView | None = EngineView("qwen", state, generation=7, **more)
        self.uses: list[tuple[str, int, float | None]] = []
        self.failures: list[int] = []
        self.despair: EngineNotReady | None = None
        self.late: UnavailableError | None = None
        self.wanted: list[str] = []

    def view(self, name: str) -> EngineView | None:
        return self.one

    def becomes(self, state: EngineState, **more: Any) -> None:
        assert self.one is not None
        self.one = replace(self.one, state=state, **more)

    def instances(self, name: str) -> tuple[Instance, ...]:
        assert self.one is not None
        return tuple(one for one in self.one.instances if one.state is EngineState.READY)

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None:
        self.uses.append((name, replica, keep_alive))

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        assert self.late is not None
        raise self.late

    def want(self, name: str) -> None:
        self.wanted.append(name)

    def report_failure(self, name: str, generation: int) -> None:
        self.failures.append(generation)

    def eta(self, name: str) -> float | None:
        return 12.0

    def hopeless(self, name: str) -> EngineNotReady | None:
        return self.despair


def instance(replica: int, generation: int, **more: Any) -> Instance:
    return Instance(replica, more.pop("state", EngineState.READY), generation=generation, **more)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.close()


async def test_a_command_answers_at_its_port(
    transport: Transport, upstream: ScriptedUpstream
) -> None:
    upstream.default = answer_json()
    engines = FakeEngines(url=upstream.url)
    target = EngineTarget("qwen", engines, TIMES, model="their-name")
    request = request_of(stream=False)
    request.keep_alive = 90.0
    (await target.send(request, transport)).close()
    sent = await upstream.next_request()
    assert (sent.path, sent.json()["model"]) == ("/v1/chat/completions", "their-name")
    assert engines.uses == [("qwen", 0, 90.0)]


async def test_each_instance_answers_for_itself(transport: Transport, tmp_path: Path) -> None:
    uds = str(tmp_path / "s")
    async with ScriptedUpstream(answer_json(), uds=uds) as upstream:
        engines = FakeEngines(instances=(instance(0, 7), instance(1, 9, socket=uds)))
        assert engines.one is not None
        _, second = engines.one.instances
        target = InstanceTarget("qwen", engines, TIMES, instance=second)
        assert (target.label, target.local, target.ready) == ("engine/qwen", "qwen", True)
        (await target.send(request_of(stream=False), transport)).close()
        assert (await upstream.next_request()).json()["model"] == "qwen"
    assert engines.uses == [("qwen", 1, None)]
    assert target.mark() == 9
    target.failed(target.mark())
    assert engines.failures == [9]
    assert not target.lost()
    engines.becomes(EngineState.READY, instances=(instance(0, 7), instance(1, 10)))
    assert target.lost()


def test_what_makes_room_comes_back_unless_somebody_wants_it_so() -> None:
    engines = FakeEngines(EngineState.DRAINING)
    target = EngineTarget("qwen", engines, TIMES)
    assert (target.ready, target.may_become_ready) == (False, True)
    engines.despair = STOPPED
    assert not target.may_become_ready
    engines.one = None
    assert not target.may_become_ready


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (EngineState.WAITING, "memory"),
        (EngineState.ASLEEP, "woken"),
        (EngineState.DRAINING, "made room"),
        (EngineState.BACKOFF, "starts again"),
        (EngineState.STARTING, "is loading."),
    ],
)
async def test_people_read_what_it_waits_for(state: EngineState, word: str) -> None:
    engines = FakeEngines(state, stage="waits for memory of other-engine")
    target = EngineTarget("qwen", engines, TIMES)
    told = target.loading()
    assert (told.status, told.code, told.headers()["retry-after"]) == (503, "engine_loading", "12")
    assert word in told.message
    assert "other-engine" not in told.message  # whoever else is loaded is none of a client's
    engines.late = EngineNotReady("The model is loading.", code="engine_loading", retry_after=3)
    with pytest.raises(EngineNotReady) as caught:
        await target.wait(1)
    assert (caught.value.message, caught.value.retry_after) == (told.message, 3)


async def test_who_is_told_to_come_back_finds_it_loading() -> None:
    """Where requests wait for no time at all, it would never be loaded."""
    engines = FakeEngines(EngineState.STOPPED)
    engines.late = EngineNotReady("The model is loading.", code="engine_loading")
    target = EngineTarget("qwen", engines, TIMES, max_wait=0)
    with pytest.raises(EngineNotReady):
        await target.wait(30)
    assert engines.wanted == ["qwen"]
    with pytest.raises(EngineNotReady):  # it is the client who gives up
        await EngineTarget("qwen", engines, TIMES, max_wait=60).wait(30)
    assert engines.wanted == ["qwen"]
    engines.late = Overloaded("Too many requests wait for the model to load.")
    with pytest.raises(Overloaded):
        await target.wait(30)
    assert engines.wanted == ["qwen", "qwen"]


async def test_other_reasons_are_told_as_they_are() -> None:
    engines = FakeEngines(EngineState.FAILED)
    engines.late = STOPPED
    with pytest.raises(EngineNotReady, match="operator"):
        await EngineTarget("qwen", engines, TIMES).wait(1)


@pytest.mark.parametrize(
    ("state", "died"),
    [
        (EngineState.READY, None),
        (EngineState.BACKOFF, True),
        (EngineState.FAILED, True),
        (EngineState.DRAINING, False),
        (EngineState.ASLEEP, False),
        (EngineState.STOPPED, False),
    ],
)
def test_a_death_is_an_end_that_nobody_asked_for(state: EngineState, died: bool | None) -> None:
    target = EngineTarget("qwen", FakeEngines(state), TIMES)
    assert target.died(7) is died
    engines = FakeEngines(instances=(instance(0, 11), instance(1, 12, state=state)))
    found = InstanceTarget("qwen", engines, TIMES, instance=instance(1, 12))
    assert found.died(12) is died
    assert found.died(11) is None
    assert found.died(10) is True  # another process has its place


def test_what_left_the_config_has_not_died() -> None:
    engines = FakeEngines()
    engines.one = None
    assert EngineTarget("qwen", engines, TIMES).died(7) is False


def test_a_body_that_kills_is_refused() -> None:
    suspects = Suspects()
    target = EngineTarget("qwen", FakeEngines(), TIMES, suspects=suspects)
    request = request_of()
    assert target.refuses(request) is None
    assert request.digest is None  # it costs nothing while all is well
    for generation in (7, 8):
        suspects.accuse("qwen", generation, suspects.digest_of(request))
        suspects.died("qwen", generation)
    refusal = target.refuses(request)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "request_crashed_engine")
    assert "10 minutes" in refusal.message
    other = request_of(messages=[{"role": "user", "content": "other"}])
    assert target.refuses(other) is None
