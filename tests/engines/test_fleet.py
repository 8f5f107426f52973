from __future__ import annotations

import asyncio

import pytest

from server.engines import external
from server.engines.external import Settings
from server.engines.fleet import settings_of
from server.engines.state import EngineState
from tests.engines.replica_house import (
    KEY,
    NAME,
    Fleets,
    a_replica,
    address,
    asked,
    discovered,
    fixed,
    ill,
    in_state,
    says_load,
    these,
    until,
    well,
)
from tests.fakes.upstream import (
    Gate,
    answer_bytes,
    answer_json,
    answer_late,
    garbage,
    hang,
    models_answer,
)

READY, BACKOFF, STARTING = EngineState.READY, EngineState.BACKOFF, EngineState.STARTING


# --- fixed URLs


async def test_replicas_that_answer_are_well(fleets: Fleets) -> None:
    async with a_replica("one") as one, a_replica("two") as two:
        two.routes["/metrics"] = answer_json(404)
        fleet = await fleets.fixed(one, two, api_key=KEY)
        first = fleet.view(NAME)
        assert first is not None
        assert (first.state, fleet.replicas(NAME)) == (STARTING, ())
        view = await these(fleet, one, two)
        assert (view.state, view.error, view.socket) == (READY, None, None)
        found = fleet.replicas(NAME)
        assert [(r.address, r.base_url, r.model) for r in found] == [
            (address(one), one.url, "one"),
            (address(two), two.url, "two"),
        ]
        assert {r.headers["authorization"] for r in found} == {f"Bearer {KEY}"}
        assert {e.header("authorization") for e in one.requests} == {f"Bearer {KEY}"}
        assert KEY not in repr(found) + repr(fixed(one, api_key=KEY))
        await until(fleet, lambda view: view.stage == "2 of 2 replicas well")
        assert fleets.count("roundhouse_replicas", state="well") == 2
        assert fleets.count("roundhouse_replicas", state="ill") == 0
        assert fleets.count("roundhouse_engine_state", state="ready") == 1
        assert (fleets.changes("added"), fleets.changes("lost")) == (2, 0)


async def test_unknown_engines_have_no_replicas(fleets: Fleets) -> None:
    fleet = await fleets.start()
    assert (fleet.view("other"), fleet.replicas("other"), fleet.members("other")) == (None, (), ())
    fleet.report_failure("other", "127.0.0.1:1")


