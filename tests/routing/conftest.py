"""What routing's tests share: a client in memory, and targets over a real transport."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from server.dialects.base import Dialect, Outgoing
from server.dialects.table import DIALECTS
from server.errors import EngineNotReady, InvalidRequest, RoundhouseError, UpstreamError
from server.protocol import envelope
from server.protocol.envelope import Surface
from server.protocol.functions import is_legacy, to_tools
from server.protocol.request import Request
from server.routing.attempt import Pace
from server.routing.budget import Backoff
from server.routing.chain import Chain, Group, Route
from server.routing.dispatch import Dispatcher
from server.routing.record import Record
from server.routing.settings import Settings
from server.targets import ProviderTarget
from server.telemetry.metrics import Metrics
from server.transport import AttemptTimeouts, Response, Transport
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_late, chat_answer
from tests.routing.client import MemorySink

if TYPE_CHECKING:
    from tests.routing.stage import Stage

TIMES = AttemptTimeouts(connect=5, first_byte=5, inter_chunk=5)
PACE = Pace(waiting=5, write=5, event_limit=1 << 20, answer_limit=1 << 22)
MODEL = "m"
#: Second attempts at the same target come at once.
SETTINGS = Settings(backoff=Backoff(0.0, 0.0))


@dataclass
class FakeTarget:
    """A target over a provider's upstream whose readiness the test decides."""

    label: str
    url: str = ""
    timeouts: AttemptTimeouts = TIMES
    retry_ambiguous: bool = False
    ready: bool = True
    may_become_ready: bool = True
    refusal: InvalidRequest | None = None
    #: What `wait` raises once it is let go; None: it is ready.
    wait_error: Exception | None = None
    go: asyncio.Event = field(default_factory=asyncio.Event)
    waits: list[float] = field(default_factory=list)
    wanted: int = 0
    failures: list[int] = field(default_factory=list)
    marks: int = 0
    send_error: Exception | None = None
    dialect: Dialect | None = None
    settings: dict[str, object] = field(default_factory=dict)
    strict: bool = False
    account: tuple[str, int] | None = None
    #: The engine of ours that it stands for, and what has become of each of its processes.
    local: str | None = None
    fate: dict[int, bool | None] = field(default_factory=dict)
    refusing: Callable[[Request], InvalidRequest | None] | None = None

    def eta(self) -> float | None:
        return None

    def hopeless(self) -> EngineNotReady | None:
        return None

    def loading(self) -> EngineNotReady:
        return EngineNotReady(
            "The model is loading.", code="engine_loading", retry_after=self.eta()
        )

    def refuses(self, request: Request) -> InvalidRequest | None:
        return self.refusal if self.refusing is None else self.refusing(request)

    async def wait(self, timeout: float) -> None:
        self.waits.append(timeout)
        try:
            async with asyncio.timeout(timeout):
                await self.go.wait()
        except TimeoutError:
            raise EngineNotReady("Not ready in time.", retry_after=3) from None
        if self.wait_error is not None:
            raise self.wait_error
        self.ready = True

    @property
    def provider(self) -> ProviderTarget:
        return ProviderTarget(
            self.label,
            "theirs",
            f"{self.url}/v1",
            {"authorization": "Bearer up"},
            self.timeouts,
            dialect=self.dialect,
            settings=self.settings,
            strict=self.strict,
        )

    def unsaid(self, request: Request) -> InvalidRequest | None:
        return self.provider.unsaid(request)

    async def translate(self, request: Request) -> Outgoing:
        return await self.provider.translate(request)

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        if self.send_error is not None:
            raise self.send_error
        return await self.provider.send(request, transport, outgoing)

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def want(self) -> None:
        self.wanted += 1

    def failed(self, mark: int) -> None:
        self.failures.append(mark)

    def scrub(self, error: UpstreamError) -> None:
        return

    def lost(self) -> bool:
        return not self.ready

    def died(self, mark: int) -> bool | None:
        return self.fate.get(mark)


def request_of(
    *, stream: bool = True, surface: Surface = Surface.CHAT, deadline: float = 30.0, **more: Any
) -> Request:
    body: dict[str, Any] = {"model": MODEL, **more}
    if surface is Surface.CHAT:
        body.setdefault("messages", [{"role": "user", "content": "hi"}])
    if stream:
        body["stream"] = True
    members = envelope.members(json.dumps(body).encode())
    legacy = is_legacy(members)
    now = time.monotonic()
    return Request(
        id="req_1",
        surface=surface,
        model=MODEL,
        members=to_tools(members) if legacy else members,
        stream=stream,
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        legacy_functions=legacy,
        tenant=None,
        arrived=now,
        deadline=now + deadline,
    )


