"""What providers say of our limits, for the metrics.

Answers are only kept; they are read at the scrape. What their headers hold is an upstream's word
and may be anything: kinds are from a fixed list, and what is no sensible number is left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from server.routing import moments
from server.telemetry.metrics import Metrics

#: Seconds for which an answer's word stands.
KEPT: Final = 600.0
#: More is no count.
_MOST: Final = 1e15
#: Bytes of the headers of the IETF's drafts that are looked at.
_LONGEST: Final = 256

#: A number of seconds since 1970 is a day of 2001 or later, and one from here on counts
#: milliseconds: as seconds it would be a day of the year 5138.
_SINCE: Final = 1e9
_MILLISECONDS: Final = 1e11

#: How much is allowed, how much of it is left, seconds until all of it is there again.
Limit = tuple[float | None, float | None, float | None]
_Names = tuple[str, str, str]

_WHAT: Final = ("limit", "remaining", "reset")
_WINDOWS: Final = ("second", "10-second", "minute", "5-minute", "hour", "day", "month")
#: Behind `x-ratelimit-limit-` and so on; OpenAI's and those of all who follow it, Fireworks' words
#: for tokens, windows as Cerebras and Mistral name them.
_OPENAI: Final = {
    "requests": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "tokens-prompt": "input_tokens",
    "tokens-generated": "output_tokens",
    "tokens-cache-adjusted-prompt": "uncached_input_tokens",
    "project-requests": "project_requests",
    "project-tokens": "project_tokens",
    "images": "images",
    **{f"requests-{window}": f"requests_{window.replace('-', '_')}" for window in _WINDOWS},
    **{f"req-{window}": f"requests_{window.replace('-', '_')}" for window in _WINDOWS},
    **{f"tokens-{window}": f"tokens_{window.replace('-', '_')}" for window in _WINDOWS},
}
_ANTHROPIC: Final = {
    "ratelimit-requests": "requests",
    "ratelimit-tokens": "tokens",
    "ratelimit-input-tokens": "input_tokens",
    "ratelimit-output-tokens": "output_tokens",
    "priority-input-tokens": "priority_input_tokens",
    "priority-output-tokens": "priority_output_tokens",
}


def _families() -> Iterator[tuple[str, _Names]]:
    """(kind, the headers that tell of it): where several tell of one, the first is believed."""
    for name, kind in _OPENAI.items():
        yield kind, _named("x-ratelimit-{}-" + name)
    for name, kind in _ANTHROPIC.items():
        yield kind, _named(f"anthropic-{name}-{{}}")
    for window in ("minute", "month"):  # Mistral's, in tokens
        yield f"tokens_{window}", _named(f"x-ratelimitbysize-{{}}-{window}")
    for name in ("x-ratelimitbysize-{}", "ratelimitbysize-{}", "x-tokenlimit-{}"):
        yield "tokens", _named(name)  # the last is Together's
    yield "requests_minute", _named("x-trial-endpoint-call-{}")  # Cohere's
    yield "requests_month", _named("x-endpoint-monthly-call-{}")
    # Together, OpenRouter and many others; those of an early draft.
    yield "requests", _named("x-ratelimit-{}")
    yield "requests", _named("ratelimit-{}")


def _named(template: str) -> _Names:
    limit, remaining, reset = (template.format(what) for what in _WHAT)
    return limit, remaining, reset


_FAMILIES: Final = tuple(_families())
_DRAFT: Final = "ratelimit"
_NAMES: Final = frozenset({_DRAFT, *(name for _, names in _FAMILIES for name in names)})
#: All that can be a label.
KINDS: Final = frozenset(kind for kind, _ in _FAMILIES)


class RateLimits:
    """The last word on each credential's limits. One for the server."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall = clock, wall
        self._said: dict[tuple[str, int], tuple[float, Mapping[str, str]]] = {}
        self._accounts: Mapping[tuple[str, int], str | None] | None = None

    def note(self, provider: str, credential: int, headers: Mapping[str, str]) -> None:
        """An answer's head is in. `credential` is the number of the provider's key, from 1;
        `headers` have lower-case names, and nobody changes them later."""
        if not _NAMES.isdisjoint(headers):
            self._said[provider, credential] = self._clock(), headers

    def retain(self, accounts: Mapping[tuple[str, int], str | None]) -> None:
        """From now on these are all the providers and numbers of keys that there are, each with
        what stands for the key: what was said of one goes on under its new number."""
        known = accounts if self._accounts is None else self._accounts
        numbers = {(provider, key): number for (provider, number), key in known.items()}
        said = {}
        for (provider, number), key in accounts.items():
            before = provider, numbers.get((provider, key), 0)
            if before in self._said:
                said[provider, number] = self._said[before]
        self._said, self._accounts = said, accounts

    def collect(self, metrics: Metrics) -> None:
        """Bring the gauges up to now: before each scrape."""
        now, wall = self._clock(), self._wall()
        gauges = (
            metrics.ratelimit_limit,
            metrics.ratelimit_remaining,
            metrics.ratelimit_reset,
        )
        shown: tuple[dict[tuple[str, str, str], float], ...] = ({}, {}, {})
        for account, (at, headers) in list(self._said.items()):
            age = now - at
            gone = self._accounts is not None and account not in self._accounts
            if gone or age > KEPT:
                del self._said[account]
                continue
            provider, credential = account
            for kind, values in limits_in(headers, now=wall - age).items():
                for into, value in zip(shown, _later(values, age), strict=True):
                    if value is not None:
                        into[provider, str(credential), kind] = value
        for gauge, series in zip(gauges, shown, strict=True):
            for labels in gauge.series.keys() - series.keys():
                gauge.remove(*labels)
            for labels, value in series.items():
                gauge.labels(*labels).set(value)


