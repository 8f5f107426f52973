"""Admission as a state machine: every order of arriving, waiting, going and reloading.

The event loop stands still between rules. So what two rules do without a `step` between them
happens in one moment of the server's, cancellations at every await among it.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from typing import Any, Final
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.access import rooms as module
from server.access.admission import Admission, Admitted, limited
from server.access.keys import KeyInfo
from server.access.limits import UNLIMITED, KeyLimits, Lease, Limiter, Reason, Refusal
from server.access.queue import Place
from server.errors import Overloaded, RateLimited
from server.telemetry.metrics import Metrics
from tests.fakes.stepped import SteppedLoop
from tests.fakes.watched import WatchedRoom

KEYS: Final = {
    "free": KeyInfo("free"),
    "slow": KeyInfo("slow", limits=KeyLimits(rpm=4)),
    "small": KeyInfo("small", limits=KeyLimits(tpm=1000, max_in_flight=3)),
    "all": KeyInfo("all", limits=KeyLimits(rpm=30, tpm=6000, max_in_flight=5)),
}
OPEN: Final = 1e9
#: Of the event loop, after something was done: in none, what is done next comes in that moment.
ROUNDS: Final = st.sampled_from([0, 1, 1, 3])
ARRIVAL: Final = st.tuples(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from("xyz"),
    st.sampled_from([1, 300, 900, 1200, 5000]),
    st.sampled_from([3.0, OPEN]),
)


class Shadow:
    """A key's requests of a minute, counted a second time."""

    def __init__(self, rpm: int | None) -> None:
        self.rate = 0.0 if rpm is None else rpm / 60
        self.used = self.at = 0.0

    def add(self, requests: int, now: float) -> None:
        if self.rate:
            self.used = max(0.0, self.used - (now - self.at) * self.rate)
            self.used = max(0.0, self.used + requests)
        self.at = now


class WatchedLimiter(Limiter):
    """Holds every promise against what follows, and remembers whom it let in."""

    def __init__(self) -> None:
        super().__init__()
        self.shadows = {name: Shadow(key.limits.rpm) for name, key in KEYS.items()}
        self.refused: Counter[Reason] = Counter()
        self.leases: list[tuple[Lease, asyncio.Task[Any] | None]] = []

    def admit(self, key: str, limits: KeyLimits, tokens: int, now: float) -> Lease | Refusal:
        found = super().admit(key, limits, tokens, now)
        if isinstance(found, Lease):
            self.shadows[key].add(1, now)
            self.leases.append((found, asyncio.current_task()))
            return found
        self.refused[found.reason] += 1
        said = limited(found).headers().get("retry-after")
        assert (said is None) == (found.reason is Reason.TOO_LARGE)
        if said is not None and found.reason is not Reason.IN_FLIGHT:
            assert isinstance(self._later(key, limits, tokens, now + int(said)), Lease)
            if int(said) > 1:  # and it need not have waited a second more
                soon = now + int(said) - 1.1
                assert isinstance(self._later(key, limits, tokens, soon), Refusal)
        return found

    def _later(self, key: str, limits: KeyLimits, tokens: int, now: float) -> Lease | Refusal:
        """What the same request would get, if nobody else came until then."""
        then = Limiter()
        then._accounts = copy.deepcopy(self._accounts)
        return then.admit(key, limits, tokens, now)


