"""Explained plans, as tables: what is told of each target, and that telling changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.dialects.table import DIALECTS
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from server.protocol.parameters import Ceilings
from server.protocol.request import Request
from server.routing.abilities import Able
from server.routing.chain import Chain, Group, Keys, Loading, Route
from server.routing.explain import explain
from server.routing.explanation import Part
from server.routing.plan import Action, Cause
from tests.routing.conftest import FakeTarget, request_of
from tests.routing.explained import LONG, SMALL, TOOLS, Scene, entry, group, steps


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- the order, the action, the reason


def test_the_models_own_then_its_fallbacks(scene: Scene) -> None:
    chain = Chain(
        group("m", scene.loads("a", eta=12.34), scene.route("b")),
        fallbacks=(group("n", scene.route("c", model="n")),),
    )
    found = scene.explain(chain)
    assert steps(found) == "b:send c:send a:wait"
    assert [(e.model, e.group) for e in found.targets] == [
        ("m", Part.OWN),
        ("n", Part.FALLBACK),
        ("m", Part.OWN),
    ]
    first, second, last = found.targets
    assert (first.reason, first.policy) == ("place 2 of the order",) * 2
    assert second.reason == "the only target"
    assert last.reason.startswith("place 1 of the order; not ready yet")
    assert (last.cause, last.ready, last.eta_s) == (Cause.NOT_READY, False, 12.3)
    assert (first.ready, first.eta_s) == (True, None)
    assert found.answer is None


def test_a_bridge(scene: Scene) -> None:
    bridge = group("quick", scene.route("bridge", model="quick"))
    fallbacks = (group("n", scene.route("c", model="n")),)
    found = scene.explain(Chain(group("m", scene.loads("a")), fallbacks, bridge=bridge))
    assert steps(found) == "bridge:send c:send a:wait"
    assert found.targets[0].group is Part.BRIDGE
    found = scene.explain(Chain(group("m", scene.route("b")), fallbacks, bridge=bridge))
    assert steps(found) == "b:send c:send bridge:skip"
    assert found.targets[2].cause is Cause.UNNEEDED
    assert found.targets[2].policy == "the only target"


def test_refused_while_it_loads(scene: Scene) -> None:
    chain = Chain(group("m", scene.loads("a", eta=7.25)), loading=Loading.REFUSE)
    found = scene.explain(chain)
    assert steps(found) == "a:refuse"
    assert found.answer is not None
    assert (found.answer.status, found.answer.code) == (503, "engine_loading")
    assert found.answer.retry_after_s == 7.2
    assert found.while_loading is Loading.REFUSE


def test_full(scene: Scene) -> None:
    chain = Chain(group("m", scene.full("a", waiting=2, bound=9), scene.route("b", slots=4)))
    found = scene.explain(chain)
    assert steps(found) == "a:queue b:skip"
    assert msgspec.to_builtins(entry(found, "a").places) == {
        "taken": 1,
        "limit": 1,
        "waiting": 2,
        "bound": 9,
    }
    behind = entry(found, "b")
    assert (behind.reason, behind.cause) == ("behind a target that is full", Cause.FULL)
    assert msgspec.to_builtins(behind.places) == {
        "taken": 0,
        "limit": 4,
        "waiting": 0,
        "bound": 64,
    }


def test_breakers_and_credentials_in_words(scene: Scene) -> None:
    tripped = scene.fails("a", account="lab")
    refused = scene.fails("b", "http_auth", 1, account="other")
    limited = scene.fails("c", "http_429", 1)
    chain = Chain(
        group("m", tripped, refused, limited, *map(scene.route, "defg")),
    )
    found = scene.explain(chain)
    assert steps(found) == "d:send e:send f:send g:send a:skip b:skip c:skip"
    a, b, c = found.targets[4:]
    assert a.breaker.state == "open"
    assert a.reason == a.breaker.words == "open for 5 s more after 5 failures in a row: reset"
    assert (a.cause, a.credential and a.credential.state) == (Cause.BREAKER, "closed")
    assert b.breaker.state == "closed"
    assert b.credential is not None
    assert b.credential.state == "open"
    assert b.reason == f"its credential is {b.credential.words}"
    assert (c.cause, c.breaker.state, c.credential) == (Cause.RATE_LIMITED, "resting", None)
    assert found.server.panic is False
    assert entry(found, "d").breaker.words == "closed"


def test_a_ramp_is_told_and_an_ordinary_request_is_not_let_through(scene: Scene) -> None:
    route = scene.fails("a")
    scene.now += 5
    attempt = route.standing.began(scene.now)
    route.standing.ended(scene.now, attempt, "ok")
    found = scene.explain(Chain(group("m", route, scene.route("b"))))
    assert steps(found) == "b:send a:skip"
    assert entry(found, "a").reason == "recovers: takes 10% of its requests, all in 15 s"


def test_panic(scene: Scene) -> None:
    found = scene.explain(Chain(group("m", scene.fails("a"), scene.fails("b"), scene.route("c"))))
    assert steps(found) == "c:send a:skip b:skip"  # one that is well is no reason for it
    assert found.server.panic is False
    found = scene.explain(Chain(group("m", scene.fails("a"), scene.fails("b"))))
    assert steps(found) == "a:send b:send"
    assert found.server.panic is True
    assert "place 1 of the order; open for 5 s" in found.targets[0].reason
    unable = scene.route("d", able=Able(("tools",)))
    chain = Chain(group("m", scene.fails("a"), scene.route("e"), unable))
    assert scene.explain(chain).server.panic is False
    # Of those that could answer this one, one of one is out.
    request = request_of(stream=False, **TOOLS)
    assert scene.explain(Chain(group("m", scene.fails("a"), unable)), request).server.panic is True


# --- what is told when nobody can


@pytest.mark.parametrize(
    ("targets", "body", "status", "code"),
    [
        ([], {}, 503, "no_target_left"),
        ([{"ready": False, "may_become_ready": False}], {}, 503, "no_target_left"),
        ([{"able": Able(("tools",))}], TOOLS, 400, "unsupported_ability"),
        ([{"able": Able(("n",))}, {"able": Able(("tools",))}], {**TOOLS, "n": 2}, 400,
         "unsupported_ability"),
    ],
)  # fmt: skip
def test_nobody(
    scene: Scene, targets: list[dict[str, Any]], body: dict[str, Any], status: int, code: str
) -> None:
    routes = [scene.route(str(at), **more) for at, more in enumerate(targets)]
    found = scene.explain(Chain(group("m", *routes)), request_of(stream=False, **body))
    assert {one.action for one in found.targets} <= {Action.SKIP}
    assert found.answer is not None
    assert (found.answer.status, found.answer.code) == (status, code)


def test_models_that_can_are_named(scene: Scene) -> None:
    chain = Chain(group("m", scene.route("a", able=Able(("tools",)))))
    request = request_of(stream=False, **TOOLS)
    found = explain(chain, request, scene.dispatcher, lambda ability: [f"has-{ability}"])
    assert found.answer is not None
    assert found.answer.message == "`m` cannot call tools. These can: `has-tools`."
    assert found.answer.param == "tools"
    assert found.targets[0].lacks == found.targets[0].reason == "lacks tools"
    assert found.request.needs == ("tools",)


def test_rate_limited_by_all(scene: Scene) -> None:
    found = scene.explain(Chain(group("m", scene.fails("a", "http_429", 1))))
    assert found.answer is not None
    assert (found.answer.status, found.answer.code) == (429, "upstream_rate_limited")
    assert found.answer.retry_after_s == 1.0  # the longest: this dispatcher draws no jitter


def test_over_a_ceiling_nothing_is_tried(scene: Scene) -> None:
    ceilings = Ceilings.of({"max_tokens": 10}, clamp=False)
    chain = Chain(
        group("m", scene.route("a", ceilings=ceilings), ceilings=ceilings),
        fallbacks=(group("n", scene.route("b", model="n")),),
    )
    found = scene.explain(chain, request_of(stream=False, max_tokens=11))
    assert steps(found) == "a:skip b:skip"
    assert {one.reason for one in found.targets} == {"refused before any target is tried"}
    assert found.answer is not None
    assert (found.answer.code, found.answer.param) == ("over_limit", "max_tokens")
    assert scene.explain(chain, request_of(stream=False, max_tokens=10)).answer is None


def test_a_target_that_refuses(scene: Scene) -> None:
    route = scene.route("a")
    assert isinstance(route.target, FakeTarget)
    route.target.refusal = InvalidRequest("Not here.", code="unsupported_endpoint")
    found = scene.explain(Chain(group("m", route)))
    assert found.targets[0].lacks == "Not here."
    assert found.answer is not None
    assert found.answer.code == "unsupported_endpoint"


# --- larger windows, other contents


def chain_with_more(scene: Scene, *context: Route) -> Chain:
    return Chain(
        group("m", scene.route("a", able=SMALL)),
        fallbacks=(group("n", scene.route("b", model="n", able=SMALL)),),
        context=(group("wide", *context),),
        content=(group("mild", scene.route("z", model="mild")),),
    )


def long() -> Request:
    return request_of(stream=False, surface=Surface.COMPLETIONS, **LONG)


def test_context_and_content_stand_behind_the_plan(scene: Scene) -> None:
    chain = chain_with_more(scene, scene.route("y", model="wide"))
    found = scene.explain(chain)
    assert steps(found) == "a:send b:send y:skip z:skip"
    assert [one.group for one in found.targets[2:]] == [Part.CONTEXT, Part.CONTENT]
    assert found.targets[2].reason == "only for a prompt that is too long for those before it"
    assert found.targets[3].reason == "only for content that a provider before it refuses"


def test_a_prompt_that_is_too_long_goes_to_larger_windows(scene: Scene) -> None:
    chain = chain_with_more(scene, scene.route("y", model="wide"))
    found = scene.explain(chain, long())
    assert steps(found) == "a:skip b:skip y:send z:skip"
    assert found.answer is None
    assert found.targets[0].lacks == "lacks context"


def test_a_prompt_that_is_too_long_for_the_larger_window_too(scene: Scene) -> None:
    found = scene.explain(chain_with_more(scene, scene.route("y", able=SMALL)), long())
    assert steps(found) == "a:skip b:skip y:skip z:skip"
    assert found.targets[2].reason == "lacks context"
    assert found.answer is not None
    assert found.answer.code == "context_length_exceeded"
    assert found.answer.param == "prompt"


def test_what_a_dialect_has_no_word_for(scene: Scene) -> None:
    theirs = scene.route("a")
    assert isinstance(theirs.target, FakeTarget)
    theirs.target.dialect = DIALECTS["anthropic"]
    request = request_of(stream=False, max_tokens=5, seed=3)
    found = scene.explain(Chain(group("m", theirs, scene.route("b"))), request)
    assert steps(found) == "b:send a:skip"
    assert (entry(found, "a").cause, request.dropped) == (Cause.ABILITY, ())
    assert "`seed`" in entry(found, "a").reason
    alone = scene.explain(Chain(group("m", theirs)), request)
    assert alone.answer is not None
    assert (alone.answer.status, alone.answer.code) == (400, "unsupported_parameter")


def test_the_keys_of_an_account(scene: Scene) -> None:
    first, second = (scene.route(key) for key in ("lab/m", "lab/m#0123"))
    for number, route in enumerate((first, second), 1):
        assert isinstance(route.target, FakeTarget)
        route.target.label, route.target.account = "lab/m", ("lab", number)
    found = scene.explain(Chain(Group("m", (Keys((first, second)),))))
    assert [(one.target, one.replica) for one in found.targets] == [
        ("lab/m", "key 2"),
        ("lab/m", None),
    ]
