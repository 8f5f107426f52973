"""One POST of the data path from its head to its settlement: the endpoint of every surface."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import Final
from urllib.parse import quote

import structlog
from msgspec import Raw
from starlette.types import Receive, Scope, Send

from server.access.admission import Admission, Admitted, estimate
from server.access.keys import KeyInfo
from server.access.limits import UNLIMITED
from server.api import intake, render, wishes
from server.api.cycle import Cycle
from server.api.services import Services
from server.api.sink import ClientSink
from server.errors import (
    ClientGone,
    Draining,
    Overloaded,
    RoundhouseError,
    UpstreamTimeout,
    untrace,
)
from server.protocol.envelope import Envelope, Surface
from server.protocol.request import Request
from server.routing.attempt import error_event
from server.routing.cost import shown
from server.routing.record import Record
from server.routing.relay import SlowClient
from server.telemetry.access import RequestLog

#: Errors that say nothing of the work that a target has had: a client could have it all for free.
_IMPATIENT: Final = frozenset({ClientGone.code, UpstreamTimeout.code})
#: Seconds that a client has to take an error.
_LAST_WORDS: Final = 5.0

log = structlog.get_logger("roundhouse.request")


def new_id() -> str:
    """An id of ours for one request. Clients' own ids are logged, never used."""
    if not _ids:  # the system's randomness costs a call, whatever its size
        drawn = secrets.token_hex(12 * 64)
        _ids.extend(drawn[at : at + 24] for at in range(0, len(drawn), 24))
    return "req_" + _ids.pop()


_ids: list[str] = []


@functools.lru_cache(maxsize=1024)
def _visible(label: str) -> bytes:
    """A target's label for a header. A provider's model id may hold any sign."""
    return quote(label, safe="!#$&'()*+,/:;=?@[]~ ").encode()


class SurfaceEndpoint:
    """The endpoint of one surface: ASGI in form, but it needs our listener's `Cycle`."""

    def __init__(self, services: Services, surface: Surface) -> None:
        self._services = services
        self._surface = surface

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[None, None, None]:
        return Exchange(self._services, self._surface, scope, scope["roundhouse.cycle"]).run()


