"""The breaker, scene by scene: rate limits, panic, credentials, and what it says of itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from server.routing.breaker import CREDENTIAL, Breaker, State, in_panic
from server.routing.verdicts import VERDICTS
from tests.routing.scenes import CLOSED, HALF_OPEN, OPEN, RAMP, RESTING, Scene

# --- rate limits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "rest"), [(0.0, 0), (0.25, 0.25), (12.0, 12), (601.0, 600), (math.inf, 600)]
)
def test_it_rests_exactly_as_long_as_it_was_asked_to(asked: float, rest: float) -> None:
    scene = Scene(jitter=lambda: 0.9)
    scene.attempt("http_429", asked)
    assert scene.breaker.wait(scene.now) == rest
    if rest:
        assert scene.state is RESTING
        assert not scene.allow(0.0)
        assert not scene.allow(0.0, panic=True)
    scene.now += rest
    assert scene.state is CLOSED
    assert scene.allow()


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    scene = Scene()
    first, second = scene.begin(2)
    scene.end(first, "http_429", 30.0)
    scene.now += 1
    scene.end(second, "http_429", 2.0)
    assert scene.breaker.wait(scene.now) == 29


@pytest.mark.parametrize("asked", [None, -5.0, math.nan])
def test_without_a_time_rests_double_until_a_good_answer(asked: float | None) -> None:
    scene, rests = Scene(), []
    for _ in range(11):
        scene.attempt("http_429", asked)
        rests.append(scene.breaker.wait(scene.now))
        scene.now += rests[-1]
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]
    scene.attempts("ok", "http_429")
    assert scene.breaker.wait(scene.now) == 1


def test_those_refused_together_are_one_refusal() -> None:
    scene = Scene()
    for ticket in scene.begin(20):
        scene.end(ticket, "http_429")
    assert scene.breaker.wait(scene.now) == 1


def test_a_rest_is_no_failure_and_no_health() -> None:
    scene = Scene()
    assert scene.attempts(*["reset"] * 4, "http_429", "reset") == [False] * 5 + [True]


def test_after_a_rest_the_ramp_starts_again() -> None:
    scene = Scene().ramping()
    scene.now += 12
    scene.attempt("http_429", 30.0)
    assert scene.state is RESTING
    scene.now += 30
    assert scene.state is RAMP
    assert not scene.allow(0.1)
    scene.now += 15
    assert scene.state is CLOSED


def test_a_rest_while_open_outlasts_it() -> None:
    scene = Scene()
    late = scene.begin()[0]
    scene.tripped()
    scene.end(late, "http_429", 8.0)
    assert scene.state is OPEN
    assert scene.breaker.wait(scene.now) == 8
    scene.now += 5
    assert scene.state is RESTING
    assert not scene.allow(0.0)
    scene.now += 3
    assert scene.state is HALF_OPEN


# --- panic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], False),
        ([CLOSED], False),
        ([OPEN], True),
        ([OPEN, CLOSED], False),
        ([OPEN, HALF_OPEN, CLOSED], True),
        ([OPEN, OPEN, CLOSED, CLOSED], False),
        ([OPEN, RAMP], False),
        ([OPEN, RESTING, RESTING], False),
        ([RESTING, RESTING], False),
    ],
)
def test_panic(states: list[State], expected: bool) -> None:
    assert in_panic(states) is expected
    assert in_panic(iter(states)) is expected


def test_the_threshold_is_the_callers() -> None:
    states = [OPEN, OPEN, OPEN, CLOSED]
    assert in_panic(states, 0.74)
    assert not in_panic(states, 0.75)
    assert not in_panic([OPEN], 1.0)


def test_in_a_panic_only_the_probe_decides() -> None:
    scene = Scene().tripped()
    assert scene.allow(panic=True)
    first, second = scene.begin(2)
    assert not scene.end(first, "ok")
    assert not scene.end(second, "reset")
    assert scene.state is OPEN
    scene.now += 5
    probe, beside = scene.begin(2)
    assert scene.allow(panic=True)
    assert not scene.end(beside, "reset")
    assert scene.state is HALF_OPEN
    scene.end(probe, "ok")
    assert scene.state is RAMP
    assert scene.allow(panic=True)


# --- credentials -------------------------------------------------------------------------------


def test_a_refusal_trips_a_credential_and_nothing_else_does() -> None:
    scene = Scene(replace(CREDENTIAL, jitter=0.0), credential=True)
    others = sorted(set(VERDICTS) - {"http_auth"})
    assert not any(scene.attempts(*others * 10))
    assert scene.attempt("http_auth")
    assert scene.said == "open for 30 s more after 1 failure: http_auth"
    scene.now += 30
    assert scene.state is HALF_OPEN
    for outcome in ("reset", "http_429", "client_gone"):  # which say nothing of a credential
        scene.attempt(outcome, 50.0)
        assert scene.state is HALF_OPEN
    scene.attempt("http_4xx")
    assert scene.state is RAMP
    assert scene.attempt("http_auth")


def test_a_credential_has_settings_of_its_own() -> None:
    breaker = Breaker(lambda: 0.0, credential=True)
    assert breaker.ended(0.0, breaker.began(0.0), "http_auth")
    assert breaker.wait(0.0) == CREDENTIAL.open_first


# --- words -------------------------------------------------------------------------------------


def test_what_it_says_of_itself() -> None:
    scene = Scene()
    assert scene.said == "closed"
    scene.attempt("refused")
    assert scene.said == "closed, 1 failure: refused"
    scene.attempts("refused", "stall")
    assert scene.said == "closed, 3 failures in a row: stall"
    scene.attempts("reset", "reset")
    assert scene.said == "open for 5 s more after 5 failures in a row: reset"
    scene.now += 4.9
    assert scene.said == "open for 1 s more after 5 failures in a row: reset"
    scene.now += 0.1
    assert scene.said == "half open, waits for a probe, after 5 failures in a row: reset"
    probe = scene.begin()[0]
    assert scene.said == "half open, its probe is under way, after 5 failures in a row: reset"
    scene.end(probe, "dns")
    assert scene.said == "open for 10 s more after a failed probe: dns"
    scene.now += 10
    scene.attempt("ok")
    assert scene.said == "recovers: takes 10% of its requests, all in 15 s"
    scene.now += 5
    assert scene.said == "recovers: takes 25% of its requests, all in 10 s"
    scene.attempt("http_429", 12.0)
    assert scene.said == "rests for 12 s more: it is rate limited"
    scene.now += 12 + 15
    assert scene.said == "closed"


def test_a_rest_during_the_probe_delays_the_ramp() -> None:
    scene = Scene()
    late = scene.begin()[0]
    scene.half_open()
    probe = scene.begin()[0]
    scene.end(late, "http_429", 40.0)
    scene.end(probe, "ok")
    assert scene.state is RESTING
    scene.now += 40
    assert scene.state is RAMP
    assert not scene.allow(0.1)
