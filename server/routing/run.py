"""The attempt loop: the plan's targets in order, one deadline, nothing after the commit point."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cached_property
from types import MappingProxyType
from typing import Final

from server.access.rooms import Room
from server.dialects.shapes import LOADING, LOADS
from server.dialects.trouble import Trouble
from server.errors import (
    EngineNotReady,
    InvalidRequest,
    RoundhouseError,
    UnavailableError,
    UpstreamError,
    UpstreamStatus,
    untrace,
)
from server.routing import refusals
from server.routing.attempt import ALIVE, Job, attempt
from server.routing.chain import Chain, Loading, Route
from server.routing.lineup import LineUp, Ranked, cause_of_another
from server.routing.means import Means
from server.routing.plan import KEPT_BACK, Action, Cause
from server.routing.policies import Policy
from server.routing.suspicion import Leaving
from server.routing.waiting import paused, turn, until_ready

#: Seconds in which it shows that an engine is gone: the supervisor looks at once.
SETTLE: Final = 0.25
#: Seconds at the least until a provider that loads the model is asked again.
LEAST: Final = 1.0


class Run:
    """One request on its way through its plan."""

    # What most requests never need:
    #: keys of targets that had their chance, and of those that shall have no second one.
    tried: Set[str] = frozenset()
    spent: Set[str] = frozenset()
    last: RoundhouseError | None = None
    #: The last that said 429: it tells when to come back, which is worth more than a fault.
    limited: RoundhouseError | None = None
    #: What the first target said whose dialect has no word for what is asked.
    refused: InvalidRequest | None = None
    #: Attempts that found the model loading.
    looks = 0
    #: When those that load the model may have it, as the clock will say, by key.
    loading: Mapping[str, float] = MappingProxyType({})
    plan: Sequence[Ranked] = ()
    #: The target that the policy would have liked best.
    preferred: Route | None = None
    narrowed = False
    #: The next extra attempt is paid for.
    paid = False
    #: Until when it waits for a place, as the clock will say; None: it does not.
    patience: float | None = None
    #: Whose attempt failed last, and whether it went down with that.
    failed: Route | None = None
    lost = False

    def __init__(
        self, owner: Means, job: Job, chain: Chain, who_can: Callable[[str], list[str]]
    ) -> None:
        self.owner, self.job, self.chain, self.who_can = owner, job, chain, who_can

    @cached_property
    def lineup(self) -> LineUp:
        """Made for those requests that need a plan."""
        return LineUp(self.chain, self.job.request)

    async def answer(self) -> None:
        self.preferred = route = self.owner.at_once(self.chain, self.job.request)
        tickets: tuple[Leaving, ...] = ()
        while True:
            if route is None:
                route, tickets = await self._choose()
            try:
                await attempt(self.job, route, self._answered)
                return
            except EngineNotReady as error:
                self._failed(route, error, Cause.NOT_READY)
            except InvalidRequest as error:
                self._refused(route, error)
            except UpstreamError as error:
                if self._is_final(error, route):
                    raise
            finally:
                for ticket in tickets:
                    ticket.leave(self.job.clock())
            self.paid, self.patience, route, tickets = False, None, None, ()

    async def _choose(self) -> tuple[Route, tuple[Leaving, ...]]:
        """Whom to send to next, with its places there. Raises the error that ends the request."""
        while (ranked := await self._next()) is not None:
            chosen = await self._follow(ranked)
            if chosen is not None and self.owner.suspects.any:
                chosen = await turn(self.job, *chosen)
            if chosen is not None:
                return chosen
        if self.owner.suspects.any:
            await self.job.watch.judged(self.job.request)
        raise self._final()

    # --- who is next ------------------------------------------------------------------------

    async def _next(self) -> Ranked | None:
        """The best step by how the targets are now; None: there is none left."""
        job, owner = self.job, self.owner
        if job.record.attempts - self.looks >= owner.settings.attempts:
            return None
        over = job.clock() >= job.request.deadline
        if over and (self.last is not None or job.record.waited):
            return None
        await self._settle()
        found = self._best(self.tried)
        if found is None and self._too_long_for_all():
            found = self._best(self.tried)
        if found is None:
            return await self._again()
        if not self._pay():
            return None
        if found.step.action is Action.WAIT and found.group > 0 and self.last is not None:
            # Who was tried and may do better now comes before other models' engines that load.
            return await self._again() or found
        return found

    def _best(self, tried: Set[str]) -> Ranked | None:
        self.plan = self.lineup.plan(self.job.clock(), self.owner.dice, tried)
        if self.preferred is None:
            self.preferred = next((r.route for r in self.plan if r.step.index == 0), None)
        best = self.plan[0] if self.plan else None
        return None if best is None or best.step.action is Action.SKIP else best

    async def _again(self) -> Ranked | None:
        """A second chance for one that was tried, after a pause, since nobody else is left."""
        if self.last is None or not self.tried - self.spent:
            return None
        best = self._best(self.spent)
        if best is None or not self._pay():
            return None
        if best.step.action is not Action.SEND:  # there will be time enough
            return best
        job, settings = self.job, self.owner.settings
        pause = settings.backoff.pause(
            job.record.attempts,
            self.owner.dice.draw(),
            now=job.clock(),
            deadline=job.request.deadline,
        )
        if best.route.free:  # it may be gone: the supervisor looks
            pause = max(pause, SETTLE)
        if best.route.standing.key in self.loading:
            pause = max(pause, self.loading[best.route.standing.key] - job.clock())
            if job.clock() + pause >= job.request.deadline:
                return None
            self._count_bridge("waited")
        await paused(job, pause)
        if job.clock() >= job.request.deadline:
            return None
        return self._best(self.spent)

    async def _settle(self) -> None:
        """Where the budget refuses: was the last attempt lost together with its engine? Then the
        next one is free. That engine is asked no more, so that nothing multiplies; and when it took
        many requests with it, none of them shall be an error while another can answer."""
        route, self.failed = self.failed, None
        budget, job = self.owner.budget, self.job
        if route is None or not route.free or budget.may_retry(job.clock()):
            return
        await asyncio.sleep(SETTLE)
        job.record.waited += SETTLE
        self.lost = route.target.lost()

    def _pay(self) -> bool:
        """Does the retry budget allow one attempt more? The first one is free."""
        if not self.job.record.attempts or self.paid:
            return True
        budget, now = self.owner.budget, self.job.clock()
        last = self.last
        # Who refuses what the next one is there for has had no work with it.
        referred = self.narrowed and isinstance(last, UpstreamStatus) and last.trouble is not None
        looked = last is not None and last.code == LOADING
        worked = not (referred or looked or self.lost)
        sent = isinstance(last, UpstreamError) and last.sent and worked
        if not budget.may_retry(now, sent=sent):
            self.job.metrics.retries.labels("refused").inc()
            return False
        budget.spend(now, sent=sent)
        self.job.metrics.retries.labels("spent" if sent else "free").inc()
        self.paid, self.lost = True, False
        return True

    def _too_long_for_all(self) -> bool:
        """The prompt is too long for every target: go on with larger windows, if there are any."""
        if any(self.lineup.missing(ranked.route) == "context" for ranked in self.plan):
            return self._narrow(Trouble.CONTEXT_LENGTH)
        return False

    def _narrow(self, trouble: Trouble) -> bool:
        """Go on with those that stand in for such trouble, if there are any; once."""
        chain = self.chain
        groups = chain.context if trouble is Trouble.CONTEXT_LENGTH else chain.content
        if self.narrowed or not groups:
            return False
        self.narrowed = True
        self.lineup.narrow(groups)
        self.job.record.fallback_reason = trouble.value
        return True

    # --- one step ---------------------------------------------------------------------------

    async def _follow(self, ranked: Ranked) -> tuple[Route, tuple[Leaving, ...]] | None:
        """The step's target, once it is ready and has a place; None: look again who is next."""
        route = ranked.route
        match ranked.step.action:
            case Action.REFUSE:
                route.target.want()
                self._count_bridge("refused")
                raise refusals.loading(route)
            case Action.WAIT:
                self._count_bridge("waited")
                await self._wait(route, self._hope())
                return None
            case Action.QUEUE:
                self._wake_passed_over(ranked)
                return await self._queue(ranked.group)
            case _:
                self._wake_passed_over(ranked)
                return route, self._enter(self.owner.places(route))

    def _enter(self, rooms: Sequence[Room]) -> tuple[Leaving, ...]:
        """Places in rooms that all have one."""
        key, now = self.job.request.key, self.job.clock()
        return tuple([self.owner.rooms.enter(room, key, now) for room in rooms])

    def _count_bridge(self, outcome: str) -> None:
        self.job.metrics.bridge.labels(self.job.label, outcome).inc()

    def _hope(self) -> float:
        """When the first of those that breakers keep back may be asked, as the clock will say."""
        now = self.job.clock()
        after = refusals.soonest(self.plan, now)
        return math.inf if after is None else now + after

    async def _wait(self, route: Route, hope: float) -> None:
        try:
            await until_ready(self.job, route.target, hope)
        except UnavailableError as error:
            if not error.retryable:  # our own overload is no reason to load others
                raise
            if self.job.clock() >= hope:  # somebody else may answer by now
                for ranked in self.plan:
                    if ranked.step.action is Action.SKIP:
                        self.tried -= {ranked.route.standing.key}
                        self.spent -= {ranked.route.standing.key}
                return
            self._failed(route, error, Cause.NOT_READY)
            self.spent |= {route.standing.key}
        else:
            # Another life, which may be short where others wait: no pause for what it did before.
            self.tried -= {route.standing.key}
            await asyncio.sleep(0)  # whatever it says of itself now, the loop goes on

    async def _queue(self, group: int) -> tuple[Route, tuple[Leaving, ...]] | None:
        """A place at whichever of the plan's full targets, all of this group, has one first; None
        when that target is none to be tried any more, or has yet another room that is full: it is
        waited for there, without holding a place here."""
        full = [r.route for r in self.plan if r.step.action is Action.QUEUE]
        if self.lineup.is_strict(group):
            del full[1:]
        job = self.job
        now = job.clock()
        if self.patience is None:  # one for all the rooms on the way to a target
            self.patience = now + self.owner.settings.queue
        deadline = min(job.request.deadline, self.patience)
        waits: dict[Room, tuple[Route, list[Room]]] = {}
        for route in full:
            places = self.owner.places(route)
            room = next(room for room in places if room.full)
            waits.setdefault(room, (route, [other for other in places if other is not room]))
        rooms = list(waits)
        try:
            index, ticket = await self.owner.rooms.first(rooms, job.request.key, deadline)
        finally:
            job.record.waited += job.clock() - now
        waited_for, others = waits[rooms[index]]
        found = self._still(waited_for)
        if found is None or any(room.full for room in others):
            ticket.leave(job.clock())
            return None
        return found, (ticket, *self._enter(others))

    def _still(self, waited_for: Route) -> Route | None:
        """The target that was waited for, unless it has failed, rests or is gone meanwhile."""
        self._best(self.tried)
        for ranked in self.plan:
            if ranked.route.standing is waited_for.standing:
                return None if ranked.step.cause in KEPT_BACK else ranked.route
        return None

    def _is_final(self, error: UpstreamError, route: Route) -> bool:
        """Is the failure of an attempt the end of the request?"""
        self.failed = route
        once = self.owner.settings.attempts == 1
        if error.code == LOADING and not (once or self.chain.loading is Loading.REFUSE):
            again = LOADS if error.retry_after is None else max(error.retry_after, LEAST)
            self.looks += 1  # whether it is there by now; no work
            self.loading = {**self.loading, route.standing.key: self.job.clock() + again}
        elif error.outcome in ALIVE or error.retry_after is not None:
            self.spent |= {route.standing.key}
        if isinstance(error, UpstreamStatus) and error.trouble is not None:
            self._failed(route, error, error.trouble)
            if self._narrow(Trouble(error.trouble)):
                return False
        ambiguous = error.sent and not error.outcome.startswith("http_")
        if (
            not error.retryable
            or error.outcome == "deadline"
            or (ambiguous and not route.target.retry_ambiguous)
        ):
            return True
        self._failed(route, error, error.outcome)
        return False

    def _refused(self, route: Route, error: InvalidRequest) -> None:
        """Nothing was sent: another target may have a word for it."""
        self.tried |= {route.standing.key}
        self.spent |= {route.standing.key}
        self.refused = self.refused or error
        untrace(error)
        if self.job.record.fallback_reason is None:
            self.job.record.fallback_reason = Cause.ABILITY.value

    def _failed(self, route: Route, error: RoundhouseError, reason: str) -> None:
        self.tried |= {route.standing.key}
        untrace(error)
        # A target's own error says more than a later one that was not even up.
        if self.last is None or not isinstance(error, UnavailableError):
            self.last = error
        if error.status == 429:
            self.limited = error
        if self.job.record.fallback_reason is None:
            self.job.record.fallback_reason = reason

    def _wake_passed_over(self, chosen: Ranked) -> None:
        """Engines that would have been better and are not loaded: load them for the next ones."""
        for ranked in self.plan:
            if ranked.step.index < chosen.step.index and ranked.step.action is Action.WAIT:
                ranked.route.target.want()

    # --- the end ----------------------------------------------------------------------------

    def _answered(self, route: Route) -> None:
        """This target's answer is the client's: say so before the head goes out."""
        record, preferred = self.job.record, self.preferred
        if preferred is route:  # nearly always
            record.fallback_reason = None
            return
        found = next((r for r in self.plan if r.route is route), None)
        if found is not None and self.lineup.is_bridge(found.group):
            record.bridge = route.model
            self._count_bridge("bridged")
        ordered = self.chain.own.policy is Policy.ORDERED
        own = found is not None and found.group == 0 and not self.narrowed
        reason = record.fallback_reason or cause_of_another(self.plan, chosen=own and not ordered)
        if preferred is None or preferred.place == route.place or reason is None:
            record.fallback_reason = None
            return
        record.fallback_from, record.fallback_reason = preferred.target.label, reason
        self.job.metrics.fallbacks.labels(self.job.label, reason).inc()

    def _final(self) -> RoundhouseError:
        now = self.job.clock()
        error = self.limited or self.last
        if error is None:
            error = refusals.nobody(self.lineup, self.plan, now, self.who_can, self.refused)
        elif error is self.limited:
            plan = self.plan or self.lineup.plan(now, self.owner.dice, self.tried)
            times = error.retry_after, refusals.soonest(plan, now)
            error.retry_after = min((time for time in times if time is not None), default=None)
        if self.owner.suspects.any:
            return self.job.watch.final(error, self.job.request, self.job.record.target, self.plan)
        return error
