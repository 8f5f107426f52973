"""Each policy's order as tables, and what holds for all of them."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.cards import Prices
from server.routing.affinity import FLOOR, affinity_key
from server.routing.policies import (
    EXPLORED,
    FRESH,
    Facts,
    Place,
    Policy,
    Snapshot,
    dollars_for,
    order,
    smooth,
)

FACTS = Facts(prompt_tokens=1000, output_tokens=100, key=b"k" * 16)


def targets(*rows: dict[str, Any]) -> list[Snapshot]:
    return [Snapshot(index, f"p/{index}", **row) for index, row in enumerate(rows)]


def indices(places: tuple[Place, ...]) -> list[int]:
    return [place.index for place in places]


def busy(own: int, scraped: float | None = None, then: int = 0) -> dict[str, Any]:
    return {"in_flight": own, "scraped": scraped, "in_flight_then": then}


def price(output: float | None, given: float | None = 0.0) -> dict[str, Any]:
    return {"prices": Prices(input=given, output=output)}


def latency(seconds: float | None, age: float | None) -> dict[str, Any]:
    return {"latency": seconds, "latency_age": age}


def test_ordered() -> None:
    places = order(Policy.ORDERED, targets({"weight": 1.0}, {"weight": 9.0}), FACTS, 0.99)
    assert places == (Place(0, "place 1 of the order"), Place(1, "place 2 of the order"))


@pytest.mark.parametrize(
    ("weights", "draw", "expected"),
    [
        ((1, 3), 0.0, [0, 1]),
        ((1, 3), 0.2499, [0, 1]),
        ((1, 3), 0.25, [1, 0]),
        ((1, 3), 1.0, [1, 0]),  # past the end, as rounding can have it
        ((1, 3, 2), 0.0, [0, 1, 2]),
        ((1, 3, 2), 0.99, [2, 1, 0]),
        ((2, 0, 2), 0.5, [2, 0, 1]),
        ((0, 1), 0.0, [1, 0]),
        ((1, 0), 1.0, [0, 1]),
        ((0, 0), 0.9, [0, 1]),
        ((-1, 1), 0.0, [1, 0]),
        ((1, 1, 1), 0.5, [1, 0, 2]),
    ],
)
def test_weighted(weights: tuple[float, ...], draw: float, expected: list[int]) -> None:
    rows = targets(*[{"weight": weight} for weight in weights])
    assert indices(order(Policy.WEIGHTED, rows, FACTS, draw)) == expected


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 10**6), st.integers(1, 500)
)
def test_smooth_turns_are_nearer_to_the_weights_than_chance(
    weights: list[int], start: int, turns: int
) -> None:
    """However many requests, and from wherever counted: within a few of the exact share."""
    rows = targets(*[{"weight": float(weight)} for weight in weights])
    firsts = Counter(
        order(Policy.WEIGHTED, rows, FACTS, smooth(turn))[0].index
        for turn in range(start, start + turns)
    )
    for index, weight in enumerate(weights):
        assert abs(firsts[index] - turns * weight / sum(weights)) < 6


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([busy(0), busy(0)], [0, 1]),
        ([busy(2), busy(1)], [1, 0]),
        ([busy(2), busy(2), busy(1)], [2, 0, 1]),
        # 3 there when we had 3: all of it was ours.
        ([busy(1, 3, 3), busy(2)], [0, 1]),
        # 9 there when we had 3: 6 are others', whatever ours do since.
        ([busy(0, 9, 3), busy(5)], [1, 0]),
        ([busy(0, 9, 3), busy(7)], [0, 1]),
        # Fewer there than we had: a scrape of another moment, nobody else's.
        ([busy(1, 0, 5), busy(2)], [0, 1]),
    ],
)
def test_least_busy(rows: list[dict[str, Any]], expected: list[int]) -> None:
    assert indices(order(Policy.LEAST_BUSY, targets(*rows), FACTS, 0.5)) == expected


def test_least_busy_tells_its_numbers() -> None:
    places = order(Policy.LEAST_BUSY, targets(busy(4), busy(0, 9, 3)), FACTS, 0.5)
    assert places == (Place(0, "4 in flight"), Place(1, "0 in flight and 6 of others"))


@pytest.mark.parametrize(
    ("rows", "draw", "expected"),
    [
        ([latency(0.5, 1), latency(0.2, 1)], 0.0, [1, 0]),
        ([latency(0.2, 1), latency(0.2, 1)], 0.9, [0, 1]),
        ([latency(None, None), latency(0.9, 1)], 0.9, [1, 0]),
        ([latency(0.1, FRESH + 1), latency(0.9, FRESH)], 0.9, [1, 0]),
        ([latency(0.5, 1), latency(None, None), latency(0.2, 1)], 0.9, [2, 0, 1]),
        ([latency(0.5, 1), latency(None, None), latency(0.2, 1)], EXPLORED, [2, 0, 1]),
        # Explored, each of the unknown as often as the next.
        ([latency(0.5, 1), latency(None, None), latency(0.2, 99)], 0.0, [1, 0, 2]),
        ([latency(0.5, 1), latency(None, None), latency(0.2, 99)], EXPLORED * 0.99, [2, 0, 1]),
        # Nothing known of any: the order, whatever the draw.
        ([latency(None, None), latency(None, None)], 0.0, [0, 1]),
        ([latency(None, None), latency(None, None)], 0.9, [0, 1]),
    ],
)
def test_lowest_latency(rows: list[dict[str, Any]], draw: float, expected: list[int]) -> None:
    assert indices(order(Policy.LOWEST_LATENCY, targets(*rows), FACTS, draw)) == expected


def test_lowest_latency_tells_its_numbers() -> None:
    rows = targets(latency(0.5, 2), latency(0.25, 99), latency(None, None))
    first, *rest = order(Policy.LOWEST_LATENCY, rows, FACTS, 0.0)
    assert first.reason == "0.250 s to the first token, but 99 s ago: one of 5% that find out"
    assert [place.reason for place in rest] == [
        "0.500 s to the first token, 2 s ago",
        "time to the first token not measured",
    ]


def test_the_share_that_explores() -> None:
    rows = targets(latency(0.5, 2), latency(None, None), latency(None, None))
    random = Random(1)
    firsts = Counter(
        order(Policy.LOWEST_LATENCY, rows, FACTS, random.random())[0].index for _ in range(4000)
    )
    assert firsts[0] / 4000 == pytest.approx(1 - EXPLORED, abs=0.01)
    assert firsts[1] / 4000 == pytest.approx(EXPLORED / 2, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([price(2.0), price(1.0)], [1, 0]),
        ([price(1.0), price(1.0)], [0, 1]),
        ([{}, price(9.0)], [1, 0]),
        ([price(None), price(9.0), {}], [1, 0, 2]),
        ([price(0.0, None), price(9.0)], [1, 0]),
        # 1000 in and 100 out: the dearer output is the cheaper request.
        ([price(1.0, 3.0), price(20.0, 1.0)], [1, 0]),
        ([price(0.1), price(0.0)], [1, 0]),
    ],
)
def test_cheapest(rows: list[dict[str, Any]], expected: list[int]) -> None:
    assert indices(order(Policy.CHEAPEST, targets(*rows), FACTS, 0.5)) == expected


def test_cheapest_tells_its_numbers() -> None:
    rows = targets({}, price(10.0, 3.0))
    assert order(Policy.CHEAPEST, rows, FACTS, 0.5) == (
        Place(1, "$0.004000 for 1000 + 100 tokens"),
        Place(0, "price unknown"),
    )


@pytest.mark.parametrize(
    ("facts", "prices", "expected"),
    [
        (Facts(10, 0), Prices(input=1.0), 1e-5),
        (Facts(0, 10), Prices(output=1.0), 1e-5),
        (Facts(10, 1), Prices(input=1.0), None),
        (Facts(), Prices(), 0.0),
        (Facts(10, 10), None, None),
    ],
)
def test_dollars_for(facts: Facts, prices: Prices | None, expected: float | None) -> None:
    assert dollars_for(facts, prices) == expected


def test_affinity_stays_while_there_is_room_and_moves_on_when_there_is_not() -> None:
    idle = targets(busy(0), busy(0), busy(0))
    first, second, third = indices(order(Policy.AFFINITY, idle, FACTS, 0.5))
    loads = [0, 0, 0]

    def now() -> list[int]:
        places = order(Policy.AFFINITY, targets(*[busy(load) for load in loads]), FACTS, 0.5)
        return indices(places)

    loads[first] = FLOOR  # far over the mean, and still little
    assert now() == [first, second, third]
    loads[first] = FLOOR + 1
    assert now() == [second, third, first]
    loads[second] = FLOOR + 1
    assert now() == [third, first, second]
    loads[third] = FLOOR + 1  # all alike: nobody is over the mean
    assert now() == [first, second, third]


def test_affinity_tells_its_numbers() -> None:
    rows = targets(busy(0), busy(20))
    reasons = {place.index: place.reason for place in order(Policy.AFFINITY, rows, FACTS, 0.5)}
    assert "passed over: 20 in flight, its bound is 12.5" in reasons[1]
    assert "0 in flight" in reasons[0]


def test_affinity_counts_others_too() -> None:
    for n in range(20):
        facts = FACTS._replace(key=affinity_key("t", str(n)))
        assert order(Policy.AFFINITY, targets(busy(0, 30), busy(1)), facts, 0.5)[0].index == 1


def test_affinity_without_a_key_is_least_busy() -> None:
    rows = targets(busy(3), busy(1))
    facts = FACTS._replace(key=b"")
    assert order(Policy.AFFINITY, rows, facts, 0.5) == order(Policy.LEAST_BUSY, rows, facts, 0.5)


snapshots = st.lists(
    st.builds(
        Snapshot,
        index=st.just(0),
        label=st.text(max_size=3),
        weight=st.floats(0, 100),
        in_flight=st.integers(0, 50),
        scraped=st.none() | st.floats(0, 100),
        in_flight_then=st.integers(0, 50),
        latency=st.none() | st.floats(0, 100),
        latency_age=st.none() | st.floats(0, 1000),
        prices=st.none()
        | st.builds(Prices, input=st.none() | st.floats(0, 99), output=st.none() | st.floats(0, 9)),
    ),
    max_size=8,
)


@pytest.mark.no_cover
@given(st.sampled_from(Policy), snapshots, st.integers(0, 99), st.floats(0, 1, exclude_max=True))
def test_every_policy_ranks_every_target_once_and_says_why(
    policy: Policy, rows: list[Snapshot], tokens: int, draw: float
) -> None:
    rows = [row._replace(index=10 + place) for place, row in enumerate(rows)]
    facts = Facts(tokens, tokens, affinity_key("t", str(tokens)))
    places = order(policy, rows, facts, draw)
    assert sorted(indices(places)) == [row.index for row in rows]
    assert all(place.reason for place in places)
    assert order(policy, rows, facts, draw) == places
