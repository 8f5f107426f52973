"""Limits of keys: tables, and a state machine that holds the books."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.access.limits import (
    KeyLimits,
    Lease,
    Limiter,
    Reason,
    Refusal,
    Standing,
    Standings,
    duration,
)


def let_in(answer: Lease | Refusal) -> Lease:
    assert isinstance(answer, Lease)
    return answer


def refused(answer: Lease | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


def test_without_limits_all_is_counted_and_nothing_refused() -> None:
    limiter = Limiter()
    leases = [let_in(limiter.admit("a", KeyLimits(), 10**9, 0.0)) for _ in range(100)]
    assert limiter.in_flight("a") == 100
    assert leases[0].standings == Standings()
    assert leases[0].standings.headers() == {}
    for lease in leases:
        lease.settle(1.0, 5)
    assert (limiter.in_flight("a"), limiter.used) == (0, 500)
    assert limiter.in_flight("nobody") == 0


def test_requests_per_minute_come_back_evenly() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=60)
    for left in reversed(range(60)):
        standing = let_in(limiter.admit("a", limits, 0, 100.0)).standings.requests
        assert standing == Standing(60, left, 60.0 - left)
    refusal = refused(limiter.admit("a", limits, 0, 100.0))
    assert (refusal.reason, refusal.limit, refusal.retry_after) == (Reason.REQUESTS, 60, 1.0)
    assert refused(limiter.admit("a", limits, 0, 100.5)).retry_after == pytest.approx(0.5)
    let_in(limiter.admit("a", limits, 0, 101.0))
    let_in(limiter.admit("b", limits, 0, 100.0))
    assert limiter.standings("a", limits, 1000.0) == Standings(Standing(60, 60, 0.0))


def test_tokens_are_reserved_and_then_settled() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    lease = let_in(limiter.admit("a", limits, 500, 0.0))
    assert lease.standings.tokens == Standing(600, 100, 50.0)
    refusal = refused(limiter.admit("a", limits, 200, 0.0))
    assert (refusal.reason, refusal.limit, refusal.asked) == (Reason.TOKENS, 600, 200)
    assert refusal.retry_after == pytest.approx(10.0)
    lease.settle(0.0, 50)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 550, 5.0)
    assert lease.ended


def test_an_answer_longer_than_reserved_is_a_debt() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    let_in(limiter.admit("a", limits, 100, 0.0)).settle(0.0, 900)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 0, 90.0)
    assert refused(limiter.admit("a", limits, 1, 0.0)).retry_after == pytest.approx(30.1)


def test_a_failure_gives_its_tokens_back_and_stays_a_request() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=10, tpm=600)
    let_in(limiter.admit("a", limits, 600, 0.0)).release(0.0)
    after = limiter.standings("a", limits, 0.0)
    assert after == Standings(Standing(10, 9, 6.0), Standing(600, 600, 0.0))
    let_in(limiter.admit("a", limits, 600, 0.0)).release(0.0, uncount=True)
    assert limiter.standings("a", limits, 0.0) == after


def test_tokens_nobody_counted_stay_as_reserved() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    let_in(limiter.admit("a", limits, 200, 0.0)).settle(0.0, None)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 400, 20.0)
    assert limiter.used == 200


def test_no_targets_word_locks_a_key_for_long() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    leases = [let_in(limiter.admit("a", limits, 10, 0.0)) for _ in range(2)]
    for lease, used in zip(leases, (4_000_000_000, 600), strict=True):
        lease.settle(0.0, used)
        assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 0, 600.0)
    assert limiter.used == 4_000_000_600
    refusal = limiter.admit("a", limits, 600, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == 600
    assert isinstance(limiter.admit("a", limits, 600, 600.0), Lease)


def test_what_a_long_answer_took_is_owed_whole() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    let_in(limiter.admit("a", limits, 600, 0.0)).settle(0.0, 5999)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 0, 599.9)


def test_a_lease_ends_once() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=10, tpm=600)
    lease = let_in(limiter.admit("a", limits, 100, 0.0))
    lease.settle(0.0, 100)
    before = limiter.standings("a", limits, 0.0)
    lease.settle(0.0, 9)
    lease.release(0.0, uncount=True)
    assert limiter.standings("a", limits, 0.0) == before
    assert (limiter.in_flight("a"), limiter.settled, limiter.released) == (0, 100, 0)


@given(st.floats(0, 1e7), st.integers(1, 10**7), st.integers(1, 10**4), st.integers(0, 10**7))
def test_who_waits_as_told_is_let_in(now: float, tpm: int, rpm: int, tokens: int) -> None:
    """On a machine that is up for a year, too, where seconds are coarser than a token's time."""
    limiter, limits = Limiter(), KeyLimits(rpm=rpm, tpm=tpm)
    tokens = 1 + tokens % tpm
    for _ in range(20):
        answer = limiter.admit("a", limits, tokens, now)
        if isinstance(answer, Refusal):
            assert answer.retry_after is not None
            now += answer.retry_after
            let_in(limiter.admit("a", limits, tokens, now))


