"""Who stays loaded, who makes room for whom, and how much of a device engines may take."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from server.config.load import Loaded
from server.config.placement import Placement

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]


def engines(**more: str) -> str:
    """Engines with these keys besides their weights."""
    rows = (f"  {name}: {{weights: w, {keys}}}\n" for name, keys in more.items())
    return "version: 1\nengines:\n" + "".join(rows)


def section(more: str) -> str:
    return f"version: 1\nengines: {{a: {{weights: w}}}}\n{more}\n"


# --- what is read


def test_an_engine_says_who_it_makes_room_for(good: Good) -> None:
    text = engines(
        a="idle: 15m, residency: 1m, groups: [g, h], sleep: true, concurrency: 8, memory: 20GiB",
        b="groups: [g], load: request, replicas: 1",
        c="pinned: true, load: startup, replicas: 2, idle: null, residency: 0",
        d="groups: [h], load: request",
    )
    loaded = good(text)
    a, b, c, _ = loaded.config.engines.values()
    assert (a.idle, a.residency, a.groups, a.sleep) == (900, 60, ("g", "h"), True)
    assert (a.concurrency, a.memory) == (8, 20 * 2**30)
    assert (b.pinned, b.idle, b.residency, b.replicas) == (False, None, 30, 1)
    assert (c.pinned, c.replicas, c.residency) == (True, 2, 0)
    assert loaded.advice == ()


def test_the_section(good: Good) -> None:
    said = "{starvation: 2m, drain: 0, forget: 1h, memory: {cpu: 16GiB, cuda: 1, 'cuda:10': 0}}"
    placement = good(section(f"placement: {said}")).config.placement
    assert (placement.starvation, placement.drain, placement.forget) == (120, 0, 3600)
    assert placement.memory == {"cpu": 16 * 2**30, "cuda": 1, "cuda:10": 0}
    for empty in ("", "placement:", "weights:"):
        placement = good(section(empty)).config.placement
        assert (placement.starvation, placement.drain, placement.forget) == (60, 30, None)
        assert placement.memory == {}


def test_the_store(good: Good) -> None:
    said = "{folder: ../m, allow_pickle: true, stall_timeout: 1m, workers: 8, pull: false}"
    weights = good(section(f"weights: {said}")).config.weights
    assert (weights.folder, weights.allow_pickle, weights.stall_timeout) == ("../m", True, 60)
    assert (weights.workers, weights.pull) == (8, False)


# --- what is refused

CASES = {
    engines(a="replicas: 0"): "engines.a.replicas: should be greater than or equal to 1.",
    engines(a="replicas: 65"): "engines.a.replicas: should be less than or equal to 64.",
    engines(a="concurrency: 0"): "engines.a.concurrency: should be greater than or equal to 1.",
    engines(a="memory: 0"): "engines.a.memory: should be greater than 0.",
    engines(a="idle: soon"): "engines.a.idle: 'soon' is no duration: write seconds (30) or 500ms",
    engines(a="groups: g"): "engines.a.groups: should be a list.",
    engines(a="groups: ['a b']"): "engines.a.groups[0]: may hold letters, digits",
    engines(a="replicas: 2, groups: [g]", b="groups: [g], load: request"): (
        "engines.a.replicas: is more than 1, and an engine in a group is loaded once. Remove"
    ),
    engines(a="pinned: true, load: request"): "engines.a.load: is `request`, and a pinned engine "
    "is loaded with the server. Remove it, or `pinned`.",
    engines(a="pinned: true, idle: 1h"): "engines.a.idle: would unload it, and a pinned engine is",
    engines(a="pinned: true, groups: [g]", b="groups: [g]", c="groups: [g]"): (
        "engines.a.groups: has `b`, `c` in it, too, which could never be loaded: this one is "
        "pinned. Remove `pinned`, or take one of them out of the group."
    ),
    section("placement: {memory: {gpu: 1GiB}}"): "placement.memory.gpu: is no name that can be "
    "used here: it must be cpu, cuda (each GPU), or one GPU by number, such as cuda:0.",
    section("placement: {memory: {'cuda:0,1': 1GiB}}"): "it must be cpu, cuda (each GPU), or one",
    section("placement: {memory: {'cuda:x': 1GiB}}"): "it must be cpu, cuda (each GPU), or one GPU",
    section("placement: {memory: {'CPU': 1GiB}}"): "it must be cpu, cuda (each GPU), or one GPU",
    section("placement: {memory: {cpu: much}}"): "placement.memory.cpu: 'much' is no size: write",
    section("placement: {memory: {cpu: }}"): "placement.memory.cpu: None is no size: write bytes",
    section("placement: {memory: 1GiB}"): "placement.memory: should be a mapping",
    section("placement: {starvation: -1}"): "placement.starvation: a duration cannot be negative.",
    section("placement: {residency: 1m}"): "placement.residency: is not a known key.",
    section("starvation: 1m"): "starvation: is not a known key. `starvation` stands under `placem",
    section("weights: {workers: 0}"): "weights.workers: should be greater than or equal to 1.",
    section("weights: {workers: 33}"): "weights.workers: should be less than or equal to 32.",
    section("weights: {stall_timeout: 0}"): "weights.stall_timeout: should be greater than 0.",
    section("weights: {pulls: true}"): "weights.pulls: is not a known key. Did you mean `pull`?",
    section("weights: Qwen/Qwen3-8B"): "weights: should be a mapping",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    (said,) = faults(text)
    assert CASES[text] in said


def test_two_pinned_engines_of_one_group_are_both_told(faults: Faults) -> None:
    said = faults(engines(a="pinned: true, groups: [g]", b="pinned: true, groups: [g]"))
    assert [line.split(": ")[1] for line in said] == ["engines.a.groups", "engines.b.groups"]


# --- advice

ADVICE = {
    engines(a="groups: [g]"): "Engine `a`: nobody else is in the group `g`: no effect.",
    engines(a="groups: [g, g]"): "Engine `a`: nobody else is in the group `g`: no effect.",
    engines(a="groups: [g]", b="groups: [g]", c="groups: [g], load: request"): (
        "Group `g`: `a` and `b` are loaded at startup, but only one of the group can be at a time. "
        "Write `load: request` for the others."
    ),
    engines(a="sleep: true, device: cpu"): "Engine `a`: `sleep` has no effect on a CPU: its "
    "weights are in the host's memory already.",
    engines(a="sleep: true, pinned: true"): "Engine `a`: `sleep` has no effect: it is pinned and "
    "never makes room.",
    engines(a="concurrency: 4, kv_cache: 1GiB"): "Engine `a`: `concurrency` has no effect beside "
    "`kv_cache`, which wins.",
}


@pytest.mark.parametrize("text", ADVICE)
def test_what_is_probably_not_meant(text: str, good: Good) -> None:
    assert good(text).advice == (ADVICE[text],)


def test_memory_may_be_said_of_any_engine(good: Good) -> None:
    assert good(engines(a="memory: 1GiB, kv_cache: 1GiB, device: cpu")).advice == ()


# --- what requests may wish for


@pytest.mark.parametrize(
    ("wished", "idle", "comes_to"),
    [
        (0.0, None, 60.0),
        (0.0, 900.0, 60.0),
        (0.0, 5.0, 5.0),  # without a wish it goes then, too
        (100.0, 900.0, 100.0),
        (math.inf, 900.0, 3600.0),
        (math.inf, 7200.0, 7200.0),
        (math.inf, None, math.inf),
        (7200.0, None, 7200.0),
    ],
)
def test_how_long_an_engine_stays_has_bounds(
    wished: float, idle: float | None, comes_to: float
) -> None:
    bounds = Placement(keep_alive_least=60, keep_alive_most=3600)
    assert bounds.heeded(wished, idle) == comes_to


def test_nobody_keeps_an_engine_for_ever_that_is_to_go_when_it_is_idle() -> None:
    assert Placement().heeded(math.inf, 900.0) == 86400.0
    assert Placement().heeded(0.0, None) == 0.0


def test_bounds_that_leave_nothing_between_them(faults: Faults) -> None:
    text = section("placement: {keep_alive_least: 2m, keep_alive_most: 1m}")
    (said,) = faults(text)
    assert "placement.keep_alive_least: is longer than `keep_alive_most`. Write it the" in said
