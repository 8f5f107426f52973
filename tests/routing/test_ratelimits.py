"""What providers say of our limits: every spelling, what is left out, and what a scrape finds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from server.routing.moments import YEAR
from server.routing.ratelimits import KEPT, KINDS, RateLimits, limits_in
from server.telemetry.metrics import Metrics
from tests.routing.spellings import DATE, SPELLINGS

#: Sunday, 6 November 1994, 08:49:37 GMT; and Friday, 21 November 2025, 12:00:00 GMT.
THEN = 784_111_777.0
NOW = 1_763_726_400.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [pytest.param(headers, expected, id=name) for name, headers, expected in SPELLINGS],
)
def test_spellings(headers: dict[str, str], expected: dict[str, Any]) -> None:
    found = limits_in({"date": DATE, "content-type": "application/json", **headers}, now=THEN)
    assert found.keys() == expected.keys()
    for kind, limit in found.items():
        assert limit == pytest.approx(expected[kind]), kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1d2h", 93_600.0),
        ("59", 59.0),
        (" 59.5\t", 59.5),
        ("0", 0.0),
        ("1763726460", 60.0),
        ("1763726460.5", 60.5),
        ("1763726460500", 60.5),
        ("1763726399", 0.0),
        ("2025-11-21T12:01:00Z", 60.0),
        ("2025-11-21t12:01:00z", 60.0),
        ("2025-11-21T12:01:00", 60.0),
        ("2025-11-22", 43_200.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("Fri, 21 Nov 2025 12:01:00 GMT", 60.0),
        # In no time that means anything.
        ("", None),
        ("soon", None),
        ("-1", None),
        ("-1s", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("400d", None),
        ("50000000", None),
        ("9" * 15, None),
        ("9" * 60, None),
        ("9" * 60 + "s", None),
        ("9999-12-31T23:59:59Z", None),
        ("2025-13-21T12:01:00Z", None),
        ("2025-11-21T12:01", None),
        ("1s" * 5_000_000, None),
    ],
)
def test_resets(value: str, expected: float | None) -> None:
    for name in ("x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"):
        found = limits_in({name: value}, now=NOW)
        resets = [reset for _, _, reset in found.values()]
        assert resets == ([] if expected is None else [pytest.approx(expected)])


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "x", "-1", "-0", "+1", "nan", "inf", "1e5", "1e400", "0x10", "1_000", "٣"),
        *("1000000000000001", "9" * 60, "9" * 10_000_000, ",5", ";5", '"5"'),
    ],
)
@pytest.mark.parametrize("what", ["limit", "remaining"])
def test_what_is_no_count(what: str, value: str) -> None:
    for name in (f"x-ratelimit-{what}-tokens", f"anthropic-ratelimit-tokens-{what}"):
        assert limits_in({name: value}, now=NOW) == {}


@pytest.mark.parametrize(
    "value",
    [
        *("", "default", '"default"', '"default";r', '"default";r=', '"default";r=-1;t=5'),
        *('"default";r=1e400', '"default";r=nan', '"default";"r=5"', "limit=5", "r=9" * 10_000_000),
        '"' + "," * 250,
    ],
)
def test_drafts_that_say_nothing(value: str) -> None:
    assert limits_in({"ratelimit": value, "ratelimit-policy": '"default";q=5'}, now=NOW) == {}
    said = {"ratelimit": '"default";r=5', "ratelimit-policy": value}
    assert limits_in(said, now=NOW) == {"requests": (None, 5, None)}


def test_unknown_kinds_are_nobodys() -> None:
    made_up = {f"x-ratelimit-limit-{number}": "1" for number in range(1000)}
    made_up |= {f"anthropic-ratelimit-{number}-limit": "1" for number in range(1000)}
    assert limits_in(made_up, now=NOW) == {}
    limits = RateLimits()
    limits.note("lab", 1, made_up)
    assert scraped(limits) == {}


def test_every_recorded_header_is_read(recordings_dir: Path) -> None:
    read = 0
    for path in sorted(recordings_dir.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            headers: dict[str, str] = json.loads(line)["headers"]
            named = {
                name: value
                for name, value in headers.items()
                if "limit" in name or "remaining" in name
            }
            found = limits_in(headers, now=NOW)
            counts = [count for most, left, _ in found.values() for count in (most, left)]
            for name, value in named.items():
                assert name == name.lower()
                if not name.endswith("reset"):
                    counts.remove(float(value))
            assert set(counts) <= {None}
            resets = [reset for _, _, reset in found.values() if reset is not None]
            assert len(resets) == sum(name.endswith("reset") for name in named)
            read += len(named)
    assert read


# --- over time


class Time:
    """Both clocks, of which the one on the wall may be set."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.wall = NOW

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def limits(time: Time) -> RateLimits:
    return RateLimits(lambda: time.now, lambda: time.wall)


