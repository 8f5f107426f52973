"""One attempt at one target: sent, answered or failed, and counted exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from server.dialects import openai
from server.dialects.base import Dialect, Outgoing, asked
from server.dialects.shapes import LOADING
from server.errors import (
    EngineNotReady,
    Overloaded,
    RoundhouseError,
    UpstreamError,
    UpstreamProtocol,
    UpstreamStatus,
    untrace,
)
from server.protocol import sse
from server.protocol.request import Request
from server.routing.chain import Route
from server.routing.cost import dollars
from server.routing.ratelimits import RateLimits
from server.routing.record import Record
from server.routing.relay import Reading, Sink, SlowClient, StreamRelay, is_text, whole
from server.routing.retry_after import seconds_in
from server.routing.standing import Attempt
from server.routing.suspicion import Watch
from server.routing.translated import TranslatedRelay
from server.telemetry.metrics import Metrics
from server.transport import Response, Transport

#: Bytes of an upstream's error answer that are looked at.
_ERROR_BODY: Final = 64 * 1024
#: Seconds that it may take, and never beyond the request's deadline.
_ERROR_TIME: Final = 10.0
#: Outcomes that show a target in health: it answered, and said no, or too much.
ALIVE: Final = frozenset({"http_4xx", "http_429", "http_auth", "too_large"})
#: Outcomes that are reasons of `roundhouse_stream_end`, too.
_ENDS: Final = frozenset({"stall", "protocol", "too_large", "truncated", "reset", "aborted"})
#: For targets that speak OpenAI's dialect there is nothing to translate.
_AS_IT_IS: Final[tuple[Reading | None, Outgoing | None]] = (None, None)


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings of relaying, seconds and bytes; see `config.schema`."""

    waiting: float
    write: float
    event_limit: int
    answer_limit: int


@dataclass(slots=True)
class Job:
    """One request on its way: what every attempt of it shares."""

    request: Request
    sink: Sink
    record: Record
    #: The metric label of the model asked for.
    label: str
    pace: Pace
    transport: Transport
    metrics: Metrics
    clock: Callable[[], float]
    limits: RateLimits
    watch: Watch

    async def until_read(self) -> None:
        """Until the client, which does not, reads; SlowClient when it goes on so."""
        try:
            async with asyncio.timeout(self.pace.write):
                await self.sink.drain()
        except TimeoutError:
            self.record.end = self.record.end or "slow_client"
            raise SlowClient("The client does not read.") from None


async def attempt(job: Job, route: Route, answered: Callable[[Route], None]) -> None:
    """Send, and relay the answer. Returns when the client was answered, if only by an error event
    behind the commit point. Raises UpstreamError or EngineNotReady when nothing was committed;
    SlowClient; InvalidRequest when the target's dialect has no word for what is asked, and then
    nothing was attempted. `answered` is told the route before the answer's head goes out.
    """
    target, record, standing = route.target, job.record, route.standing
    streaming = job.request.stream
    now = job.clock()
    begun = standing.began(now)  # before anything is awaited: of probes there is one at a time
    dialect = target.dialect
    reading, outgoing = (
        _AS_IT_IS if dialect is None else await _translated(job, route, dialect, begun)
    )
    record.attempts += 1
    record.target = target.label
    record.usage = record.cost = None
    mark = target.mark()
    if record.sent is None:
        record.sent, record.waited_before = now, record.waited
    outcome, said, retry_after = "internal", None, None
    relay: StreamRelay | TranslatedRelay | None = None
    try:
        response = await target.send(job.request, job.transport, outgoing)
        try:
            if target.account is not None:
                job.limits.note(*target.account, response.headers)
            if response.status != 200:
                raise await _error_of(response, job.request.deadline, target.dialect)
            if streaming:

                def committing() -> None:
                    standing.answering(job.clock(), begun)
                    answered(route)

                relay = _relay(job, route, response, reading, committing)
                try:
                    await relay.run()
                finally:
                    record.cost = dollars(record.usage, route.prices)
                record.end = "done"
            else:
                await _whole(job, route, response, reading, answered)
        finally:
            response.close()
        outcome = "ok"
    except asyncio.CancelledError:
        outcome = "client_gone"
        raise
    except SlowClient:
        record.end = outcome = "slow_client"
        raise
    except (EngineNotReady, Overloaded) as error:
        outcome = "shed" if isinstance(error, Overloaded) else "not_ready"
        raise
    except UpstreamError as error:
        target.scrub(error)
        outcome, retry_after = error.outcome, error.retry_after
        said = _said(error, target.label)
        if outcome not in ALIVE:
            target.failed(mark)
            job.watch.failed(job.request, route, mark, outcome)
        record.detail = error.detail
        if not job.sink.committed:
            raise
        await _break_off(job, error, relay.pending if relay else b"")
        untrace(error)
    finally:
        standing.ended(job.clock(), begun, said or outcome, retry_after, whole=not streaming)
        job.watch.ended(job.request, target, outcome)
        job.metrics.attempts.labels(job.label, target.label, outcome).inc()