async def test_one_that_misses_its_checks_is_left_out_until_a_good_one(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleet = await fleets.fixed(one, two)
        await these(fleet, one, two)
        ill(one)
        await these(fleet, two)
        assert [e.path for e in one.requests].count("/health") >= 4  # one was good
        ((where, standing), _) = fleet.members(NAME)
        assert (where, standing.well) == (address(one), False)
        assert standing.error == "Its /health says 503."
        assert fleets.count("roundhouse_replicas", state="ill") == 1
        well(one)
        await these(fleet, one, two)
        assert (fleets.changes("lost"), fleets.changes("returned")) == (1, 1)


async def test_a_miss_or_two_are_forgiven(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one, model="m")
        await these(fleet, one)
        one.routes.pop("/health")
        one.default = answer_bytes(200, b"")
        one.queue(answer_json(503), answer_json(503))
        await asked(one, "/health", 4)
        assert (one.queued, fleets.changes("lost")) == (0, 0)


async def test_without_a_replica_that_is_well(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one)
        await in_state(fleet, READY)
        before = fleet.replicas(NAME)
        ill(one)
        view = await in_state(fleet, BACKOFF)
        assert fleet.replicas(NAME) == ()
        assert len(before) == 1  # a snapshot stays what it was
        assert view.error == (f"None of 1 replicas is well. {address(one)}: Its /health says 503.")
        assert fleets.count("roundhouse_engine_state", state="backoff") == 1
        assert fleets.count("roundhouse_engine_state", state="ready") == 0


async def test_one_that_nobody_listens_at_is_left_out_at_once(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleet = await fleets.fixed(one, two, misses=1000)
        await these(fleet, one, two)
        await one.stop()
        await these(fleet, two)
        await one.start()
        await these(fleet, one, two)


async def test_a_failed_request_is_looked_into_at_once(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleet = await fleets.fixed(one, two, interval=3600.0)
        await these(fleet, one, two)
        await one.stop()
        fleet.report_failure(NAME, address(two))  # which is well
        fleet.report_failure(NAME, address(one))
        fleet.report_failure(NAME, "127.0.0.1:1")  # gone meanwhile
        await these(fleet, two)
        assert [e.path for e in two.requests].count("/health") == 2


async def test_a_slow_one_holds_up_nobody(fleets: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LEAST", 0.05)
    async with a_replica() as one, a_replica() as two:
        one.routes["/health"] = hang
        fleet = await fleets.fixed(one, two)
        await these(fleet, two)
        # Its checks are still asked one at a time.
        await one.disconnected()
        await one.disconnected()
        assert one.open_connections <= 1
        gate = asyncio.Event()
        one.routes["/health"] = answer_late(gate, answer_bytes(200, b""))
        gate.set()
        await these(fleet, one, two)


async def test_a_slow_scrape_takes_no_replica_out(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "LEAST", 0.05)
    async with a_replica() as one:
        one.routes["/metrics"] = hang
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        await asked(one, "/metrics", 3)
        assert fleet.replicas(NAME)[0].load is None


async def test_checks_are_spread_over_the_interval(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two, a_replica() as three:
        fleet = await fleets.fixed(one, two, three, interval=3000.0)
        await these(fleet, one, two, three)
        members = list(fleet._engines[NAME]._members.values())
        assert [round(member.due - member.began) for member in members] == [1000, 2000, 3000]


async def test_garbage_is_a_miss_and_no_list_is_no_model(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        one.routes["/health"] = garbage()
        two.routes["/v1/models"] = answer_bytes(200, b"<html>")
        fleet = await fleets.fixed(one, two, misses=1)
        view = await in_state(fleet, BACKOFF)
        assert view.error is not None
        errors = [standing.error for _, standing in fleet.members(NAME)]
        assert errors == ["It cannot be asked: RemoteProtocolError.", "It lists no model."]
        two.routes["/v1/models"] = models_answer("late")
        await these(fleet, two)
        assert (fleets.changes("lost"), fleets.changes("returned")) == (0, 0)
        assert fleet.replicas(NAME)[0].model == "late"


async def test_other_servers_have_no_health(fleets: Fleets) -> None:
    async with a_replica("llama") as one:
        one.routes["/health"] = one.routes["/metrics"] = answer_json(404)
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        assert fleet.replicas(NAME)[0].model == "llama"


async def test_a_replica_changes_its_model(fleets: Fleets) -> None:
    async with a_replica("before") as one:
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        (before,) = fleet.replicas(NAME)
        one.routes["/v1/models"] = models_answer("after")
        await asked(one, "/v1/models")
        assert (before.model, fleet.replicas(NAME)[0].model) == ("before", "after")
        assert fleets.changes("lost") == 0


async def test_a_configured_model_is_not_asked_for(fleets: Fleets) -> None:
    async with a_replica("theirs") as one:
        fleet = await fleets.fixed(one, model="ours")
        await these(fleet, one)
        assert fleet.replicas(NAME)[0].model == "ours"
        await asked(one, "/health")
        assert "/v1/models" not in {e.path for e in one.requests}


async def test_load_and_what_of_it_is_ours(fleets: Fleets) -> None:
    async with a_replica() as one:
        one.routes["/metrics"] = says_load(7, 2)
        fleets.busy[f"engine/{NAME}@{address(one)}"] = 4
        fleet = await fleets.fixed(one)
        await asked(one, "/metrics")
        (replica,) = fleet.replicas(NAME)
        assert (replica.load, replica.load_ours) == (9.0, 4)
        await asked(one, "/metrics")
        assert fleet.replicas(NAME)[0] is replica  # nothing new: the same object
        one.routes["/metrics"] = answer_json(500)
        await asked(one, "/metrics")
        (replica,) = fleet.replicas(NAME)
        assert (replica.load, replica.load_ours) == (None, 0)


# --- DNS


async def test_replicas_come_and_go_with_dns(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two, a_replica() as three:
        fleets.names.say(two, one)
        fleet = await fleets.discovered()
        await these(fleet, one, two)
        assert fleets.names.asked.get_nowait() == "dns://qwen.test:8000"
        order = [replica.address for replica in fleet.replicas(NAME)]
        assert order == sorted(order)
        await asked(one, "/metrics")
        await asked(two, "/metrics")
        before = fleet.replicas(NAME)
        await fleets.names.looked_up(2)
        assert fleet.replicas(NAME) is before
        fleets.names.say(one, three)
        await these(fleet, one, three)
        assert (fleets.changes("added"), fleets.changes("removed")) == (3, 1)
        assert fleets.changes("lost") == 0
        for connection in two.connections:  # nobody asks it any more
            await connection.peer_closed.wait()
        fleets.names.say(one, two)
        await these(fleet, one, two)
        assert fleets.changes("returned") == 0  # it is a new one


async def test_one_that_leaves_is_not_asked_to_the_end(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        one.routes["/health"] = hang
        fleets.names.say(one)
        fleet = await fleets.discovered(interval=3600.0)
        await one.next_request()
        fleets.names.say(two)
        await these(fleet, two)
        await one.disconnected()


async def test_a_new_one_is_in_only_when_it_answers(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        ill(two)
        fleets.names.say(one)
        fleet = await fleets.discovered()
        await these(fleet, one)
        fleets.names.say(one, two)
        await until(fleet, lambda view: view.stage == "1 of 2 replicas well")
        assert len(fleet.replicas(NAME)) == 1
        well(two)
        await these(fleet, one, two)


async def test_a_failed_look_up_keeps_the_known_ones(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleets.names.say(one, two)
        fleet = await fleets.discovered()
        await these(fleet, one, two)
        for fault in (OSError("Temporary failure in name resolution"), ValueError("a bug")):
            fleets.names.fault = fault
            view = await until(fleet, lambda view: "; " in view.stage)
            assert view.state is READY
            await fleets.names.looked_up(3)
            assert len(fleet.replicas(NAME)) == 2
            ill(two)  # their health goes on being looked at
            await these(fleet, one)
            well(two)
            await these(fleet, one, two)
            fleets.names.fault = None
            await until(fleet, lambda view: view.stage == "2 of 2 replicas well")
        assert fleets.changes("removed") == 0


async def test_the_first_look_up_fails(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleets.names.fault = OSError("Temporary failure in name resolution")
        fleet = await fleets.discovered()
        view = await in_state(fleet, BACKOFF)
        assert view.error == (
            "Looking up dns://qwen.test:8000 failed: Temporary failure in name resolution."
        )
        fleets.names.fault = None
        fleets.names.say(one)
        await these(fleet, one)


async def test_that_nothing_is_left_must_be_said_twice(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleets.names.say(one)
        fleet = await fleets.discovered()
        await these(fleet, one)
        fleets.names.gate = Gate()
        await fleets.names.next_asked()
        fleets.names.hosts = []
        fleets.names.gate.release()
        await fleets.names.next_asked()
        assert len(fleet.replicas(NAME)) == 1
        fleets.names.gate.open()
        view = await in_state(fleet, BACKOFF)
        assert view.error == "dns://qwen.test:8000 names no address."
        assert (fleets.changes("removed"), fleets.changes("lost")) == (1, 0)
        fleets.names.say(one)
        await these(fleet, one)


async def test_a_hanging_look_up_holds_up_no_check(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleets.names.say(one)
        fleet = await fleets.discovered()
        await these(fleet, one)
        fleets.names.gate = Gate()
        await fleets.names.next_asked()
        ill(one)
        await in_state(fleet, BACKOFF)
        well(one)
        await these(fleet, one)
        fleets.names.gate.open()
        await fleets.names.looked_up(1)


async def test_the_real_resolver(fleets: Fleets) -> None:
    from server.engines.discovery import resolve

    async with a_replica() as one:
        fleets.names = resolve  # type: ignore[assignment]
        fleet = await fleets.start(qwen=discovered(discover=f"dns://localhost:{one.port}"))
        # ::1 may be an address of it, too, at which nobody listens.
        await these(fleet, one)


def test_settings_of_the_config() -> None:
    from server.config.engine import Engine

    engines = {
        "local": Engine(weights="m"),
        "one": Engine(runtime="external", urls=("http://a:8000/v1/",), model="m", api_key=KEY),  # type: ignore[arg-type]
        "two": Engine(
            runtime="external", discover="dns://a:8000", refresh=9, health_interval=7,
            health_misses=5, max_waiting=3,
        ),
    }  # fmt: skip
    assert settings_of(engines) == {
        "one": Settings(urls=("http://a:8000",), model="m", api_key=KEY),
        "two": Settings(discover="dns://a:8000", refresh=9, interval=7, misses=5, max_waiting=3),
    }