class Run:
    """One request through a dispatcher, and everything that it left behind."""

    def __init__(self, transport: Transport) -> None:
        self.metrics = Metrics()
        self.metrics.set_models([MODEL])
        self.dispatcher = Dispatcher(transport, self.metrics, settings=SETTINGS)
        self.sink = MemorySink()
        self.record = Record()
        self.pace = PACE
        self.targets: list[FakeTarget] = []

    async def __call__(self, request: Request, *targets: FakeTarget) -> None:
        self.targets = list(targets)
        chain = self.chain(targets)
        try:
            await self.dispatcher.run(
                request, chain, self.sink, self.record, model_label=MODEL, pace=self.pace
            )
        finally:
            for target in targets:
                assert self.dispatcher.in_flight(target.label) == 0

    def patience(self, attempts: int) -> None:
        """How many attempts a request has."""
        self.dispatcher.configure(replace(SETTINGS, attempts=attempts))

    def chain(self, targets: Sequence[FakeTarget]) -> Chain:
        """All of them the model's own, in this order."""
        return Chain(Group(MODEL, tuple(map(self.route, targets))))

    def route(self, target: FakeTarget) -> Route:
        return Route(MODEL, target, self.dispatcher.standings.of(target.label))

    def start(self, request: Request, *targets: FakeTarget) -> asyncio.Task[None]:
        return asyncio.create_task(self(request, *targets))

    def attempts(self) -> dict[tuple[str, str], int]:
        """(target, outcome) → count."""
        return {
            (labels["target"], labels["outcome"]): count
            for labels, count in self._counts("roundhouse_attempts_total")
        }

    def fallbacks(self) -> dict[str, int]:
        counts = self._counts("roundhouse_fallbacks_total")
        return {labels["reason"]: count for labels, count in counts}

    def _counts(self, name: str) -> list[tuple[dict[str, str], int]]:
        found = []
        for metric in self.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == name:
                    assert sample.labels["model"] == MODEL
                    found.append((sample.labels, int(sample.value)))
        return found


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.close()


@pytest.fixture
def run(transport: Transport) -> Run:
    return Run(transport)


@pytest.fixture
def stage(transport: Transport) -> Iterator[Stage]:
    """Whatever was asked there: nothing of it is left behind."""
    from tests.routing.stage import Stage

    stage = Stage(transport)
    yield stage
    stage.quiet()


@pytest.fixture
def gate(upstream: ScriptedUpstream) -> Gate:
    """The first upstream answers one request per ticket."""
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    return gate


@pytest.fixture
def one(upstream: ScriptedUpstream) -> FakeTarget:
    return FakeTarget("one", upstream.url)


@pytest.fixture
def claude(one: FakeTarget) -> FakeTarget:
    """The first target speaks Anthropic's dialect."""
    one.dialect, one.settings = DIALECTS["anthropic"], {"max_tokens": 100}
    return one


@pytest.fixture
def two(second: ScriptedUpstream) -> FakeTarget:
    return FakeTarget("two", second.url)


@pytest.fixture
def three(third: ScriptedUpstream) -> FakeTarget:
    return FakeTarget("three", third.url)


def payloads(data: bytes) -> list[Any]:
    """The payloads of a client's stream, JSON but for `[DONE]`."""
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        if event.startswith("data: "):
            text = event.removeprefix("data: ")
            found.append(text if text == "[DONE]" else json.loads(text))
    return found


def text_of(data: bytes) -> str:
    """The content that a client's stream holds."""
    return "".join(
        choice["delta"].get("content") or ""
        for payload in payloads(data)
        if isinstance(payload, dict)
        for choice in payload.get("choices") or ()
    )


CHUNK = {"id": "1", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}


def bytes_of(items: list[Any]) -> bytes:
    out = b""
    for item in items:
        if isinstance(item, bytes):
            out += item
        else:
            text = (
                item
                if isinstance(item, str)
                else json.dumps(item, ensure_ascii=False, separators=(",", ":"))
            )
            out += f"data: {text}\n\n".encode()
    return out


def ends_well(run: Run) -> None:
    assert run.record.end == "done"
    assert run.sink.ended == 1
    assert run.sink.data.count(b"data: [DONE]") == 1
    assert run.sink.data.rstrip().endswith(b"data: [DONE]")
    assert run.attempts() == {("one", "ok"): 1}


def ends_in_error(run: Run, outcome: str, end: str | None = None) -> dict[str, Any]:
    """One error event at the end, no `[DONE]`; its error object."""
    assert run.record.end == (end or outcome)
    assert run.sink.ended == 1
    assert b"[DONE]" not in run.sink.data
    assert run.attempts() == {("one", outcome): 1}
    found = [p["error"] for p in payloads(run.sink.data) if "error" in p]
    assert len(found) == 1
    last = payloads(run.sink.data)[-1]
    assert last == {"error": found[0]}
    assert found[0]["code"] == run.record.error
    return dict(found[0])


async def failing(run: Run, request: Any, *targets: FakeTarget) -> RoundhouseError:
    with pytest.raises(RoundhouseError) as caught:
        await run(request, *targets)
    assert not run.sink.committed
    assert run.sink.answer is None
    return caught.value