def scraped(limits: RateLimits, metrics: Metrics | None = None) -> dict[tuple[str, ...], float]:
    """(what, provider, key, kind) and the value of all that a scrape finds."""
    metrics = metrics or Metrics()
    limits.collect(metrics)
    found = {}
    for family in metrics.registry.collect():
        before, _, what = family.name.partition("roundhouse_provider_ratelimit_")
        if not before and what:
            for sample in family.samples:
                assert list(sample.labels) == ["provider", "key", "kind"]
                found[what, *sample.labels.values()] = sample.value
    return found


def test_a_scrape(limits: RateLimits) -> None:
    limits.note("lab", 1, SPELLINGS[0][1])
    limits.note("lab", 2, {"x-ratelimit-remaining-tokens": "5"})
    limits.note("other", 1, SPELLINGS[12][1])
    limits.note("silent", 1, {"content-type": "application/json", "date": DATE})
    metrics = Metrics()
    assert scraped(limits, metrics) == {
        ("limit", "lab", "1", "requests"): 10000,
        ("remaining", "lab", "1", "requests"): 9999,
        ("reset_seconds", "lab", "1", "requests"): 0.006,
        ("limit", "lab", "1", "tokens"): 30000000,
        ("remaining", "lab", "1", "tokens"): 29999973,
        ("reset_seconds", "lab", "1", "tokens"): 360,
        ("remaining", "lab", "2", "tokens"): 5,
        ("limit", "other", "1", "requests_minute"): 40,
        ("remaining", "other", "1", "requests_minute"): 39,
        ("limit", "other", "1", "requests_month"): 1000,
    }
    assert (
        'roundhouse_provider_ratelimit_remaining{key="2",kind="tokens",provider="lab"} 5.0'
        in generate_latest(metrics.registry).decode()
    )


def test_the_last_word_counts(limits: RateLimits) -> None:
    metrics = Metrics()
    limits.note("lab", 1, SPELLINGS[0][1])
    scraped(limits, metrics)
    limits.note("lab", 1, {"x-ratelimit-remaining-tokens": "7"})
    limits.note("lab", 1, {"content-type": "text/html"})  # says nothing of them
    assert scraped(limits, metrics) == {("remaining", "lab", "1", "tokens"): 7}


@pytest.mark.parametrize("value", ["60s", "60", "1763726460", "2025-11-21T12:01:00Z"])
@pytest.mark.parametrize("date", [{}, {"date": DATE}])
def test_resets_come_nearer(
    limits: RateLimits, time: Time, value: str, date: Mapping[str, str]
) -> None:
    limits.note("lab", 1, {"x-ratelimit-reset-tokens": value, **date})
    for passed, left in ((0, 60), (20, 40), (39, 1), (60, 0)):
        time.pass_by(passed)
        assert scraped(limits) == {("reset_seconds", "lab", "1", "tokens"): left}


def test_times_of_day_are_by_the_answers_own_clock(limits: RateLimits, time: Time) -> None:
    time.wall -= 3600
    limits.note("lab", 1, {"x-ratelimit-reset-tokens": "2025-11-21T12:01:00Z", "date": DATE})
    time.pass_by(10)
    assert scraped(limits) == {("reset_seconds", "lab", "1", "tokens"): 50}


