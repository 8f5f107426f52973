"""Who is suspected of an engine's death, who is refused for it, and who is cleared."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from server.engines import suspects as module
from server.engines.suspects import MOST, WHILE, Suspects
from server.protocol import envelope

A, B, C, D, E = (bytes([n]) * 16 for n in range(5))


class House:
    """Suspects, a clock, and an engine or two that die."""

    def __init__(self) -> None:
        self.now = 100.0
        self.suspects = Suspects(lambda: self.now, salt=b"salt")
        self.generation = 0

    def dies(self, *bodies: bytes, engine: str = "e") -> tuple[bytes, ...]:
        """With these in flight; who is guilty of it."""
        self.generation += 1
        for at, body in enumerate(bodies):
            assert self.suspects.accuse(engine, self.generation, body) is (at == 0)
        return self.suspects.died(engine, self.generation).guilty

    def goes(self, body: bytes, engine: str = "e") -> bool:
        """Whether it may, and it does."""
        return self.suspects.may_go(engine, body) and (
            self.suspects.enter(engine, body) or self.suspects.refused(engine, body) is None
        )


@pytest.fixture
def house() -> House:
    return House()


def test_two_deaths_alone_and_it_is_refused_for_a_while(house: House) -> None:
    suspects = house.suspects
    assert not suspects.any
    assert house.dies(A) == ()
    assert suspects.any
    assert suspects.refused("e", A) is None
    assert house.goes(A)
    assert house.dies(A) == (A,)
    house.now += WHILE - 1
    assert suspects.refused("e", A) == 1
    assert suspects.refused("e", B) is None
    house.now += 1
    assert suspects.refused("e", A) is None
    assert not suspects.any


def test_one_death_counts_once(house: House) -> None:
    suspects = house.suspects
    assert suspects.accuse("e", 1, A)
    assert not suspects.accuse("e", 1, A)
    assert suspects.died("e", 1).remembered == 1
    assert suspects.died("e", 1).remembered == 0
    assert suspects.refused("e", A) is None


def test_while_nobody_knows_it_does_not_go_on(house: House) -> None:
    suspects = house.suspects
    suspects.accuse("e", 1, A)
    assert not suspects.may_go("e", A)
    assert not suspects.may_go("other", A)
    assert suspects.may_go("e", B)
    suspects.lived("e", 1)
    assert suspects.may_go("e", A)
    assert not suspects.enter("e", A)
    assert not suspects.any


def test_after_one_death_nobody_is_held_back(house: House) -> None:
    """Most often it was no request's doing."""
    suspects = house.suspects
    assert house.dies(A, B, C) == ()
    assert [suspects.may_go("e", body) for body in (A, B, C)] == [True] * 3
    assert [suspects.enter("e", body) for body in (A, B, C)] == [False] * 3
    assert [suspects.answered("e", body) for body in (A, B, C)] == [True] * 3
    assert not suspects.any


def test_after_two_they_go_one_by_one_and_the_innocent_are_cleared(house: House) -> None:
    suspects = house.suspects
    house.dies(A, B, C)
    assert house.dies(A, B, C, D) == ()
    assert house.goes(A)
    assert not suspects.may_go("e", B)
    assert not suspects.may_go("e", D)  # it was in one, and has lost an attempt
    assert suspects.may_go("f", D)
    assert suspects.may_go("e", E)
    assert not suspects.enter("e", E)
    assert not suspects.join("e", E)
    assert suspects.answered("e", A)
    suspects.leave("e", A)
    assert house.goes(B)
    assert not suspects.may_go("e", C)
    assert house.dies(B, D) == (B,)
    suspects.leave("e", B)
    assert suspects.refused("e", B) == WHILE
    # What B explains is held against nobody else.
    assert suspects.may_go("e", C)
    assert not suspects.enter("e", C)
    assert suspects.refused("e", D) is None


def test_who_lost_an_attempt_and_a_suspect_wait_for_each_other(house: House) -> None:
    suspects = house.suspects
    house.dies(A, B)
    house.dies(A, B, C)
    assert suspects.join("e", C)
    assert suspects.may_go("e", C)
    assert not suspects.may_go("e", A)
    suspects.part("e", C)
    assert house.goes(A)
    assert not suspects.may_go("e", C)
    suspects.leave("e", A)
    assert suspects.may_go("e", C)


def test_a_suspect_is_at_one_place_at_a_time(house: House) -> None:
    """Each could die of it."""
    suspects = house.suspects
    house.dies(A, B)
    house.dies(A, B, engine="f")
    assert house.goes(A)
    assert not suspects.may_go("f", A)
    assert not suspects.may_go("e", A)
    assert house.goes(B, "f")
    suspects.leave("e", A)
    assert suspects.may_go("e", A)
    assert not suspects.may_go("f", A)  # B is there


def test_the_only_one_that_was_in_both_is_not_guilty_for_that(house: House) -> None:
    """Somebody kills an engine twice, and one answer takes longer than the others."""
    house.dies(A, B)
    assert house.dies(A, C, D) == ()
    assert house.suspects.refused("e", A) is None
    assert house.goes(A)


