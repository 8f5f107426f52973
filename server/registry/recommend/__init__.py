"""Which model for which task. Pure functions over the cards; see docs/recommend.md.

    found = recommend("coding", Constraints(memory_bytes=24 * 2**30))
    found[0].card.model_id, found[0].because
    found.rejected, found.advice      # why others are not there

The score is a heuristic: cards hold no benchmark results, so capability is read from size, price
and age. It finds a shortlist; only your own questions tell which of it is best.
"""

from __future__ import annotations

import functools
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.registry.cards import ModelInfo
from server.registry.catalog import builtin
from server.registry.recommend.advice import advise
from server.registry.recommend.constraints import (
    ABILITIES,
    LICENCES,
    Constraints,
    blended,
    failures,
    fitting,
)
from server.registry.recommend.generation import Newest
from server.registry.recommend.profiles import ENOUGH, PROFILES, VARIETY
from server.registry.recommend.ranking import candidate, parts, score
from server.registry.recommend.reasons import because, but
from server.registry.tasks import TASKS
from server.registry.words import task_of

__all__ = [
    "ABILITIES",
    "LICENCES",
    "TASKS",
    "Constraints",
    "Recommendation",
    "Recommendations",
    "blended",
    "recommend",
    "task_of",
]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`score`: 0 to 100, comparable within one answer only."""

    card: ModelInfo
    score: float
    because: tuple[str, ...]
    but: tuple[str, ...]


class Recommendations(list[Recommendation]):
    """The best first. `candidates`: how many cards do this task at all. `left_out`: how many of
    them failed a demand. `rejected`: how many failed each (one may fail several). `advice`: where
    nothing is left, which demand to loosen, and what that would bring."""

    def __init__(
        self,
        found: Iterable[Recommendation],
        *,
        task: str,
        candidates: int,
        left_out: int,
        rejected: Mapping[str, int],
        advice: str | None,
    ) -> None:
        super().__init__(found)
        self.task = task
        self.candidates = candidates
        self.left_out = left_out
        self.rejected = dict(rejected)
        self.advice = advice


def recommend(
    task: str,
    constraints: Constraints | None = None,
    catalog: Mapping[str, ModelInfo] | None = None,
    limit: int | None = 5,
) -> Recommendations:
    """The models that fit a task under these constraints, the best first; every one of them with
    `limit` None. Raises ValueError for a word that is no task."""
    task = task_of(task)
    demands = Constraints() if constraints is None else constraints
    cards = builtin() if catalog is None else catalog
    profile = PROFILES[task]
    newest = _newest_of_builtin() if catalog is None else Newest(cards.values())
    good: list[tuple[float, ModelInfo]] = []
    failed: list[tuple[str, ...]] = []
    for card in cards.values():
        if not candidate(card, task, profile):
            continue
        if why := tuple(failures(card, demands, quantised=not profile.unquantised)):
            failed.append(why)
            continue
        fits = fitting(card, demands, quantised=not profile.unquantised)
        found = parts(card, task, profile, demands, fits, newest)
        good.append((score(card, task, profile, found, newest), card))
    ranked = _varied(good)

    def described(value: float, card: ModelInfo) -> Recommendation:
        fits = fitting(card, demands, quantised=not profile.unquantised)
        return Recommendation(
            card,
            round(value, 1),
            tuple(because(card, task, profile, demands, fits, newest)),
            tuple(but(card, task, profile, demands, fits, newest)),
        )

    return Recommendations(
        (described(value, card) for value, card in ranked[:limit]),
        task=task,
        candidates=len(good) + len(failed),
        left_out=len(failed),
        rejected=dict(Counter(reason for why in failed for reason in why).most_common()),
        advice=advise(task, len(good), failed),
    )


@functools.cache
def _newest_of_builtin() -> Newest:
    return Newest(builtin().values())


def _varied(good: Iterable[tuple[float, ModelInfo]]) -> list[tuple[float, ModelInfo]]:
    """The best first; each model of a maker who was there already is worth a little less. Equal
    scores come by id, so that the order is always the same."""
    makers: dict[str, deque[tuple[float, ModelInfo]]] = {}
    for entry in sorted(good, key=lambda entry: (-entry[0], entry[1].model_id)):
        makers.setdefault(entry[1].origin.creator or entry[1].provider, deque()).append(entry)
    #: The best that is left of each maker: (minus its score, its id, the maker).
    heads: list[tuple[float, str, str]] = []

    def push(maker: str, before: int) -> None:
        if makers[maker]:
            value, card = makers[maker][0]
            worth = value * VARIETY ** min(before, ENOUGH)
            heapq.heappush(heads, (-worth, card.model_id, maker))

    for maker in makers:
        push(maker, 0)
    ranked: list[tuple[float, ModelInfo]] = []
    seen: Counter[str] = Counter()
    while heads:
        worth, _, maker = heapq.heappop(heads)
        ranked.append((-worth, makers[maker].popleft()[1]))
        seen[maker] += 1
        push(maker, seen[maker])
    return ranked