async def _translated(
    job: Job, route: Route, dialect: Dialect, begun: Attempt
) -> tuple[Reading, Outgoing]:
    """How the answer is to be read, and the request, where they are not in OpenAI's dialect."""
    try:
        reading = Reading(dialect, asked(job.request, int(time.time())))
        return reading, await route.target.translate(job.request)
    except BaseException:  # it has no word for it, or the client left: nothing was asked
        route.standing.ended(job.clock(), begun, "not_ready")
        raise


async def _whole(
    job: Job,
    route: Route,
    response: Response,
    reading: Reading | None,
    answered: Callable[[Route], None],
) -> None:
    """Relay an answer that is no stream."""
    body = await whole(
        response,
        job.request,
        job.record,
        timeouts=route.target.timeouts,
        limit=job.pace.answer_limit,
        reading=reading,
    )
    job.record.cost = dollars(job.record.usage, route.prices)
    answered(route)
    if not job.sink.flowing:
        await job.until_read()
    job.sink.whole(body)


def _said(error: UpstreamError, label: str) -> str:
    """The outcome as the breakers are told it. Who loads a model is well.

    With 403 a provider says that the account may not use this model, with 402 that it has not the
    money for this: no fault of its key for others. A 401 is the key's, unless a client named the
    id (`provider/*`): some say so of models that there are not.
    """
    if isinstance(error, UpstreamStatus):
        status = error.upstream_status
        if status in (402, 403) or (status == 401 and label.endswith("/*")):
            return "forbidden"
    return "not_ready" if error.code == LOADING else error.outcome


async def _break_off(job: Job, error: UpstreamError, pending: bytes) -> None:
    """End a stream that had begun: what came before the fault, then an error event."""
    job.record.end = error.outcome if error.outcome in _ENDS else "upstream_error"
    job.record.error = error.code
    if not job.sink.flowing:
        await job.until_read()
    job.sink.push(pending + error_event(error))
    job.sink.end()


def error_event(error: RoundhouseError) -> bytes:
    """The event that ends a broken stream. No `[DONE]` follows it."""
    return sse.event(sse.dumps(error.body()))


def _relay(
    job: Job,
    route: Route,
    response: Response,
    reading: Reading | None,
    committing: Callable[[], None],
) -> StreamRelay | TranslatedRelay:
    kind = response.headers.get("content-type", "").lower()
    if not kind.startswith("text/event-stream"):
        raise UpstreamProtocol(
            "The upstream did not answer with a stream.", detail=f"content-type {kind!r}"
        )
    shared: dict[str, Any] = {
        "timeouts": route.target.timeouts,
        "write_timeout": job.pace.write,
        "event_limit": job.pace.event_limit,
        "observe_gap": job.metrics.inter_chunk.labels(job.label).observe,
        "committing": committing,
    }
    if reading is None:
        return StreamRelay(response, job.request, job.sink, job.record, **shared)
    reader = reading.dialect.reader(reading.asked)
    return TranslatedRelay(response, reader, job.request, job.sink, job.record, **shared)


async def _error_of(response: Response, deadline: float, dialect: Dialect | None) -> UpstreamStatus:
    body = b""
    with contextlib.suppress(UpstreamError):
        response.expect(min(time.monotonic() + _ERROR_TIME, deadline))
        body = await response.read_all(_ERROR_BODY)
        if not is_text(body):
            body = body.decode("utf-8", "replace").encode()
    error_in = openai.error_in if dialect is None else dialect.error_in
    error = error_in(response.status, body)
    if error.upstream_status in (429, 503, 529):  # and not where it means that there is no money
        # The clock on the wall is for answers that name a time of day and have no date. A body may
        # say when, too.
        said = seconds_in(response.headers, now=time.time())
        error.retry_after = error.retry_after if said is None else said
    return error
