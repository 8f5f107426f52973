"""Which targets a request tries, in which order. Pure: facts in, a ranked plan out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target of the model, or of one of its fallback models, in configured order."""

    index: int
    label: str
    ready: bool
    may_become_ready: bool
    #: The model it belongs to; another than the request's when it is a fallback.
    model: str


@dataclass(frozen=True, slots=True)
class Step:
    """Try `index`; `wait` first, for an engine that is loading. `reason` is for people."""

    index: int
    wait: bool
    reason: str


def rank(candidates: Sequence[Candidate]) -> tuple[Step, ...]:
    """Ready targets in configured order, then those worth waiting for; the rest is left out.

    A target that can answer now beats one that must load first, whatever the order: the order
    says which is preferred when both can. A target that stands twice is tried once.
    """
    steps: list[Step] = []
    seen: set[str] = set()
    for wanted_ready in (True, False):
        for candidate in candidates:
            if candidate.ready is not wanted_ready or candidate.label in seen:
                continue
            if not candidate.ready and not candidate.may_become_ready:
                continue
            seen.add(candidate.label)
            reason = "ready" if candidate.ready else "not ready yet; waits when nothing else can"
            steps.append(Step(candidate.index, wait=not candidate.ready, reason=reason))
    return tuple(steps)
