"""From a model's chain and one request to the facts that `policies` and `plan` judge by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from server.config.cards import Prices
from server.protocol.envelope import Surface
from server.protocol.parameters import LONGEST, number
from server.protocol.request import Request
from server.routing import affinity, plan
from server.routing.abilities import Needs
from server.routing.breaker import State, in_panic
from server.routing.chain import Chain, Group, Loading, Route
from server.routing.plan import Action, Candidate, Cause, Rules, Step
from server.routing.policies import Facts, Policy, Snapshot, order, smooth

_string: Final = msgspec.json.Decoder(str)
#: Bytes of JSON to a token, about, for prices alone.
_BYTES: Final = 4
_FREE: Final = Prices(0.0, 0.0, 0.0)
_PROMPTS: Final = ("messages", "prompt", "input", "tools", "query", "documents")
#: Their answers have no length.
_UNWRITTEN: Final = frozenset({Surface.EMBEDDINGS, Surface.RERANK})
#: Tokens of an answer whose length nobody says, for prices alone.
_ANSWER: Final = 256
#: More tokens than any model writes: who asks for more gets the same price. And the digits that are
#: read at all.
_MOST: Final = 10**9
_DIGITS: Final = 4096
#: Policies whose order is a preference: what is full is waited for.
_STRICT: Final = frozenset({Policy.ORDERED, Policy.CHEAPEST})


class Ranked(NamedTuple):
    """A step of the plan, its target, the number of its group, and why its policy put it there."""

    step: Step
    route: Route
    group: int
    place: str


class Dice:
    """What a plan takes from outside besides facts: chance, turns, places."""

    def __init__(self, draw: Callable[[], float], full: Callable[[Route], bool], panic: float):
        #: Random in [0, 1).
        self.draw = draw
        #: Are all the target's places taken?
        self.full = full
        #: See `breaker.in_panic`.
        self.panic = panic
        #: Of each model with the policy `weighted`.
        self.turns: Counter[str] = Counter()


class LineUp:
    """The groups that one request may go to, and what it needs of them.

    `groups` are the model's own, then its bridge if it has one, then its fallbacks.
    """

    def __init__(self, chain: Chain, request: Request) -> None:
        self.request = request
        bridge = chain.bridge
        self.groups: tuple[Group, ...] = (
            chain.own,
            *(() if bridge is None else (bridge,)),
            *chain.fallbacks,
        )
        self._loading = chain.loading
        self._bridge = None if bridge is None else 1
        self._needs: Needs | None = None
        self._facts: dict[Policy, Facts] = {}

    def narrow(self, groups: Sequence[Group]) -> None:
        """From now on these only: those for a prompt that is too long, or for refused content."""
        self.groups, self._bridge, self._loading = tuple(groups), None, Loading.FALLBACK

    def is_strict(self, group: int) -> bool:
        """Is its order a preference? See `plan.Rules`."""
        return self.groups[group].policy in _STRICT

    def is_bridge(self, group: int) -> bool:
        return group == self._bridge

    @property
    def needs(self) -> Needs:
        if self._needs is None:
            self._needs = Needs(self.request.members, self.request.surface)
        return self._needs

    def plan(self, now: float, dice: Dice, tried: Collection[str] = ()) -> list[Ranked]:
        """Every target once: those to be tried in order, then those passed over and why.

        `tried`: keys of targets that had their chance.
        """
        routes: list[Route] = []
        candidates: list[Candidate] = []
        for at, group in enumerate(self.groups):
            for route, reason in self._placed(group, now, dice):
                candidates.append(
                    Candidate(
                        len(routes),
                        at,
                        reason,
                        ready=route.target.ready,
                        may_become_ready=route.target.may_become_ready,
                        state=route.standing.state(now),
                        full=dice.full(route),
                        tried=route.standing.key in tried,
                        lacks=self.lacks(route),
                    )
                )
                routes.append(route)
        rules = Rules(
            strict=tuple(map(self.is_strict, range(len(self.groups)))),
            loading=self._loading,
            bridge=self._bridge,
        )
        steps = plan.rank(_judged(candidates, routes, now, dice.draw(), panic=False), rules)
        if not _any_sent(steps) and any(c.state is State.RAMP for c in candidates):
            # A ramp is there to spare a target, not to refuse the request.
            steps = plan.rank(_judged(candidates, routes, now, 0.0, panic=False), rules)
        if not _any_sent(steps):
            able = [routes[c.index] for c in candidates if c.ready and c.lacks is None]
            if panicking(able, now, dice.panic):
                steps = plan.rank(_judged(candidates, routes, now, 0.0, panic=True), rules)
        ranked: dict[str, Ranked] = {}
        for step in steps:  # a target that stands twice has its chance where that comes first
            route, found = routes[step.index], candidates[step.index]
            ranked.setdefault(route.standing.key, Ranked(step, route, found.group, found.place))
        return list(ranked.values())

    def lacks(self, route: Route) -> str | None:
        """Why this target can never answer this request, in words; None: it may."""
        if (refusal := route.refuses(self.request)) is not None:
            return refusal.message
        ability = self.missing(route)
        return None if ability is None else f"lacks {ability}"

    def missing(self, route: Route) -> str | None:
        """The ability that the request needs and this target lacks."""
        able = route.able
        if not able.lacks and able.window is None:
            return None
        return self.needs.missing(able)

    # --- the order within a group -----------------------------------------------------------

    def _placed(self, group: Group, now: float, dice: Dice) -> list[tuple[Route, str]]:
        """The group's routes as its policy ranks them, each with the reason."""
        if group.fixed is not None:
            return self._ordered(group, [(route,) for route in group.fixed], now, dice)
        parts = group.by_part()
        heads = [routes[0] for routes in parts]
        found = []
        for head, reason in self._ordered(group, parts, now, dice):
            at = next(at for at, one in enumerate(heads) if one is head)
            if len(parts[at]) == 1:
                found.append((head, reason))
                continue
            members, what = parts[at], "replica"
            if head.target.account is not None:  # of keys that are as busy, not always the first
                turn, what = int(dice.draw() * len(members)), "key"
                members = members[turn:] + members[:turn]
            busy = self._order(Policy.LEAST_BUSY, [(one,) for one in members], now, 0.0)
            found += [(route, f"{reason}; {what} with {why}") for route, why in busy]
        return found

    def _ordered(
        self, group: Group, parts: Sequence[Sequence[Route]], now: float, dice: Dice
    ) -> list[tuple[Route, str]]:
        """The first route of each part."""
        if group.policy is Policy.WEIGHTED:
            dice.turns[group.model] += 1
            draw = smooth(dice.turns[group.model])
        else:
            draw = dice.draw()
        return self._order(group.policy, parts, now, draw)

    def _order(
        self, policy: Policy, parts: Sequence[Sequence[Route]], now: float, draw: float
    ) -> list[tuple[Route, str]]:
        if len(parts) == 1:
            return [(parts[0][0], "the only target")]
        snapshots = [self._snapshot(at, part, now) for at, part in enumerate(parts)]
        facts = self.facts(policy)
        return [(parts[at][0], why) for at, why in order(policy, snapshots, facts, draw)]

    def _snapshot(self, at: int, part: Sequence[Route], now: float) -> Snapshot:
        route = part[0]
        standing = route.standing
        latency = standing.first if self.request.stream else standing.whole
        return Snapshot(
            at,
            standing.key,
            weight=route.weight,
            in_flight=sum([one.standing.in_flight for one in part]),
            scraped=route.load,
            in_flight_then=route.load_ours,
            latency=latency.value(now),
            latency_age=latency.age(now),
            prices=route.prices or (_FREE if route.free else None),
        )

    def facts(self, policy: Policy) -> Facts:
        """What the policy needs of the request; found out once."""
        found = self._facts.get(policy)
        if found is None:
            if policy is Policy.AFFINITY:
                found = Facts(key=affinity_of(self.request))
            elif policy is Policy.CHEAPEST:
                found = tokens_of(self.request)
            else:
                found = Facts()
            self._facts[policy] = found
        return found


