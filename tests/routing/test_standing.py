"""What is kept of a target: two breakers in one answer, latencies, and what a reload leaves."""

from __future__ import annotations

import pytest

from server.routing.breaker import Breaker, BreakerSettings, State
from server.routing.standing import Standing, Standings
from tests.routing.scenes import CLOSED, HALF_OPEN, OPEN, RAMP, RESTING

ACCOUNT = ("lab", "digest of a key")


@pytest.fixture
def standings() -> Standings:
    return Standings(lambda: 0.0)


def attempt(
    standing: Standing, outcome: str, now: float = 0.0, retry_after: float | None = None
) -> None:
    standing.ended(now, standing.began(now), outcome, retry_after)


def fails(standing: Standing, now: float = 0.0) -> Standing:
    for _ in range(5):
        attempt(standing, "reset", now)
    return standing


# --- which is which


def test_one_key_one_standing(standings: Standings) -> None:
    one = standings.of("lab/a", ACCOUNT)
    assert standings.of("lab/a", ACCOUNT) is one
    other = standings.of("lab/b", ACCOUNT)
    assert other is not one
    assert other.breaker is not one.breaker
    assert other.credential is one.credential is not None
    assert [standing.key for standing in standings] == ["lab/a", "lab/b"]
    assert [provider for provider, _ in standings.credentials()] == ["lab"]


def test_an_engine_has_no_credential(standings: Standings) -> None:
    one = standings.of("engine/e")
    assert one.credential is None
    assert list(standings.credentials()) == []
    attempt(one, "http_auth")
    assert one.clear(lambda: 0)


def test_another_secret_is_another_credential(standings: Standings) -> None:
    one = standings.of("lab/a", ACCOUNT)
    attempt(one, "http_auth")
    assert one.state(1) is OPEN
    assert standings.of("lab/a", ("lab", "another")) is one
    assert one.clear(lambda: 1)
    # The same secret at another provider is no more the same.
    elsewhere = standings.of("den/a", ("den", ACCOUNT[1]))
    assert elsewhere.clear(lambda: 1)


def test_a_credential_that_comes_back_is_remembered(standings: Standings) -> None:
    attempt(standings.of("lab/a", ACCOUNT), "http_auth")
    standings.of("lab/a", ("lab", "another"))
    assert not standings.of("lab/a", ACCOUNT).clear(lambda: 1)


def test_what_is_kept_goes_with_the_credential(standings: Standings) -> None:
    """Whichever place the keys of an account have in its list."""
    first, second = ("lab", "first"), ("lab", "second")
    names = ("lab/a", "lab/a#2")

    def of(*credentials: tuple[str, str]) -> list[Standing]:
        found = zip(names, credentials, strict=False)
        return [standings.of(name, one, "lab/a", "lab/a", credentials) for name, one in found]

    (one,) = of(first)
    assert of(second, first)[1] is one
    assert [standing.key for standing in of(first, second)] == list(names)
    assert of(first, second)[0] is one
    two = of(first, second)[1]
    assert of(second) == [two]
    standings.retain(["lab/a"])
    assert list(standings) == [two]
    assert of(second, first)[1] is not one
    attempt(two, "http_429", 60)
    assert two.state(1) is RESTING
    assert of(("lab", "third")) == [two]
    assert two.clear(lambda: 1)


# --- both breakers


def test_faults_are_the_targets_alone(standings: Standings) -> None:
    one, two = standings.of("lab/a", ACCOUNT), standings.of("lab/b", ACCOUNT)
    fails(one)
    assert one.breaker.state(0) is OPEN
    assert one.credential is not None
    assert one.credential.state(0) is CLOSED
    assert two.clear(lambda: 0)
    assert one.explain(0).startswith("open for 5 s more")
    assert two.explain(0) == ""


def test_a_refused_credential_is_of_all_who_send_it(standings: Standings) -> None:
    one, two = standings.of("lab/a", ACCOUNT), standings.of("lab/b", ACCOUNT)
    attempt(one, "http_auth")
    for standing in (one, two):
        assert standing.breaker.state(0) is CLOSED
        assert standing.state(0) is OPEN
        assert not standing.clear(lambda: 0)
        assert not standing.allow(0, 0.0, panic=False)
        assert standing.wait(0) == 30
        assert standing.explain(0).startswith("its credential is open for 30 s more")
    assert not standings.of("lab/c", ("lab", "another")).wait(0)


