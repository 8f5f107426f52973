"""A plan as data: where a request would go now, target by target, and why. For people.

Explaining changes nothing: no weighted turn is taken, no chance is drawn, no waiting room is made,
no probe of a breaker begins. A draw is an ordinary one: what `lowest_latency` and a ramp let
through of every tenth or twentieth request is not let through here, but told in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from server.access.rooms import Room
from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest, RoundhouseError
from server.protocol.request import Request
from server.routing import refusals
from server.routing.abilities import PARAMETERS
from server.routing.breaker import Breaker, State
from server.routing.chain import Chain, Group, Route
from server.routing.dispatch import Dispatcher
from server.routing.explanation import (
    Answer,
    Entry,
    Explanation,
    Line,
    Now,
    OfRequest,
    OfServer,
    Part,
    Places,
    Said,
)
from server.routing.lineup import Dice, LineUp, Ranked, affinity_of, tokens_of
from server.routing.plan import Action, Cause, Step
from server.routing.policies import dollars_for

#: See above.
_ORDINARY: Final = 0.5

#: Why those behind the plan are passed over.
_ONLY: Final = {
    Part.CONTEXT: "only for a prompt that is too long for those before it",
    Part.CONTENT: "only for content that a provider before it refuses",
}
_TOO_MUCH: Final = "refused before any target is tried"

#: By kind and name.
_Rooms = dict[tuple[str, str], Room]


def explain(
    chain: Chain,
    request: Request,
    dispatcher: Dispatcher,
    who_can: Callable[[str], list[str]] = lambda ability: [],
) -> Explanation:
    """The plan that this request would be given now. `who_can`: see `Dispatcher.run`."""
    return _Look(chain, request, dispatcher).explain(who_can)


class _Telling(LineUp):
    """It also tells beforehand what a target's dialect has no word for, which a request finds out
    when it comes to that target."""

    def unsaid(self, route: Route) -> InvalidRequest | None:
        return route.target.unsaid(self.request)

    def lacks(self, route: Route) -> str | None:
        lacking = super().lacks(route)
        if lacking is None and (refusal := self.unsaid(route)) is not None:
            return refusal.message
        return lacking


class _Look:
    """At everything in one moment."""

    def __init__(self, chain: Chain, request: Request, dispatcher: Dispatcher) -> None:
        self.chain, self.request, self.dispatcher = chain, request, dispatcher
        self.now = dispatcher.clock()
        self.rooms = _rooms(dispatcher)
        self.lineup = _Telling(chain, request)
        self.tokens = tokens_of(request)
        self.entries: list[Entry] = []

    def explain(self, who_can: Callable[[str], list[str]]) -> Explanation:
        dispatcher, chain, lineup, dice = self.dispatcher, self.chain, self.lineup, self._dice()
        parts = (Part.OWN, *(() if chain.bridge is None else (Part.BRIDGE,)))
        plan = lineup.plan(self.now, dice)
        over = self._over()
        if over is not None:
            plan = [_passed(ranked, _TOO_MUCH) for ranked in sorted(plan, key=_by_config)]
        for ranked in plan:
            part = parts[ranked.group] if ranked.group < len(parts) else Part.FALLBACK
            self._add(ranked, part)
        panic = self._panic(plan)
        hopeless = not plan or plan[0].step.action is Action.SKIP
        too_long = any(lineup.missing(ranked.route) == "context" for ranked in plan)
        for part, groups in ((Part.CONTEXT, chain.context), (Part.CONTENT, chain.content)):
            if not groups:
                continue
            lineup.narrow(groups)
            found = lineup.plan(self.now, dice)
            if part is Part.CONTEXT and hopeless and too_long and over is None:
                plan, panic = found, self._panic(found)
            else:
                found = [_passed(ranked, _ONLY[part]) for ranked in found]
            for ranked in found:
                self._add(ranked, part)
        error = over or self._refusal(plan, who_can)
        return Explanation(
            self.request.model,
            chain.own.model,
            chain.own.policy,
            chain.loading,
            self._of_request(),
            OfServer(
                panic,
                round(dispatcher.budget.fill(self.now), 3),
                dispatcher.settings.attempts,
            ),
            tuple(self.entries),
            None if error is None else Answer.of(error),
        )

    def _dice(self) -> Dice:
        """That fall as the next request's would, and leave the dispatcher's alone."""
        own = self.dispatcher.dice
        dice = Dice(lambda: _ORDINARY, lambda route: _full(route, self.rooms), own.panic)
        dice.turns = Counter(own.turns)
        return dice

    def _over(self) -> RoundhouseError | None:
        ceilings = self.chain.own.ceilings
        if ceilings is None:
            return None
        return ceilings.refusal(self.request.members, self.request.surface)

    def _panic(self, plan: list[Ranked]) -> bool:
        return any(
            r.step.action is Action.SEND and not r.route.standing.allow(self.now, 0.0, panic=False)
            for r in plan
        )

    def _refusal(
        self, plan: list[Ranked], who_can: Callable[[str], list[str]]
    ) -> RoundhouseError | None:
        if plan and plan[0].step.action is Action.REFUSE:
            return refusals.loading(plan[0].route)
        if plan and plan[0].step.action is not Action.SKIP:
            return None
        refused = (self.lineup.unsaid(ranked.route) for ranked in plan)
        told = next(filter(None, refused), None)
        return refusals.nobody(self.lineup, plan, self.now, who_can, told)

    def _of_request(self) -> OfRequest:
        request = self.request
        return OfRequest(
            request.surface,
            request.stream,
            request.key,
            self.tokens.prompt_tokens,
            self.tokens.output_tokens,
            tuple(name for name in PARAMETERS if self.lineup.needs.needs(name)),
            bool(affinity_of(request)),
        )

    def _add(self, ranked: Ranked, part: Part) -> None:
        step, route, now = ranked.step, ranked.route, self.now
        target, standing = route.target, route.standing
        latency = standing.first if self.request.stream else standing.whole
        credential = standing.credential
        self.entries.append(
            Entry(
                place=len(self.entries) + 1,
                action=step.action,
                reason=step.reason,
                cause=step.cause,
                policy=ranked.place,
                target=target.label,
                replica=_replica(route),
                model=route.model,
                group=part,
                ready=target.ready,
                eta_s=None if target.ready else _rounded(target.eta(), 1),
                breaker=_said(standing.breaker, now),
                credential=None if credential is None else _said(credential, now),
                in_flight=standing.in_flight,
                scraped=route.load,
                places=_places(route, self.rooms),
                latency_s=_rounded(latency.value(now), 4),
                latency_age_s=_rounded(latency.age(now), 1),
                price_usd=_rounded(dollars_for(self.tokens, route.prices), 9),
                weight=route.weight,
                lacks=self.lineup.lacks(route),
                dropped=tuple(
                    name
                    for name in self.request.members
                    if name in ENGINE_ONLY or name in route.able.drop
                ),
            )
        )


# --- without a request -----------------------------------------------------------------------


def lines(chain: Chain, dispatcher: Dispatcher) -> tuple[Line, ...]:
    """Every target that requests for the model may go to, and how it is now."""
    now, rooms = dispatcher.clock(), _rooms(dispatcher)
    return tuple(
        Line(route.target.label, _replica(route), route.model, part, _state(route, now, rooms))
        for part, group in _parts(chain)
        for route in group.routes()
    )


def _parts(chain: Chain) -> Iterator[tuple[Part, Group]]:
    yield Part.OWN, chain.own
    if chain.bridge is not None:
        yield Part.BRIDGE, chain.bridge
    for part, groups in (
        (Part.FALLBACK, chain.fallbacks),
        (Part.CONTEXT, chain.context),
        (Part.CONTENT, chain.content),
    ):
        for group in groups:
            yield part, group


def _state(route: Route, now: float, rooms: _Rooms) -> Now:
    if not route.target.ready:
        return Now.NOT_READY if route.target.may_become_ready else Now.DOWN
    state = route.standing.state(now)
    if state is not State.CLOSED:
        return Now(state.value)
    return Now.FULL if _full(route, rooms) else Now.READY


# --- small looks -----------------------------------------------------------------------------


def _rooms(dispatcher: Dispatcher) -> _Rooms:
    """Those of targets and accounts, by kind and name. `Dispatcher.places` would make one."""
    return {(room.kind, room.name): room for room in dispatcher.rooms.all()}


def _places(route: Route, rooms: _Rooms) -> Places | None:
    """Its own or its account's, whichever has fewer left."""
    found = []
    if route.slots is not None:
        found.append(_taken(rooms.get(("target", route.place)), route.slots, route.bound))
    if (account := route.account) is not None:
        room = rooms.get(("provider", account.name))
        found.append(_taken(room, account.slots, account.bound))
    return min(found, key=lambda one: one.limit - one.taken, default=None)


def _taken(room: Room | None, slots: int, bound: int) -> Places:
    taken, waiting = (0, 0) if room is None else (room.inside, room.depth)
    return Places(taken, slots, waiting, bound)


def _full(route: Route, rooms: _Rooms) -> bool:
    places = _places(route, rooms)
    return places is not None and places.taken >= places.limit


def _passed(ranked: Ranked, reason: str) -> Ranked:
    step = Step(ranked.step.index, Action.SKIP, reason, Cause.UNNEEDED)
    return ranked._replace(step=step)


def _by_config(ranked: Ranked) -> int:
    return ranked.step.index


def _replica(route: Route) -> str | None:
    """Which one of those that share the label: a replica's address, or `key 2` of an account."""
    label = route.target.label
    _, found, address = route.standing.key.partition(f"{label}@")
    if found:
        return address
    several = route.target.account is not None and route.standing.key.startswith(f"{label}#")
    return f"key {route.target.account[1]}" if several and route.target.account else None


def _said(breaker: Breaker, now: float) -> Said:
    return Said(breaker.state(now), breaker.explain(now))


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
