"""What else is told of each target, and that telling changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.config.cards import Prices
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing
from server.routing.explain import lines
from server.routing.explanation import Now, Part
from server.routing.lineup import LineUp
from server.routing.plan import Action
from server.routing.policies import Policy
from tests.routing.conftest import FakeTarget, request_of
from tests.routing.explained import TOOLS, Scene, entry, group, steps


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- what else is told


def test_of_the_request_and_the_server(scene: Scene) -> None:
    chain = Chain(group("own", scene.route("a"), policy=Policy.AFFINITY))
    scene.dispatcher.budget.spend(scene.now)
    found = scene.explain(chain, request_of(stream=True, max_tokens=9, n=2))
    assert (found.name, found.model, found.policy) == ("m", "own", Policy.AFFINITY)
    asked = found.request
    assert (asked.surface, asked.stream, asked.output_tokens) == ("chat", True, 9)
    assert asked.prompt_tokens == len('[{"role": "user", "content": "hi"}]') // 4
    assert (asked.needs, asked.affinity_key) == (("n",), True)
    assert (found.server.retry_budget, found.server.attempts) == (0.5, 3)
    assert scene.explain(chain, request_of(messages=[])).request.affinity_key is False


def test_prices_and_latencies(scene: Scene) -> None:
    dear = scene.route("a", prices=Prices(input=0.0, output=4.0))
    cheap = scene.route("b", prices=Prices(input=0.0, output=1.0), weight=2.5)
    unknown = scene.route("c")
    cheap.standing.first.observe(scene.now - 3, 0.25)
    cheap.standing.whole.observe(scene.now - 2, 1.5)
    chain = Chain(group("m", dear, unknown, cheap, policy=Policy.CHEAPEST))
    found = scene.explain(chain, request_of(stream=False, max_tokens=1000))
    assert steps(found) == "b:send a:send c:send"
    assert [one.price_usd for one in found.targets] == [0.001, 0.004, None]
    first = found.targets[0]
    assert (first.latency_s, first.latency_age_s, first.weight) == (1.5, 2.0, 2.5)
    assert first.policy.startswith("$0.001000 for ")
    first = scene.explain(chain, request_of(stream=True)).targets[0]
    assert (first.latency_s, first.latency_age_s) == (0.25, 3.0)
    assert (found.targets[2].latency_s, found.targets[2].latency_age_s) == (None, None)


def test_replicas(scene: Scene) -> None:
    routes = tuple(
        scene.route("engine/x", key=f"engine/x@http://{n}", load=load)
        for n, load in (("one:80", 5.0), ("two:80", 1.0))
    )
    stand_in = scene.loads("engine/y")
    chain = Chain(group("m", Changing(lambda: routes), Changing(lambda: (stand_in,))))
    found = scene.explain(chain)
    assert [(e.target, e.replica, e.scraped) for e in found.targets] == [
        ("engine/x", "http://two:80", 1.0),
        ("engine/x", "http://one:80", 5.0),
        ("engine/y", None, None),
    ]
    assert found.targets[0].reason == (
        "place 1 of the order; replica with 0 in flight and 1 of others"
    )


def test_what_would_be_dropped(scene: Scene) -> None:
    able = Able.of({}, drop=frozenset({"tools", "seed"}))
    chain = Chain(group("m", scene.route("a", able=able), scene.route("b")))
    body: dict[str, Any] = {**TOOLS, "tool_choice": "auto", "chat_template": "x", "temperature": 0}
    found = scene.explain(chain, request_of(stream=False, **body))
    assert sorted(entry(found, "a").dropped) == ["chat_template", "tool_choice", "tools"]
    assert entry(found, "b").dropped == ("chat_template",)


def test_in_flight(scene: Scene) -> None:
    route = scene.route("a")
    route.standing.began(scene.now)
    assert scene.explain(Chain(group("m", route))).targets[0].in_flight == 1


def test_it_is_data(scene: Scene) -> None:
    found = scene.explain(Chain(group("m", scene.fails("a", account="lab"), scene.full("b"))))
    told = msgspec.json.decode(msgspec.json.encode(found))
    assert told["policy"] == "ordered"
    assert told["targets"][0]["action"] == "queue"
    assert told["targets"][1]["breaker"]["state"] == "open"


# --- nothing changes


def test_no_turn_is_taken(scene: Scene) -> None:
    """What is explained is what the next request gets, however often one looks."""
    routes = [scene.route("a", weight=3), scene.route("b"), scene.route("c", weight=2)]
    chain = Chain(group("m", *routes, policy=Policy.WEIGHTED))
    chosen = []
    for _ in range(12):
        first, again = scene.explain(chain), scene.explain(chain)
        assert first == again
        real = LineUp(chain, request_of(stream=False)).plan(scene.now, scene.dispatcher.dice)
        assert steps(first).split()[0] == f"{real[0].route.target.label}:send"
        assert [one.reason for one in first.targets] == [ranked.step.reason for ranked in real]
        chosen.append(real[0].route.target.label)
    assert {name: chosen.count(name) for name in "abc"} == {"a": 6, "b": 2, "c": 4}


@pytest.mark.parametrize("policy", list(Policy))
def test_nothing_is_drawn_made_wanted_or_begun(scene: Scene, policy: Policy) -> None:
    probed = scene.fails("probed")
    scene.now += 5  # half open: the next attempt is its probe
    loads, places = scene.loads("loads"), scene.route("places", slots=3)
    chain = Chain(
        group("m", probed, loads, places, policy=policy),
        fallbacks=(group("n", *map(scene.route, "ab"), policy=policy),),
    )
    draws = scene.draws
    before = scene.dispatcher.dice.turns.copy()
    for _ in range(3):
        found = scene.explain(chain)
        assert entry(found, "probed").breaker.words.startswith("half open, waits for a probe")
        assert entry(found, "probed").action is Action.SEND
        lines(chain, scene.dispatcher)
    assert scene.draws == draws
    assert scene.dispatcher.dice.turns == before
    assert list(scene.dispatcher.rooms.all()) == []
    assert isinstance(loads.target, FakeTarget)
    assert loads.target.wanted == 0
    assert {one.standing.in_flight for one in chain.own.routes()} == {0}


# --- without a request


def test_lines(scene: Scene) -> None:
    ramp = scene.fails("ramp")
    half = scene.fails("half")
    scene.now += 5
    attempt = ramp.standing.began(scene.now)
    ramp.standing.ended(scene.now, attempt, "ok")
    chain = Chain(
        group("m", scene.route("well"), scene.full("full"), ramp, half, scene.fails("open")),
        fallbacks=(group("n", scene.fails("rests", "http_429", 1, model="n")),),
        context=(group("wide", scene.loads("loads", model="wide")),),
        content=(group("mild", scene.loads("dead", model="mild", may_become_ready=False)),),
        bridge=group("quick", scene.route("e@x", key="e@x@http://r", model="quick")),
    )
    found = lines(chain, scene.dispatcher)
    assert [(one.target, one.model, one.group, one.state) for one in found] == [
        ("well", "m", Part.OWN, Now.READY),
        ("full", "m", Part.OWN, Now.FULL),
        ("ramp", "m", Part.OWN, Now.RAMP),
        ("half", "m", Part.OWN, Now.HALF_OPEN),
        ("open", "m", Part.OWN, Now.OPEN),
        ("e@x", "quick", Part.BRIDGE, Now.READY),
        ("rests", "n", Part.FALLBACK, Now.RESTING),
        ("loads", "wide", Part.CONTEXT, Now.NOT_READY),
        ("dead", "mild", Part.CONTENT, Now.DOWN),
    ]
    assert [one.replica for one in found if one.replica] == ["http://r"]
