"""Which targets a request tries, in which order. Pure: facts in, a ranked plan out.

The targets come in groups: the model's own, its bridge, its fallbacks in order. Within a group
they stand as the policy ranked them (`policies`); here they are sorted by what can be done with
each of them now.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from server.routing.breaker import State
from server.routing.chain import Loading


class Action(enum.StrEnum):
    """What to do with a target."""

    SEND = "send"
    #: All its places are taken: wait for one.
    QUEUE = "queue"
    #: Its engine loads: wait for that.
    WAIT = "wait"
    #: Its engine loads, and the model's setting says to tell the client so.
    REFUSE = "refuse"
    SKIP = "skip"


class Cause(enum.StrEnum):
    """Why a target is passed over; a label of `roundhouse_fallbacks` for some."""

    NONE = ""
    TRIED = "tried"
    ABILITY = "ability"
    NOT_READY = "not_ready"
    BREAKER = "breaker"
    RATE_LIMITED = "rate_limited"
    #: Places are taken here or before it, and our own overload is no reason to load others.
    FULL = "full"
    #: A bridge that is not needed.
    UNNEEDED = "unneeded"


#: Why a target is not sent to, though it has a place.
KEPT_BACK: Final = frozenset({Cause.BREAKER, Cause.RATE_LIMITED, Cause.NOT_READY})


class Candidate(NamedTuple):
    """One target at one moment. `index` is its place in the caller's list."""

    index: int  # type: ignore[assignment]
    #: Number of its group.
    group: int
    #: Why the policy put it here, for people.
    place: str
    ready: bool = True
    may_become_ready: bool = True
    #: Its breakers let an attempt through.
    allowed: bool = True
    state: State = State.CLOSED
    #: Its breakers in words.
    breaker: str = ""
    #: All its places are taken.
    full: bool = False
    tried: bool = False
    #: Why it can never answer this request.
    lacks: str | None = None


class Step(NamedTuple):
    """What to do with the candidate of this index; `reason` is for people."""

    index: int  # type: ignore[assignment]
    action: Action
    reason: str
    cause: Cause = Cause.NONE


class Rules(NamedTuple):
    """What of the model's config the ranking needs. `strict[group]`: its order is a preference, so
    that what is full is waited for; else any other of the group is as good."""

    strict: tuple[bool, ...]
    loading: Loading = Loading.FALLBACK
    #: The number of the bridge's group.
    bridge: int | None = None


def rank(candidates: Sequence[Candidate], rules: Rules) -> tuple[Step, ...]:
    """Every candidate once: first those to be tried, in that order, then those passed over.

    - What can answer now goes first, group after group, within each as the policy has it.
    - Where a group's healthy targets are full the request waits for a place, and goes no further.
    - An engine that loads is waited for when nothing else can answer now; before the fallbacks, or
      not at all, where `loading` says so. The bridge is there only for its time.
    - What is tried, lacks an ability, or is kept back by a breaker is passed over.
    """
    return _Ranking(rules).rank(candidates)


class _Ranking:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.steps: list[Step] = []
        #: One of the model's own targets is not ready, if only for the moment.
        self.unready = False
        #: Engines that load: of the model itself, and of the others.
        self.own: list[Step] = []
        self.others: list[Step] = []
        self.skipped: list[Step] = []
        #: Nothing after this is tried, and why.
        self.stop = ""

    def rank(self, candidates: Sequence[Candidate]) -> tuple[Step, ...]:
        count = len(self.rules.strict)
        groups: list[list[Candidate]] = [[] for _ in range(count)]
        for candidate in candidates:
            groups[candidate.group].append(candidate)
        for number, members in enumerate(groups):
            if number == self.rules.bridge and not self._bridging():
                for each in members:
                    self._skip(each, "the bridge is for the time of loading", Cause.UNNEEDED)
            else:
                self._group(number, members)
            if number == (self.rules.bridge or 0):
                self._own_engines()
        return (*self.steps, *self.own, *self.others, *self.skipped)

    def _bridging(self) -> bool:
        return self.unready and not self.steps

    def _own_engines(self) -> None:
        """The model's own engines load: where do they stand?"""
        loading, own = self.rules.loading, self.own
        if not own or loading is Loading.FALLBACK:
            return
        if loading is Loading.WAIT:
            self.steps += own
            self.own = []
        elif not self.steps:
            self.steps.append(own[0]._replace(action=Action.REFUSE))
            self.own = own[1:]
            self.stop = "not tried while the model loads: its `while_loading` is refuse"

    def _group(self, number: int, members: Sequence[Candidate]) -> None:
        queue: list[Step] = []
        waits = self.others if number else self.own
        strict = self.rules.strict[number]
        for each in members:
            if each.tried:
                self._skip(each, "tried", Cause.TRIED)
            elif each.lacks is not None:
                self._skip(each, each.lacks, Cause.ABILITY)
            elif self.stop:
                self._skip(each, self.stop, Cause.FULL)
            elif not each.ready:
                self.unready = self.unready or not number
                if each.may_become_ready:
                    reason = f"{each.place}; not ready yet, waits when nothing else can answer"
                    waits.append(Step(each.index, Action.WAIT, reason, Cause.NOT_READY))
                else:
                    self._skip(each, "not ready, and nothing brings it back", Cause.NOT_READY)
            elif not each.allowed:
                limited = each.state is State.RESTING
                cause = Cause.RATE_LIMITED if limited else Cause.BREAKER
                self._skip(each, each.breaker or each.state.value, cause)
            elif each.full:
                reason = f"{each.place}; all places taken, waits for one"
                queue.append(Step(each.index, Action.QUEUE, reason, Cause.FULL))
            elif queue and strict:
                self._skip(each, "behind a target that is full", Cause.FULL)
            else:
                words = f"{each.place}; {each.breaker}" if each.breaker else each.place
                self.steps.append(Step(each.index, Action.SEND, words))
        if queue:
            self.steps += queue
            self.stop = "our own overload is no reason to fall back"

    def _skip(self, candidate: Candidate, reason: str, cause: Cause) -> None:
        self.skipped.append(Step(candidate.index, Action.SKIP, reason, cause))
