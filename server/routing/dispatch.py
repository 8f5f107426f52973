"""The attempt loop: the plan's targets in order, one deadline, nothing after the commit point."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from server.config.cards import Prices
from server.dialects import openai
from server.errors import (
    EngineNotReady,
    InvalidRequest,
    RequestError,
    RoundhouseError,
    UnavailableError,
    UpstreamError,
    UpstreamProtocol,
)
from server.protocol import sse
from server.protocol.parameters import Ceilings
from server.protocol.request import Request
from server.routing.cost import dollars
from server.routing.plan import Candidate, Step, rank
from server.routing.record import Record
from server.routing.relay import Sink, SlowClient, StreamRelay, whole
from server.targets import Target
from server.telemetry.metrics import Metrics
from server.transport import Response, Transport

#: One try and at most two more.
MAX_ATTEMPTS: Final = 3
#: Seconds between two `: waiting` comments.
COMMENT_EVERY: Final = 5.0
#: Bytes of an upstream's error answer that are looked at.
_ERROR_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """A target of the model asked for, or (`model` differs) of one of its fallbacks, with what it
    costs and the ceilings of its model."""

    model: str
    target: Target
    prices: Prices | None = None
    ceilings: Ceilings | None = None

    def refuses(self, request: Request) -> InvalidRequest | None:
        """Why this target can never answer this request, or its model may not; or None."""
        if self.ceilings is not None:
            over = self.ceilings.refusal(request.members, request.surface)
            if over is not None:
                return over
        return self.target.refuses(request)


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings of the loop, seconds and bytes; see `config.schema`."""

    waiting: float
    write: float
    event_limit: int
    answer_limit: int