def test_more_than_a_minute_holds_never_fits() -> None:
    limiter, limits = Limiter(), KeyLimits(tpm=600)
    refusal = refused(limiter.admit("a", limits, 601, 0.0))
    assert (refusal.reason, refusal.asked, refusal.retry_after) == (Reason.TOO_LARGE, 601, None)
    let_in(limiter.admit("a", limits, 600, 0.0))


def test_a_limit_of_nothing() -> None:
    refusal = refused(Limiter().admit("a", KeyLimits(rpm=0), 0, 0.0))
    assert (refusal.reason, refusal.retry_after) == (Reason.REQUESTS, None)
    assert refusal.standings.requests == Standing(0, 0, 0.0)


def test_so_much_at_one_time() -> None:
    limiter, limits = Limiter(), KeyLimits(max_in_flight=2)
    lease, _ = (let_in(limiter.admit("a", limits, 0, 0.0)) for _ in range(2))
    refusal = refused(limiter.admit("a", limits, 0, 0.0))
    assert (refusal.reason, refusal.limit, refusal.asked) == (Reason.IN_FLIGHT, 2, 3)
    assert refusal.retry_after is None
    lease.release(0.0)
    let_in(limiter.admit("a", limits, 0, 0.0))


def test_the_limit_that_keeps_longest_is_named_and_nothing_is_taken() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=1, tpm=600)
    let_in(limiter.admit("a", limits, 10, 0.0))
    refusal = refused(limiter.admit("a", limits, 599, 0.0))
    assert (refusal.reason, refusal.retry_after) == (Reason.REQUESTS, 60.0)
    assert limiter.reserved == 10
    assert refusal.standings.tokens == Standing(600, 590, 1.0)


def test_a_reload_counts_at_once() -> None:
    limiter = Limiter()
    let_in(limiter.admit("a", KeyLimits(tpm=600), 600, 0.0))
    more = limiter.standings("a", KeyLimits(tpm=1200), 30.0).tokens
    assert more == Standing(1200, 900, 15.0)  # half a minute at the old rate gave 300 back
    assert limiter.standings("a", KeyLimits(), 30.0) == Standings()
    assert limiter.standings("a", KeyLimits(tpm=60), 30.0).tokens == Standing(60, 60, 0.0)


def test_a_limit_that_came_while_a_request_was_under_way() -> None:
    """It was reserved without a limit: it gives nothing back that it had not taken."""
    limiter, limits = Limiter(), KeyLimits(rpm=10, tpm=600)
    failed, done = (let_in(limiter.admit("a", KeyLimits(), 100, 0.0)) for _ in range(2))
    let_in(limiter.admit("a", limits, 300, 0.0))
    failed.release(0.0)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 300, 30.0)
    done.settle(0.0, 80)
    assert limiter.standings("a", limits, 0.0).tokens == Standing(600, 220, 38.0)


def test_keys_that_are_gone_are_forgotten_when_nothing_is_under_way() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=10)
    lease = let_in(limiter.admit("a", limits, 1, 0.0))
    let_in(limiter.admit("b", limits, 1, 0.0)).settle(0.0, 1)
    limiter.retain(["c"])
    assert limiter.in_flight("a") == 1
    assert limiter.standings("b", limits, 0.0).requests == Standing(10, 10, 0.0)
    lease.settle(0.0, 1)
    limiter.retain(["a"])
    assert limiter.standings("a", limits, 0.0).requests == Standing(10, 9, 6.0)


def test_a_clock_that_goes_back_pays_nothing() -> None:
    limiter, limits = Limiter(), KeyLimits(rpm=10)
    let_in(limiter.admit("a", limits, 0, 100.0))
    assert limiter.standings("a", limits, 10.0).requests == Standing(10, 9, 6.0)
    assert limiter.standings("a", limits, 103.0).requests == Standing(10, 9, 3.0)


