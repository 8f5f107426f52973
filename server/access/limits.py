"""What a key may use: requests and tokens per minute, and how much at one time.

No clock and no locks: monotonic seconds are arguments, and nothing here awaits. Limits come with
each call, so that a reload counts at once; what is kept of a key is only what it has used.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final

#: A minute's share comes back evenly, and seconds of a machine that is long up are coarse numbers:
#: rounding must not refuse what `retry_after` promised. A part of a token or request.
_ROUNDING: Final = 1e-3
#: Minutes' worth of tokens that a key can owe. The count is a target's word: one answer that claims
#: billions would lock its key for weeks. Long enough that real answers, with several choices or
#: long thoughts, are paid for whole under any sensible limit.
_DEBT: Final = 10


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Of one key; None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    max_in_flight: int | None = None


#: The same one wherever there are none: asking whether it is costs next to nothing.
UNLIMITED: Final = KeyLimits()


class Reason(enum.StrEnum):
    """Why a key is refused."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    IN_FLIGHT = "in_flight"
    #: More tokens than the key may use in a whole minute: waiting is of no use.
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands with one limit: `remaining` now, `reset` seconds until all is there."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Standings:
    """What the headers say. None: the key has no such limit."""

    requests: Standing | None = None
    tokens: Standing | None = None

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, durations as OpenAI has them."""
        out: dict[str, str] = {}
        for name, standing in (("requests", self.requests), ("tokens", self.tokens)):
            if standing is not None:
                out[f"x-ratelimit-limit-{name}"] = str(standing.limit)
                out[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
                out[f"x-ratelimit-reset-{name}"] = duration(standing.reset)
        return out


@dataclass(frozen=True, slots=True)
class Refusal:
    """`asked` of `limit` were too many. `retry_after`: seconds until the same request fits if
    nobody else comes; None: until one of the key's own ends, or never (TOO_LARGE)."""

    reason: Reason
    limit: int
    asked: int
    retry_after: float | None
    standings: Standings


class Lease:
    """A request of a key that was let in. Ends once, by `settle` or `release`; later calls do
    nothing."""

    __slots__ = ("_counted", "_ended", "_key", "_limiter", "standings", "tokens")

    def __init__(
        self, limiter: Limiter, key: str, tokens: int, counted: int, standings: Standings
    ) -> None:
        self._limiter, self._key = limiter, key
        #: Of the tokens, those that stand in the key's meter: none, when it had no limit then.
        self._counted = counted
        self._ended = False
        #: Reserved.
        self.tokens = tokens
        self.standings = standings

    @property
    def ended(self) -> bool:
        return self._ended

    def settle(self, now: float, used: int | None) -> None:
        """It was answered with so many tokens, more or fewer than reserved. None, where the target
        did not count them: what was reserved stays used."""
        if not self._ended:
            self._ended = True
            used = self.tokens if used is None else max(0, used)
            self._limiter.settled += self.tokens
            self._limiter.used += used
            self._limiter._end(self._key, now, used - self._counted, 0)

    def release(self, now: float, *, uncount: bool = False) -> None:
        """It came to nothing: its tokens are free again. It stays a request, unless `uncount`, for
        those that the server itself turned away."""
        if not self._ended:
            self._ended = True
            self._limiter.released += self.tokens
            self._limiter._end(self._key, now, -self._counted, int(uncount))


class _Meter:
    """What was used of a limit per minute, and comes back evenly.

    A bucket of a minute's worth: a key that was idle may use all of it at once, and in any minute
    at most twice the limit. What is used beyond it (an answer longer than reserved) is a debt that
    time pays first, and that grows to _DEBT minutes' worth at most.
    """

    __slots__ = ("at", "used")

    def __init__(self) -> None:
        self.used = 0.0
        self.at = -inf

    def bring(self, now: float, limit: int) -> None:
        """Up to now. A clock that stands still or goes back pays nothing."""
        if now > self.at:
            if self.used:
                self.used = max(0.0, self.used - (now - self.at) * limit / 60)
            self.at = now

    def wait(self, amount: int, limit: int) -> float:
        """Seconds until so much fits; 0: it does now."""
        over = self.used + amount - limit
        if over <= _ROUNDING:
            return 0.0
        return over * 60 / limit if limit > 0 else inf

    def standing(self, limit: int) -> Standing:
        remaining = max(0, int(limit - self.used + _ROUNDING))
        return Standing(limit, remaining, self.used * 60 / limit if limit else 0.0)