def cause_of_another(plan: Sequence[Ranked], *, chosen: bool) -> str | None:
    """Why not the first one of the plan, though nothing failed; None: it was the policy's choice
    (`chosen`), which is no fallback."""
    if chosen:
        return None
    for ranked in plan:
        if ranked.step.index == 0 and ranked.step.cause not in (Cause.NONE, Cause.TRIED):
            return ranked.step.cause.value
    return Cause.NOT_READY.value


def _any_sent(steps: Sequence[Step]) -> bool:
    return bool(steps) and steps[0].action is Action.SEND


def panicking(routes: Sequence[Route], now: float, threshold: float) -> bool:
    """Are so many of these out that breakers are ignored? See `breaker.in_panic`. Who is refused
    for a credential does not count: that has a reason, and is no hope for the others' requests."""
    states = {
        route.standing.key: route.standing.breaker.state(now)
        for route in routes
        if route.standing.accepted(now)
    }
    return in_panic(states.values(), threshold)


def _judged(
    candidates: Sequence[Candidate],
    routes: Sequence[Route],
    now: float,
    draw: float,
    *,
    panic: bool,
) -> list[Candidate]:
    """With what their breakers say."""
    return [
        c
        if c.state is State.CLOSED
        else c._replace(
            allowed=routes[c.index].standing.allow(now, draw, panic=panic),
            breaker=routes[c.index].standing.explain(now),
        )
        for c in candidates
    ]


def tokens_of(request: Request) -> Facts:
    """About how many tokens the request takes and asks for."""
    members = request.members
    prompt = sum(len(memoryview(members[name])) for name in _PROMPTS if name in members)
    if request.surface in _UNWRITTEN:
        return Facts(prompt // _BYTES)
    given = (members[name] for name in LONGEST if name in members)
    said = (number(value) or 0 for value in given if len(memoryview(value)) <= _DIGITS)
    longest = next((value for value in said if value > 0), _ANSWER)
    return Facts(prompt // _BYTES, max(1, int(min(longest, _MOST))))


def _text(value: Raw) -> str | None:
    """The string that a member is; None for anything else."""
    try:
        return _string.decode(value)
    except msgspec.MsgspecError:
        return None


def affinity_of(request: Request) -> bytes:
    """The request's key for `affinity`; empty: it has none."""
    members = request.members
    said = members.get("prompt_cache_key")
    cache_key = None if said is None else _text(said)
    first_system, first_user = (None, None)
    if not (request.session or cache_key):
        first_system, first_user = affinity.first_texts(members)
    return affinity.affinity_key(
        request.tenant, request.session, cache_key, first_system, first_user
    )
