"""How many requests an account is asked at one time, over all its models, beside each target's own
number."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.serving import Roundhouse
from tests.fakes.upstream import Exchange, Gate, ScriptedUpstream, chat_answer, chat_stream
from tests.providers.house import (
    CHAT,
    Serve,
    ask,
    change,
    client_of,
    config_of,
    lab,
    metrics_of,
    models,
    quiet,
    until_waiting,
)

KEYS = ("sk-lab-key-number-a1", "sk-lab-key-number-b2")


class Doors:
    """An upstream that answers one request per ticket, and counts who is inside."""

    def __init__(self, *, stream: bool = False) -> None:
        self.gate = Gate()
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._answer = chat_stream() if stream else chat_answer()

    async def __call__(self, exchange: Exchange) -> None:
        names = ("all", exchange.json()["model"])
        for name in names:
            self.inside[name] += 1
            self.most[name] = max(self.most[name], self.inside[name])
        try:
            await exchange.wait(self.gate.pass_one())
        finally:
            self.inside.subtract(names)
        await self._answer(exchange)


def rooms(server: Roundhouse) -> dict[str, tuple[int, int]]:
    """Of each limit: those inside and those that wait."""
    found = server.services.dispatcher.rooms.all()
    return {f"{room.kind} {room.name}": (room.inside, room.depth) for room in found}


async def house(serve: Serve, upstream: ScriptedUpstream, **more: Any) -> Roundhouse:
    """`m` has two places of its own, `n` has none; the account has three for both."""
    account = lab(upstream, *KEYS, max_in_flight=3, max_waiting=2, **more)
    named = {**models("m", max_in_flight=2, max_waiting=2), **models("n")}
    return await serve({"lab": account}, models=named)


@pytest.mark.parametrize("stream", [True, False])
async def test_both_limits_hold(serve: Serve, upstream: ScriptedUpstream, stream: bool) -> None:
    doors = upstream.default = Doors(stream=stream)
    server = await house(serve, upstream)
    async with client_of(server) as http:

        def start(model: str) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(http.post(CHAT, json=ask(model, stream=stream)))

        asked = []
        for model in ("m", "m", "n"):
            asked.append(start(model))
            await upstream.next_request()
        # Two wait for a place of `m`, two for one of the account.
        asked += [start("m"), start("m"), start("n"), start("lab/another")]
        await until_waiting(server, 4)
        assert rooms(server) == {"target lab/their-m": (2, 2), "provider lab": (3, 2)}
        shown = await metrics_of(server)
        assert shown("roundhouse_queue_depth", kind="provider", name="lab") == 2
        # And who comes now is sent away, of either.
        for model, reason in (("m", "target_queue"), ("n", "provider_queue")):
            answer = await http.post(CHAT, json=ask(model, stream=stream))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert "x-should-retry" not in answer.headers
            shown = await metrics_of(server)
            assert shown("roundhouse_shed_total", reason=reason) == 1
        assert len(upstream.requests) == 3
        for left in range(6, -1, -1):
            doors.gate.release()
            await until_asked(upstream, min(7, 10 - left))
        assert {(await one).status_code for one in asked} == {200}
    assert doors.most["all"] == 3
    assert doors.most["their-m"] == 2
    quiet(server)


async def until_asked(upstream: ScriptedUpstream, count: int) -> None:
    """Until so many requests have come in."""
    while len(upstream.requests) < count:
        await asyncio.sleep(0)


async def test_who_leaves_gives_up_what_he_has(serve: Serve, upstream: ScriptedUpstream) -> None:
    doors = upstream.default = Doors()
    server = await house(serve, upstream)
    async with client_of(server) as http:
        asked = []
        for model in ("m", "m", "n"):
            asked.append(asyncio.create_task(http.post(CHAT, json=ask(model))))
            await upstream.next_request()
        waits = [asyncio.create_task(http.post(CHAT, json=ask(m))) for m in ("m", "n", "n")]
        await until_waiting(server, 3)
        for one in waits[:2]:
            one.cancel()
            with suppress(asyncio.CancelledError):
                await one
        await until_waiting(server, 1)
        assert rooms(server) == {"target lab/their-m": (2, 0), "provider lab": (3, 1)}
        # One that is under way leaves, and the last one that waits goes in.
        asked[0].cancel()
        assert (await upstream.disconnected()).number == 1
        await upstream.next_request()
        assert rooms(server) == {"target lab/their-m": (1, 0), "provider lab": (3, 0)}
        doors.gate.open()
        assert {(await one).status_code for one in [*asked[1:], waits[2]]} == {200}
    quiet(server)


async def test_the_keys_of_an_account_share_its_places(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    doors = upstream.default = Doors()
    server = await house(serve, upstream)
    async with client_of(server) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask("n"))) for _ in range(5)]
        await until_waiting(server, 2)
        await until_asked(upstream, 3)
        keys = Counter(sent.header("authorization") for sent in upstream.requests)
        assert sorted(keys.values()) == [1, 2]
        doors.gate.open()
        assert {(await one).status_code for one in asked} == {200}
    assert doors.most["all"] == 3
    quiet(server)


def wider(account: dict[str, Any]) -> None:
    account["max_in_flight"] = 5


def without(account: dict[str, Any]) -> None:
    del account["max_in_flight"], account["max_waiting"]


@pytest.mark.parametrize(("other", "inside"), [(wider, 5), (without, 5)])
async def test_more_places_let_in_who_waits(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    other: Callable[[dict[str, Any]], None],
    inside: int,
) -> None:
    doors = upstream.default = Doors()
    server = await house(serve, upstream)
    async with client_of(server) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask("n"))) for _ in range(5)]
        await until_waiting(server, 2)
        await until_asked(upstream, 3)
        account = lab(upstream, *KEYS, max_in_flight=3, max_waiting=2)
        other(account)
        await change(server, tmp_path, config_of({"lab": account}, models=models("m", "n")))
        await until_asked(upstream, inside)
        doors.gate.open()
        assert {(await one).status_code for one in asked} == {200}
    assert doors.most["all"] == inside
    quiet(server)


async def test_an_account_that_no_entry_names_keeps_its_places(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    doors = upstream.default = Doors()
    account = lab(upstream, *KEYS, max_in_flight=2, max_waiting=9)
    server = await serve({"lab": account})
    async with client_of(server) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask("lab/any"))) for _ in range(3)]
        await until_waiting(server, 1)
        await change(server, tmp_path, config_of({"lab": account}, routing={"attempts": 2}))
        asked.append(asyncio.create_task(http.post(CHAT, json=ask("lab/other"))))
        await until_waiting(server, 2)
        doors.gate.open()
        assert {(await one).status_code for one in asked} == {200}
    assert doors.most["all"] == 2
    quiet(server)


async def test_fewer_places_send_nobody_away(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    doors = upstream.default = Doors()
    server = await house(serve, upstream)
    async with client_of(server) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask("n"))) for _ in range(5)]
        await until_waiting(server, 2)
        await until_asked(upstream, 3)
        account = lab(upstream, *KEYS, max_in_flight=1, max_waiting=0)
        await change(server, tmp_path, config_of({"lab": account}, models=models("m", "n")))
        assert rooms(server) == {"provider lab": (3, 2)}
        answer = await http.post(CHAT, json=ask("n"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        doors.gate.release(3)
        await until_asked(upstream, 4)
        assert rooms(server)["provider lab"] == (1, 1)
        doors.gate.open()
        assert {(await one).status_code for one in asked} == {200}
    quiet(server)
