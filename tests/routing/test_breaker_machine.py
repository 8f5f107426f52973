"""The breaker under any order of events, beside a model that keeps everything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.routing.breaker import Breaker, BreakerSettings, State
from server.routing.verdicts import VERDICTS, Verdict

SETTINGS = BreakerSettings(
    failures=3, volume=6, window=20.0, open_first=4.0, open_cap=20.0, forget=30.0, jitter=0.25,
    ramp=(0.2, 0.6), ramp_step=4.0, rest_first=1.0, rest_bare=20.0, rest_cap=50.0,
)  # fmt: skip
#: What floats lose on the way.
HAIR = 1e-6
WIDTH = SETTINGS.window / 20
OUTCOMES = ["ok", "reset", "http_5xx", "http_4xx", "http_auth", "http_429", "client_gone"]


@dataclass
class Attempt:
    ticket: int
    #: Which life of the breaker it began in: a new one begins with each trip and each probe.
    life: int
    probe: bool


@dataclass
class Model:
    """What should be so, from lists and plain sums."""

    life: int = 0
    tripped: bool = False
    #: The bounds of when it half opens.
    opens: float = -math.inf
    opens_at_last: float = -math.inf
    rest_until: float = -math.inf
    ramp_until: float = -math.inf
    #: Refusals without a time in a row, and how many attempts had begun at the last refusal.
    rests: int = 0
    refused: int = 0
    #: Times and goodness of the ends that count since the last recovery.
    ends: list[tuple[float, bool]] = field(default_factory=list)
    under_way: list[Attempt] = field(default_factory=list)

    def probes(self) -> list[Attempt]:
        return [attempt for attempt in self.under_way if attempt.probe]

    def recover(self, now: float) -> None:
        self.tripped, self.rests = False, 0
        self.ends = [(now, True)]
        self.ramp_until = max(now, self.rest_until) + 8.0

    def trip(self, now: float, asked: float) -> None:
        self.tripped = True
        self.life += 1
        self.opens = now + max(SETTINGS.open_first * (1 - SETTINGS.jitter), asked)
        self.opens_at_last = now + max(SETTINGS.open_cap, asked)

    def should_trip(self, now: float) -> bool:
        row = 0
        for _, good in reversed(self.ends):
            if good:
                break
            row += 1
        oldest = math.floor(now / WIDTH) - 20
        recent = [good for time, good in self.ends if math.floor(time / WIDTH) > oldest]
        volume = 1 if now < self.ramp_until else SETTINGS.volume
        rate = len(recent) >= volume and recent.count(False) * 2 >= len(recent)
        return row >= SETTINGS.failures or rate


class Breakers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 500.0
        self.draw = 0.0
        self.breaker = Breaker(lambda: self.draw, SETTINGS)
        self.model = Model()
        self.began = self.ended = 0
        self.probe_until = -math.inf

    def wants_probe(self) -> bool:
        return not self.model.probes() or self.now >= self.probe_until

    # --- what can happen ------------------------------------------------------------------------

    @rule(step=st.sampled_from([0.0, 0.1, 1.0, 3.0, 4.0, 12.0, 100.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(draw=st.sampled_from([0.0, 0.5, 0.999]))
    def the_dice_change(self, draw: float) -> None:
        self.draw = draw

    @rule()
    def time_passes_to_where_it_may_admit(self) -> None:
        self.now += self.breaker.wait(self.now) + HAIR

    @rule(draw=st.sampled_from([0.0, 0.3, 0.999]), panic=st.booleans(), count=st.integers(1, 4))
    def attempts_begin(self, draw: float, panic: bool, count: int) -> None:
        for _ in range(count):
            state = self.breaker.state(self.now)
            if not self.breaker.allow(self.now, draw, panic=panic):
                continue
            self.began += 1
            probe = state is State.HALF_OPEN and self.wants_probe()
            if probe:
                for old in self.model.probes():  # it took too long
                    old.probe = False
                self.probe_until = self.now + SETTINGS.probe_patience
                self.model.life += 1
            elif not panic:  # what no probe and no panic lets through is let through by health
                assert not self.model.tripped
            ticket = self.breaker.began(self.now)
            self.model.under_way.append(Attempt(ticket, self.model.life, probe))

    @precondition(lambda self: self.model.under_way)
    @rule(index=st.integers(0, 50))
    def an_answer_begins(self, index: int) -> None:
        attempt = self.model.under_way[index % len(self.model.under_way)]
        self.breaker.answering(self.now, attempt.ticket)
        if attempt.probe:
            attempt.probe = False
            self.model.recover(self.now)

    @precondition(lambda self: self.model.under_way)
    @rule(
        index=st.integers(0, 50),
        outcome=st.sampled_from(OUTCOMES),
        after=st.sampled_from([None, 0.0, 2.0, 9.0, 1e6, -1.0, math.nan]),
    )
    def an_attempt_ends(self, index: int, outcome: str, after: float | None) -> None:
        self.end(self.model.under_way[index % len(self.model.under_way)], outcome, after)

    @precondition(lambda self: self.model.under_way)
    @rule(outcome=st.sampled_from(["ok", "reset", "http_429", "client_gone"]))
    def all_end(self, outcome: str) -> None:
        for attempt in list(self.model.under_way):
            self.end(attempt, outcome, None)

    @precondition(lambda self: not self.model.tripped and self.now >= self.model.rest_until)
    @rule(recovers=st.booleans())
    def it_trips_with_attempts_under_way(self, recovers: bool) -> None:
        self.attempts_begin(0.0, False, 3)
        while not self.model.tripped:
            self.attempts_begin(0.0, False, 1)
            self.end(self.model.under_way[-1], "reset", None)
        if recovers:
            self.now += self.breaker.wait(self.now) + HAIR
            self.attempts_begin(0.0, False, 1)
            self.end(self.model.under_way[-1], "ok", None)

    @rule()
    def it_heals(self) -> None:
        """Whatever happened: with good answers it is closed again soon."""
        for attempt in list(self.model.under_way):
            self.end(attempt, "client_gone", None)
        self.now += self.breaker.wait(self.now) + HAIR
        assert self.breaker.allow(self.now, 0.0)
        self.attempts_begin(0.0, False, 1)
        self.end(self.model.under_way[-1], "ok", None)
        self.now += len(SETTINGS.ramp) * SETTINGS.ramp_step
        assert self.breaker.state(self.now) is State.CLOSED
        assert self.breaker.allow(self.now, 0.999)

    # --- what follows from it -------------------------------------------------------------------

    def end(self, attempt: Attempt, outcome: str, after: float | None) -> None:
        model = self.model
        model.under_way.remove(attempt)
        said = VERDICTS[outcome]
        asked = after if after is not None and after >= 0 else None
        counts = not model.tripped and attempt.life == model.life
        tripped = self.breaker.ended(self.now, attempt.ticket, outcome, after)
        self.ended += 1

        expected = False
        if said is Verdict.RATE_LIMITED:
            ramping = self.now < model.ramp_until
            if asked is None:
                model.rests += attempt.ticket > model.refused
                asked = min(SETTINGS.rest_first * 2.0 ** (model.rests - 1), SETTINGS.rest_bare)
                asked *= 1 - SETTINGS.jitter * self.draw
            model.refused = self.began
            asked = min(asked, SETTINGS.rest_cap)
            model.rest_until = max(model.rest_until, self.now + asked)
            if ramping:
                model.ramp_until = model.rest_until + 8.0
        if attempt.probe:
            if said in (Verdict.GOOD, Verdict.ANSWERED, Verdict.AUTH):
                model.recover(self.now)
            expected = said is Verdict.BAD
        elif counts and said in (Verdict.GOOD, Verdict.BAD):
            model.ends.append((self.now, said is Verdict.GOOD))
            expected = said is Verdict.BAD and model.should_trip(self.now)
            if said is Verdict.GOOD:
                model.rests = 0
        assert tripped is expected
        if tripped:
            model.trip(self.now, min(asked or 0.0, SETTINGS.rest_cap))

    @invariant()
    def never_more_than_one_probe(self) -> None:
        assert len(self.model.probes()) <= 1
        if self.breaker.state(self.now) is State.HALF_OPEN:
            assert self.breaker.allow(self.now, 0.0) is self.wants_probe()

    @invariant()
    def what_began_has_ended_or_is_under_way(self) -> None:
        assert self.breaker.under_way == len(self.model.under_way) == self.began - self.ended

    @invariant()
    def an_open_one_admits_not_before_its_time_and_then_it_does(self) -> None:
        state = self.breaker.state(self.now)
        if self.model.tripped:
            assert state in (State.OPEN, State.HALF_OPEN, State.RESTING)
            if self.now < self.model.opens:
                assert state is State.OPEN
            if self.now >= self.model.opens_at_last:
                assert state is not State.OPEN
        else:
            assert state not in (State.OPEN, State.HALF_OPEN)
        if state is State.OPEN:
            assert not self.breaker.allow(self.now, 0.0)

    @invariant()
    def a_rest_is_kept_by_all(self) -> None:
        if self.now < self.model.rest_until - HAIR:
            assert not self.breaker.allow(self.now, 0.0)
            assert not self.breaker.allow(self.now, 0.0, panic=True)

    @invariant()
    def a_healthy_one_admits_its_share(self) -> None:
        if self.model.tripped or self.now < self.model.rest_until + HAIR:
            return
        left = self.model.ramp_until - self.now
        share = 1.0 if left <= 0 else 0.6 if left <= 4 else 0.2
        assert self.breaker.state(self.now) is (State.RAMP if left > 0 else State.CLOSED)
        for draw in (0.0, 0.19, 0.21, 0.59, 0.61, 0.999):
            assert self.breaker.allow(self.now, draw) is (draw < share)

    @invariant()
    def it_waits_when_and_only_when_it_says_so(self) -> None:
        wait = self.breaker.wait(self.now)
        state = self.breaker.state(self.now)
        assert (wait > 0) == (state in (State.OPEN, State.RESTING))
        words = {"open": "open for", "half_open": "half open", "ramp": "recovers"}
        said = words.get(state, {"resting": "rests for"}.get(state, "closed"))
        assert self.breaker.explain(self.now).startswith(said)


TestBreakers = pytest.mark.no_cover(Breakers.TestCase)
TestBreakers.settings = settings(max_examples=150, stateful_step_count=60)