class Dispatcher:
    """Sends requests along their plans and counts what is in flight per target."""

    def __init__(
        self,
        transport: Transport,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._metrics = metrics
        self._clock = clock
        self._in_flight: Counter[str] = Counter()

    def in_flight(self, label: str) -> int:
        """Attempts under way at the target with this label."""
        return self._in_flight[label]

    def run(
        self,
        request: Request,
        routes: Sequence[Route],
        sink: Sink,
        record: Record,
        *,
        model_label: str,
        pace: Pace,
    ) -> Coroutine[None, None, None]:
        """Answer the request through `sink`.

        Raises the error to render when nothing was committed. After the commit point an error has
        become an error event already, and `record` says so. Cancelling closes the upstream.
        """
        return _Run(self, request, routes, sink, record, model_label, pace).answer()


class _Run:
    """One request on its way through its plan."""

    def __init__(
        self,
        owner: Dispatcher,
        request: Request,
        routes: Sequence[Route],
        sink: Sink,
        record: Record,
        label: str,
        pace: Pace,
    ) -> None:
        self.transport, self.metrics = owner._transport, owner._metrics
        self.clock, self.in_flight = owner._clock, owner._in_flight
        self.request, self.routes, self.sink, self.record = request, routes, sink, record
        self.label, self.pace = label, pace
        #: Labels, since one target may stand in several places of a plan.
        self.tried: set[str] = set()
        self.last: RoundhouseError | None = None
        self.refused: RequestError | None = None

    async def answer(self) -> None:
        while self.record.attempts < MAX_ATTEMPTS and (step := self._next()):
            if self.last is not None and self.clock() >= self.request.deadline:
                break
            route = self.routes[step.index]
            self.tried.add(route.target.label)
            if step.wait:
                try:
                    await self._wait(route.target)
                except UnavailableError as error:
                    if not error.retryable:  # our own overload is no reason to load others
                        raise
                    self._failed(error, "not_ready")
                    continue
            elif step.index:
                self._load_passed_over(step.index)
            if await self._try(step.index, route):
                return
        raise self._final()

    def _next(self) -> Step | None:
        """The best step not tried yet, by how the targets are now."""
        if self.routes and not self.tried:  # nearly every request ends here
            first = self.routes[0].target
            if first.ready and first.refuses(self.request) is None:
                return _FIRST
        candidates = []
        for index, route in enumerate(self.routes):
            target = route.target
            if target.label in self.tried:
                continue
            if refusal := route.refuses(self.request):
                self.refused = refusal
                continue
            candidates.append(
                Candidate(index, target.label, target.ready, target.may_become_ready, route.model)
            )
        steps = rank(candidates)
        return steps[0] if steps else None

    def _load_passed_over(self, chosen: int) -> None:
        for route in self.routes[:chosen]:
            if route.target.label not in self.tried and not route.target.ready:
                route.target.want()

    def _final(self) -> RoundhouseError:
        if self.last is not None:
            return self.last
        if self.refused is not None:
            return self.refused
        return EngineNotReady(
            f"No target of `{self.request.model}` can answer now.", code="no_target_left"
        )

    def _failed(self, error: RoundhouseError, reason: str) -> None:
        # A target's own error says more than a later one that was not even up.
        if self.last is None or not isinstance(error, UnavailableError):
            self.last = error
        if self.record.fallback_reason is None:
            self.record.fallback_reason = reason

    async def _wait(self, target: Target) -> None:
        """Until the target is ready, with signs of life for a stream's client."""
        request, sink = self.request, self.sink
        timeout = max(0.0, request.deadline - self.clock())
        if not request.stream:
            await target.wait(timeout)
            return
        waiter = asyncio.ensure_future(target.wait(timeout))
        try:
            pause = max(0.0, self.pace.waiting - (self.clock() - request.arrived))
            while not (await asyncio.wait({waiter}, timeout=pause))[0]:
                pause = COMMENT_EVERY
                await self._room()
                if not sink.started:
                    sink.start_stream()
                sink.push(sse.comment("waiting"))
            await waiter
        finally:
            if not waiter.done():
                waiter.cancel()
                with contextlib.suppress(asyncio.CancelledError, RoundhouseError):
                    await waiter

    async def _try(self, index: int, route: Route) -> bool:
        """One attempt. True when the client was answered; False to go on; raises what is final."""
        target, record = route.target, self.record
        record.attempts += 1
        record.target = target.label
        record.usage = record.cost = None
        mark = target.mark()
        self.in_flight[target.label] += 1
        outcome = "internal"
        relay: StreamRelay | None = None
        try:
            response = await target.send(self.request, self.transport)
            try:
                if response.status != 200:
                    raise await self._error_of(response)
                if self.request.stream:
                    relay = self._relay(response, route, index)
                    try:
                        await relay.run()
                    finally:
                        record.cost = dollars(record.usage, route.prices)
                    record.end = "done"
                else:
                    body = await whole(
                        response,
                        self.request,
                        record,
                        timeouts=target.timeouts,
                        limit=self.pace.answer_limit,
                    )
                    record.cost = dollars(record.usage, route.prices)
                    self._answered(route, index)
                    await self._room()
                    self.sink.whole(body)
            finally:
                response.close()
            outcome = "ok"
            return True
        except asyncio.CancelledError:
            outcome = "client_gone"
            raise
        except SlowClient:
            record.end = outcome = "slow_client"
            raise
        except EngineNotReady as error:
            outcome = "not_ready"
            self._failed(error, outcome)
            return False
        except UpstreamError as error:
            outcome = error.outcome
            if outcome not in _ALIVE:
                target.failed(mark)
            return await self._after_failure(error, target, relay)
        finally:
            self.in_flight[target.label] -= 1
            self.metrics.attempts.labels(self.label, target.label, outcome).inc()

    async def _after_failure(
        self, error: UpstreamError, target: Target, relay: StreamRelay | None
    ) -> bool:
        record = self.record
        record.detail = error.detail
        if self.sink.committed:
            record.end = _end_reason(error)
            record.error = error.code
            pending = relay.pending if relay else b""
            await self._room()
            self.sink.push(pending + error_event(error))
            self.sink.end()
            return True
        if not error.retryable:
            raise error
        ambiguous = error.sent and not error.outcome.startswith("http_")
        if ambiguous and not target.retry_ambiguous:
            raise error
        if error.outcome == "deadline":
            raise error
        self._failed(error, error.outcome)
        return False

    def _relay(self, response: Response, route: Route, index: int) -> StreamRelay:
        kind = response.headers.get("content-type", "").lower()
        if not kind.startswith("text/event-stream"):
            raise UpstreamProtocol(
                "The upstream did not answer with a stream.", detail=f"content-type {kind!r}"
            )
        return StreamRelay(
            response,
            self.request,
            self.sink,
            self.record,
            timeouts=route.target.timeouts,
            write_timeout=self.pace.write,
            event_limit=self.pace.event_limit,
            observe_gap=self.metrics.inter_chunk.labels(self.label).observe,
            committing=lambda: self._answered(route, index),
        )

    def _answered(self, route: Route, index: int) -> None:
        """This target's answer is the client's: say so before the head goes out."""
        if index == 0:
            self.record.fallback_reason = None
            return
        self.record.fallback_from = self.routes[0].target.label
        reason = self.record.fallback_reason or "not_ready"
        self.record.fallback_reason = reason
        self.metrics.fallbacks.labels(self.label, reason).inc()

    async def _error_of(self, response: Response) -> UpstreamError:
        body = b""
        with contextlib.suppress(UpstreamError):
            response.expect(time.monotonic() + 10)
            body = await response.read_all(_ERROR_BODY)
        return openai.error_in(response.status, response.headers, body)

    async def _room(self) -> None:
        """Until the client reads; SlowClient when it does not."""
        if self.sink.flowing:
            return
        try:
            async with asyncio.timeout(self.pace.write):
                await self.sink.drain()
        except TimeoutError:
            self.record.end = self.record.end or "slow_client"
            raise SlowClient("The client does not read.") from None


def error_event(error: RoundhouseError) -> bytes:
    """The event that ends a broken stream. No `[DONE]` follows it."""
    return sse.event(sse.dumps(error.body()))


def _end_reason(error: UpstreamError) -> str:
    outcome = error.outcome
    return outcome if outcome in _ENDS else "upstream_error"


_FIRST: Final = Step(0, wait=False, reason="ready")
#: Outcomes that show a target in health: it answered, and said no.
_ALIVE: Final = frozenset({"http_4xx", "http_429", "http_auth"})
_ENDS: Final = frozenset({"stall", "protocol", "truncated", "reset", "aborted"})
