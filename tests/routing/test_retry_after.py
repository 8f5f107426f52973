"""Retry-After in all its dialects, and in none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routing.breaker import BreakerSettings
from server.routing.retry_after import LEAST, MOST, seconds_in

#: Sunday, 6 November 1994, 08:49:37 GMT: the date of RFC 9110's examples.
NOW = 784_111_777.0

NUMBERS = [
    ("0", LEAST),
    ("0.1", LEAST),
    ("1", 1.0),
    ("2.5", 2.5),
    ("7.", 7.0),
    (" 30\t", 30.0),
    ("600", MOST),
    ("601", MOST),
    ("9" * 60, MOST),
    ("", None),
    ("-1", None),
    ("-0", None),
    ("+1", None),
    (".5", None),
    ("1e2", None),
    ("1e400", None),
    ("nan", None),
    ("inf", None),
    ("0x10", None),
    ("1_000", None),
    ("٣", None),
    ("5, 5", None),
    ("5 s", None),
    ("soon", None),
    ("1" * 10_000, None),
    (" " * 10_000, None),
]

DATES = [
    ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
    ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
    ("Sun Nov  6 08:50:37 1994", 60.0),
    ("Sun, 06 Nov 1994 09:50:37 +0100", 60.0),
    ("Sun, 06 Nov 1994 08:50:37 -0000", 60.0),
    ("Sun, 06 Nov 1994 08:49:37 GMT", LEAST),
    ("Sun, 06 Nov 1994 08:49:36 GMT", LEAST),
    ("Thu, 01 Jan 1970 00:00:00 GMT", LEAST),
    ("Fri, 31 Dec 9999 23:59:59 GMT", MOST),
    ("Fri, 31 Dec 9999 23:59:59 -2359", MOST),
    ("Fri, 31 Dec 9999 23:59:59 -9999", None),
    ("Sun, 06 Nov 99999 08:50:37 GMT", None),
    ("Sun, 32 Nov 1994 08:50:37 GMT", None),
    ("Sun, 06 Nov 1994 08:50:37 +999999999999", None),
    ("Sun, 06 Nov 1994", None),
]

DURATIONS = [
    ("1s", 1.0),
    ("6m0s", 360.0),
    ("20ms", LEAST),
    ("300ms", 0.3),
    ("2m59.56s", 179.56),
    ("9m3.5s", 543.5),
    ("1h2m3.5s", MOST),
    ("1d", MOST),
    ("2d", MOST),
    ("350us", LEAST),
    ("350000us", 0.35),
    ("350000µs", 0.35),
    ("5ns", LEAST),
    ("11.38", 11.38),
    # Of what is a date and no duration there is nothing to be made.
    ("1741305600000", None),
    ("1741305600", None),
    # Zero: a limit that the provider does not count.
    ("0", None),
    ("0s", None),
    ("", None),
    ("s", None),
    ("-1s", None),
    ("1s ago", None),
    ("1S", None),
    ("nans", None),
    ("1e400s", None),
    ("9" * 50 + "d", MOST),
    ("1s" * 5000, None),
]

MOMENTS = [
    ("1994-11-06T08:50:37Z", 60.0),
    ("1994-11-06t08:50:37z", 60.0),
    ("1994-11-06T08:50:37.5Z", 60.5),
    ("1994-11-06T08:50:37.123456789123Z", 60.123456),
    ("1994-11-06T09:50:37+01:00", 60.0),
    ("9999-12-31T23:59:59Z", MOST),
    ("9999-12-31T23:59:59-23:59", MOST),
    # What is over is a limit that is whole again.
    ("1994-11-06T08:49:37Z", None),
    ("0001-01-01T00:00:00+23:59", None),
    ("0000-01-01T00:00:00Z", None),
    ("1994-11-06T08:50:61Z", None),
    ("1994-11-06T08:50:37", None),
    ("1994-11-06", None),
    ("19941106T085037Z", None),
    ("1994-W44-7T08:50:37Z", None),
    ("60", None),
    ("Z" * 10_000, None),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS + DATES)
def test_retry_after(value: str, expected: float | None) -> None:
    assert seconds_in({"retry-after": value}, now=NOW) == expected


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_retry_after_ms(value: str, expected: float | None) -> None:
    found = seconds_in({"retry-after-ms": value}, now=NOW)
    if expected is None or len(value) > 20:
        assert found == expected
    else:
        assert found == pytest.approx(max(LEAST, float(value) / 1000))


def test_milliseconds_know_no_dates() -> None:
    assert seconds_in({"retry-after-ms": DATES[0][0]}, now=NOW) is None


@pytest.mark.parametrize(("value", "expected"), DURATIONS)
@pytest.mark.parametrize("limit", ["requests", "tokens", "tokens-minute"])
def test_resets_as_openai_sends_them(limit: str, value: str, expected: float | None) -> None:
    found = seconds_in({f"x-ratelimit-reset-{limit}": value}, now=NOW)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("value", "expected"), MOMENTS)
@pytest.mark.parametrize("limit", ["requests", "input-tokens"])
def test_resets_as_anthropic_sends_them(limit: str, value: str, expected: float | None) -> None:
    found = seconds_in({f"anthropic-ratelimit-{limit}-reset": value}, now=NOW)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-5))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"content-type": "application/json", "date": DATES[0][0]}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "0", "retry-after": "2"}, LEAST),
        ({"retry-after": "2", "x-ratelimit-reset-tokens": "9s"}, 2.0),
        ({"retry-after": "soon", "x-ratelimit-reset-tokens": "9s"}, 9.0),
        # The longest of the limits that are used up.
        ({"x-ratelimit-reset-requests": "3s", "x-ratelimit-reset-tokens": "9s"}, 9.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "3s",
                "x-ratelimit-remaining-tokens": "17",
                "x-ratelimit-reset-tokens": "9s",
            },
            3.0,
        ),
        ({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "9s"}, None),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "9s"}, 9.0),
        ({"x-ratelimit-remaining-tokens": "1" * 100, "x-ratelimit-reset-tokens": "9s"}, 9.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "40",
                "anthropic-ratelimit-requests-reset": "1994-11-06T08:52:37Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "1994-11-06T08:50:37Z",
            },
            60.0,
        ),
        # A limit, and no time.
        ({"anthropic-ratelimit-requests-limit": "50", "x-ratelimit-limit-tokens": "1"}, None),
    ],
)
def test_what_goes_first(headers: dict[str, str], expected: float | None) -> None:
    assert seconds_in(headers, now=NOW) == expected


def test_the_client_is_told_no_other_time_than_the_target_rests() -> None:
    assert BreakerSettings().rest_cap == MOST
    assert BreakerSettings().rest_first / 4 == LEAST


def test_times_of_day_are_by_the_answers_own_clock() -> None:
    answer = {"date": "Sun, 06 Nov 1994 08:50:07 GMT"}
    in_a_minute = {"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT"}
    reset = {"anthropic-ratelimit-tokens-reset": "1994-11-06T08:50:37Z"}
    for said in (in_a_minute, reset):
        assert seconds_in(said, now=NOW) == 60
        assert seconds_in({**said, **answer}, now=NOW) == 30
        assert seconds_in({**said, **answer}, now=NOW + 5000) == 30
        assert seconds_in({**said, "date": "today"}, now=NOW) == 60
    assert seconds_in({"retry-after": "7", **answer}, now=NOW) == 7


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "100"},
        {"retry-after-ms": "100000"},
        {"retry-after": "Sun, 06 Nov 1994 08:51:37 GMT"},
        {"x-ratelimit-reset-tokens": "100s"},
        {"anthropic-ratelimit-tokens-reset": "1994-11-06T08:51:37Z"},
    ],
)
def test_the_cap_is_the_callers(headers: dict[str, str]) -> None:
    assert seconds_in(headers, now=NOW, cap=60) == 60
    found = seconds_in(headers, now=NOW)
    assert found is not None
    assert found > 60


NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "date",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-tokens-remaining",
    ]
)
#: True to form in places, so that more than the first check is reached.
VALUES = st.one_of(
    st.text(max_size=70),
    st.from_regex(r"[0-9.e+-]{1,20}[a-zµ]{0,2}"),
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})"
    ),
    st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,2} (Jan|Nov) [0-9]{1,6} [0-9:]{1,8}( GMT| [+-][0-9]{1,12})?"
    ),
)


@pytest.mark.no_cover
@given(st.dictionaries(NAMES, VALUES))
def test_it_never_raises_and_is_never_out_of_bounds(headers: dict[str, str]) -> None:
    found = seconds_in(headers, now=NOW, cap=100.0)
    assert found is None or LEAST <= found <= 100
