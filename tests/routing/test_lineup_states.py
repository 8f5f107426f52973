"""Plans where targets are out, recover, rest, were tried or lack something."""

from __future__ import annotations

from typing import Any

import pytest

from server.routing.abilities import Able
from server.routing.breaker import Breaker, State
from server.routing.chain import Chain, Group, Loading, Route
from server.routing.lineup import LineUp
from server.routing.plan import Action, Cause
from server.routing.policies import Policy
from tests.routing.conftest import request_of
from tests.routing.table import NOW, Table


@pytest.fixture
def table() -> Table:
    return Table()


# --- breakers


def test_one_of_two_is_out_and_passed_over(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    table.trip(a)
    assert table.plan(Group("m", (a, b))) == [("b", Action.SEND), ("a", Action.SKIP)]


@pytest.mark.parametrize(("out", "panic"), [(1, False), (2, False), (3, False), (4, True)])
def test_panic_is_when_nobody_is_well(table: Table, out: int, panic: bool) -> None:
    routes = [table.route(name) for name in "abcd"]
    table.trip(*routes[:out])
    expected = "abcd" if panic else "abcd"[out:]
    assert table.tries(Group("m", tuple(routes))) == " ".join(expected)


def test_panic_counts_every_target_once(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    table.trip(a)
    again = Group("n", (a,))
    assert table.tries(Chain(Group("m", (a, b)), (again, again), bridge=again)) == "b"


def test_panic_counts_all_groups_and_who_could_answer(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    unable = table.route("u", able=Able.of({"n": False}))
    table.trip(a)
    assert table.tries(Chain(Group("m", (a,)), (Group("n", (b,)),))) == "b"
    alone = Chain(Group("m", (a,)), (Group("n", (unable,)),))
    assert table.tries(alone) == "u"
    assert table.tries(table.lineup(alone, n=2)) == "a"


def test_what_rests_is_not_out_and_is_kept_even_in_a_panic(table: Table) -> None:
    a, b, c = table.route("a"), table.route("b"), table.route("c")
    for route in (a, b):
        route.standing.ended(NOW, route.standing.began(NOW), "http_429", 9.0)
    table.trip(c)
    assert table.tries(Group("m", (a, b, c))) == ""
    table.dice.panic = 0.0
    assert table.tries(Group("m", (a, b, c))) == "c"


def test_refused_credentials_are_no_panic(table: Table) -> None:
    a, b, c = (table.route(name, account=("lab", "key")) for name in "abc")
    a.standing.ended(NOW, a.standing.began(NOW), "http_auth")
    other = table.route("o", account=("den", "key"))
    group = Group("m", (a, b, c, other))
    assert table.tries(group) == "o"
    steps = LineUp(Chain(group), request_of()).plan(NOW, table.dice)
    assert [r.step.cause for r in steps] == [Cause.NONE, *[Cause.BREAKER] * 3]
    assert all("credential" in r.step.reason for r in steps[1:])


def ramping(table: Table, *routes: Route) -> float:
    """They are probed well; the moment in which a tenth is let through."""
    table.trip(*routes)
    for route in routes:
        route.standing.ended(NOW + 5, route.standing.began(NOW + 5), "ok")
        assert route.standing.state(NOW + 6) is State.RAMP
    return NOW + 6


def test_a_ramp_lets_a_share_through(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    now = ramping(table, a)
    group = Group("m", (a, b))
    for drawn, expected in [(0.05, "a b"), (0.5, "b")]:
        table.drawn = drawn
        assert table.tries(group, now=now) == expected


@pytest.mark.parametrize(
    "other", [{}, {"ready": False}, {"ready": False, "may": False}, {"full": True}]
)
def test_a_ramp_refuses_nobody(table: Table, other: dict[str, Any]) -> None:
    """It is passed over only where somebody else can answer now."""
    a = table.route("a")
    now = ramping(table, a)
    if other.pop("full", False):
        table.full = {"b"}
    alone = not other and not table.full
    group = Group("m", (a,) if alone else (a, table.route("b", **other)))
    table.drawn = 0.99
    assert table.plan(group, now=now)[0] == ("a", Action.SEND)


def test_of_several_that_ramp_the_first_in_order_is_let_through(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    now = ramping(table, a, b)
    table.drawn = 0.99
    assert table.tries(Group("m", (a, b)), now=now) == "a b"


def test_asking_for_a_plan_begins_no_probe(table: Table) -> None:
    a, b = table.route("a"), table.route("b")
    table.trip(a)
    for _ in range(3):
        assert table.tries(Group("m", (a, b)), now=NOW + 5) == "a b"
    a.standing.began(NOW + 5)
    assert table.tries(Group("m", (a, b)), now=NOW + 5) == "b"


def test_words_are_made_only_for_breakers_that_are_not_closed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Breaker] = []
    real = Breaker.explain

    def explain(breaker: Breaker, now: float) -> str:
        asked.append(breaker)
        return real(breaker, now)

    monkeypatch.setattr(Breaker, "explain", explain)
    a, b = table.route("a"), table.route("b")
    table.trip(a)
    table.plan(Group("m", (a, b)))
    assert asked == [a.standing.breaker]


# --- tried, lacking, narrowed


def test_what_was_tried_is_passed_over_in_every_group(table: Table) -> None:
    a, b, c = table.route("a"), table.route("b"), table.route("c")
    chain = Chain(Group("m", (a, b)), (Group("n", (a, c)),))
    assert table.tries(chain, tried=("a",)) == "b c"
    assert table.tries(chain, tried=("a", "b", "c")) == ""


def test_why_a_target_can_never_answer(table: Table) -> None:
    able, unable = table.route("a"), table.route("u", able=Able.of({"n": False, "tools": False}))
    lineup = table.lineup(Group("m", (unable, able)), n=2)
    assert (lineup.lacks(unable), lineup.lacks(able)) == ("lacks n", None)
    assert (lineup.missing(unable), lineup.missing(able)) == ("n", None)
    skipped = lineup.plan(NOW, table.dice)[1].step
    assert (skipped.reason, skipped.cause) == ("lacks n", Cause.ABILITY)


def test_narrowed_to_others_for_good(table: Table) -> None:
    groups = [Group(name, (table.route(name, ready=name != "m"),)) for name in "mbfc"]
    own, bridge, fallback, context = groups
    lineup = table.lineup(Chain(own, (fallback,), (context,), (), bridge, Loading.REFUSE))
    assert table.tries(lineup) == "b f m"
    lineup.narrow([context])
    assert table.plan(lineup) == [("c", Action.SEND)]
    assert not lineup.is_bridge(1)
    assert not lineup.is_bridge(0)


def test_what_the_model_says_of_its_loading_is_not_of_those_that_stand_in(table: Table) -> None:
    context = [Group(name, (table.route(name, ready=False),)) for name in "cd"]
    lineup = table.lineup(
        Chain(Group("m", (table.route("a"),)), context=tuple(context), loading=Loading.REFUSE)
    )
    lineup.narrow(context)
    assert table.plan(lineup) == [("c", Action.WAIT), ("d", Action.WAIT)]


def test_without_targets_there_is_no_plan(table: Table) -> None:
    for policy in Policy:
        assert table.plan(Group("m", (), policy)) == []