class Client:
    """One request: in by admission, and out by one of the ways there are."""

    def __init__(self, machine: AdmissionMachine, key: str, model: str, tokens: int) -> None:
        self.key, self.model, self.tokens = KEYS[key], model, tokens
        self.deadline = machine.loop.now
        self.places = (machine.limits.get(model), machine.limits.get("server"))
        self.admitted: Admitted | None = None
        self.ends: list[str] = []
        self.go: asyncio.Future[str] = machine.loop.create_future()
        self.task = machine.loop.create_task(self.run(machine))

    async def run(self, machine: AdmissionMachine) -> None:
        model, server = self.places
        try:
            admitted = await machine.admission.enter(
                self.key,
                self.model,
                None if model is None else model[0],
                0 if model is None else model[1],
                self.tokens,
                server_slots=None if server is None else server[0],
                server_waiting=0 if server is None else server[1],
                deadline=self.deadline,
            )
        except (RateLimited, Overloaded) as error:
            self.ends.append("limited" if isinstance(error, RateLimited) else "refused")
            if isinstance(error, Overloaded):
                self.uncount(machine)
            return
        self.admitted = admitted
        uncount = False
        try:
            how = await self.go
            uncount = how == "uncount"
            if how in ("settled", "uncounted by the target"):
                used = self.tokens // 2 if how == "settled" else None
                admitted.settle(used)
                if self.key.limits is not UNLIMITED:
                    machine.settled += self.tokens
                    machine.used += self.tokens if used is None else used
            if uncount:
                self.uncount(machine)
        finally:
            self.ends.append("left")
            admitted.leave(uncount=uncount)
            admitted.leave()
            admitted.settle(1)

    def uncount(self, machine: AdmissionMachine) -> None:
        machine.limiter.shadows[self.key.name].add(-1, machine.loop.now)


class AdmissionMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: no place and no token is lost or doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.metrics = Metrics()
        self.admission = Admission(self.metrics, self.loop.time)
        self.limiter = self.admission.limiter = WatchedLimiter()
        self.limits: dict[str, tuple[int, int]] = {"server": (3, 4), "x": (2, 2), "y": (1, 3)}
        self.settled = self.used = 0
        self.made: list[WatchedRoom] = []
        self.clients: list[Client] = []
        self.patch = mock.patch.object(module, "Room", self.make)
        self.patch.start()

    def make(self, kind: module.Kind, name: str, slots: int, bound: int) -> WatchedRoom:
        self.made.append(WatchedRoom(kind, name, slots, bound))
        return self.made[-1]

    def alive(self) -> list[Client]:
        return [client for client in self.clients if not client.task.done()]

    def inside(self) -> list[Client]:
        return [client for client in self.alive() if client.admitted is not None]

    @initialize()
    def fill(self) -> None:
        """All places are taken, so that the next ones wait."""
        self.arrive([("free", model, 1, OPEN) for model in "xxy"], 1)

    @rule(crowd=st.lists(ARRIVAL, min_size=1, max_size=5), rounds=ROUNDS)
    def arrive(self, crowd: list[tuple[str, str, int, float]], rounds: int) -> None:
        for key, model, tokens, patience in crowd:
            client = Client(self, key, model, tokens)
            client.deadline += patience
            self.clients.append(client)
        self.loop.step(rounds)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), rounds=ROUNDS)
    def cancel(self, data: st.DataObject, rounds: int) -> None:
        data.draw(st.sampled_from(self.alive())).task.cancel()
        self.loop.step(rounds)

    @precondition(lambda self: self.inside())
    @rule(
        data=st.data(),
        how=st.sampled_from(["settled", "uncounted by the target", "failed", "uncount"]),
        rounds=ROUNDS,
    )
    def finish(self, data: st.DataObject, how: str, rounds: int) -> None:
        client = data.draw(st.sampled_from(self.inside()))
        if not client.go.done():
            client.go.set_result(how)
        self.loop.step(rounds)

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0]), rest=st.booleans())
    def pass_time(self, seconds: float, rest: bool) -> None:
        self.loop.now += seconds
        if rest:
            self.idle()

    @rule(
        name=st.sampled_from(["server", "x", "y", "z"]),
        numbers=st.none() | st.tuples(st.integers(0, 3), st.integers(0, 4)),
    )
    def reload(self, name: str, numbers: tuple[int, int] | None) -> None:
        """Other numbers for one of them, or none any more."""
        self.limits.pop(name, None)
        if numbers is not None:
            self.limits[name] = numbers
        models = {name: limit for name, limit in self.limits.items() if name != "server"}
        self.admission.apply(
            KEYS, server=self.limits.get("server"), models=models, targets={}, providers={}
        )

    @rule()
    def idle(self) -> None:
        """Run all that can run. Then everybody alive is inside, or waits in time in one room."""
        self.loop.step(4 * len(self.clients) + 4)
        for client in self.alive():
            tickets = [(room, ticket) for room in self.made for ticket in room.of(client.task)]
            waiting = [room.kind for room, ticket in tickets if ticket.place is Place.WAITING]
            if client.admitted is not None:
                assert not waiting
                kinds = [room.kind for room, _ in tickets]
                expected = zip(("model", "server"), client.places, strict=True)
                assert sorted(kinds) == [kind for kind, limit in expected if limit is not None]
            else:
                assert len(waiting) == 1
                assert client.deadline > self.loop.now
                holds = [room.kind for room, ticket in tickets if ticket.place is Place.INSIDE]
                assert holds in ([], ["model"])
                assert waiting == ["server"] or not holds, "it holds the server's, and waits"

    @invariant()
    def no_slot_is_lost_or_doubled(self) -> None:
        for room in self.made:
            room.check()
            assert all(len(room.of(client.task)) <= 1 for client in self.alive())

    @invariant()
    def tokens_are_settled_released_or_under_way(self) -> None:
        limiter = self.limiter
        open_leases = [(lease, task) for lease, task in limiter.leases if not lease.ended]
        under_way = sum(lease.tokens for lease, _ in open_leases)
        assert limiter.reserved == limiter.settled + limiter.released + under_way
        assert (limiter.settled, limiter.used) == (self.settled, self.used)
        owners = Counter(task for _, task in open_leases)
        assert all(task is not None and not task.done() for task in owners)
        assert all(count == 1 for count in owners.values())
        for name, key in KEYS.items():
            own = [client for client in self.alive() if client.key is key]
            assert limiter.in_flight(name) == sum(client.task in owners for client in own)

    @invariant()
    def the_minute_counts_those_that_this_server_did_not_turn_away(self) -> None:
        for name, shadow in self.limiter.shadows.items():
            self.limiter.standings(name, KEYS[name].limits, self.loop.now)
            shadow.add(0, self.loop.now)
            account = self.limiter._accounts.get(name)
            used = 0.0 if account is None else account.requests.used
            assert abs(used - shadow.used) < 1e-6

    @invariant()
    def everybody_ends_once(self) -> None:
        for client in self.clients:
            assert len(client.ends) <= 1
            if client.task.done() and not client.task.cancelled():
                assert client.task.exception() is None
                assert len(client.ends) == 1

    @invariant()
    def the_metrics_agree(self) -> None:
        shed = {reason: child.value for (reason,), child in self.metrics.shed.series.items()}
        ends = Counter(end for client in self.clients for end in client.ends)
        by_key = sum(count for reason, count in shed.items() if reason.startswith("key_"))
        assert by_key == ends["limited"] == self.limiter.refused.total()
        assert sum(shed.values()) - by_key == ends["refused"]
        self.admission.collect()
        depths = {values: child.value for values, child in self.metrics.queue_depth.series.items()}
        rooms = self.admission.rooms.all()
        assert depths == {(room.kind, room.name): room.depth for room in rooms}

    def teardown(self) -> None:
        """All go: nothing is under way, in no room that ever was."""
        self.patch.stop()
        for client in self.alive():
            client.task.cancel()
        self.loop.step(4 * len(self.clients) + 4)
        assert not self.alive()
        for room in self.made:
            room.check()
            assert (room.inside, room.depth) == (0, 0)
            assert room.begun == room.ended
        assert self.limiter.reserved == self.limiter.settled + self.limiter.released
        assert all(self.limiter.in_flight(name) == 0 for name in KEYS)
        self.loop.close()


TestAdmission = pytest.mark.no_cover(AdmissionMachine.TestCase)
TestAdmission.settings = settings(max_examples=80, stateful_step_count=50)
