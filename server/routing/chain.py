"""Where a model's requests may go: its own targets, and those of the models that stand in for it.

Made once per config. What changes from moment to moment is in `standing`, and in the fleet of an
external engine, whose replicas are targets each.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from server.config.cards import Prices
from server.errors import InvalidRequest
from server.protocol.parameters import Ceilings
from server.protocol.request import Request
from server.routing.abilities import Able
from server.routing.policies import Policy
from server.routing.standing import Standing
from server.targets import Target

_FREE: Final = Able()


class Seats(NamedTuple):
    """Places of an account at a provider, by its name: attempts at one time, over all its models,
    and requests that may wait for their end."""

    name: str
    slots: int
    bound: int


@dataclass(frozen=True, slots=True)
class Route:
    """A target of a model, with what is known of it, what it costs, and the model's ceilings."""

    #: The model that it belongs to, by its own name.
    model: str
    target: Target
    standing: Standing
    prices: Prices | None = None
    ceilings: Ceilings | None = None
    weight: float = 1.0
    able: Able = _FREE
    #: Attempts at one time, and requests that may wait for their end; None: no limit.
    slots: int | None = None
    bound: int = 64
    #: The account's places, which count besides.
    account: Seats | None = None
    #: An external engine's replica: requests that it said it had, and how many were ours.
    load: float | None = None
    load_ours: int = 0
    #: An engine: without a price of its own it costs nothing, where prices are compared.
    free: bool = False

    #: There are requests that it cannot answer, by what is known of it.
    choosy: bool = field(init=False, default=False)
    #: There may be no place for an attempt.
    limited: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choosy", bool(self.able.lacks) or self.able.window is not None)
        limited = self.slots is not None or self.account is not None
        object.__setattr__(self, "limited", limited)

    @property
    def place(self) -> str:
        """The name of those places, which routes that are one target share."""
        return self.standing.place

    def refuses(self, request: Request) -> InvalidRequest | None:
        """Why this target can never answer this request, or its model may not; or None. Abilities
        are asked for apart: see `abilities.Needs`."""
        if self.ceilings is not None:
            over = self.ceilings.refusal(request.members, request.surface)
            if over is not None:
                return over
        return self.target.refuses(request)


class Changing:
    """The routes of an engine, one per replica that is well; without any, one that stands
    for the engine and can be waited for.

    `now` gives them as they are; the same object as long as nothing changed.
    """

    __slots__ = ("now",)

    def __init__(self, now: Callable[[], tuple[Route, ...]]) -> None:
        self.now = now


@dataclass(frozen=True, slots=True)
class Keys:
    """One target with several keys of its account, a route for each, at least one. Requests are
    spread over them, and go on with another when one is refused or rests."""

    routes: tuple[Route, ...]


#: Policies that choose among all replicas themselves. Under the others an engine's replicas take
#: its place by how busy they are.
AMONG_REPLICAS: Final = frozenset({Policy.LEAST_BUSY, Policy.LOWEST_LATENCY, Policy.AFFINITY})


@dataclass(frozen=True, slots=True)
class Group:
    """A model's own targets. `window`: its context window in tokens, where it is known."""

    model: str
    parts: tuple[Route | Changing | Keys, ...]
    policy: Policy = Policy.ORDERED
    window: int | None = None
    #: Of the model. What is over them is no reason to ask its fallbacks.
    ceilings: Ceilings | None = None
    #: The routes, when they never change.
    fixed: tuple[Route, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        fixed = tuple(part for part in self.parts if isinstance(part, Route))
        if len(fixed) == len(self.parts):
            object.__setattr__(self, "fixed", fixed)

    def routes(self) -> tuple[Route, ...]:
        """All routes as they are now, in configured order."""
        if self.fixed is not None:
            return self.fixed
        return tuple([route for part in self.by_part() for route in part])

    def by_part(self) -> list[tuple[Route, ...]]:
        """The routes of each configured target: more than one where it has replicas or keys. Of an
        external engine every replica is a part of its own, where the policy chooses among them."""
        found: list[tuple[Route, ...]] = []
        for part in self.parts:
            if isinstance(part, Route):
                found.append((part,))
            elif isinstance(part, Keys):
                found.append(part.routes)
            elif self.policy in AMONG_REPLICAS:
                found += [(route,) for route in part.now()]
            else:
                found.append(part.now())
        return found


class Loading(enum.StrEnum):
    """What becomes of a request while the model's engine loads and no target of its own is ready:
    `while_loading` of a model."""

    #: Others answer if they can now; else it waits.
    FALLBACK = "fallback"
    #: It waits for the engine before fallbacks are tried.
    WAIT = "wait"
    #: 503 with an estimate, at once.
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Chain:
    """A model's own targets and those of its fallbacks, in order; and who stands in for it when a
    prompt is too long for it, when its provider refuses the content, and while it loads."""

    own: Group
    fallbacks: tuple[Group, ...] = ()
    context: tuple[Group, ...] = ()
    content: tuple[Group, ...] = ()
    bridge: Group | None = None
    loading: Loading = Loading.FALLBACK
    #: The only target, or the first of a fixed order, if it takes as many requests as come: nothing
    #: has to be weighed while it is well.
    first: Route | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        fixed = self.own.fixed
        ordered = fixed and (len(fixed) == 1 or self.own.policy is Policy.ORDERED)
        if fixed and ordered and not fixed[0].limited:
            object.__setattr__(self, "first", fixed[0])

    def alone(self) -> Chain:
        """Without any model but its own."""
        return Chain(self.own, loading=self.loading)

    def with_fallbacks(self, groups: Sequence[Group]) -> Chain:
        """With these in place of the configured fallbacks."""
        return replace(self, fallbacks=tuple(groups))

    def groups(self) -> tuple[Group, ...]:
        """All that it may ever go to, each once."""
        every = [self.own, *([self.bridge] if self.bridge else []), *self.fallbacks]
        every += [*self.context, *self.content]
        return tuple({group.model: group for group in every}.values())
