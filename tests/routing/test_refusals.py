"""What a client is told when no target could even be tried: the nearest hope, and never a lie."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import EngineNotReady, InvalidRequest, RoundhouseError
from server.protocol.envelope import Surface
from server.routing import refusals
from server.routing.abilities import PARAMETERS, Able
from server.routing.chain import Chain, Group, Route
from tests.routing.table import NOW, Table


@pytest.fixture
def table() -> Table:
    return Table()


def named(ability: str) -> list[str]:
    return ["x", "y"]


def told(table: Table, *routes: Route, now: float = NOW, **body: Any) -> RoundhouseError:
    lineup = table.lineup(Chain(Group("m", routes)), **body)
    plan = lineup.plan(now, table.dice)
    error = refusals.nobody(lineup, plan, now, named)
    assert error.message.endswith(".")
    return error


def rests(route: Route, seconds: float) -> Route:
    route.standing.ended(NOW, route.standing.began(NOW), "http_429", seconds)
    return route


def refused(route: Route) -> Route:
    route.standing.ended(NOW, route.standing.began(NOW), "http_auth")
    return route


def out(table: Table, name: str, **more: Any) -> Route:
    route = table.route(name, **more)
    table.trip(route)
    return route


def test_all_rest(table: Table) -> None:
    error = told(table, rests(table.route("a"), 20), rests(table.route("b"), 7), now=NOW + 2)
    assert (error.status, error.code, error.retry_after) == (429, "upstream_rate_limited", 5)
    assert error.type == "rate_limit_error"


def test_all_are_out(table: Table) -> None:
    table.dice.panic = 1.0
    error = told(table, out(table, "a"), out(table, "b"), now=NOW + 2)
    assert isinstance(error, EngineNotReady)
    assert (error.status, error.code, error.retry_after) == (503, "no_target_left", 3)


def test_the_first_to_come_back_is_told_of(table: Table) -> None:
    table.dice.panic = 1.0
    error = told(table, rests(table.route("a"), 3), out(table, "b"))
    assert (error.status, error.retry_after) == (503, 3)
    error = told(table, rests(table.route("c"), 60), out(table, "d"))
    assert (error.status, error.retry_after) == (503, 5)


def test_all_are_refused_for_the_credential(table: Table) -> None:
    a = refused(table.route("a", account=("lab", "key")))
    b = table.route("b", account=("lab", "key"))
    error = told(table, a, b, now=NOW + 10)
    assert (error.status, error.code) == (502, "upstream_refused_credentials")
    assert error.retry_after == 20
    mixed = told(table, a, rests(table.route("c"), 60))
    assert (mixed.status, mixed.code, mixed.retry_after) == (503, "no_target_left", 30)


def test_a_probe_under_way_names_no_time(table: Table) -> None:
    a, b = out(table, "a"), table.route("b", ready=False, may=False)
    a.standing.began(NOW + 5)
    error = told(table, a, b, now=NOW + 5)
    assert (error.status, error.retry_after) == (503, None)
    assert error.headers() == {"retry-after": "5"}


@pytest.mark.parametrize("lacking", [True, False])
def test_who_comes_back_is_more_than_who_never_can(table: Table, lacking: bool) -> None:
    unable = table.route("u", able=Able.of({"n": False}))
    dead = table.route("d", ready=False, may=False)
    other = unable if lacking else dead
    assert told(table, other, rests(table.route("a"), 9), n=2).status == 429


def test_dead_engines(table: Table) -> None:
    error = told(table, table.route("a", ready=False, may=False))
    assert (error.status, error.code, error.retry_after) == (503, "no_target_left", None)
    assert told(table).code == "no_target_left"


def test_a_dead_engine_might_have_been_able(table: Table) -> None:
    unable = table.route("u", able=Able.of({"n": False}))
    dead = table.route("d", ready=False, may=False)
    assert told(table, unable, dead, n=2).status == 503
    assert told(table, unable, n=2).status == 400


@pytest.mark.parametrize("ability", sorted(PARAMETERS))
def test_every_ability_has_words_and_a_parameter(table: Table, ability: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:x"}}
    sound = {"type": "input_audio", "input_audio": {"data": "x"}}
    bodies: dict[str, dict[str, Any]] = {
        "tools": {"tools": [{}]},
        "json_schema": {"response_format": {"type": "json_schema"}},
        "logprobs": {"logprobs": True},
        "n": {"n": 2},
        "vision": {"messages": [{"role": "user", "content": [picture]}]},
        "audio": {"messages": [{"role": "user", "content": [sound]}]},
    }
    body = bodies[ability]
    error = told(table, table.route("a", able=Able.of({ability: False})), **body)
    assert isinstance(error, InvalidRequest)
    assert (error.code, error.status) == ("unsupported_ability", 400)
    assert error.param in body
    assert error.message.startswith("`m` cannot ")
    assert error.message.endswith(" These can: `x`, `y`.")


def test_the_first_targets_lack_is_told(table: Table) -> None:
    a = table.route("a", able=Able.of({"n": False}))
    b = table.route("b", able=Able.of({"tools": False}))
    assert told(table, a, b, n=2, tools=[{}]).param == "n"
    assert told(table, b, a, n=2, tools=[{}]).param == "tools"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"surface": Surface.COMPLETIONS, "prompt": [1] * 99}, "prompt")],
)
def test_a_prompt_that_is_too_long(table: Table, body: dict[str, Any], param: str) -> None:
    error = told(table, table.route("a", able=Able(window=9)), **body)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", param)
    assert "9 tokens" in error.message


def test_a_chat_that_is_too_long(table: Table) -> None:
    long = [{"role": "user", "content": "x" * 100}]
    route = table.route("a", able=Able(window=9, longest_token=2))
    error = told(table, route, messages=long)
    assert (error.code, error.param) == ("context_length_exceeded", "messages")


def test_a_targets_own_refusal_is_the_word(table: Table) -> None:
    route = table.route("a", able=Able.of({"n": False}))
    said = InvalidRequest("Not here.", param="model", code="unsupported_endpoint")
    route.target.refusal = said  # type: ignore[attr-defined]
    assert told(table, route, n=2) is said


def test_soonest_is_of_those_that_are_kept_back(table: Table) -> None:
    def soonest(*routes: Route, now: float = NOW) -> float | None:
        lineup = table.lineup(Group("m", routes))
        return refusals.soonest(lineup.plan(now, table.dice), now)

    well, resting = table.route("a"), rests(table.route("b"), 9)
    assert soonest(well) is None
    assert soonest(well, resting) == 9
    assert soonest(well, resting, out(table, "c")) == 5
    assert soonest(well, resting, now=NOW + 10) is None


def test_loading_tells_the_engines_estimate(table: Table) -> None:
    error = refusals.loading(table.route("a"))
    assert (error.status, error.code, error.retry_after) == (503, "engine_loading", None)
