"""Chains: which targets a model has, and what becomes of them when replicas change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.errors import InvalidRequest
from server.protocol.parameters import Ceilings
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing, Group, Loading, Route
from server.routing.policies import Policy
from server.routing.standing import Standings
from tests.routing.conftest import FakeTarget, request_of

STANDINGS = Standings()


def route(name: str, **more: object) -> Route:
    return Route("m", FakeTarget(name), STANDINGS.of(name), **more)  # type: ignore[arg-type]


A, B, C, D = (route(name) for name in "abcd")


def test_routes_that_never_change_are_made_once() -> None:
    group = Group("m", (A, B))
    assert group.routes() is group.routes() is group.fixed
    assert group.routes() == (A, B)
    assert group.by_part() == [(A,), (B,)]
    assert Group("m", ()).routes() == ()


def test_replicas_stand_where_their_engine_does() -> None:
    now: tuple[Route, ...] = (B, C)
    group = Group("m", (A, Changing(lambda: now), D))
    assert group.fixed is None
    assert group.routes() == (A, B, C, D)
    assert group.by_part() == [(A,), (B, C), (D,)]
    now = (C,)
    assert group.routes() == (A, C, D)


@pytest.mark.parametrize("policy", list(Policy))
def test_the_only_target_needs_no_plan(policy: Policy) -> None:
    assert Chain(Group("m", (A,), policy)).first is A


@pytest.mark.parametrize("policy", list(Policy))
def test_of_several_only_an_order_has_a_first(policy: Policy) -> None:
    first = Chain(Group("m", (A, B), policy)).first
    assert first is (A if policy is Policy.ORDERED else None)


def test_what_changes_has_no_first() -> None:
    assert Chain(Group("m", (Changing(lambda: (A,)),))).first is None
    assert Chain(Group("m", (A, Changing(lambda: (B,))))).first is None
    assert Chain(Group("m", ())).first is None


OWN, X, Y, Z, W = (Group(name, (A,)) for name in ("m", "x", "y", "z", "w"))
FULL = Chain(OWN, (X, Y), (Y, Z), (W,), X, Loading.WAIT)


def test_every_model_that_it_may_go_to_once() -> None:
    assert [group.model for group in FULL.groups()] == ["m", "x", "y", "z", "w"]
    assert Chain(OWN).groups() == (OWN,)


def test_alone_there_is_nobody_but_the_model_itself() -> None:
    alone = FULL.alone()
    assert (alone.own, alone.groups(), alone.loading) == (OWN, (OWN,), Loading.WAIT)
    assert alone.first is A
    assert (alone.bridge, alone.context, alone.content) == (None, (), ())


def test_other_fallbacks_leave_the_rest() -> None:
    other = FULL.with_fallbacks([Z, W])
    assert other.fallbacks == (Z, W)
    assert replace(other, fallbacks=FULL.fallbacks) == FULL
    assert (other.bridge, other.context, other.first) == (X, (Y, Z), A)
    assert FULL.with_fallbacks([]).fallbacks == ()


def test_who_may_have_to_refuse() -> None:
    assert not A.choosy
    assert route("a", able=Able(window=9)).choosy
    assert route("a", able=Able.of({"tools": False})).choosy
    # What it is spared is no condition.
    assert not route("a", able=Able.of({}, drop=frozenset({"tools"}))).choosy


def test_nothing_is_first_that_takes_so_many_and_no_more() -> None:
    assert Chain(Group("m", (route("a", slots=1),))).first is None
    choosy = route("a", able=Able(window=9))
    assert Chain(Group("m", (choosy,))).first is choosy


def test_why_a_target_can_never_answer() -> None:
    ceilings = Ceilings.of({"max_tokens": 10}, clamp=False)
    one = route("a", ceilings=ceilings)
    assert one.refuses(request_of(max_tokens=10)) is None
    over = one.refuses(request_of(max_tokens=11))
    assert over is not None
    assert over.code == "over_limit"
    refusal = InvalidRequest("not here")
    one.target.refusal = refusal  # type: ignore[attr-defined]
    assert one.refuses(request_of(max_tokens=10)) is refusal
    assert one.refuses(request_of(max_tokens=11)) is not refusal
