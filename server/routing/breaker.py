"""Whether a target should be tried now. Pure: times, draws and outcomes in, decisions out.

::

             N failures in a row, or too many in a window
    CLOSED ───────────────────────────────────────────────▶ OPEN ◀───────────┐
      ▲                                                       │ its time     │ a failure
      │ all steps done                                        ▼              │
     RAMP ◀─────────────── the probe was answered ──────── HALF_OPEN ────────┤
      └──────────────────────────────────────────────────────────────────────┘

    RESTING, from any of them: a 429. The target is well, and said when to come back.

Each target has a breaker, and each credential has one that many targets may share. The caller owns
them and tells both of every attempt: a credential's heeds only whether the credential was accepted,
a target's everything else.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from server.routing.budget import Window
from server.routing.verdicts import Verdict, verdict

#: Doublings after which back-off grows no more; every cap is reached long before.
_LEVELS: Final = 32


#: What is another breaker's business. A probe of a target that is refused for its credential was
#: answered; a target that fails says nothing of its credential.
_TO_TARGET: Final = {Verdict.AUTH: Verdict.ANSWERED}
_TO_CREDENTIAL: Final = {
    Verdict.AUTH: Verdict.BAD,
    Verdict.FORBIDDEN: Verdict.ANSWERED,
    Verdict.BAD: Verdict.NEUTRAL,
    Verdict.RATE_LIMITED: Verdict.NEUTRAL,
}


class State(enum.StrEnum):
    """Values of the metric."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # waits for its probe, or for the answer to it
    RAMP = "ramp"  # a growing share is let through
    RESTING = "resting"  # rate limited


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """All durations in seconds."""

    #: So many failures in a row trip it.
    failures: int = 5
    #: Or this share of the attempts in the window, once there were `volume` of them.
    rate: float = 0.5
    volume: int = 20
    window: float = 30.0
    #: How long it stays open at first; it doubles each time, up to the cap.
    open_first: float = 5.0
    open_cap: float = 60.0
    #: Back-off starts anew when it had recovered for so long.
    forget: float = 60.0
    #: Up to this share is taken off an open time at random, so that probes do not come together.
    jitter: float = 0.2
    #: A probe that has not answered after so long is one among others, and a next one begins: a
    #: long answer that is no stream must not keep a target that is well from everybody.
    probe_patience: float = 10.0
    #: After a good probe: the shares let through, each for `ramp_step`, then all.
    ramp: tuple[float, ...] = (0.1, 0.25, 0.5)
    ramp_step: float = 5.0
    #: How long a 429 without Retry-After rests it; it doubles while they go on, up to `rest_bare`.
    rest_first: float = 1.0
    rest_bare: float = 30.0
    #: No 429 rests it for longer, whatever its Retry-After says.
    rest_cap: float = 600.0

    def __post_init__(self) -> None:
        if not (
            self.failures >= 1
            and self.volume >= 1
            and 0 < self.rate <= 1
            and 0 <= self.jitter < 1
            and all(0 < share <= 1 for share in self.ramp)
            and min(self.window, self.open_first, self.ramp_step, self.rest_first) > 0
            and self.probe_patience > 0
            and self.open_first <= self.open_cap
            and self.rest_first <= self.rest_bare <= self.rest_cap
            and self.forget >= 0
        ):
            raise ValueError("the settings of a breaker contradict themselves")


#: A refused credential seldom heals by itself, and one refusal says it all.
CREDENTIAL: Final = BreakerSettings(failures=1, open_first=30.0, open_cap=120.0, forget=600.0)


