"""What the attempts made at each target say of it: its breakers, its latency, what is under way.

Kept by the target's key over reloads of the config: a target that rests goes on resting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Final

from server.engines.suspects import Suspects
from server.routing.breaker import Breaker, BreakerSettings, State
from server.routing.latency import Latency
from server.routing.verdicts import Verdict, verdict

#: Outcomes that took as long as a first token would, and more.
_TOO_LONG: Final = frozenset({"first_byte_timeout"})


#: One attempt that began, for `answering` and `ended`: the target's breaker and its ticket, the
#: credential's (0: it was well, and is told of a refusal only), and when.
Attempt = tuple[Breaker, int, Breaker | None, int, float]


class Standing:
    """One target's, or one replica's. Times are monotonic seconds."""

    __slots__ = ("breaker", "credential", "first", "in_flight", "key", "label", "place", "whole")

    def __init__(
        self,
        key: str,
        breaker: Breaker,
        credential: Breaker | None,
        label: str = "",
        place: str = "",
    ) -> None:
        self.key = key
        #: The target's, which several keys of its account share.
        self.place = place or key
        #: For the metrics, which replicas, keys of an account and ids that clients name share.
        self.label = label or key
        self.breaker = breaker
        #: Shared by all targets that send the same key to the same provider.
        self.credential = credential
        #: Attempts under way.
        self.in_flight = 0
        #: Seconds to a stream's first event, and to the end of an answer that is no stream.
        self.first = Latency()
        self.whole = Latency()

    def clear(self, clock: Callable[[], float]) -> bool:
        """Nothing speaks against it: both breakers are closed."""
        credential = self.credential
        if self.breaker.untroubled and (credential is None or credential.untroubled):
            return True  # whatever the time
        now = clock()
        return _well(self.breaker, now) and _well(credential, now)

    def state(self, now: float) -> State:
        """The worse of the target's and of its credential's."""
        state = self.breaker.state(now)
        if self.credential is None or state in (State.OPEN, State.RESTING):
            return state
        other = self.credential.state(now)
        halfway = state is State.HALF_OPEN and other is State.RAMP
        return state if other is State.CLOSED or halfway else other

    def accepted(self, now: float) -> bool:
        """Its credential was not refused lately, or may be tried again."""
        return self.credential is None or self.credential.allow(now, 0.0)

    def allow(self, now: float, draw: float, *, panic: bool) -> bool:
        """May an attempt begin? See `Breaker.allow`. A refused credential is no matter of panic."""
        return self.breaker.allow(now, draw, panic=panic) and (
            self.credential is None or self.credential.allow(now, draw)
        )

    def wait(self, now: float) -> float:
        """Seconds until neither breaker is open or resting."""
        wait = self.breaker.wait(now)
        return wait if self.credential is None else max(wait, self.credential.wait(now))

    def explain(self, now: float) -> str:
        """Both breakers in words for people; empty when nothing speaks against it."""
        found = []
        if self.breaker.state(now) is not State.CLOSED:
            found.append(self.breaker.explain(now))
        if self.credential is not None and self.credential.state(now) is not State.CLOSED:
            found.append(f"its credential is {self.credential.explain(now)}")
        return "; ".join(found)

    def began(self, now: float) -> Attempt:
        """An attempt begins. No await may lie between `allow` and this."""
        self.in_flight += 1
        credential, ticket = self.credential, 0
        if credential is not None and not (credential.untroubled or _well(credential, now)):
            ticket = credential.began(now)
        return self.breaker, self.breaker.began(now), credential, ticket, now

    def answering(self, now: float, attempt: Attempt) -> None:
        """A stream's first event came."""
        breaker, ticket, credential, credential_ticket, began = attempt
        self.first.observe(now, now - began)
        breaker.answering(now, ticket)
        if credential is not None and credential_ticket:
            credential.answering(now, credential_ticket)

    def ended(
        self,
        now: float,
        attempt: Attempt,
        outcome: str,
        retry_after: float | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """The attempt is over, exactly once. `whole`: it was no stream."""
        breaker, own, credential, ticket, began = attempt
        self.in_flight -= 1
        if outcome in _TOO_LONG or (whole and outcome == "ok"):
            (self.whole if whole else self.first).observe(now, now - began)
        breaker.ended(now, own, outcome, retry_after)
        if credential is None:
            return
        if not ticket:  # it was closed, so that only a refusal is news
            if verdict(outcome) is not Verdict.AUTH:
                return
            ticket = credential.began(now)
        credential.ended(now, ticket, outcome, retry_after)


def _well(breaker: Breaker | None, now: float) -> bool:
    return breaker is None or breaker.untroubled or breaker.state(now) is State.CLOSED


class Standings:
    """All of them, by key; made when first asked for.

    A target's key is its label, unless others share that. `credential` is what stands for an
    account's secret: another secret, another breaker.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._settings = BreakerSettings()
        #: Of all engines of this server.
        self.suspects = Suspects()
        self._all: dict[str, Standing] = {}
        #: By the provider's name and its secret's stand-in.
        self._credentials: dict[tuple[str, Hashable], Breaker] = {}

    def configure(self, settings: BreakerSettings) -> None:
        """After a reload. New settings begin with closed breakers."""
        if settings != self._settings:
            self._settings = settings
            for standing in self._all.values():
                standing.breaker = Breaker(self._jitter, settings)

    def of(
        self,
        key: str,
        credential: tuple[str, Hashable] | None = None,
        label: str = "",
        place: str = "",
        beside: Collection[tuple[str, Hashable] | None] = (),
    ) -> Standing:
        """The standing of this key. `beside`: all credentials at this place.

        What is kept goes with the credential: one that has another key here now brings its memory
        along. A new one in the place of one that is gone finds what is known of the target, but
        nobody rests for it.
        """
        shared = None if credential is None else self._credential(credential)
        found = self._all.get(key)
        if found is not None and (shared is None or found.credential is shared):
            found.credential = shared
            return found
        same = None if shared is None else self._twin(place or key, shared)
        if found is not None and same is None:
            stay = [self._credentials[one] for one in beside if one in self._credentials]
            if not any(found.credential is one for one in stay):
                found.credential, found.breaker = shared, Breaker(self._jitter, self._settings)
                return found
        if found is not None:
            found.key = same.key if same is not None else f"{key}#{id(found)}"
            self._all[found.key] = found
        elif same is not None:
            del self._all[same.key]
        if same is None:
            breaker = Breaker(self._jitter, self._settings)
            same = Standing(key, breaker, shared, label, place)
        same.key = key
        self._all[key] = same
        return same

    def _twin(self, place: str, credential: Breaker) -> Standing | None:
        for one in self._all.values():
            if one.credential is credential and one.place == place:
                return one
        return None

    def _credential(self, credential: tuple[str, Hashable]) -> Breaker:
        found = self._credentials.get(credential)
        if found is None:
            found = self._credentials[credential] = Breaker(self._jitter, credential=True)
        return found

    def in_flight(self, key: str) -> int:
        """Attempts under way at the target with this key."""
        found = self._all.get(key)
        return 0 if found is None else found.in_flight

    def retain(self, keys: Collection[str]) -> None:
        """Forget the targets that are not among these, and credentials that nobody has."""
        for key in [key for key in self._all if key not in keys]:
            if not self._all[key].in_flight:
                del self._all[key]
        used = {id(standing.credential) for standing in self._all.values()}
        for name in [name for name, one in self._credentials.items() if id(one) not in used]:
            del self._credentials[name]

    def renew(self, key: str) -> None:
        """Another process answers there now: what its predecessor did is no news."""
        if (found := self._all.get(key)) is not None:
            found.breaker = Breaker(self._jitter, self._settings)

    def forget(self, keys: Collection[str]) -> None:
        """Replicas that are gone. Attempts under way there end as they do."""
        for key in keys:
            self._all.pop(key, None)

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._all.values())

    def credentials(self) -> Iterator[tuple[str, Breaker]]:
        """(provider, breaker) of every credential."""
        for (provider, _), breaker in self._credentials.items():
            yield provider, breaker
