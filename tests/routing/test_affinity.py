"""Affinity keys, the hash order, and what moves when targets come and go."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.envelope import members
from server.routing.affinity import (
    SPREAD,
    affinity_key,
    first_texts,
    hash_order,
    most_per_weight,
)

KEYS = [affinity_key("tenant", f"session {n}") for n in range(2000)]
labels_of = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8, unique=True)


def order(key: bytes, *labels: str) -> list[str]:
    return [labels[position] for position in hash_order(key, labels, (1.0,) * len(labels))]


def test_the_strongest_sign_counts() -> None:
    session = affinity_key("t", "s")
    assert affinity_key("t", "s", "cache", b"system", b"user") == session
    cache = affinity_key("t", None, "cache")
    assert affinity_key("t", "", "cache", b"system", b"user") == cache
    text = affinity_key("t", None, None, b"system", b"user")
    assert len({session, cache, text, affinity_key("t", "cache"), affinity_key("t", "t")}) == 5
    assert {len(key) for key in (session, cache, text)} == {16}


def test_without_any_sign_there_is_no_key() -> None:
    assert affinity_key("t") == b""
    assert affinity_key(None, "", "", b"", b"") == b""


def test_nobody_shares_a_key_with_another_tenant() -> None:
    ask = (None, None, b"the same system", b"the same question")
    assert affinity_key("a", *ask) != affinity_key("b", *ask) != affinity_key(None, *ask)


def test_parts_do_not_run_into_each_other() -> None:
    assert affinity_key("ab", "c") != affinity_key("a", "bc")
    assert affinity_key("t", None, None, b"ab", b"c") != affinity_key("t", None, None, b"a", b"bc")
    assert affinity_key("t", None, None, b"a", None) != affinity_key("t", None, None, None, b"a")


def test_the_first_4_kib_of_a_text_count() -> None:
    start = b"x" * 4096
    key = affinity_key("t", None, None, start, start)
    assert affinity_key("t", None, None, start + b"1", start + b"2" * 10_000_000) == key
    assert affinity_key("t", None, None, start[1:], start) != key
    assert affinity_key("t", "x" * 4096) == affinity_key("t", "x" * 4096 + "y")


def test_a_key_is_the_same_in_every_process() -> None:
    assert affinity_key("t", "\ud800ü").hex() == "3b767acff73ebd285eb091efaebf5689"
    assert order(bytes(16), "a", "b", "c", "d") == ["c", "b", "d", "a"]


@pytest.mark.parametrize(
    ("body", "system", "user"),
    [
        (b'{"messages":[{"role":"user","content":"hi"}]}', None, b'"hi"'),
        (
            (
                b'{"messages":[{"role":"developer","content":"d"},{"role":"system","content":"s"},'
                b'{"role":"assistant","content":"a"},{"role":"user","content":["u"]},'
                b'{"role":"user","content":"v"}]}'
            ),
            b'"d"',
            b'["u"]',
        ),
        (b'{"messages":[{"role":"system","content":"s"},{"role":"user"}]}', b'"s"', b""),
        (b'{"messages":[]}', None, None),
        (b'{"messages":7}', None, None),
        (b'{"messages":[7]}', None, None),
        (b'{"prompt":["a","b"]}', None, b'["a","b"]'),
        (b'{"input":"x"}', None, None),
    ],
)
def test_first_texts(body: bytes, system: bytes | None, user: bytes | None) -> None:
    assert first_texts(members(body)) == (system, user)


def test_first_texts_are_short() -> None:
    body = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"x" * 10_000)
    assert first_texts(members(body)) == (None, b'"' + b"x" * 4095)


@given(labels_of, st.binary(min_size=16, max_size=16), st.data())
def test_removing_a_target_moves_only_its_keys(
    labels: list[str], key: bytes, data: st.DataObject
) -> None:
    """The others keep their order for every key, so a key moves only if its first was removed."""
    before = order(key, *labels)
    gone = data.draw(st.sampled_from(labels))
    left = [label for label in labels if label != gone]
    assert order(key, *left) == [label for label in before if label != gone]


@given(labels_of, st.binary(min_size=16, max_size=16), st.randoms())
def test_the_order_of_the_config_does_not_matter(
    labels: list[str], key: bytes, random: Random
) -> None:
    shuffled = list(labels)
    random.shuffle(shuffled)
    assert order(key, *shuffled) == order(key, *labels)


def test_keys_spread_by_weight() -> None:
    firsts = Counter(hash_order(key, ("a", "b", "c"), (1.0, 2.0, 1.0))[0] for key in KEYS)
    assert 0.45 < firsts[1] / len(KEYS) < 0.55
    assert 0.20 < firsts[0] / len(KEYS) < 0.30


def test_those_of_a_removed_target_spread_over_the_others() -> None:
    orphans = [key for key in KEYS if order(key, "a", "b", "c", "d")[0] == "a"]
    heirs = Counter(order(key, "b", "c", "d")[0] for key in orphans)
    assert all(0.2 < heirs[label] / len(orphans) < 0.5 for label in "bcd")


def test_more_weight_takes_keys_and_gives_none_away() -> None:
    for key in KEYS[:500]:
        before = hash_order(key, ("a", "b", "c"), (1.0, 1.0, 1.0))[0]
        after = hash_order(key, ("a", "b", "c"), (1.0, 3.0, 1.0))[0]
        assert after in (before, 1)


def test_weight_0_comes_last() -> None:
    assert all(hash_order(key, ("a", "b", "c"), (1.0, 0.0, 1.0))[2] == 1 for key in KEYS[:200])


def test_the_same_label_twice_stands_by_order() -> None:
    assert hash_order(bytes(16), ("a", "a"), (1.0, 1.0)) == (0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 100), st.floats(0.01, 10)), min_size=1, max_size=9),
)
def test_never_are_all_over_their_bound(targets: list[tuple[int, float]]) -> None:
    loads, weights = [load for load, _ in targets], [weight for _, weight in targets]
    most = most_per_weight(loads, weights)
    assert any(load <= most * weight * (1 + 1e-9) for load, weight in targets)


def test_the_bound_is_a_little_over_the_mean() -> None:
    assert most_per_weight([4, 8], [1, 1]) == (1 + SPREAD) * 6
    assert most_per_weight([4, 8], [0, 0]) == float("inf")