def _later(limit: Limit, age: float) -> Limit:
    most, left, reset = limit
    return most, left, None if reset is None else max(0.0, reset - age)


def limits_in(headers: Mapping[str, str], *, now: float) -> dict[str, Limit]:
    """The limits that an answer speaks of, by kind; all kinds are of KINDS.

    `headers` have lower-case names. Times of day count from the answer's own `date`; `now`, in
    seconds since 1970, is for answers without one.
    """
    found: dict[str, Limit] = {}
    for kind, (most, left, reset) in _FAMILIES:
        if kind not in found and (most in headers or left in headers or reset in headers):
            limit = (
                _count(headers.get(most)),
                _count(headers.get(left)),
                _seconds(headers.get(reset), headers, now),
            )
            if limit != (None, None, None):
                found[kind] = limit
    if "requests" not in found and (drafted := _drafted(headers)) is not None:
        found["requests"] = drafted
    return found


def _count(raw: str | None) -> float | None:
    """The number, or of several, with windows, the first: `100, 100;w=60`."""
    if (text := moments.short(raw)) is None:
        return None
    value = moments.number(text.partition(",")[0].partition(";")[0].rstrip())
    return value if value is not None and value <= _MOST else None


def _seconds(raw: str | None, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until a limit is whole again: after a duration, or at a time of day."""
    if not (text := moments.short(raw)):
        return None
    wait = moments.duration(text)
    if wait is None and (moment := _moment(text)) is not None:
        wait = moments.until(moment, headers, now)
    return wait if wait is not None and wait <= moments.YEAR else None


def _moment(text: str) -> float | None:
    """Seconds since 1970, which OpenRouter counts in milliseconds."""
    value = moments.number(text)
    if value is not None:
        value = value / 1000 if value >= _MILLISECONDS else value
        return value if value >= _SINCE else None
    for rest in ("", "Z", "T00:00:00Z"):
        if (moment := moments.rfc_3339(text + rest)) is not None:
            return moment
    return moments.http_date(text)


#: One member of a list, where commas may stand in quotes; its strings; its parameters.
_MEMBER: Final = re.compile(r'[^,"]*(?:"[^"]*"[^,"]*)*')
_STRING: Final = re.compile(r'"([^"]*)"')
_PARAMETER: Final = re.compile(r"(?:^|;)\s*([a-z]+)\s*=\s*([0-9.]+)\s*(?=;|$)")


def _drafted(headers: Mapping[str, str]) -> Limit | None:
    """The IETF's drafts, as Hugging Face has them: `"api";r=489;t=160`, and the limit in
    `ratelimit-policy: "fixed window";"api";q=500;w=300`. Of several the one with the least left.
    An older draft has all in one: `limit=100, remaining=50, reset=5`."""
    members = _members(headers.get(_DRAFT))
    together = {name: value for _, parameters in members for name, value in parameters.items()}
    if "remaining" in together:
        return together.get("limit"), together["remaining"], together.get("reset")
    counted = [(said["r"], names, said.get("t")) for names, said in members if "r" in said]
    if not counted:
        return None
    left, names, reset = min(counted, key=lambda member: member[0])
    policies = _members(headers.get("ratelimit-policy"))
    allowed = (said.get("q") for known, said in policies if names & known or len(policies) == 1)
    return next(allowed, None), left, reset


def _members(raw: str | None) -> list[tuple[frozenset[str], dict[str, float]]]:
    """(strings, parameters that are numbers) of each member."""
    if raw is None or len(raw) > _LONGEST:
        return []
    found = []
    for member in _MEMBER.findall(raw):
        pairs = _PARAMETER.findall(_STRING.sub("", member))
        counts = {name: value for name, text in pairs if (value := _count(text)) is not None}
        found.append((frozenset(_STRING.findall(member)), counts))
    return found