class _Account:
    """One key's."""

    __slots__ = ("in_flight", "limits", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = _Meter()
        self.tokens = _Meter()
        self.in_flight = 0
        self.limits = KeyLimits()

    def bring(self, now: float, limits: KeyLimits) -> None:
        # What passed until now passed under the limits of before.
        for meter, old, new in (
            (self.requests, self.limits.rpm, limits.rpm),
            (self.tokens, self.limits.tpm, limits.tpm),
        ):
            rate = new if old is None else old
            if rate is not None:
                meter.bring(now, rate)
            if new is None:
                meter.used = 0.0
        self.limits = limits

    def standings(self) -> Standings:
        rpm, tpm = self.limits.rpm, self.limits.tpm
        return Standings(
            None if rpm is None else self.requests.standing(rpm),
            None if tpm is None else self.tokens.standing(tpm),
        )


class Limiter:
    """The accounts of all keys, by name.

    At all times `reserved` = `settled` + `released` + what is under way, in tokens as they were
    reserved. `used` counts what settled requests really took.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self.reserved = 0
        self.settled = 0
        self.released = 0
        self.used = 0

    def admit(self, key: str, limits: KeyLimits, tokens: int, now: float) -> Lease | Refusal:
        """Count a request and reserve its estimated tokens, all of it or nothing."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account()
        account.bring(now, limits)
        refusal = self._refusal(account, limits, tokens)
        if refusal is not None:
            return refusal
        account.in_flight += 1
        if limits.rpm is not None:
            account.requests.used += 1
        counted = 0 if limits.tpm is None else tokens
        account.tokens.used += counted
        self.reserved += tokens
        return Lease(self, key, tokens, counted, account.standings())

    def in_flight(self, key: str) -> int:
        """Requests of the key under way."""
        account = self._accounts.get(key)
        return account.in_flight if account else 0

    def standings(self, key: str, limits: KeyLimits, now: float) -> Standings:
        """As they are now, without asking for anything."""
        account = self._accounts.get(key) or _Account()
        account.bring(now, limits)
        return account.standings()

    def retain(self, keys: Collection[str]) -> None:
        """After a reload: forget the others, once nothing of theirs is under way."""
        for key in [name for name in self._accounts if name not in keys]:
            if not self._accounts[key].in_flight:
                del self._accounts[key]

    def _refusal(self, account: _Account, limits: KeyLimits, tokens: int) -> Refusal | None:
        rpm, tpm, most = limits.rpm, limits.tpm, limits.max_in_flight
        if tpm is not None and tokens > tpm:
            return Refusal(Reason.TOO_LARGE, tpm, tokens, None, account.standings())
        if most is not None and account.in_flight >= most:
            asked = account.in_flight + 1
            return Refusal(Reason.IN_FLIGHT, most, asked, None, account.standings())
        waits: list[tuple[float, Reason, int, int]] = []
        if rpm is not None:
            waits.append((account.requests.wait(1, rpm), Reason.REQUESTS, rpm, 1))
        if tpm is not None:
            waits.append((account.tokens.wait(tokens, tpm), Reason.TOKENS, tpm, tokens))
        if not waits:
            return None
        wait, reason, limit, asked = max(waits)  # the one that keeps it longest
        if not wait:
            return None
        after = None if wait == inf else wait
        return Refusal(reason, limit, asked, after, account.standings())

    def _end(self, key: str, now: float, tokens: int, requests: int) -> None:
        account = self._accounts[key]
        account.in_flight -= 1
        account.bring(now, account.limits)
        if (tpm := account.limits.tpm) is not None:
            owed = max(0.0, account.tokens.used + tokens)
            account.tokens.used = min(owed, _DEBT * tpm)
        if account.limits.rpm is not None:
            account.requests.used = max(0.0, account.requests.used - requests)


def duration(seconds: float) -> str:
    """As OpenAI's headers write it: `120ms`, `1.5s`, `6m0s`. Rounded up to a millisecond, so that
    who waits so long has waited long enough."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text
