"""In which order a model's own targets stand for one request. Pure: a snapshot and a draw in, an
order with reasons out.

Each policy ranks all targets: the first is the choice, the rest is the order of falling back.
Whether a target is ready, able or resting is not asked here; see `plan`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from server.config.cards import Prices
from server.routing.affinity import FLOOR, hash_order, most_per_weight

#: `lowest_latency`: the part of requests that goes to a target whose latency is not known.
EXPLORED: Final = 0.05
#: `lowest_latency`: seconds for which a measurement is taken for the present.
FRESH: Final = 60.0

_GOLDEN: Final = 0.6180339887498949
_MILLION: Final = 1_000_000


class Policy(enum.StrEnum):
    """`balance` of a model."""

    ORDERED = "ordered"
    WEIGHTED = "weighted"
    LEAST_BUSY = "least_busy"
    LOWEST_LATENCY = "lowest_latency"
    CHEAPEST = "cheapest"
    AFFINITY = "affinity"


class Snapshot(NamedTuple):
    """One of the model's own targets at one moment."""

    #: Its place in the caller's list, given back in the answer. (It hides `tuple.index`.)
    index: int  # type: ignore[assignment]
    label: str
    weight: float = 1.0
    #: Attempts of ours under way.
    in_flight: int = 0
    #: Requests that it said it had, running and waiting; None: it was not asked.
    scraped: float | None = None
    #: Attempts of ours that were under way when it said so.
    in_flight_then: int = 0
    #: Seconds to the first token, and seconds since that was last measured.
    latency: float | None = None
    latency_age: float | None = None
    prices: Prices | None = None

    @property
    def busy(self) -> float:
        """Ours now, and at the last scrape everybody else's."""
        if self.scraped is None:
            return self.in_flight
        return self.in_flight + max(0.0, self.scraped - self.in_flight_then)


class Facts(NamedTuple):
    """What a policy needs of the request. Tokens are estimates; `key`: see `affinity_key`."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    key: bytes = b""


class Place(NamedTuple):
    """A target's index and why it stands there, for people."""

    index: int  # type: ignore[assignment]
    reason: str


def order(
    policy: Policy, targets: Sequence[Snapshot], facts: Facts, draw: float
) -> tuple[Place, ...]:
    """All targets, best first. `draw` is in [0, 1), from a random source or from `smooth`; the same
    arguments give the same order."""
    return _ORDERS[policy](targets, facts, draw)


def smooth(turn: int) -> float:
    """The draw of a model's turn-th request, for `weighted`: chance without its clusters.

    Multiples of the golden ratio fall evenly everywhere in [0, 1): of any run of requests each
    target gets its share to within a few, where a random draw is off by the root of their number.
    """
    return turn * _GOLDEN % 1.0


def dollars_for(facts: Facts, prices: Prices | None) -> float | None:
    """What the request would cost if it took all the output it asks for; None: unknown."""
    if prices is None:
        return None
    total = 0.0
    if facts.prompt_tokens:
        if prices.input is None:
            return None
        total += facts.prompt_tokens * prices.input
    if facts.output_tokens:
        if prices.output is None:
            return None
        total += facts.output_tokens * prices.output
    return total / _MILLION


