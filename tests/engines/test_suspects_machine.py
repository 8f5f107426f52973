"""Bodies that kill whatever works on them, in a crowd: how often they do, and what becomes of the
others, whoever comes and breaks in whichever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from server.engines.backoff import Policy
from server.engines.suspects import MOST, WHILE, Death, Suspects

#: Deaths that one body causes at the most. An engine comes back after so many.
MOST_DEATHS = 4
PICK = st.integers(0, 2**20)


class Sent(NamedTuple):
    """One request; each body may be under way several times."""

    body: bytes
    copy: int
    poison: bool


class Crowd(RuleBasedStateMachine):
    """Engines that come back at once, and clients that send again until they are told."""

    @initialize(
        engines=st.integers(1, 3),
        innocents=st.integers(0, 40),
        poisons=st.integers(0, 3),
        copies=st.sampled_from([1, 1, 1, 2, 3]),
    )
    def begin(self, engines: int, innocents: int, poisons: int, copies: int) -> None:
        self.now = 0.0
        self.suspects = Suspects(lambda: self.now, salt=b"salt")
        self.processes = {f"engine {number}": 1 for number in range(engines)}
        self.poisons, self.copies = poisons, copies
        bodies = [(bytes([number]) * 16, number < poisons) for number in range(innocents + poisons)]
        self.waiting = [Sent(b, copy, bad) for (b, bad), copy in product(bodies, range(copies))]
        #: By request: the process, and what it has to say when it leaves.
        self.inside: dict[Sent, tuple[Death, Callable[[str, bytes], None] | None]] = {}
        #: Processes that are dead, and what has not noticed yet.
        self.unjudged: dict[Death, list[Sent]] = {}
        self.deaths: Counter[bytes] = Counter()
        #: By none of these bodies; and before all had noticed.
        self.killed_by_others = self.hurried = False
        self.refused: set[Sent] = set()

    # --- what may happen

    @rule(who=PICK, where=PICK)
    def send(self, who: int, where: int) -> None:
        if self.waiting:
            self._send(self.waiting[who % len(self.waiting)], self._engine(where))

    @rule(where=PICK)
    def send_all(self, where: int) -> None:
        for one in list(self.waiting):
            self._send(one, self._engine(where))

    @rule(who=PICK)
    def answer(self, who: int) -> None:
        harmless = [one for one in self._alive() if not one.poison]
        if harmless:
            self._answer(harmless[who % len(harmless)])

    @rule(who=PICK)
    def kill(self, who: int) -> None:
        deadly = [one for one in self._alive() if one.poison]
        if deadly:
            self._dies(self.inside[deadly[who % len(deadly)]][0])

    @rule(where=PICK)
    def is_killed(self, where: int) -> None:
        """For no reason of its own."""
        engine = self._engine(where)
        self.killed_by_others = True
        self._dies((engine, self.processes[engine]))

    @rule(which=PICK)
    def judge(self, which: int) -> None:
        if self.unjudged:
            self._judge(sorted(self.unjudged)[which % len(self.unjudged)])

    @rule(which=PICK, late=st.integers(1, 3))
    def judge_too_early(self, which: int, late: int) -> None:
        """So many notice only after the process was found dead."""
        if self.unjudged:
            self._judge(sorted(self.unjudged)[which % len(self.unjudged)], late)

    def teardown(self) -> None:
        """Whatever was before: when nothing new comes, all are told."""
        if not hasattr(self, "now"):
            return
        engines = list(self.processes)
        for turn in range(20 * (len(self.waiting) + len(self.inside) + 1)):
            self._settle()
            for one in list(self.waiting):
                self._send(one, engines[turn % len(engines)])
            deadly = [one for one in self._alive() if one.poison]
            if deadly:
                self._dies(self.inside[deadly[0]][0])
            elif self.inside:
                self._answer(next(iter(self.inside)))
            elif not self.waiting:
                break
        assert not self.waiting
        self._settle()
        assert not self.suspects._accused
        # What was refused wrongly is answered after a while.
        self.now += WHILE
        for one in self.refused:
            assert self.suspects.refused(engines[0], one.body) is None
            assert self.suspects.may_go(engines[0], one.body)
        assert self.suspects.refused(engines[0], b"any") is None
        assert not self.suspects.any

    # --- how

    def _engine(self, where: int) -> str:
        return sorted(self.processes)[where % len(self.processes)]

    def _alive(self) -> list[Sent]:
        """Those under way at a process that lives."""
        return [s for s, ((engine, g), _) in self.inside.items() if self.processes[engine] == g]

    def _send(self, one: Sent, engine: str) -> None:
        if self.suspects.refused(engine, one.body) is not None:
            self.waiting.remove(one)
            self.refused.add(one)
            certain = self.poisons <= 1 and self.copies == 1
            certain = certain and not self.killed_by_others and not self.hurried
            assert one.poison or not certain, "an innocent one was refused"
            return
        # Never beyond that many, wherever it is: each copy may already be at a process of its own.
        assert self.deaths[one.body] < MOST_DEATHS + self.copies - 1
        if self.suspects.may_go(engine, one.body):
            leave = None
            if self.suspects.enter(engine, one.body):
                leave = self.suspects.leave
            elif self.suspects.join(engine, one.body):
                leave = self.suspects.part
            self.waiting.remove(one)
            self.inside[one] = (engine, self.processes[engine]), leave

    def _leave(self, one: Sent) -> None:
        (engine, _), leave = self.inside.pop(one)
        if leave is not None:
            leave(engine, one.body)

    def _answer(self, one: Sent) -> None:
        (engine, _), _ = self.inside[one]
        self._leave(one)
        self.suspects.answered(engine, one.body)
        if not any(other.body == one.body for other in self.inside):
            self.deaths[one.body] = 0

    def _dies(self, death: Death) -> None:
        engine, generation = death
        self.processes[engine] = generation + 1
        there = [one for one, (process, _) in self.inside.items() if process == death]
        self.deaths.update({one.body for one in there})
        if there:
            self.unjudged[death] = there

    def _judge(self, death: Death, late: int = 0) -> None:
        noticed = self.unjudged.pop(death)
        if late and len(noticed) > late:
            self.hurried = True
            self.unjudged[death] = noticed[:late]
            noticed = noticed[late:]
        for at, one in enumerate(noticed):
            assert self.suspects.accuse(*death, one.body) is (at == 0)
            self._leave(one)
            self.waiting.append(one)
            assert not self.suspects.may_go(death[0], one.body)
        self.suspects.died(*death)

    def _settle(self) -> None:
        for death in list(self.unjudged):
            self._judge(death)


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_what_one_body_kills_comes_back() -> None:
    """Its deaths alone do not make an engine be given up."""
    assert Policy().limit > MOST_DEATHS


def test_it_is_remembered_among_all_that_an_engine_may_work_on() -> None:
    """Several engines, each with as many as vLLM takes at once by itself."""
    assert MOST >= 4 * 1024