def test_headers() -> None:
    standings = Standings(Standing(60, 59, 1.0), Standing(600, 0, 95.5))
    assert standings.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m35.5s",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (10, "10s"),
        (59.9999, "1m0s"),
        (100, "1m40s"),
        (360, "6m0s"),
        (3600, "60m0s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


LIMITS = st.builds(
    KeyLimits,
    rpm=st.none() | st.integers(1, 5),
    tpm=st.none() | st.integers(1, 100),
    max_in_flight=st.none() | st.integers(1, 3),
)


class LimiterMachine(RuleBasedStateMachine):
    """Every admitted request ends once, and reserved = settled + released + under way."""

    @initialize(limits=LIMITS)
    def start(self, limits: KeyLimits) -> None:
        self.limiter = Limiter()
        self.limits = limits
        self.now = 0.0
        self.open: list[tuple[str, Lease]] = []
        self.ended: list[Lease] = []
        self.admitted: list[tuple[str, float]] = []
        self.reloaded = False

    @rule(key=st.sampled_from("ab"), tokens=st.integers(0, 120))
    def admit(self, key: str, tokens: int) -> None:
        before = self.limiter.standings(key, self.limits, self.now)
        answer = self.limiter.admit(key, self.limits, tokens, self.now)
        if isinstance(answer, Lease):
            self.open.append((key, answer))
            self.admitted.append((key, self.now))
            for standing, took in ((before.requests, 1), (before.tokens, tokens)):
                assert standing is None or standing.remaining >= took
            return
        assert answer.standings == before
        assert self.limiter.standings(key, self.limits, self.now) == before
        if answer.retry_after is None:
            full = self.limiter.in_flight(key) >= answer.limit
            assert tokens > answer.limit if answer.reason is Reason.TOO_LARGE else full
            return
        # Whoever waits so long is let in, and not much sooner.
        assert answer.retry_after > 0
        again = copy.deepcopy(self.limiter)
        early = again.admit(key, self.limits, tokens, self.now + answer.retry_after * 0.99 - 1e-3)
        assert isinstance(early, Refusal)
        assert isinstance(
            again.admit(key, self.limits, tokens, self.now + answer.retry_after), Lease
        )

    @precondition(lambda self: self.open)
    @rule(data=st.data(), used=st.none() | st.integers(0, 200))
    def settle(self, data: st.DataObject, used: int | None) -> None:
        _, lease = self._end(data)
        lease.settle(self.now, used)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key, lease = self._end(data)
        before = self.limiter.standings(key, self.limits, self.now)
        lease.release(self.now)
        after = self.limiter.standings(key, self.limits, self.now)
        assert after.requests == before.requests
        if before.tokens is not None and after.tokens is not None and not self.reloaded:
            assert after.tokens.remaining >= before.tokens.remaining

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.ended))
        lease.settle(self.now, 1)
        lease.release(self.now, uncount=True)

    @rule(seconds=st.sampled_from([0.0, 0.5, 7.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(limits=LIMITS)
    def reload(self, limits: KeyLimits) -> None:
        self.limits = limits
        self.reloaded = True
        self.limiter.retain(["a"])

    def _end(self, data: st.DataObject) -> tuple[str, Lease]:
        pair = data.draw(st.sampled_from(self.open))
        self.open.remove(pair)
        self.ended.append(pair[1])
        return pair

    @invariant()
    def the_books_agree(self) -> None:
        limiter = self.limiter
        under_way = sum(lease.tokens for _, lease in self.open)
        assert limiter.reserved == limiter.settled + limiter.released + under_way
        for key in "ab":
            assert limiter.in_flight(key) == sum(name == key for name, _ in self.open)
            standings = limiter.standings(key, self.limits, self.now)
            for standing in (standings.requests, standings.tokens):
                assert standing is None or 0 <= standing.remaining <= standing.limit
                assert standing is None or standing.reset >= 0

    @invariant()
    def no_minute_has_more_than_twice_the_limit(self) -> None:
        if self.limits.rpm is None or self.reloaded:
            return
        for key in "ab":
            times = [at for name, at in self.admitted if name == key]
            in_the_last = [at for at in times if at > self.now - 60]
            assert len(in_the_last) <= 2 * self.limits.rpm

    def teardown(self) -> None:
        """All ends, and after long enough everything is there again."""
        if not hasattr(self, "limiter"):
            return
        for _, lease in self.open:
            lease.release(self.now)
        limiter = self.limiter
        assert limiter.reserved == limiter.settled + limiter.released
        for key in "ab":
            standings = limiter.standings(key, self.limits, self.now + 1e6)
            for standing in (standings.requests, standings.tokens):
                assert standing is None or standing.remaining == standing.limit


TestLimiter = pytest.mark.no_cover(LimiterMachine.TestCase)
TestLimiter.settings = settings(max_examples=60, stateful_step_count=40)