def _ordered(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    return tuple([Place(t.index, f"place {n} of the order") for n, t in enumerate(targets, 1)])


def _weighted(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    """The first by chance in proportion to weight, the rest by weight. Weight 0 is never drawn
    while another has any."""
    total = sum([max(0.0, t.weight) for t in targets])
    if total <= 0:
        return _ordered(targets, facts, draw)
    left, chosen = draw * total, -1
    for position, target in enumerate(targets):
        if target.weight > 0:
            chosen = position  # rounding may leave a rest after the last: it is the last one's
            left -= target.weight
            if left < 0:
                break
    rest = sorted([t for n, t in enumerate(targets) if n != chosen], key=_weight)
    first = targets[chosen]
    return (
        Place(first.index, f"drawn by weight {first.weight:g} of {total:g}"),
        *[Place(t.index, f"not drawn; by weight {t.weight:g}") for t in rest],
    )


def _least_busy(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    ranked = sorted([(t.busy, position) for position, t in enumerate(targets)])
    return tuple([_busy_place(targets[position], busy) for busy, position in ranked])


def _busy_place(target: Snapshot, busy: float) -> Place:
    own = target.in_flight
    if target.scraped is None:
        return Place(target.index, f"{own} in flight")
    return Place(target.index, f"{own} in flight and {busy - own:g} of others")


def _lowest_latency(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    """Those measured lately by latency, the others after them in order; but EXPLORED of all
    requests go to one of the others first, each as often as the next. An old measurement says what
    a target was, so it is found out again."""
    known: list[tuple[float, int]] = []
    unknown: list[int] = []
    for position, target in enumerate(targets):
        age = target.latency_age
        if target.latency is None or age is None or age > FRESH:
            unknown.append(position)
        else:
            known.append((target.latency, position))
    known.sort()
    places = [
        Place(t.index, f"{latency:.3f} s to the first token, {t.latency_age:.0f} s ago")
        for latency, t in [(latency, targets[position]) for latency, position in known]
    ]
    others = [
        Place(targets[position].index, _unmeasured(targets[position])) for position in unknown
    ]
    if known and unknown and draw < EXPLORED:
        index, why = others.pop(int(draw / EXPLORED * len(unknown)))
        return (Place(index, f"{why}: one of {EXPLORED:.0%} that find out"), *places, *others)
    return (*places, *others)


def _unmeasured(target: Snapshot) -> str:
    if target.latency is None or target.latency_age is None:
        return "time to the first token not measured"
    return f"{target.latency:.3f} s to the first token, but {target.latency_age:.0f} s ago"


def _cheapest(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    """By price; the unknown last: it may be anything. Equal ones by order, so that what is free
    stands as the config has it."""
    known: list[tuple[float, int]] = []
    unknown: list[Place] = []
    for position, target in enumerate(targets):
        cost = dollars_for(facts, target.prices)
        if cost is None:
            unknown.append(Place(target.index, "price unknown"))
        else:
            known.append((cost, position))
    known.sort()
    tokens = f"for {facts.prompt_tokens} + {facts.output_tokens} tokens"
    places = [Place(targets[position].index, f"${cost:.6f} {tokens}") for cost, position in known]
    return (*places, *unknown)


def _affinity(targets: Sequence[Snapshot], facts: Facts, draw: float) -> tuple[Place, ...]:
    """The key's own order; those with too much to do after the others. Without a key nothing is
    cached anywhere, and the least busy is best."""
    if not facts.key:
        return _least_busy(targets, facts, draw)
    loads = [t.busy for t in targets]
    weights = tuple([t.weight for t in targets])
    most = most_per_weight(loads, weights)
    first: list[Place] = []
    last: list[Place] = []
    ranked = hash_order(facts.key, tuple([t.label for t in targets]), weights)
    for rank, position in enumerate(ranked, 1):
        busy, bound = loads[position], most * weights[position]
        if busy > FLOOR and busy > bound:
            why = f"hash place {rank}, passed over: {busy:g} in flight, its bound is {bound:.1f}"
            last.append(Place(targets[position].index, why))
        else:
            first.append(Place(targets[position].index, f"hash place {rank}, {busy:g} in flight"))
    return (*first, *last)


def _weight(target: Snapshot) -> float:
    return -target.weight


_ORDERS: Final[dict[Policy, Callable[[Sequence[Snapshot], Facts, float], tuple[Place, ...]]]] = {
    Policy.ORDERED: _ordered,
    Policy.WEIGHTED: _weighted,
    Policy.LEAST_BUSY: _least_busy,
    Policy.LOWEST_LATENCY: _lowest_latency,
    Policy.CHEAPEST: _cheapest,
    Policy.AFFINITY: _affinity,
}
