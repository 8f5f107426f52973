"""A new config while requests are under way and wait: nobody is lost, and nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.serving import Roundhouse
from tests.api.conftest import ASK, Serve, config_of
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)

CHAT = "/v1/chat/completions"
BOTH = {**ASK, "model": "both"}
Change = Callable[[dict[str, Any]], None]


class House:
    """A server whose config can be changed."""

    def __init__(self, server: Roundhouse, config: dict[str, Any], path: Path) -> None:
        self.server, self.config, self.path = server, config, path

    async def change(self, change: Change) -> None:
        change(self.config)
        self.path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        report = await self.server.reload()
        assert report.result == "ok", report

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.server.url, timeout=10)

    def rooms(self) -> dict[str, tuple[int, int, int]]:
        """Slots, inside and waiting by name."""
        rooms = self.server.services.dispatcher.rooms.all()
        return {room.name: (room.slots, room.inside, room.depth) for room in rooms}

    async def until_waiting(self, count: int) -> None:
        while sum(depth for _, _, depth in self.rooms().values()) != count:
            await asyncio.sleep(0)

    def quiet(self) -> None:
        assert all((inside, waiting) == (0, 0) for _, inside, waiting in self.rooms().values())
        dispatcher = self.server.services.dispatcher
        assert all(standing.in_flight == 0 for standing in dispatcher.standings)
        assert not self.server.services.open


@pytest.fixture
async def house(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, tmp_path: Path
) -> House:
    config = config_of(upstream, second)
    config["models"]["m"]["targets"][0].update(max_in_flight=1, max_waiting=8)
    return House(await serve(config), config, tmp_path / "roundhouse.yaml")


def target(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["models"]["m"]["targets"][0]
    return found


def more(config: dict[str, Any]) -> None:
    target(config)["max_in_flight"] = 3


def without(config: dict[str, Any]) -> None:
    del target(config)["max_in_flight"], target(config)["max_waiting"]


def gone(config: dict[str, Any]) -> None:
    del config["models"]["m"], config["models"]["alias-of-m"]


@pytest.mark.parametrize(("change", "under_way"), [(more, 3), (without, 4), (gone, 4)])
async def test_who_waits_is_let_in_where_there_is_room_now(
    house: House, upstream: ScriptedUpstream, change: Change, under_way: int
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    async with house.client() as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ASK)) for _ in range(4)]
        await house.until_waiting(3)
        await upstream.next_request()
        await house.change(change)
        for _ in range(under_way - 1):
            await upstream.next_request()
        gate.open()
        assert [(await one).status_code for one in asked] == [200] * 4
    house.quiet()


async def test_less_room_sends_nobody_away(house: House, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    await house.change(more)
    async with house.client() as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ASK)) for _ in range(5)]
        await house.until_waiting(2)

        def less(config: dict[str, Any]) -> None:
            target(config).update(max_in_flight=1, max_waiting=1)

        await house.change(less)
        assert house.rooms() == {"up/upstream-m": (1, 3, 2)}
        refused = await http.post(CHAT, json=ASK)
        assert refused.status_code == 503
        gate.open()
        assert [(await one).status_code for one in asked] == [200] * 5
    house.quiet()


async def test_breakers_and_rests_outlive_a_reload(
    house: House, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(429, error("x"), {"retry-after": "60"}))
    second.default = chat_answer()
    async with house.client() as http:
        assert (await http.post(CHAT, json=BOTH)).headers["x-roundhouse-attempts"] == "2"
        await house.change(lambda config: config["models"].pop("org/model-x"))
        answer = await http.post(CHAT, json=BOTH)
        assert answer.headers["x-roundhouse-attempts"] == "1"
        assert answer.headers["x-roundhouse-fallback-from"] == "up/a"
    house.quiet()


async def test_a_new_key_is_tried_at_once(
    house: House, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(401, error("x")))
    upstream.default = second.default = chat_answer()
    async with house.client() as http:
        for attempts, by in (("2", "second/b"), ("1", "second/b")):
            answer = await http.post(CHAT, json=BOTH)
            assert answer.headers["x-roundhouse-attempts"] == attempts
            assert answer.headers["x-roundhouse-target"] == by
        await house.change(lambda config: config["providers"]["up"].update(api_key="another"))
        answer = await http.post(CHAT, json=BOTH)
        assert answer.headers["x-roundhouse-target"] == "up/a"
    assert upstream.requests[-1].header("authorization") == "Bearer another"
    accounts = dict(house.server.services.dispatcher.standings.credentials())
    assert set(accounts) == {"up"}
    house.quiet()


async def test_a_request_under_way_keeps_the_chain_that_it_began_with(
    house: House, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Its second target is gone from the config when it needs it."""
    gate = Gate()
    upstream.default = answer_late(gate, answer_json(500, error("x")))
    second.default = chat_answer()
    async with house.client() as http:
        task = asyncio.create_task(http.post(CHAT, json=BOTH))
        await upstream.next_request()

        def shorter(config: dict[str, Any]) -> None:
            del config["models"]["both"]["targets"][1], config["providers"]["second"]

        await house.change(shorter)
        gate.open()
        answer = await task
        assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (200, "second/b")
    house.quiet()


async def test_the_retry_budget_and_its_settings(
    house: House, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.default, second.default = answer_json(500, error("x")), chat_answer()
    async with house.client() as http:

        def none(config: dict[str, Any]) -> None:
            config["routing"] = {"retry_budget": 0, "retry_floor": 0}

        assert (await http.post(CHAT, json=BOTH)).status_code == 200
        await house.change(none)
        answer = await http.post(CHAT, json=BOTH)
        assert (answer.status_code, answer.headers["x-roundhouse-attempts"]) == (500, "1")
    house.quiet()
