"""From a chain, a request and the state of things to a plan: groups, policies, replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from server.config.cards import Prices
from server.routing import lineup as lineups
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing, Group, Loading, Route
from server.routing.lineup import LineUp, affinity_of, tokens_of
from server.routing.plan import Action
from server.routing.policies import Policy
from tests.routing.conftest import request_of
from tests.routing.table import NOW, Table

AMONG = [Policy.LEAST_BUSY, Policy.LOWEST_LATENCY, Policy.AFFINITY]


@pytest.fixture
def table() -> Table:
    return Table()


# --- each group by its own policy


def test_groups_one_after_the_other_each_by_its_policy(table: Table) -> None:
    own = Group("m", (table.route("a", busy=3), table.route("b")), Policy.LEAST_BUSY)
    other = Group("n", (table.route("c", busy=3), table.route("d")), Policy.ORDERED)
    prices = [Prices(input=2.0, output=2.0), Prices(input=1.0, output=1.0)]
    cheap = Group(
        "o",
        tuple(table.route(name, prices=price) for name, price in zip("ef", prices, strict=True)),
        Policy.CHEAPEST,
    )
    assert table.tries(Chain(own, (other, cheap))) == "b a c d f e"


def test_the_bridge_stands_before_the_fallbacks(table: Table) -> None:
    groups = [Group(name, (table.route(name),)) for name in ("c", "d")]
    own = Group("m", (table.route("a", ready=False),))
    chain = Chain(own, (groups[0],), bridge=groups[1])
    assert table.plan(chain) == [("d", Action.SEND), ("c", Action.SEND), ("a", Action.WAIT)]
    lineup = table.lineup(chain)
    assert [lineup.is_bridge(r.group) for r in lineup.plan(NOW, table.dice)] == [True, False, False]


def test_no_bridge_where_one_of_the_models_own_can_answer(table: Table) -> None:
    own = Group("m", (table.route("a", ready=False), table.route("b")))
    chain = Chain(own, bridge=Group("d", (table.route("d"),)))
    assert table.tries(chain) == "b a"
    assert table.tries(chain, tried=("b",)) == "d a"


@pytest.mark.parametrize("loading", list(Loading))
def test_what_the_chain_says_of_loading(table: Table, loading: Loading) -> None:
    own = Group("m", (table.route("a", ready=False),))
    chain = Chain(own, (Group("n", (table.route("b"),)),), loading=loading)
    assert (
        table.plan(chain)[0]
        == {
            Loading.FALLBACK: ("b", Action.SEND),
            Loading.WAIT: ("a", Action.WAIT),
            Loading.REFUSE: ("a", Action.REFUSE),
        }[loading]
    )


@pytest.mark.parametrize("policy", list(Policy))
def test_only_an_order_is_waited_for(table: Table, policy: Policy) -> None:
    group = Group("m", (table.route("a"), table.route("b")), policy)
    table.full = {"a"}
    strict = policy in (Policy.ORDERED, Policy.CHEAPEST)
    assert table.plan(group)[0] == (("a", Action.QUEUE) if strict else ("b", Action.SEND))
    assert table.lineup(group).is_strict(0) == strict


def test_weights_are_kept_to_over_the_turns_of_each_model(table: Table) -> None:
    def group(model: str) -> Group:
        routes = [table.route(f"{model}{n}", weight=w) for n, w in enumerate((1.0, 2.0, 7.0))]
        return Group(model, tuple(routes), Policy.WEIGHTED)

    groups = [group("m"), group("n")]
    firsts: Counter[str] = Counter()
    for _ in range(1000):
        for one in groups:
            firsts[table.plan(one)[0][0]] += 1
    for model in "mn":
        shares = [firsts[f"{model}{n}"] for n in range(3)]
        assert all(abs(a - b) <= 3 for a, b in zip(shares, (100, 200, 700), strict=True))
    assert table.dice.turns == {"m": 1000, "n": 1000}


def test_prices_are_of_this_request(table: Table) -> None:
    """Cheap to read and dear to write, and the other way."""
    reads = table.route("reads", prices=Prices(input=1.0, output=9.0))
    writes = table.route("writes", prices=Prices(input=9.0, output=1.0))
    group = Group("m", (reads, writes), Policy.CHEAPEST)
    long = [{"role": "user", "content": "x" * 4000}]
    assert table.tries(table.lineup(group, messages=long, max_tokens=10)) == "reads writes"
    assert table.tries(table.lineup(group, max_tokens=4000)) == "writes reads"


@pytest.mark.parametrize("stream", [True, False])
def test_latencies_are_of_such_requests(table: Table, stream: bool) -> None:
    """A stream's first event and a whole answer are two things."""
    first, whole = table.route("first"), table.route("whole")
    for route, quick in ((first, True), (whole, False)):
        route.standing.first.observe(NOW, 1.0 if quick else 2.0)
        route.standing.whole.observe(NOW, 2.0 if quick else 1.0)
    group = Group("m", (first, whole), Policy.LOWEST_LATENCY)
    expected = "first whole" if stream else "whole first"
    assert table.tries(table.lineup(group, stream=stream)) == expected