def test_panic_is_about_targets(standings: Standings) -> None:
    one = fails(standings.of("lab/a", ACCOUNT))
    assert not one.allow(0, 0.0, panic=False)
    assert one.allow(0, 0.0, panic=True)
    attempt(one, "http_auth")
    assert not one.allow(0, 0.0, panic=True)


def test_the_longer_wait_counts(standings: Standings) -> None:
    one = standings.of("lab/a", ACCOUNT)
    attempt(one, "http_429", retry_after=9)
    assert (one.wait(0), one.state(0)) == (9, RESTING)
    attempt(one, "http_auth")
    assert one.wait(0) == 30
    attempt(one, "http_429", retry_after=100)
    assert one.wait(0) == 100
    assert "; its credential is open" in one.explain(0)


class Acting(Breaker):
    """Whatever its state, by the test's word."""

    def __init__(self, state: State) -> None:
        super().__init__(lambda: 0.0)
        self.acted = state
        self.untroubled = state is CLOSED

    def state(self, now: float) -> State:
        return self.acted


#: From well to out.
ORDER = [CLOSED, RAMP, HALF_OPEN, RESTING, OPEN]


@pytest.mark.parametrize("own", ORDER)
@pytest.mark.parametrize("other", [CLOSED, RAMP, HALF_OPEN, OPEN])
def test_the_worse_of_both_states(own: State, other: State) -> None:
    """A credential never rests."""
    standing = Standing("x", Acting(own), Acting(other))
    expected = max(own, other, key=ORDER.index)
    if own is RESTING:  # that it comes back is worth more than that it is refused
        expected = RESTING
    assert standing.state(0) is expected
    assert standing.clear(lambda: 0) == (own is other is CLOSED)


def test_a_recovering_credential_lets_through_by_the_same_draw(standings: Standings) -> None:
    one = standings.of("lab/a", ACCOUNT)
    attempt(one, "http_auth")
    probe = one.began(30)
    two = standings.of("lab/b", ACCOUNT)
    assert not two.allow(30, 0.0, panic=False)
    one.ended(31, probe, "ok", whole=True)
    assert two.state(31) is RAMP
    assert two.allow(31, 0.09, panic=False)
    assert not two.allow(31, 0.11, panic=False)


def test_the_first_event_is_enough_for_both_probes(standings: Standings) -> None:
    one = standings.of("lab/a", ACCOUNT)
    attempt(one, "http_auth")
    fails(one)
    probe = one.began(30)
    assert one.state(30) is HALF_OPEN
    one.answering(31, probe)
    assert one.state(31) is RAMP
    one.ended(40, probe, "ok")
    assert one.in_flight == 0


def test_one_that_is_refused_after_another_was_is_no_news(standings: Standings) -> None:
    """Of many under way together the first refusal opens it, once."""
    one = standings.of("lab/a", ACCOUNT)
    begun = [one.began(0) for _ in range(5)]
    for each in begun:
        one.ended(1, each, "http_auth")
    assert one.wait(1) == 30
    assert one.credential is not None
    assert one.credential.under_way == 0
    assert one.clear(lambda: 0) is False
    probe = one.began(31)
    one.ended(32, probe, "ok")
    assert one.state(32) is RAMP


@pytest.mark.parametrize("outcome", ["reset", "http_429", "http_4xx", "client_gone", "forbidden"])
def test_what_is_no_matter_of_a_credential(standings: Standings, outcome: str) -> None:
    one = standings.of("lab/a", ACCOUNT)
    for _ in range(10):
        attempt(one, outcome)
    assert one.credential is not None
    assert one.credential.state(0) is CLOSED


def test_a_target_that_fails_is_no_bad_probe_of_its_credential(standings: Standings) -> None:
    """It says nothing, and the next one finds out."""
    one, two = standings.of("lab/a", ACCOUNT), standings.of("lab/b", ACCOUNT)
    attempt(one, "http_auth")
    attempt(one, "reset", 30)
    assert one.credential is not None
    assert one.credential.state(30) is HALF_OPEN
    assert two.allow(30, 0.0, panic=False)


