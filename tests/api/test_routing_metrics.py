"""What a scrape of /metrics says of routing."""

from __future__ import annotations

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import ASK, KEY, Serve, config_of
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)

CHAT = "/v1/chat/completions"
Series = dict[tuple[str, ...], float]


async def scraped(admin: httpx.AsyncClient, name: str) -> Series:
    """The samples of one name by their labels' values, in the order of the labels' names."""
    text = (await admin.get("/metrics")).text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"roundhouse_{name}"
    }


def those_on(series: Series) -> set[tuple[str, ...]]:
    return {labels for labels, value in series.items() if value}


async def test_an_outage_can_be_seen(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_json(500, error("x"))
    second.default = answer_late(gate, chat_answer())
    config = config_of(upstream, second, server={"keys": [{"name": "k", "key": KEY}]})
    config["models"]["both"]["targets"][1].update(max_in_flight=1)
    server = await serve(config)
    assert server.admin_url is not None
    both = {**ASK, "model": "both"}
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http,
        httpx.AsyncClient(base_url=server.admin_url, timeout=10) as admin,
    ):
        before = await scraped(admin, "breaker_state")
        assert those_on(before) == {
            ("closed", "up/upstream-m"),
            ("closed", "up/x"),
            ("closed", "up/a"),
            ("closed", "second/b"),
        }
        assert await scraped(admin, "retry_budget_used_ratio") == {(): 0.0}
        asked = [asyncio.create_task(http.post(CHAT, json=both)) for _ in range(5)]
        while (await scraped(admin, "queue_depth")).get(("target", "second/b")) != 4:
            await asyncio.sleep(0)
        assert await scraped(admin, "queue_wait_seconds_count") == {("target",): 1.0}
        gate.open()
        assert {(await one).status_code for one in asked} == {200}
        assert ("open", "up/a") in those_on(await scraped(admin, "breaker_state"))
        assert await scraped(admin, "attempts_total") == {
            ("both", "http_5xx", "up/a"): 5.0,
            ("both", "ok", "second/b"): 5.0,
        }
        assert await scraped(admin, "fallbacks_total") == {("both", "http_5xx"): 5.0}
        assert await scraped(admin, "retries_total") == {("spent",): 5.0}
        assert await scraped(admin, "retry_budget_used_ratio") == {(): 0.5}
        assert await scraped(admin, "queue_depth") == {("target", "second/b"): 0.0}
        assert await scraped(admin, "queue_wait_seconds_count") == {("target",): 5.0}
        upstream.default = answer_json(401, error("x"))
        assert (await http.post(CHAT, json=ASK)).status_code == 502
        accounts = await scraped(admin, "credential_state")
        assert those_on(accounts) == {("up", "open")}
        # A breaker of one target is none of the other's.
        assert ("closed", "up/upstream-m") in those_on(await scraped(admin, "breaker_state"))


async def test_names_that_clients_make_up_are_no_labels(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = answer_json(429, error("x"), {"retry-after": "60"})
    server = await serve(config_of(upstream))
    assert server.admin_url is not None
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=10) as http,
        httpx.AsyncClient(base_url=server.admin_url, timeout=10) as admin,
    ):
        for number in range(20):
            answer = await http.post(CHAT, json={**ASK, "model": f"up/made-up-{number}"})
            assert answer.status_code == 429
        text = (await admin.get("/metrics")).text
        assert "made-up" not in text
        assert ("resting", "up/*") in those_on(await scraped(admin, "breaker_state"))
        assert await scraped(admin, "attempts_total") == {("other", "http_429", "up/*"): 20.0}
    assert len(upstream.requests) == 20


async def test_ids_that_clients_make_up_are_not_kept_without_end(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = chat_answer()
    server = await serve(config_of(upstream))
    builder = server.services.state.builder
    for number in range(3000):
        assert builder.unlisted(f"up/made-up-{number}") is not None
    standings = server.services.dispatcher.standings
    assert len(list(standings)) < 1000
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as http:
        for number in (0, 2999, 0):
            answer = await http.post(CHAT, json={**ASK, "model": f"up/made-up-{number}"})
            assert answer.status_code == 200
    assert all(standing.in_flight == 0 for standing in standings)


async def test_what_clients_make_up_pushes_nothing_out_that_the_config_has(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """The config's id under its own name stands among the others, and stays what it is."""
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    config = config_of(upstream)
    config["models"]["m"]["targets"][0].update(max_in_flight=1)
    server = await serve(config)
    services = server.services
    ask = {**ASK, "model": "up/upstream-m"}
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask)) for _ in range(2)]
        rooms = services.dispatcher.rooms
        while not any(room.depth for room in rooms.all()):
            await asyncio.sleep(0)
        for number in range(3000):
            services.state.builder.unlisted(f"up/made-up-{number}")
        assert services.dispatcher.in_flight("up/upstream-m") == 1
        assert [(room.name, room.inside, room.depth) for room in rooms.all()] == [
            ("up/upstream-m", 1, 1)
        ]
        gate.open()
        assert [(await one).status_code for one in asked] == [200, 200]


async def test_a_name_as_long_as_a_book_is_none(serve: Serve, upstream: ScriptedUpstream) -> None:
    """512 of them would be kept."""
    server = await serve(config_of(upstream))
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as http:
        answer = await http.post(CHAT, json={**ASK, "model": "up/" + "x" * 100_000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert len(answer.content) < 1000