def test_chance_finds_out_what_is_not_known(table: Table) -> None:
    known, unknown = table.route("known"), table.route("unknown")
    known.standing.first.observe(NOW, 1.0)
    group = Group("m", (known, unknown), Policy.LOWEST_LATENCY)
    assert table.tries(group) == "known unknown"
    table.drawn = 0.01
    assert table.tries(group) == "unknown known"


def test_a_conversation_stays_where_it_was(table: Table) -> None:
    group = Group("m", tuple(table.route(f"t{n}") for n in range(5)), Policy.AFFINITY)
    firsts = set()
    for number in range(40):
        first = [{"role": "user", "content": f"question {number}"}]
        more = [*first, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
        one, two = (table.tries(table.lineup(group, messages=m)) for m in (first, more))
        assert one == two
        firsts.add(one.split()[0])
    assert len(firsts) == 5


def test_what_a_policy_needs_is_found_out_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(name: str, real: Callable[[Any], Any]) -> None:
        def count(request: Any) -> Any:
            asked.append(name)
            return real(request)

        monkeypatch.setattr(lineups, name, count)

    counted("affinity_of", affinity_of)
    counted("tokens_of", tokens_of)
    groups = [
        Group(f"m{policy}", (table.route("a"), table.route("b")), policy)
        for policy in (Policy.AFFINITY, Policy.CHEAPEST, Policy.AFFINITY, Policy.LEAST_BUSY)
    ]
    lineup = table.lineup(Chain(groups[0], tuple(groups[1:])))
    for _ in range(3):
        lineup.plan(NOW, table.dice)
    assert sorted(asked) == ["affinity_of", "tokens_of"]


# --- replicas


def engine(table: Table, *busy: int, **more: Any) -> Changing:
    """Replicas r0, r1, … with so much to do."""
    routes = tuple(table.route(f"r{n}", busy=count, **more) for n, count in enumerate(busy))
    return Changing(lambda: routes)


def test_under_an_order_replicas_share_their_engines_place(table: Table) -> None:
    group = Group("m", (table.route("a"), engine(table, 3, 1, 2), table.route("z")))
    assert table.tries(group) == "a r1 r2 r0 z"


def test_under_weights_the_engine_is_drawn_and_not_its_replicas(table: Table) -> None:
    """Else one with ten replicas would have ten times its weight."""
    replicas = engine(table, *[0] * 10, weight=1.0)
    group = Group("m", (table.route("a", weight=1.0), replicas), Policy.WEIGHTED)
    firsts = Counter(table.tries(group).split()[0] for _ in range(200))
    assert abs(firsts["a"] - 100) <= 3
    assert set(firsts) == {"a", "r0"}


def test_under_prices_too(table: Table) -> None:
    dear = table.route("dear", prices=Prices(input=1.0, output=1.0))
    replicas = engine(table, 1, 0, prices=Prices(input=0.0, output=0.0))
    assert table.tries(Group("m", (dear, replicas), Policy.CHEAPEST)) == "r1 r0 dear"


def test_the_least_busy_of_all_replicas_and_others(table: Table) -> None:
    group = Group("m", (table.route("a", busy=2), engine(table, 3, 1)), Policy.LEAST_BUSY)
    assert table.tries(group) == "r1 a r0"


def test_what_others_have_to_do_there_counts(table: Table) -> None:
    """As they said it last, but our own only once."""
    mine = table.route("mine", busy=3, load=3.0, load_ours=3)
    theirs = table.route("theirs", busy=1, load=5.0, load_ours=1)
    free = table.route("free", busy=4, load=0.0, load_ours=4)
    group = Group("m", (theirs, free, mine), Policy.LEAST_BUSY)
    assert table.tries(group) == "mine free theirs"


@pytest.mark.parametrize("policy", AMONG)
def test_some_policies_choose_among_all_replicas(table: Table, policy: Policy) -> None:
    group = Group("m", (table.route("a"), engine(table, 0, 0, 0)), policy)
    ranked = LineUp(Chain(group), request_of()).plan(NOW, table.dice)
    assert len(ranked) == 4
    assert not any("replica with" in r.place for r in ranked)


def test_a_conversation_stays_at_its_replica(table: Table) -> None:
    group = Group("m", (engine(table, 0, 0, 0, 0),), Policy.AFFINITY)
    firsts = set()
    for number in range(40):
        body = {"messages": [{"role": "user", "content": f"question {number}"}]}
        plans = {table.tries(table.lineup(group, **body)) for _ in range(3)}
        assert len(plans) == 1
        firsts.add(plans.pop().split()[0])
    assert firsts == {"r0", "r1", "r2", "r3"}


@pytest.mark.parametrize("policy", list(Policy))
def test_an_engine_without_replicas_can_be_waited_for(table: Table, policy: Policy) -> None:
    stand_in = table.route("engine", ready=False)
    group = Group("m", (Changing(lambda: (stand_in,)), table.route("a")), policy)
    assert dict(table.plan(group)) == {"a": Action.SEND, "engine": Action.WAIT}


def test_replicas_may_come_and_go_between_two_plans(table: Table) -> None:
    now: tuple[Route, ...] = (table.route("r0"),)
    lineup = table.lineup(Group("m", (Changing(lambda: now), table.route("a"))))
    assert table.tries(lineup) == "r0 a"
    now = (table.route("r1"), table.route("r2"))
    assert table.tries(lineup, tried=("r0", "r1")) == "r2 a"


# --- a target that stands twice


def test_it_has_one_chance_where_it_comes_first(table: Table) -> None:
    one = table.route("a")
    own = Group("m", (one, table.route("a", model="m"), table.route("b")))
    other = Group("n", (table.route("b", model="n"), table.route("c", model="n")))
    assert table.tries(Chain(own, (other,))) == "a b c"
    assert table.tries(Chain(own, (other,)), tried=("a",)) == "b c"


def test_a_bridge_that_is_not_needed_hides_no_fallback(table: Table) -> None:
    cloud = Group("cloud", (table.route("c"),))
    loading, ready = table.route("e", ready=False), table.route("e")
    for own, expected in [(ready, "e c"), (loading, "c e")]:
        chain = Chain(Group("m", (own,)), (cloud,), bridge=cloud)
        lineup = table.lineup(chain)
        assert table.tries(lineup) == expected
        groups = {r.route.standing.key: r.group for r in lineup.plan(NOW, table.dice)}
        assert lineup.is_bridge(groups["c"]) == (own is loading)


def test_what_it_may_not_do_for_one_model_it_may_for_another(table: Table) -> None:
    unable = table.route("a", able=Able.of({"n": False}))
    chain = Chain(Group("m", (unable,)), (Group("n", (table.route("a", model="n"),)),))
    lineup = table.lineup(chain, n=2)
    (ranked,) = lineup.plan(NOW, table.dice)
    assert (ranked.step.action, ranked.route.model) == (Action.SEND, "n")