# --- counts and latencies


def test_what_is_under_way(standings: Standings) -> None:
    one = standings.of("lab/a")
    begun = [one.began(0) for _ in range(3)]
    assert standings.in_flight("lab/a") == one.in_flight == 3
    for each in begun:
        one.ended(1, each, "ok")
    assert standings.in_flight("lab/a") == 0
    assert standings.in_flight("nobody") == 0


def test_latencies_of_streams_and_of_whole_answers(standings: Standings) -> None:
    one = standings.of("lab/a")
    stream = one.began(0)
    one.answering(2, stream)
    one.ended(60, stream, "ok")
    assert (one.first.value(60), one.whole.value(60)) == (2.0, None)
    one.ended(109, one.began(100), "ok", whole=True)
    assert one.whole.value(109) == 9.0
    assert one.first.value(109) == 2.0


@pytest.mark.parametrize("whole", [True, False])
def test_one_that_keeps_silent_is_as_slow_as_it_was_waited_for(
    standings: Standings, whole: bool
) -> None:
    one = standings.of("lab/a")
    one.ended(30, one.began(0), "first_byte_timeout", whole=whole)
    expected = (None, 30.0) if whole else (30.0, None)
    assert (one.first.value(30), one.whole.value(30)) == expected


@pytest.mark.parametrize("outcome", ["refused", "http_5xx", "http_429", "client_gone", "stall"])
@pytest.mark.parametrize("whole", [True, False])
def test_what_failed_fast_is_not_called_fast(
    standings: Standings, outcome: str, whole: bool
) -> None:
    one = standings.of("lab/a")
    one.ended(0.001, one.began(0), outcome, whole=whole)
    assert (one.first.value(1), one.whole.value(1)) == (None, None)


# --- reloads


def test_new_settings_begin_anew_and_old_attempts_end_where_they_began(
    standings: Standings,
) -> None:
    one = fails(standings.of("lab/a", ACCOUNT))
    attempt(one, "http_auth")
    begun, before = one.began(0), one.breaker
    standings.configure(BreakerSettings(failures=1))
    assert one.breaker is not before
    assert one.breaker.state(0) is CLOSED
    # The credential's are not the user's to set.
    assert one.state(0) is OPEN
    one.ended(1, begun, "reset")
    assert one.in_flight == before.under_way == one.breaker.under_way == 0
    assert one.breaker.state(1) is CLOSED
    attempt(one, "reset", 40)
    assert one.breaker.state(40) is OPEN
    assert standings.of("lab/new").breaker.state(0) is CLOSED


def test_the_same_settings_change_nothing(standings: Standings) -> None:
    one = fails(standings.of("lab/a"))
    standings.configure(BreakerSettings())
    assert one.state(0) is OPEN


def test_who_is_gone_is_forgotten_once_nothing_is_under_way(standings: Standings) -> None:
    stays, goes = standings.of("lab/a", ACCOUNT), standings.of("lab/b", ("lab", "other"))
    busy = standings.of("lab/c", ("den", "x"))
    begun = busy.began(0)
    standings.retain({"lab/a"})
    assert [one.key for one in standings] == ["lab/a", "lab/c"]
    assert [provider for provider, _ in standings.credentials()] == ["lab", "den"]
    busy.ended(1, begun, "ok")
    standings.retain({"lab/a"})
    assert list(standings) == [stays]
    assert len(list(standings.credentials())) == 1
    assert standings.of("lab/b") is not goes


def test_a_replica_that_is_gone_ends_what_it_has(standings: Standings) -> None:
    one = standings.of("engine/e@10.0.0.1:8000")
    begun = one.began(0)
    standings.forget(["engine/e@10.0.0.1:8000", "engine/e@nobody"])
    assert list(standings) == []
    again = standings.of("engine/e@10.0.0.1:8000")
    one.ended(1, begun, "ok")
    assert (one.in_flight, again.in_flight) == (0, 0)
