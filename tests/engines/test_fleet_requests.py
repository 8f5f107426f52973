"""Requests that wait for a replica; reloads; the end, in the midst of whatever is going on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.engines.feed import Feed
from server.engines.state import EngineState, EngineView
from server.errors import Draining, EngineNotReady, Overloaded
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
    these,
    until,
    well,
)
from tests.fakes.upstream import Gate, ScriptedUpstream, hang, hang_in_head, models_answer

READY, BACKOFF = EngineState.READY, EngineState.BACKOFF


async def waiting(fleet: Any, count: int) -> None:
    """Until so many requests wait. They do from their first step on."""
    while fleet.view(NAME).waiting < count:
        await asyncio.sleep(0)


# --- waiting


async def test_a_request_waits_for_the_first_replica(fleets: Fleets) -> None:
    async with a_replica() as one:
        ill(one)
        fleet = await fleets.fixed(one)
        await in_state(fleet, BACKOFF)
        requests = [asyncio.ensure_future(fleet.wait_ready(NAME, 20)) for _ in range(3)]
        await waiting(fleet, 3)
        assert fleets.count("roundhouse_engine_waiting_requests") == 3
        well(one)
        for request in requests:
            assert (await request).state is READY
        assert fleets.count("roundhouse_engine_waiting_requests") == 0
        assert (await fleet.wait_ready(NAME, 0)).state is READY  # now at once


async def test_a_request_waits_for_the_first_look(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleets.names.say(one)
        fleets.names.gate = Gate()
        fleet = await fleets.discovered()
        request = asyncio.ensure_future(fleet.wait_ready(NAME, 20))
        await waiting(fleet, 1)
        fleets.names.gate.open()
        assert (await request).state is READY


@pytest.mark.parametrize("timeout", [0, 0.02])
async def test_waits_are_bounded(fleets: Fleets, timeout: float) -> None:
    async with a_replica() as one:
        one.routes["/health"] = hang
        fleet = await fleets.fixed(one, interval=60.0)
        with pytest.raises(EngineNotReady) as caught:
            await fleet.wait_ready(NAME, timeout)
        assert (caught.value.code, caught.value.status) == ("no_replica", 503)
        assert caught.value.headers()["retry-after"] == "5"
        assert address(one) not in caught.value.message
        assert fleets.count("roundhouse_engine_waiting_requests") == 0


async def test_too_many_waiting_are_refused(fleets: Fleets) -> None:
    async with a_replica() as one:
        ill(one)
        fleet = await fleets.fixed(one, max_waiting=2)
        requests = [asyncio.ensure_future(fleet.wait_ready(NAME, 20)) for _ in range(2)]
        await waiting(fleet, 2)
        with pytest.raises(Overloaded):
            await fleet.wait_ready(NAME, 20)
        shed = fleets.metrics.registry.get_sample_value(
            "roundhouse_shed_total", {"reason": "engine_queue"}
        )
        assert shed == 1
        requests.pop().cancel()  # its client left: there is room again
        while fleets.count("roundhouse_engine_waiting_requests") == 2:
            await asyncio.sleep(0)
        requests.append(asyncio.ensure_future(fleet.wait_ready(NAME, 20)))
        await waiting(fleet, 2)
        well(one)
        await asyncio.gather(*requests)


async def test_an_engine_that_is_not_there(fleets: Fleets) -> None:
    fleet = await fleets.start()
    with pytest.raises(EngineNotReady):
        await fleet.wait_ready(NAME, 20)


# --- reload


async def test_what_did_not_change_is_not_touched(fleets: Fleets) -> None:
    async with a_replica() as one:
        settings = fixed(one)
        fleet = await fleets.start(qwen=settings)
        await these(fleet, one)
        before = fleet.replicas(NAME)
        await fleet.apply({NAME: settings})
        assert fleet.replicas(NAME) is before
        await asked(one, "/health", 2)
        assert one.accepted.count == 1


async def test_engines_come_and_go(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        ill(two)
        await fleet.apply({NAME: fixed(one), "more": fixed(two)})
        await until(fleet, lambda view: view.state is BACKOFF, "more")
        request = asyncio.ensure_future(fleet.wait_ready("more", 20))
        while not fleet.views()[1].waiting:
            await asyncio.sleep(0)
        await fleet.apply({NAME: fixed(one)})
        with pytest.raises(EngineNotReady, match="removed"):
            await request
        assert [view.name for view in fleet.views()] == [NAME]
        for connection in two.connections:
            await connection.peer_closed.wait()
        labels = {values[0] for values in fleets.metrics.replicas.series}
        labels |= {values[0] for values in fleets.metrics.replica_changes.series}
        assert labels == {NAME}
        await these(fleet, one)


async def test_urls_change(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two, a_replica() as three:
        fleet = await fleets.fixed(one, two)
        await these(fleet, one, two)
        await fleet.apply({NAME: fixed(three, two)})
        await these(fleet, three, two)
        assert [r.address for r in fleet.replicas(NAME)] == [address(three), address(two)]
        assert two.accepted.count == 1  # its standing and its connection stayed
        assert (fleets.changes("added"), fleets.changes("removed")) == (3, 1)


async def test_a_shorter_interval_is_in_force_at_once(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one, interval=3600.0)
        await these(fleet, one)
        ill(one)
        await fleet.apply({NAME: fixed(one)})
        await in_state(fleet, BACKOFF)


async def test_a_new_key_takes_effect_without_a_gap(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one, interval=3600.0)
        await these(fleet, one)
        await fleet.apply({NAME: fixed(one, interval=3600.0, api_key=KEY)})
        (replica,) = fleet.replicas(NAME)
        assert replica.headers == {"authorization": f"Bearer {KEY}"}
        async with asyncio.timeout(20):  # and with it a check, though the next one is far off
            while (await one.next_request()).header("authorization") != f"Bearer {KEY}":
                pass
        assert fleets.changes("lost") == 0


async def test_a_new_name_of_the_model_takes_effect_at_once(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one, model="before")
        await these(fleet, one)
        await fleet.apply({NAME: fixed(one, model="after")})
        assert fleet.replicas(NAME)[0].model == "after"
        one.routes["/v1/models"] = models_answer("theirs")
        await fleet.apply({NAME: fixed(one)})
        await asked(one, "/v1/models")
        assert fleet.replicas(NAME)[0].model == "theirs"


async def test_another_name_to_look_up(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleets.names.say(one)
        fleet = await fleets.discovered()
        await these(fleet, one)
        fleets.names.gate = Gate()
        await fleets.names.next_asked()  # a look-up hangs, and must not be waited for
        fleets.names.say(two)
        await fleet.apply({NAME: discovered(discover="dns+srv://other.test")})
        assert len(fleet.replicas(NAME)) == 1  # those of before, until the new name is known
        assert await fleets.names.next_asked() == "dns+srv://other.test"
        await asked(one, "/health", 2)
        assert fleets.names.running == 1
        fleets.names.gate.open()
        await these(fleet, two)


@pytest.mark.parametrize("fault", [None, OSError("nothing learned")])
async def test_the_old_names_replicas_do_not_stay(fleets: Fleets, fault: OSError | None) -> None:
    async with a_replica() as one:
        fleets.names.say(one)
        fleet = await fleets.discovered(refresh=3600.0)
        await these(fleet, one)
        fleets.names.hosts, fleets.names.fault = [], fault
        await fleet.apply({NAME: discovered(discover="dns://other.test:80", refresh=3600.0)})
        await in_state(fleet, BACKOFF)
        assert fleet.replicas(NAME) == ()


async def test_from_urls_to_dns_and_back(fleets: Fleets) -> None:
    async with a_replica() as one, a_replica() as two:
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        fleets.names.say(two)
        await fleet.apply({NAME: discovered()})
        await these(fleet, two)
        await fleet.apply({NAME: fixed(one)})
        await these(fleet, one)
        await fleets.names.asked.get()
        while not fleets.names.asked.empty():
            fleets.names.asked.get_nowait()
        await asked(one, "/health", 2)
        assert fleets.names.asked.empty()  # nobody looks up any more


# --- the end


async def test_close_wakes_requests_and_feeds(fleets: Fleets) -> None:
    async with a_replica() as one:
        ill(one)
        fleet = await fleets.fixed(one)
        await in_state(fleet, BACKOFF)
        request = asyncio.ensure_future(fleet.wait_ready(NAME, 20))
        await waiting(fleet, 1)
        with fleet.subscribe() as feed:
            await fleet.close()
            with pytest.raises(Draining):
                await request
            with pytest.raises(Draining):
                await fleet.wait_ready(NAME, 20)
            assert [view.name async for view in feed]  # and it ends
        with fleet.subscribe() as late:
            assert [view.name async for view in late] == [NAME]
        await fleet.close()
        await fleet.apply({})


async def test_a_feed_of_others_has_both(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one)
        feed = Feed((), lambda feed: None)
        with fleet.into(feed):
            assert (await anext(feed)).state is EngineState.STARTING
            assert (await anext(feed)).state is READY
            await fleet.close()
            feed.put(EngineView("other", READY))
            assert (await anext(feed)).name == "other"  # it goes on
        assert fleet._guests == set()


async def test_close_in_the_moment_of_a_leaving(fleets: Fleets) -> None:
    async with a_replica() as one:
        fleet = await fleets.fixed(one)
        await these(fleet, one)
        fleet._engines[NAME].respec(fixed())
        await fleet.close()
        for connection in one.connections:
            await connection.peer_closed.wait()


async def before_the_first_look(fleets: Fleets, one: ScriptedUpstream) -> Any:
    return await fleets.fixed(one)


async def in_a_look_up(fleets: Fleets, one: ScriptedUpstream) -> Any:
    fleets.names.gate = Gate()
    fleet = await fleets.discovered()
    await fleets.names.asked.get()
    return fleet


async def in_a_check(fleets: Fleets, one: ScriptedUpstream) -> Any:
    one.routes["/health"] = hang
    fleet = await fleets.fixed(one, interval=60.0)
    await one.next_request()
    return fleet


async def in_an_answer(fleets: Fleets, one: ScriptedUpstream) -> Any:
    one.routes["/v1/models"] = hang_in_head()
    fleet = await fleets.fixed(one, interval=60.0)
    await one.next_request()
    await one.next_request()
    return fleet


async def in_a_scrape(fleets: Fleets, one: ScriptedUpstream) -> Any:
    one.routes["/metrics"] = hang
    fleet = await fleets.fixed(one, interval=60.0)
    await these(fleet, one)
    while (await one.next_request()).path != "/metrics":
        pass
    return fleet


async def with_a_replica_leaving(fleets: Fleets, one: ScriptedUpstream) -> Any:
    one.routes["/health"] = hang
    fleets.names.say(one)
    fleet = await fleets.discovered(interval=60.0)
    await one.next_request()
    fleets.names.hosts = [("127.0.0.1", 9)]
    await until(fleet, lambda _: fleets.changes("removed") == 1)
    return fleet


async def at_rest(fleets: Fleets, one: ScriptedUpstream) -> Any:
    fleet = await fleets.fixed(one, interval=3600.0)
    await these(fleet, one)
    return fleet


@pytest.mark.parametrize(
    "moment",
    [
        before_the_first_look,
        in_a_look_up,
        in_a_check,
        in_an_answer,
        in_a_scrape,
        with_a_replica_leaving,
        at_rest,
    ],
)
@pytest.mark.parametrize("removed", [False, True])
async def test_nothing_is_left(
    fleets: Fleets, moment: Callable[[Fleets, ScriptedUpstream], Awaitable[Any]], removed: bool
) -> None:
    async with a_replica() as one:
        fleet = await moment(fleets, one)
        if removed:
            await fleet.apply({})
        else:
            await fleet.close()
        left = [task for task in asyncio.all_tasks() if "server/engines" in str(task.get_coro())]
        assert left == []
        for connection in one.connections:
            await connection.peer_closed.wait()