def test_alone_in_the_second_of_two_it_is_guilty(house: House) -> None:
    house.dies(A, B)
    assert house.dies(A, engine="f") == (A,)
    assert house.suspects.refused("e", A) == WHILE
    assert house.suspects.may_go("e", B)
    assert house.dies(B) == ()  # A explains the other


def test_who_notices_late_was_there_too(house: House) -> None:
    suspects = house.suspects
    house.dies(A, B)
    suspects.accuse("e", 7, A)
    assert suspects.died("e", 7).guilty == (A,)
    suspects.accuse("e", 7, B)
    assert suspects.died("e", 7).guilty == ()
    assert [suspects.refused("e", body) for body in (A, B)] == [None, None]
    assert suspects.enter("e", A)


def test_who_notices_late_what_is_explained_is_none(house: House) -> None:
    suspects = house.suspects
    for _ in range(2):
        house.dies(A, B)
    assert house.goes(A)
    suspects.accuse("e", 7, A)
    suspects.leave("e", A)
    assert suspects.died("e", 7).guilty == (A,)
    suspects.accuse("e", 7, C)
    assert suspects.died("e", 7).guilty == ()
    assert suspects.refused("e", A) == WHILE
    assert house.dies(C, D) == ()
    assert suspects.may_go("e", C)
    assert not suspects.enter("e", C)


def test_of_many_an_eighth_goes_together_and_then_one_by_one(house: House) -> None:
    many = [bytes([n]) * 16 for n in range(40)]
    suspects = house.suspects
    house.dies(*many)
    house.dies(*many, bytes([99]) * 16)
    together = [body for body in many if house.goes(body)]
    assert together == many[:5]
    assert house.dies(*together) == ()
    for body in together:
        suspects.leave("e", body)
    assert all(suspects.refused("e", body) is None for body in many)
    assert [body for body in many if house.goes(body)] == many[:1]
    assert house.dies(many[0]) == (many[0],)
    suspects.leave("e", many[0])
    # Those that were in two only are free again; those that were in three, too, go one by one.
    assert all(house.goes(body) for body in many[5:])
    assert not suspects.enter("e", many[5])
    assert [body for body in many[1:5] if house.goes(body)] == many[1:2]


def test_what_others_explain_is_not_explained_for_ever(house: House) -> None:
    """Two bodies kill, and always in each other's company: each is found out."""
    suspects = house.suspects
    for _ in range(2):
        house.dies(A, B)
    assert house.goes(A)
    assert house.dies(A) == (A,)
    suspects.leave("e", A)
    assert suspects.may_go("e", B)
    assert not suspects.enter("e", B)
    assert house.dies(B, C) == ()
    assert suspects.enter("e", B)
    assert house.dies(B, D) == (B,)


def test_deaths_of_several_engines_are_added_up(house: House) -> None:
    suspects = house.suspects
    house.dies(A)
    house.dies(A, engine="f")
    assert [suspects.refused(engine, A) for engine in ("e", "f", "g")] == [WHILE] * 3


def test_who_has_answered_it_goes_on_to(house: House) -> None:
    suspects = house.suspects
    house.dies(A)
    assert suspects.answered("f", A)
    house.dies(A)
    assert suspects.refused("e", A) == WHILE
    assert suspects.refused("f", A) is None
    assert suspects.may_go("f", A)
    assert not suspects.enter("f", A)
    assert not suspects.answered("f", A)  # it was none there
    house.dies(A, engine="f")
    assert suspects.refused("f", A) == WHILE


def test_it_is_remembered_of_so_many(house: House) -> None:
    bodies = [n.to_bytes(16, "big") for n in range(MOST + 3)]
    for body in bodies:
        house.dies(body)
    assert house.dies(bodies[0]) == ()  # its first death is forgotten
    assert house.dies(bodies[-1]) == (bodies[-1],)


def members(**more: object) -> dict[str, Raw]:
    return envelope.members(json.dumps({"messages": [], **more}).encode())


def test_a_digest_is_of_what_an_engine_works_on() -> None:
    suspects = Suspects(salt=b"1")
    digest = suspects.digest("chat", members(a=1, b=2))
    assert digest == suspects.digest(
        "chat", members(b=2, a=1, model="x", request_id="y", stream=True)
    )
    others = [("completions", members(a=1, b=2)), ("chat", members(a=12)), ("chat", members(a=1))]
    assert len({digest, *(suspects.digest(*one) for one in others)}) == 4
    tenants = [suspects.digest("chat", members(a=1, b=2), tenant) for tenant in ("x", "y")]
    assert len({digest, *tenants}) == 3
    assert digest != Suspects(salt=b"2").digest("chat", members(a=1, b=2))
    assert Suspects().digest("chat", members()) != Suspects().digest("chat", members())


def test_the_numbers_are_those_of_the_docs() -> None:
    assert (module.WHILE, module.DEATHS, module.SHARE) == (600, 2, 8)
