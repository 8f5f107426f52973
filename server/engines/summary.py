"""What others see of an engine: the sum of its instances. Pure but for the clock it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.engines import world
from server.engines.placement import Phase
from server.engines.state import ON_SOCKET, EngineState, EngineView
from server.engines.unit import EngineUnit
from server.errors import EngineError

S = EngineState


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the engine as a whole. `wanted`: somebody waits for it, or it is to be loaded. `stage`:
    what it waits for, `note`: what is to be said while it does not run."""

    name: str
    wanted: bool
    stage: str
    note: str
    waiting: int
    restarts: int
    failed: EngineError | None
    fit_error: EngineError | None
    fit_due: float | None
    used: int | None
    idle: float | None
    pinned: bool


def state_of(facts: Facts, units: Sequence[EngineUnit], now: float) -> EngineState:
    """The best of its instances' states; what is wanted of it where none is on its way."""
    states = {unit.state for unit in units}
    for state in (S.READY, S.STARTING):
        if state in states:
            return state
    if facts.failed is not None:
        return S.FAILED
    if any(unit.state is S.BACKOFF and unit.phase is not None for unit in units):
        return S.BACKOFF  # its corpse is being cleared away
    if facts.wanted:
        dues = [unit.due for unit in units if unit.state is S.BACKOFF] + [facts.fit_due]
        later = any(due is not None and due > now for due in dues)
        return S.BACKOFF if later else S.WAITING
    return next((state for state in (S.DRAINING, S.ASLEEP) if state in states), S.STOPPED)


def view_of(
    facts: Facts, units: Sequence[EngineUnit], before: EngineView, now: float
) -> EngineView:
    """All but the estimate."""
    state = state_of(facts, units, now)
    shown = next((unit for unit in units if unit.state is state), None)
    some = shown or max(units, key=lambda unit: unit.generation, default=None)
    alive = [one for unit in units if (one := unit.running()) is not None]
    first = None if shown is None or state is not S.READY else shown.instance()
    error = worst(facts, units)
    return EngineView(
        facts.name,
        state,
        socket=None if first is None else first.socket,
        generation=0 if some is None else some.generation,
        stage=_stage(facts, state, shown),
        since=now if state is not before.state else before.since,
        restarts=facts.restarts,
        pid=None if some is None else some.pid,
        waiting=facts.waiting,
        error=None if error is None else error.message,
        error_reason=None if error is None else error.reason,
        url=ON_SOCKET if first is None else first.url,
        devices=tuple(dict.fromkeys(name for one in alive for name in one.devices)),
        planned=sum(sum(world.planned(one, "").values()) for one in alive),
        used=facts.used if alive else None,
        last_used=max((unit.last_used for unit in units), default=0.0),
        ready_since=min((one.since for one in alive if one.since), default=None),
        unload_at=_unload_at(facts, units),
        instances=tuple(
            unit.instance() for unit in units if unit.phase or unit.state is not S.STOPPED
        ),
    )


def worst(facts: Facts, units: Sequence[EngineUnit]) -> EngineError | None:
    """The error that matters most: of the engine, of an instance that was given up, of another."""
    if facts.failed is not None:
        return facts.failed
    for state in (S.FAILED, S.BACKOFF):
        for unit in units:
            if unit.state is state and unit.error is not None:
                return unit.error
    return facts.fit_error


def _stage(facts: Facts, state: EngineState, shown: EngineUnit | None) -> str:
    if state is S.FAILED:
        return "failed"
    if state is S.STOPPED:
        return facts.note
    return facts.stage if shown is None else shown.stage


def _unload_at(facts: Facts, units: Sequence[EngineUnit]) -> float | None:
    """Replicas go together, when the last one has been idle for long enough."""
    ready = [unit for unit in units if unit.phase is Phase.READY]
    if not ready or facts.pinned or facts.waiting or any(unit.in_flight for unit in ready):
        return None
    ends = [unit.idle_end(facts.idle) for unit in ready]
    end = max(ends)
    return end if end < math.inf else None
