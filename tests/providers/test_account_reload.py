"""Keys that come, go and change while the server runs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.serving import Roundhouse
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)
from tests.providers.house import (
    CHAT,
    Serve,
    ask,
    bearers,
    by_key,
    change,
    client_of,
    config_of,
    lab,
    metrics_of,
    models,
    quiet,
)

A, B, C = KEYS = ("sk-lab-key-number-a1", "sk-lab-key-number-b2", "sk-lab-key-number-c3")
SLOW_DOWN = answer_json(429, error("slow down"), {"retry-after": "60"})
BAD_KEY = answer_json(401, error("bad key"))


class House:
    """A server whose keys can be changed."""

    def __init__(self, server: Roundhouse, upstream: ScriptedUpstream, folder: Path) -> None:
        self.server, self.upstream, self.folder = server, upstream, folder
        server.services.dispatcher.dice.draw = random.Random(1).random

    async def change(self, *keys: str, **more: Any) -> None:
        config = config_of({"lab": lab(self.upstream, *keys, **more)}, models=models("m", "n"))
        await change(self.server, self.folder, config)

    async def asks(self, count: int, model: str = "m") -> Counter[str]:
        """Which keys these requests were answered with; 429 and the like are errors."""
        seen = len(self.upstream.requests)
        async with client_of(self.server) as http:
            for _ in range(count):
                answer = await http.post(CHAT, json=ask(model))
                assert answer.status_code == 200, answer.text
        return Counter(bearers(self.upstream)[seen:])

    async def status(self, model: str = "m") -> int:
        async with client_of(self.server) as http:
            return (await http.post(CHAT, json=ask(model))).status_code


async def house(
    serve: Serve, upstream: ScriptedUpstream, folder: Path, keys: Sequence[str]
) -> House:
    server = await serve({"lab": lab(upstream, *keys)}, models=models("m", "n"))
    return House(server, upstream, folder)


CHANGES = [
    ((A,), (A, B)),
    ((A, B), (A, B, C)),
    ((A, B, C), (B, C)),
    ((A, B, C), (A, C)),
    ((A, B), (A,)),
    ((A, B), (C, B)),
    ((A, B), (B, A)),
    ((A, B), (C,)),
]
#: Each with a key that was there before.
ONE_OF = [(before, after, key) for before, after in CHANGES for key in (A, B) if key in before]


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_no_request_is_lost(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    before: Sequence[str],
    after: Sequence[str],
) -> None:
    """Those under way end with the key that they began with; new ones have the new ones."""
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    found = await house(serve, upstream, tmp_path, before)
    async with client_of(found.server) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask())) for _ in range(12)]
        for _ in asked:
            await upstream.next_request()
        assert set(bearers(upstream)) == set(before)
        await found.change(*after)
        asked += [asyncio.create_task(http.post(CHAT, json=ask())) for _ in range(12)]
        for _ in range(12):
            await upstream.next_request()
        assert set(bearers(upstream)[12:]) <= set(after)
        gate.open()
        assert {(await one).status_code for one in asked} == {200}
    quiet(found.server)
    # What left is forgotten with the reload after the last of its requests.
    await found.change(*after, max_in_flight=100)
    credentials = list(found.server.services.dispatcher.standings.credentials())
    assert [provider for provider, _ in credentials] == ["lab"] * len(after)


@pytest.mark.parametrize(("before", "after", "rests"), ONE_OF)
async def test_a_key_that_rests_goes_on_resting_and_no_other(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    before: Sequence[str],
    after: Sequence[str],
    rests: str,
) -> None:
    upstream.default = by_key({rests: SLOW_DOWN})
    found = await house(serve, upstream, tmp_path, before)
    while rests not in bearers(upstream):
        await found.status()
    seen = len(upstream.requests)
    await found.change(*after)
    others = set(after) - {rests}
    if others:
        assert set(await found.asks(24)) == others
    else:
        assert await found.status() == 429
        assert len(upstream.requests) == seen
    # Another model of theirs has limits of its own.
    if rests in after:
        upstream.default = chat_answer()
        assert rests in await found.asks(24, "n")


@pytest.mark.parametrize(("before", "after", "bad"), ONE_OF)
async def test_a_key_that_was_refused_stays_so_and_no_other(
    serve: Serve,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    before: Sequence[str],
    after: Sequence[str],
    bad: str,
) -> None:
    upstream.default = by_key({bad: BAD_KEY})
    found = await house(serve, upstream, tmp_path, before)
    while bad not in bearers(upstream):
        await found.status()
    await found.change(*after)
    others = set(after) - {bad}
    for model in ("m", "n"):
        if others:
            assert set(await found.asks(12, model)) == others
        else:
            assert await found.status(model) == 502
    assert bearers(upstream).count(bad) == 1


async def test_what_a_provider_says_of_limits_goes_with_the_key(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    def limited(remaining: int) -> Any:
        headers = {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": str(remaining),
            "x-ratelimit-reset-requests": "30s",
        }
        return chat_answer(headers=headers)

    upstream.default = by_key({A: limited(10), B: limited(20), C: limited(30)})
    found = await house(serve, upstream, tmp_path, KEYS)
    await found.asks(24)

    async def shown(what: str) -> dict[int, float]:
        metrics = await metrics_of(found.server)
        assert not any(key in metrics.text for key in KEYS)
        name = f"roundhouse_provider_ratelimit_{what}"
        values = {
            at: metrics(name, provider="lab", key=str(at), kind="requests") for at in (1, 2, 3)
        }
        return {at: value for at, value in values.items() if value is not None}

    assert await shown("remaining") == {1: 10, 2: 20, 3: 30}
    assert await shown("limit") == {1: 100, 2: 100, 3: 100}
    assert all(0 < seconds <= 30 for seconds in (await shown("reset_seconds")).values())
    await found.change(A, B)
    assert await shown("remaining") == {1: 10, 2: 20}
    await found.change(B, C, A)
    assert await shown("remaining") == {1: 20, 3: 10}
    await change(found.server, tmp_path, config_of({}, models={}))
    assert await shown("remaining") == {}