class Breaker:
    """Of one target, or (`credential`) of one credential. Times are monotonic seconds.

    An attempt: `allow`, then `began` without an await in between, since whoever begins while the
    breaker is half open is its probe; then, once the target's answer is on its way to the client,
    `answering`; then `ended`, exactly once, also when it was cancelled.

    `jitter` gives random numbers in [0, 1).
    """

    __slots__ = (
        "_bad",
        "_credential",
        "_first",
        "_good",
        "_jitter",
        "_level",
        "_open_until",
        "_probe",
        "_probe_until",
        "_ramp_until",
        "_recovered",
        "_rest_until",
        "_rested",
        "_rests",
        "_row",
        "_row_of",
        "_serial",
        "_settings",
        "_under_way",
        "_why",
        "untroubled",
    )

    def __init__(
        self,
        jitter: Callable[[], float],
        settings: BreakerSettings | None = None,
        *,
        credential: bool = False,
    ) -> None:
        self._settings = settings or (CREDENTIAL if credential else BreakerSettings())
        self._jitter = jitter
        self._credential = credential
        self._good = Window(self._settings.window)
        self._bad = Window(self._settings.window)
        #: Failures in a row, and the outcome of the last.
        self._row = 0
        self._row_of = ""
        #: None unless it tripped; still set while half open.
        self._open_until: float | None = None
        self._why = ""
        self._level = 0
        self._recovered = self._ramp_until = self._rest_until = -math.inf
        #: Rests without Retry-After since the last good answer.
        self._rests = 0
        self._serial = 0
        self._under_way = 0
        self._probe: int | None = None
        self._probe_until = -math.inf
        #: Tickets below are of attempts begun before the last probe, or before the last rest: what
        #: became of them is no news.
        self._first = 0
        self._rested = 0
        #: It is closed, whatever the time. Not so: `state` tells.
        self.untroubled = True

    @property
    def under_way(self) -> int:
        """Attempts that began and have not ended."""
        return self._under_way

    # --- questions ------------------------------------------------------------------------------

    def state(self, now: float) -> State:
        if self._open_until is not None:
            if now < self._open_until:
                return State.OPEN
            return State.RESTING if now < self._rest_until else State.HALF_OPEN
        if now < self._rest_until:
            return State.RESTING
        if now < self._ramp_until:
            return State.RAMP
        self.untroubled = True
        return State.CLOSED

    def allow(self, now: float, draw: float, *, panic: bool = False) -> bool:
        """May an attempt begin now? Asking changes nothing.

        `draw`, random in [0, 1), decides while only a share is let through. Pass 0 when nothing
        else is left to try: the ramp is there to spare the target, not to refuse the request.
        In a panic (see `in_panic`) only a rest is still respected.
        """
        state = self.state(now)
        if state is State.CLOSED:
            return True
        if now < self._rest_until:
            return False
        if panic:
            return True
        if state is State.RAMP:
            return draw < self._share(now)
        return state is State.HALF_OPEN and self._wants_probe(now)

    def wait(self, now: float) -> float:
        """Seconds until it may let something through; 0: it does, or waits for its probe."""
        until = self._rest_until
        if self._open_until is not None:
            until = max(until, self._open_until)
        return max(0.0, until - now)

    def explain(self, now: float) -> str:
        """Its state in words for people."""
        state = self.state(now)
        left = math.ceil(self.wait(now))
        if state is State.OPEN:
            return f"open for {left} s more after {self._why}"
        if state is State.RESTING:
            return f"rests for {left} s more: it is rate limited"
        if state is State.HALF_OPEN:
            probe = "waits for a probe" if self._probe is None else "its probe is under way"
            return f"half open, {probe}, after {self._why}"
        if state is State.RAMP:
            share = f"{self._share(now):.0%}"
            left = math.ceil(self._ramp_until - now)
            return f"recovers: takes {share} of its requests, all in {left} s"
        if self._row:
            return f"closed, {self._in_a_row()}"
        return "closed"

    # --- what happened --------------------------------------------------------------------------

    def began(self, now: float) -> int:
        """An attempt begins. The ticket is for `answering` and `ended`."""
        self._serial += 1
        self._under_way += 1
        tripped = self._open_until is not None
        if tripped and self._wants_probe(now) and self.state(now) is State.HALF_OPEN:
            self._probe = self._first = self._serial
            self._probe_until = now + self._settings.probe_patience
        return self._serial

    def _wants_probe(self, now: float) -> bool:
        return self._probe is None or now >= self._probe_until

    def answering(self, now: float, ticket: int) -> None:
        """The target's answer begins well (the commit point).

        Of use to a probe only: it need not wait for the end of an answer of several minutes.
        """
        if ticket == self._probe:
            self._recover(now)

    def ended(
        self, now: float, ticket: int, outcome: str, retry_after: float | None = None
    ) -> bool:
        """An attempt is over. True when that opened the breaker.

        `retry_after`: the seconds that the answer asked for, if it did.
        """
        if not self._under_way:
            raise ValueError("more attempts ended than began")
        self._under_way -= 1
        if outcome == "ok" and self._open_until is None and ticket >= self._first:
            self._good.add(now)  # nearly every attempt ends here
            self._row = self._rests = 0
            return False
        said = verdict(outcome)
        said = (_TO_CREDENTIAL if self._credential else _TO_TARGET).get(said, said)
        probe = ticket == self._probe
        if said is Verdict.RATE_LIMITED:
            self._rest(now, ticket, retry_after)
        if probe:
            self._probe = None
            if said in (Verdict.GOOD, Verdict.ANSWERED):
                self._recover(now)
            elif said in (Verdict.BAD, Verdict.FORBIDDEN):
                self._trip(now, f"a failed probe: {outcome}", retry_after)
                return True
        elif ticket < self._first or self._open_until is not None:
            pass  # begun before it tripped, or in a panic
        elif said is Verdict.GOOD:
            self._good.add(now)
            self._row = self._rests = 0
        elif said is Verdict.FORBIDDEN:
            self._trip(now, "403: the account may not use it", retry_after)
            return True
        elif said is Verdict.BAD:
            return self._failed(now, outcome, retry_after)
        return False

    def _failed(self, now: float, outcome: str, retry_after: float | None) -> bool:
        settings = self._settings
        self._row += 1
        self._row_of = outcome
        self._bad.add(now)
        bad = self._bad.total(now)
        total = bad + self._good.total(now)
        # On the ramp each attempt counts: the first to fail after the probe is half of them.
        volume = 1 if now < self._ramp_until else settings.volume
        if self._row >= settings.failures:
            self._trip(now, self._in_a_row(), retry_after)
        elif total >= volume and bad >= settings.rate * total:
            self._trip(now, f"{bad} of {total} attempts failed: {outcome}", retry_after)
        else:
            return False
        return True

    def _trip(self, now: float, why: str, retry_after: float | None) -> None:
        settings = self._settings
        if self._open_until is None and now >= self._recovered + settings.forget:
            self._level = 0
        length = self._spread(settings.open_first, settings.open_cap, self._level)
        asked = _sane(retry_after)
        if asked is not None:  # a 503 may say when to come back, too
            length = max(length, min(asked, settings.rest_cap))
        self._level += 1
        self._why = why
        self.untroubled = False
        self._open_until = now + length

    def _recover(self, now: float) -> None:
        self._probe = self._open_until = None
        self._recovered = now
        self.untroubled = False
        self._ramp(max(now, self._rest_until))
        self._row = self._rests = 0
        self._bad.clear()
        self._good.clear()
        self._good.add(now)

    def _rest(self, now: float, ticket: int, retry_after: float | None) -> None:
        settings = self._settings
        length = _sane(retry_after)
        if length is None:
            if ticket >= self._rested:  # those under way together are one refusal
                self._rests += 1
            length = self._spread(settings.rest_first, settings.rest_bare, max(0, self._rests - 1))
        ramping = now < self._ramp_until
        self._rest_until = max(self._rest_until, now + min(length, settings.rest_cap))
        self.untroubled = False
        self._rested = self._serial + 1
        if ramping:  # all at once after a rest would be the next 429
            self._ramp(self._rest_until)

    # --- numbers --------------------------------------------------------------------------------

    def _spread(self, first: float, cap: float, level: int) -> float:
        longest = min(cap, first * 2.0 ** min(level, _LEVELS))
        return longest * (1.0 - self._settings.jitter * self._jitter())

    def _ramp(self, start: float) -> None:
        self._ramp_until = start + len(self._settings.ramp) * self._settings.ramp_step

    def _share(self, now: float) -> float:
        """What the ramp lets through now. Counted from its end, before which a step is left."""
        ramp = self._settings.ramp
        left = math.ceil((self._ramp_until - now) / self._settings.ramp_step)
        return ramp[-min(left, len(ramp))]

    def _in_a_row(self) -> str:
        count = "1 failure" if self._row == 1 else f"{self._row} failures in a row"
        return f"{count}: {self._row_of}"


def in_panic(states: Iterable[State], threshold: float = 0.5) -> bool:
    """Are more than this share of a plan's targets out?

    Then breakers are ignored: when so many fail, the fault may be ours or the network's, and
    requests spread over all of them fare better than requests refused. Targets that rest or ramp
    are well, and not out.
    """
    known = list(states)
    out = sum(state in (State.OPEN, State.HALF_OPEN) for state in known)
    return out > threshold * len(known)


def _sane(seconds: float | None) -> float | None:
    return seconds if seconds is not None and seconds >= 0 else None
