"""What routing does about requests that an engine of ours may have died of; see
`engines.suspects`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from server.engines.suspects import Suspects
from server.errors import Overloaded, RoundhouseError, UpstreamError
from server.protocol.request import Request
from server.routing.chain import Route
from server.routing.lineup import Ranked
from server.targets import Target
from server.telemetry.metrics import Metrics

log = structlog.get_logger("roundhouse.routing")

#: Ways in which attempts end whose engine dies. One that is silent is killed for that, and then the
#: connection breaks.
DEADLY: Final = frozenset({"reset", "protocol", "truncated", "aborted", "http_5xx", "error"})
_ANSWERED: Final = frozenset({"ok", "http_4xx", "too_large"})
#: Seconds to each look at the engine after a failure: the supervisor is at it, too. Who is well at
#: the last one has not died. One that still speaks is more likely to live than one that hung up.
_LOOKS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
_LONG_LOOKS: Final = (*_LOOKS, 0.8, 1.6, 3.2)
_HUNG_UP: Final = frozenset({"reset", "protocol", "truncated"})
#: Seconds to each look whether all who were there have noticed that it died.
_NOTICES: Final = (0.02, 0.05, 0.1)
#: Seconds that an error waits for what a death shows.
_SOON: Final = 1.0
#: Requests that the log names.
_NAMED: Final = 16

#: What a client is told whose request was refused for it.
CODE: Final = "request_crashed_engine"


class Leaving(Protocol):
    """A place that is held for the time of an attempt."""

    def leave(self, now: float) -> None: ...


class Turn:
    """The place at an engine of a suspect, or of one that is not to be beside one."""

    __slots__ = ("_leave", "_watch")

    def __init__(self, watch: Watch, leave: Callable[[], None]) -> None:
        self._watch, self._leave = watch, leave

    def leave(self, now: float) -> None:
        self._leave()
        self._watch.ring()


class Watch:
    """One for the server, over all reloads."""

    def __init__(self, suspects: Suspects, metrics: Metrics) -> None:
        self.suspects, self._metrics = suspects, metrics
        #: Requests in flight at a failure that is not judged yet, by their ids.
        self._ids: dict[tuple[str, int], list[str]] = {}
        #: Set, and replaced, whenever somebody may go who could not before.
        self.bell = asyncio.Event()

    def ring(self) -> None:
        bell, self.bell = self.bell, asyncio.Event()
        bell.set()

    # --- attempts that ended ------------------------------------------------------------------

    def failed(self, request: Request, route: Route, mark: int, outcome: str) -> None:
        """An attempt at an engine broke off. Whether it died will show."""
        target, engine = route.target, route.target.local
        if engine is None or outcome not in DEADLY or target.died(mark) is False:
            return
        first = self.suspects.accuse(engine, mark, self.suspects.digest_of(request))
        self._ids.setdefault((engine, mark), []).append(request.id)
        if first:
            looks = _LONG_LOOKS if outcome in _HUNG_UP else _LOOKS
            self._look_later(engine, route, mark, looks)

    def ended(self, request: Request, target: Target, outcome: str) -> None:
        """An attempt is over. Who was answered, if only with a refusal, was no harm."""
        suspects = self.suspects
        if not suspects.any or outcome not in _ANSWERED:
            return
        engine = target.local
        if engine is not None and suspects.answered(engine, suspects.digest_of(request)):
            self._metrics.suspects.labels(engine, "cleared").inc()
            self.ring()

    def _look_later(self, engine: str, route: Route, mark: int, looks: Sequence[float]) -> None:
        asyncio.get_running_loop().call_later(looks[0], self._look, engine, route, mark, looks[1:])

    def _look(self, engine: str, route: Route, mark: int, looks: Sequence[float]) -> None:
        died = route.target.died(mark)
        if died is None and looks:
            self._look_later(engine, route, mark, looks)
        elif died:
            self._judge_later(engine, route, mark, _NOTICES)
        else:
            self._judge(engine, mark, died=False)

    def _judge_later(self, engine: str, route: Route, mark: int, looks: Sequence[float]) -> None:
        """Who was alone is told only once all have noticed. Who cannot write to its client does
        not, and others may be at the next process by then: it is not waited for long."""
        if route.standing.in_flight and looks:
            loop = asyncio.get_running_loop()
            loop.call_later(looks[0], self._judge_later, engine, route, mark, looks[1:])
        else:
            self._judge(engine, mark, died=True)

    def _judge(self, engine: str, mark: int, *, died: bool) -> None:
        ids = self._ids.pop((engine, mark), [])
        if not died:
            self.suspects.lived(engine, mark)
        else:
            judged = self.suspects.died(engine, mark)
            self._metrics.suspects.labels(engine, "remembered").inc(judged.remembered)
            self._metrics.suspects.labels(engine, "suspected").inc(judged.suspects)
            self._metrics.suspects.labels(engine, "guilty").inc(len(judged.guilty))
            log.warning(
                "engine_died_with_requests",
                engine=engine,
                generation=mark,
                requests=ids[:_NAMED],
                count=len(ids),
                held_back=judged.suspects - len(judged.guilty),
                refused_from_now_on=len(judged.guilty),
            )
        self.ring()

    # --- attempts that are to begin -----------------------------------------------------------

    def enter(self, request: Request, route: Route) -> Turn | None:
        """The place of who is remembered, for whom `may_go` holds."""
        engine = route.target.local
        if engine is None:
            return None
        suspects, digest = self.suspects, self.suspects.digest_of(request)
        if suspects.enter(engine, digest):
            return Turn(self, partial(suspects.leave, engine, digest))
        if suspects.join(engine, digest):
            return Turn(self, partial(suspects.part, engine, digest))
        return None

    def may_go(self, request: Request, route: Route) -> bool:
        engine, suspects = route.target.local, self.suspects
        return engine is None or suspects.may_go(engine, suspects.digest_of(request))

    async def rung(self, bell: asyncio.Event, seconds: float) -> None:
        """Until this bell is. Raises Overloaded after so long."""
        try:
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            self._metrics.shed.labels("queue_timeout").inc()
            raise Overloaded(
                "Engines died twice while they worked on this request and others. They are tried "
                "anew a few at a time, and this one's turn did not come in time."
            ) from None

    # --- the end ------------------------------------------------------------------------------

    async def judged(self, request: Request) -> None:
        """Until it shows what the last attempt's failure was, if it shows soon: then the error can
        tell."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SOON):
                while self.suspects.accused(self.suspects.digest_of(request)):
                    await self.bell.wait()

    def final(
        self, error: RoundhouseError, request: Request, last: str | None, plan: Sequence[Ranked]
    ) -> RoundhouseError:
        """The error that ends a request: what an engine's death says, if that was the last thing
        that happened to it, or if nothing has. `last`: who was asked last."""
        if isinstance(error, UpstreamError):
            for ranked in plan:
                target = ranked.route.target
                if target.local is None or target.label != last:
                    continue
                if (refusal := target.refuses(request)) is not None and refusal.code == CODE:
                    error = refusal
                    break
        if error.code == CODE:
            for engine in {r.route.target.local for r in plan if r.route.target.local}:
                if self.suspects.refused(engine, self.suspects.digest_of(request)) is not None:
                    self._metrics.suspects.labels(engine, "refused").inc()
                    break
        return error