class Exchange:
    """One request and its answer."""

    def __init__(self, services: Services, surface: Surface, scope: Scope, cycle: Cycle) -> None:
        self.services, self.surface = services, surface
        self.scope, self.cycle = scope, cycle
        self.id = new_id()
        self.arrived = time.monotonic()
        self.record = Record()
        self.sink = ClientSink(cycle, self._headers)
        self.key: KeyInfo | None = None
        #: Of repeated ones the last; empty until the key was found good.
        self.headers: dict[bytes, bytes] = {}
        self.request: Request | None = None
        self.model: str | None = None
        self.label = services.metrics.model(None)
        #: When the request was all in, and what it was let in with, if anything limits it.
        self.complete = self.arrived
        self.admitted: Admitted | None = None
        self._turned_away = False
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = self._gone = False

    # --- the way -------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer. Never raises but for a cancellation from outside."""
        self._task = self.cycle.task
        self.services.open.add(self)
        self.cycle.on_gone = self._client_left
        try:
            if self.cycle.disconnected:  # before its turn came
                raise ClientGone("The client closed the connection.")
            await self._serve()
        except RoundhouseError as error:
            await self._fail(error)
            untrace(error)
        except asyncio.CancelledError:
            assert self._task is not None
            if self._gone:
                self._task.uncancel()
                await self._fail(ClientGone("The client closed the connection."))
                return
            if not self._stopping:
                self.record.end = self.record.end or "internal"
                raise
            self._task.uncancel()
            self.record.end = "shutdown"
            await self._fail(Draining("The server is shutting down.", retry_after=5))
        except Exception as error:
            self.record.detail = f"{type(error).__name__}: {error}"
            log.exception("request failed inside", id=self.id)
            await self._fail(render.internal(self.id))
        finally:
            self.cycle.on_gone = None
            self.services.open.discard(self)
            self.services.budget.give_back(self._held)
            if self.admitted is not None:
                self._leave(self.admitted)
            self._settle()
            self.sink.forget()
            self._task = None

    def stop(self) -> None:
        """The server's drain time is over: end this exchange with an error."""
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()

    def _client_left(self) -> None:
        if self._task is not None and not self._gone:
            self._gone = True
            self._task.cancel()

    async def _serve(self) -> None:
        services, state = self.services, self.services.state
        if not services.accepting:
            services.metrics.shed.labels("draining").inc()
            raise Draining("The server is shutting down.", retry_after=5)
        headers = self.scope["headers"]
        self.key = state.keyring.authenticate(headers)
        self.headers = dict(headers)
        limits = state.config.server.limits
        body, self._held, pieces = await intake.read_body(
            self.headers,
            self.cycle,
            limits=limits,
            timeout=state.timeouts.body,
            budget=services.budget,
        )
        if len(body) < intake.LARGE:
            parsed = intake.parse(self.surface, body, limits, pieces, state.default)
        else:
            parsed = await intake.parse_aside(self.surface, body, limits, pieces, state.default)
        fields, members, legacy = parsed
        del body
        self.model = fields.model
        chain = services.find(fields.model, self.key)
        self.label = services.label(fields.model)
        if (unfit := services.unfit(fields.model, self.surface, self.key)) is not None:
            raise unfit
        if (ceilings := chain.own.ceilings) is not None:
            over = ceilings.refusal(members, self.surface)
            if over is not None:
                raise over
        patience, session, stays = state.timeouts.total, None, None
        if (
            wishes.MEMBER in members
            or wishes.STAYS in members
            or not wishes.HEADERS.isdisjoint(self.headers)
        ):
            chain, patience, session, stays = wishes.heard(
                services, self.key, chain, members, self.headers, patience
            )
        streaming = isinstance(fields, Envelope)
        self.request = Request(
            id=self.id,
            surface=self.surface,
            model=fields.model,
            members=members,
            stream=bool(streaming and fields.stream),
            wants_usage=bool(
                streaming and fields.stream_options and fields.stream_options.include_usage
            ),
            legacy_functions=legacy,
            tenant=self.key.tenant,
            arrived=self.arrived,
            deadline=self.arrived + patience,
            key=self.key.name,
            session=session,
            keep_alive=stays,
        )
        self.complete = time.monotonic()
        if state.limited or self.key.limits is not UNLIMITED:
            await self._admit(members)
        in_flight = services.metrics.in_flight.labels(self.surface, self.label)
        in_flight.inc()
        try:
            await services.dispatcher.run(
                self.request,
                chain,
                self.sink,
                self.record,
                model_label=self.label,
                pace=state.pace,
                who_can=self._who_can,
            )
        finally:
            in_flight.dec()

    async def _admit(self, members: Mapping[str, Raw]) -> None:
        """Past the limits of the key, the model and the server, or raise what they say."""
        services, key, request = self.services, self.key, self.request
        state = services.state
        assert key is not None
        assert request is not None
        limits, times = state.config.server.limits, state.timeouts
        model = state.models.get(request.model)
        if Admission.open(key, model.max_in_flight if model else None, state.slots):
            return
        longest = model.defaults.get("max_tokens") if model else None
        self.admitted = await services.admission.enter(
            key,
            model.name if model else "",
            model.max_in_flight if model else None,
            model.max_waiting if model else 0,
            estimate(members, self.surface, self._held, longest, key.limits.tpm),
            server_slots=limits.in_flight,
            server_waiting=limits.waiting,
            deadline=min(request.deadline, time.monotonic() + times.queue),
        )
        self.record.waited += self.admitted.waited

    def _who_can(self, ability: str) -> list[str]:
        assert self.key is not None
        return self.services.who_can(ability, self.key)

    async def _fail(self, error: RoundhouseError) -> None:
        """Tell the client, in the form that what was sent so far allows."""
        record, sink = self.record, self.sink
        self.cycle.on_gone = None  # from here on nothing is lost by a going
        record.error = error.code
        record.detail = error.detail or record.detail
        self._turned_away = isinstance(error, Overloaded)
        if error.code == "out_of_descriptors":
            self.services.metrics.shed.labels("fd").inc()
        if isinstance(error, ClientGone):
            record.end = "client_gone"
            record.status = error.status
            return
        if isinstance(error, SlowClient):
            record.status = error.status
            self.services.metrics.shed.labels("slow_client").inc()
            self.cycle.abort()
            return
        try:
            if not sink.flowing:
                async with asyncio.timeout(_LAST_WORDS):
                    await sink.drain()
        except TimeoutError:  # a client that does not read is not waited for with bad news
            self.cycle.abort()
            return
        if not sink.started:
            sink.answer(error.status, render.body(error), render.headers(error))
        elif not sink.ended:
            record.end = record.end or "upstream_error"
            sink.push(error_event(error))
            sink.end()

    # --- what the answer and the books say -------------------------------------------------

    def _headers(self) -> list[tuple[bytes, bytes]]:
        record = self.record
        found = [(b"x-request-id", self.id.encode())]
        if record.target is not None:
            elapsed = int((time.monotonic() - self.arrived) * 1000)
            found += [
                (b"x-roundhouse-target", _visible(record.target)),
                (b"x-roundhouse-attempts", str(record.attempts).encode()),
                (b"openai-processing-ms", str(elapsed).encode()),
            ]
        if self.admitted is not None:
            found += [(n.encode(), v.encode()) for n, v in self.admitted.headers.items()]
        if record.waited >= 0.001:
            waited = int(record.waited * 1000)
            found.append((b"x-roundhouse-waited-ms", str(waited).encode()))
        if record.bridge is not None:
            found.append((b"x-roundhouse-bridge", _visible(record.bridge)))
        if record.fallback_from is not None:
            found.append((b"x-roundhouse-fallback-from", _visible(record.fallback_from)))
        if self.request is not None and self.request.dropped:
            found.append((b"x-roundhouse-dropped", ",".join(self.request.dropped).encode()))
        if self.request is not None and self.request.clamped:
            found.append((b"x-roundhouse-clamped", ",".join(self.request.clamped).encode()))
        if record.cost is not None:  # not yet known when a stream's head goes out
            found.append((b"x-roundhouse-cost-usd", shown(record.cost).encode()))
        return found

    def _client_id(self) -> str | None:
        said = self.headers.get(b"x-request-id")
        return None if said is None else said.decode("latin-1")

    def _leave(self, admitted: Admitted) -> None:
        """Give back what this request was let in with; its tokens count if it was answered, or if
        nobody waited for the answer that a target may well have written."""
        record = self.record
        left = record.sent is not None and record.error in _IMPATIENT
        if usage := record.usage:
            admitted.settle(usage.prompt + usage.completion)
        elif left or self.sink.committed or (record.error is None and record.end is None):
            admitted.settle(None)
        admitted.leave(uncount=self._turned_away)

    def _settle(self) -> None:
        """Count and log this exchange, exactly once."""
        record, metrics = self.record, self.services.metrics
        now = time.monotonic()
        status = record.status or self.sink.status or 500
        endpoint, label = self.surface, self.label
        metrics.requests.labels(endpoint, label, str(status)).inc()
        metrics.duration.labels(endpoint, label).observe(now - self.arrived)
        if record.sent is not None:
            own = record.sent - self.complete - record.waited_before
            metrics.overhead.labels(endpoint).observe(own if own > 0 else 0.0)
        stream = self.request is not None and self.request.stream
        ttft = None
        if stream:
            metrics.stream_end.labels(label, record.end or "upstream_error").inc()
            if record.first_token is not None:
                ttft = record.first_token - self.arrived
                metrics.first_token.labels(endpoint, label).observe(ttft)
        if usage := record.usage:
            metrics.tokens.labels(label, "prompt").inc(usage.prompt)
            metrics.tokens.labels(label, "completion").inc(usage.completion)
            if usage.cached:
                metrics.tokens.labels(label, "cached").inc(usage.cached)
        if record.cost is not None and record.target is not None:
            metrics.cost.labels(label, record.target).inc(record.cost)
        RequestLog(
            id=self.id,
            client_id=self._client_id(),
            key=self.key.name if self.key else None,
            endpoint=endpoint,
            model=self.model,
            target=record.target,
            attempts=record.attempts,
            status=status,
            stream=stream,
            prompt_tokens=usage.prompt if usage else None,
            completion_tokens=usage.completion if usage else None,
            cached_tokens=usage.cached if usage else None,
            cost_usd=None if record.cost is None else round(record.cost, 12),
            ttft_s=ttft,
            duration_s=now - self.arrived,
            end=record.end or ("ok" if status < 400 else "error"),
            error=record.error,
            detail=record.detail,
        ).emit()