def test_silence_is_forgotten(limits: RateLimits, time: Time) -> None:
    metrics = Metrics()
    limits.note("lab", 1, {"x-ratelimit-remaining-tokens": "5"})
    limits.note("lab", 2, {"x-ratelimit-remaining-tokens": "6"})
    time.pass_by(KEPT)
    limits.note("lab", 2, {"x-ratelimit-remaining-tokens": "7"})
    assert len(scraped(limits, metrics)) == 2
    time.pass_by(1)
    limits.note("lab", 2, {"content-type": "application/json"})
    assert scraped(limits, metrics) == {("remaining", "lab", "2", "tokens"): 7}
    time.pass_by(KEPT)
    assert scraped(limits, metrics) == {}
    limits.note("lab", 1, {"x-ratelimit-remaining-tokens": "8"})
    assert scraped(limits, metrics) == {("remaining", "lab", "1", "tokens"): 8}


def test_what_was_said_goes_with_the_key(limits: RateLimits) -> None:
    metrics = Metrics()
    limits.retain({("lab", 1): "a", ("lab", 2): "b", ("lab", 3): "c", ("den", 1): None})
    for number in (1, 2, 3):
        limits.note("lab", number, {"x-ratelimit-remaining-tokens": str(number)})
    limits.note("den", 1, {"x-ratelimit-remaining-tokens": "4"})
    limits.retain({("lab", 1): "b", ("lab", 2): "new", ("lab", 3): "a", ("den", 1): None})
    assert scraped(limits, metrics) == {
        ("remaining", "lab", "1", "tokens"): 2,
        ("remaining", "lab", "3", "tokens"): 1,
        ("remaining", "den", "1", "tokens"): 4,
    }


def test_accounts_that_are_gone_are_forgotten(limits: RateLimits) -> None:
    metrics = Metrics()
    for account in (("lab", 1), ("lab", 2), ("old", 1)):
        limits.note(*account, {"x-ratelimit-remaining-tokens": "5"})
    assert len(scraped(limits, metrics)) == 3
    limits.retain({("lab", 1): "a", ("new", 1): None})
    assert scraped(limits, metrics) == {("remaining", "lab", "1", "tokens"): 5}
    # An answer that was under way, and one of an account that is new.
    limits.note("old", 1, {"x-ratelimit-remaining-tokens": "4"})
    limits.note("new", 1, {"x-ratelimit-remaining-tokens": "3"})
    assert set(scraped(limits, metrics)) == {
        ("remaining", "lab", "1", "tokens"),
        ("remaining", "new", "1", "tokens"),
    }


def test_each_servers_metrics_are_its_own(limits: RateLimits) -> None:
    limits.note("lab", 1, {"x-ratelimit-remaining-tokens": "5"})
    one, two = Metrics(), Metrics()
    assert scraped(limits, one) == scraped(limits, two)


# --- anything at all

NAMES = st.sampled_from(
    sorted({name for _, headers, _ in SPELLINGS for name in headers} | {"date", "ratelimit-policy"})
)
#: True to form in places, so that more than the first check is reached.
VALUES = st.one_of(
    st.text(max_size=300),
    st.from_regex(r"[0-9.e+-]{1,20}[a-zµ]{0,2}"),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9:]{5}))?"),
    st.from_regex(r'("[a-z, ]{0,5}"|[rtqw]|limit|remaining)([;,=] ?"?[a-z0-9.=]{1,5}){0,5}'),
)


@pytest.mark.no_cover
@given(st.dictionaries(NAMES, VALUES))
def test_it_never_raises_and_is_never_out_of_bounds(headers: dict[str, str]) -> None:
    found = limits_in(headers, now=NOW)
    assert found.keys() <= KINDS
    for most, left, reset in found.values():
        assert all(count is None or 0 <= count <= 1e15 for count in (most, left))
        assert reset is None or 0 <= reset <= YEAR
