"""The breaker, scene by scene: from closed to open and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from server import errors
from server.routing.breaker import BreakerSettings, State
from server.routing.verdicts import VERDICTS, Verdict, verdict
from tests.routing.scenes import CLOSED, DEFAULT, HALF_OPEN, OPEN, RAMP, RESTING, Scene

# --- verdicts ----------------------------------------------------------------------------------


def outcomes() -> Iterator[str]:
    """Every outcome that an attempt can have: of the error tree, and of the loop itself."""
    tree = [errors.UpstreamError]
    for kind in tree:
        tree += kind.__subclasses__()
        yield kind.outcome
        yield from getattr(kind, "OUTCOMES", ())
    for status in range(100, 600):
        yield errors.UpstreamStatus(status, message="").outcome
    yield from ("ok", "client_gone", "slow_client", "not_ready", "shed", "internal")


def test_every_outcome_has_a_verdict_and_none_is_made_up() -> None:
    assert {*outcomes(), "forbidden"} == set(VERDICTS)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("ok", Verdict.GOOD),
        ("refused", Verdict.BAD),
        ("stall", Verdict.BAD),
        ("http_5xx", Verdict.BAD),
        ("http_4xx", Verdict.ANSWERED),
        ("http_429", Verdict.RATE_LIMITED),
        ("http_auth", Verdict.AUTH),
        ("client_gone", Verdict.NEUTRAL),
        ("deadline", Verdict.NEUTRAL),
        ("too_large", Verdict.NEUTRAL),
        ("something new", Verdict.NEUTRAL),
    ],
)
def test_verdict(outcome: str, expected: Verdict) -> None:
    assert verdict(outcome) is expected


BAD = sorted(outcome for outcome, said in VERDICTS.items() if said is Verdict.BAD)
TRIPS = (Verdict.BAD, Verdict.FORBIDDEN)
OTHERS = sorted(outcome for outcome, said in VERDICTS.items() if said not in TRIPS)


# --- tripping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", BAD)
def test_failures_in_a_row_trip_it(outcome: str) -> None:
    scene = Scene()
    assert scene.attempts(*[outcome] * 4) == [False] * 4
    assert scene.state is CLOSED
    assert scene.allow()
    assert scene.attempt(outcome)
    assert scene.state is OPEN
    assert not scene.allow(0.0)


def test_what_an_account_may_not_use_trips_at_once_and_its_credential_never() -> None:
    scene = Scene()
    assert scene.attempt("forbidden")
    assert scene.said == "open for 5 s more after 403: the account may not use it"
    scene.now += 5
    assert scene.state is State.HALF_OPEN
    assert scene.attempt("forbidden")
    credential = Scene(credential=True)
    assert not any(credential.attempts(*["forbidden"] * 10))


@pytest.mark.parametrize("outcome", OTHERS)
def test_nothing_else_trips_it(outcome: str) -> None:
    scene = Scene()
    assert not any(scene.attempts(*[outcome] * 100))
    scene.now += 1000
    assert scene.state is CLOSED


@pytest.mark.parametrize(("between", "trips"), [("ok", False), ("http_4xx", True)])
@pytest.mark.parametrize("outcome", ["reset"])
def test_only_a_good_end_breaks_the_row(between: str, trips: bool, outcome: str) -> None:
    scene = Scene()
    scene.attempts(*[outcome] * 4, between)
    assert scene.attempt(outcome) is trips


@pytest.mark.parametrize("between", ["http_4xx", "http_auth", "client_gone", "deadline"])
def test_the_neutral_reset_nothing(between: str) -> None:
    assert Scene().attempts(*["reset", between] * 5)[-2:] == [True, False]


def test_a_rate_of_failures_trips_it() -> None:
    scene = Scene()
    assert not any(scene.attempts(*["ok", "stall"] * 9, "ok"))
    assert scene.attempt("stall")
    assert scene.said == "open for 5 s more after 10 of 20 attempts failed: stall"


def test_a_lower_rate_does_not_nor_one_spread_over_time() -> None:
    scene = Scene()
    assert not any(scene.attempts(*["ok", "ok", "stall"] * 100))
    scene = Scene()
    for _ in range(100):
        assert scene.attempts("ok", "stall") == [False, False]
        scene.now += 4.0  # 16 of them in any 30 s


def test_what_began_before_it_tripped_is_no_news() -> None:
    scene = Scene()
    old = scene.begin(30)
    scene.ramping()
    for ticket, outcome in zip(old, itertools.cycle(["reset", "ok", "http_4xx"])):
        assert not scene.end(ticket, outcome)
    assert scene.state is RAMP
    assert scene.breaker.under_way == 0


def test_more_ends_than_beginnings_are_a_fault_of_ours() -> None:
    scene = Scene()
    ticket = scene.begin()[0]
    scene.end(ticket, "ok")
    with pytest.raises(ValueError, match="ended"):
        scene.end(ticket, "ok")


# --- open --------------------------------------------------------------------------------------


def test_back_off_doubles_to_the_cap_and_starts_anew_when_it_held() -> None:
    scene, waits = Scene(), []
    scene.tripped()
    for _ in range(6):
        waits.append(scene.breaker.wait(scene.now))
        scene.now += waits[-1]
        assert scene.attempt("refused")
    assert waits == [5, 10, 20, 40, 60, 60]
    scene.now += 60
    scene.attempt("ok")
    scene.now += 59
    assert scene.tripped().breaker.wait(scene.now) == 60  # it had not held for long enough
    scene.now += 60
    scene.attempt("ok")
    scene.now += 60
    assert scene.tripped().breaker.wait(scene.now) == 5


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999])
def test_jitter_shortens_it_a_little(draw: float) -> None:
    scene = Scene(replace(DEFAULT, jitter=0.2), lambda: draw).tripped()
    assert scene.breaker.wait(scene.now) == pytest.approx(5 * (1 - 0.2 * draw))


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(None, 5), (0.0, 5), (3.0, 5), (30.0, 30), (1e9, 600), (-1.0, 5), (math.nan, 5)],
)
def test_a_failure_may_say_when_to_come_back(asked: float | None, wait: float) -> None:
    scene = Scene()
    scene.attempts(*["http_5xx"] * 4)
    assert scene.attempt("http_5xx", asked)
    assert scene.breaker.wait(scene.now) == wait


# --- half open ---------------------------------------------------------------------------------


def test_one_probe_at_a_time() -> None:
    scene = Scene().half_open()
    assert scene.allow()
    probe = scene.begin()[0]
    assert not scene.allow(0.0)
    scene.now += 9.9
    assert not scene.allow(0.0)
    scene.end(probe, "ok")
    assert scene.state is RAMP


def test_a_probe_that_takes_long_keeps_nobody_from_the_next_one() -> None:
    """An answer that is no stream may take minutes."""
    scene = Scene().half_open()
    slow = scene.begin()[0]
    scene.now += 10
    assert scene.allow()
    quick = scene.begin()[0]
    assert not scene.allow(0.0)
    scene.end(slow, "ok")  # is no news any more
    assert scene.state is HALF_OPEN
    scene.end(quick, "ok")
    assert scene.state is RAMP


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        ("ok", RAMP),
        ("http_4xx", RAMP),
        ("http_auth", RAMP),
        ("client_gone", HALF_OPEN),
        ("slow_client", HALF_OPEN),
        ("not_ready", HALF_OPEN),
        ("internal", HALF_OPEN),
        ("deadline", HALF_OPEN),
        ("http_429", RESTING),
        ("http_5xx", OPEN),
        ("refused", OPEN),
    ],
)
def test_how_a_probe_ends(outcome: str, after: State) -> None:
    scene = Scene().half_open()
    assert scene.attempt(outcome) is (after is OPEN)
    assert scene.state is after
    assert scene.allow(0.0) is (after in (RAMP, HALF_OPEN))


def test_a_probe_is_good_as_soon_as_it_is_answered_and_bad_if_it_breaks_off() -> None:
    scene = Scene().half_open()
    probe = scene.begin()[0]
    scene.breaker.answering(scene.now, probe)
    assert scene.state is RAMP
    assert scene.end(probe, "stall")
    assert scene.said == "open for 10 s more after 1 of 2 attempts failed: stall"


def test_the_answers_of_others_change_nothing() -> None:
    scene = Scene()
    old = scene.begin()[0]
    scene.half_open()
    scene.begin()
    scene.breaker.answering(scene.now, old)
    assert scene.state is HALF_OPEN
    assert not scene.end(old, "ok")
    assert scene.state is HALF_OPEN


# --- the ramp ----------------------------------------------------------------------------------


def test_the_share_grows_in_steps() -> None:
    scene, shares = Scene().ramping(), []
    for _ in range(16):
        shares.append(sum(scene.allow(draw / 100) for draw in range(100)))
        scene.now += 1.0
    assert shares == [10] * 5 + [25] * 5 + [50] * 5 + [100]
    assert scene.state is CLOSED


def test_a_draw_of_nothing_is_let_through_on_the_ramp() -> None:
    assert Scene().ramping().allow(0.0)


def test_no_ramp_is_a_ramp_too() -> None:
    scene = Scene(replace(DEFAULT, ramp=())).half_open()
    scene.attempt("ok")
    assert scene.state is CLOSED


def test_on_the_ramp_the_rate_counts_from_the_first() -> None:
    assert Scene().ramping().attempt("reset")
    scene = Scene().ramping()
    assert scene.attempts("ok", "reset", "ok", "reset", "reset") == [False] * 4 + [True]
    scene = Scene().ramping()
    scene.attempts(*["ok"] * 50)
    assert scene.attempts(*["reset"] * 5) == [False] * 4 + [True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"volume": 0},
        {"rate": 0.0},
        {"rate": 1.1},
        {"rate": math.nan},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"ramp": (0.5, 0.0)},
        {"ramp": (1.5,)},
        {"window": 0.0},
        {"open_first": 0.0},
        {"ramp_step": 0.0},
        {"rest_first": 0.0},
        {"open_first": 61.0},
        {"rest_first": 601.0},
        {"forget": -1.0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="contradict"):
        BreakerSettings(**wrong)  # type: ignore[arg-type]


def test_one_failure_may_be_enough() -> None:
    assert Scene(replace(DEFAULT, volume=1, rate=1.0)).attempt("reset")
