"""Several keys of one account: who gets what, and what becomes of a key that is refused."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from server.serving import Roundhouse
from tests.fakes.upstream import (
    Gate,
    Script,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    error,
)
from tests.providers.house import (
    CHAT,
    Serve,
    ask,
    bearers,
    by_key,
    client_of,
    lab,
    metrics_of,
    models,
)

KEYS = ("sk-lab-key-number-a1", "sk-lab-key-number-b2", "sk-lab-key-number-c3")
A, B, C = KEYS
BAD_KEY = answer_json(401, error(f"Incorrect API key provided: {A}", code="invalid_api_key"))


def slow_down(seconds: float) -> Script:
    """That a key has had enough, for so long."""
    return answer_json(429, error("slow down"), {"retry-after": str(seconds)})


async def house(
    serve: Serve, upstream: ScriptedUpstream, keys: Sequence[str] = KEYS, seed: int = 1
) -> Roundhouse:
    """With the models `m` and `n`; its dice fall the same in every run."""
    server = await serve({"lab": lab(upstream, *keys)}, models=models("m", "n"))
    server.services.dispatcher.dice.draw = random.Random(seed).random
    return server


def nobody_is_named(answer: httpx.Response) -> None:
    assert not any(key in answer.text for key in KEYS)
    assert not any(key in value for key in KEYS for value in answer.headers.values())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("stream", [True, False])
async def test_requests_are_spread(
    serve: Serve, upstream: ScriptedUpstream, count: int, stream: bool
) -> None:
    upstream.default = chat_stream() if stream else chat_answer()
    async with client_of(await house(serve, upstream, KEYS[:count])) as http:
        for _ in range(60):
            answer = await http.post(CHAT, json=ask(stream=stream))
            assert answer.status_code == 200
            assert answer.headers["x-roundhouse-attempts"] == "1"
            assert answer.headers["x-roundhouse-target"] == "lab/their-m"
    shares = Counter(bearers(upstream))
    assert set(shares) == set(KEYS[:count])
    assert min(shares.values()) >= 60 / count / 2


async def test_the_least_busy_key_is_next(serve: Serve, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    async with client_of(await house(serve, upstream)) as http:
        asked = []
        for number in range(1, 13):
            asked.append(asyncio.create_task(http.post(CHAT, json=ask())))
            await upstream.next_request()
            busy = Counter(bearers(upstream))
            assert max(busy.values()) - min(busy[key] for key in KEYS) <= 1, number
        gate.open()
        assert {(await one).status_code for one in asked} == {200}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refused_key_rests_and_the_request_goes_on_with_another(
    serve: Serve, upstream: ScriptedUpstream, stream: bool
) -> None:
    good = chat_stream() if stream else chat_answer()
    upstream.default = by_key({A: BAD_KEY}, good)
    server = await house(serve, upstream)
    async with client_of(server) as http:
        attempts = []
        for model in ["m", "n"] * 15:
            answer = await http.post(CHAT, json=ask(model, stream=stream))
            assert answer.status_code == 200
            assert "x-roundhouse-fallback-from" not in answer.headers
            nobody_is_named(answer)
            attempts.append(answer.headers["x-roundhouse-attempts"])
    # It was found out once, for both models.
    assert Counter(attempts) == {"1": 29, "2": 1}
    shares = Counter(bearers(upstream))
    assert shares[A] == 1
    assert min(shares[B], shares[C]) >= 8
    found = await metrics_of(server)
    assert found("roundhouse_credential_state", provider="lab", state="open") == 1
    assert found("roundhouse_breaker_state", target="lab/their-m", state="closed") == 1
    assert not any(key in found.text for key in KEYS)


async def test_when_all_keys_are_refused(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.default = BAD_KEY
    async with client_of(await house(serve, upstream)) as http:
        first = await http.post(CHAT, json=ask())
        assert (first.status_code, first.headers["x-roundhouse-attempts"]) == (502, "3")
        after = await http.post(CHAT, json=ask())
        for answer in (first, after):
            assert answer.json()["error"]["code"] == "upstream_refused_credentials"
            nobody_is_named(answer)
        assert 20 <= int(after.headers["retry-after"]) <= 30
    assert Counter(bearers(upstream)) == dict.fromkeys(KEYS, 1)


async def test_a_rate_limited_key_rests_while_the_others_go_on(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = by_key({B: slow_down(60)})
    server = await house(serve, upstream)
    async with client_of(server) as http:
        for _ in range(30):
            answer = await http.post(CHAT, json=ask())
            assert answer.status_code == 200
            assert "x-roundhouse-fallback-from" not in answer.headers
    shares = Counter(bearers(upstream))
    assert shares[B] == 1
    assert min(shares[A], shares[C]) >= 8
    found = await metrics_of(server)
    assert found("roundhouse_breaker_state", target="lab/their-m", state="resting") == 1
    assert found("roundhouse_credential_state", provider="lab", state="closed") == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("first", "second"), [(20, 50), (50, 20)])
async def test_when_all_are_rate_limited_the_nearest_time_is_told(
    serve: Serve, upstream: ScriptedUpstream, first: int, second: int, seed: int
) -> None:
    """Whichever was asked last."""
    upstream.default = by_key({A: slow_down(first), B: slow_down(second)})
    async with client_of(await house(serve, upstream, (A, B), seed)) as http:
        for attempts in ("2", None, None):
            answer = await http.post(CHAT, json=ask())
            assert answer.status_code == 429
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert answer.headers.get("x-roundhouse-attempts") == attempts
            assert 18 <= int(answer.headers["retry-after"]) <= 20
            assert "x-should-retry" not in answer.headers
            nobody_is_named(answer)
    assert Counter(bearers(upstream)) == {A: 1, B: 1}


async def test_an_account_without_a_key_sends_none(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = chat_answer()
    account = lab(upstream)
    del account["api_keys"]
    async with client_of(await serve({"lab": account}, models=models("m"))) as http:
        assert (await http.post(CHAT, json=ask())).status_code == 200
        assert (await http.post(CHAT, json=ask("lab/any-other"))).status_code == 200
    for sent in upstream.requests:
        assert all(sent.header(name) is None for name in ("authorization", "x-api-key", "api-key"))


async def test_ids_that_no_entry_names_are_spread_too(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = by_key({A: BAD_KEY})
    server = await house(serve, upstream)
    async with client_of(server) as http:
        for number in range(20):
            answer = await http.post(CHAT, json=ask(f"lab/some-{number % 3}"))
            assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (200, "lab/*")
            nobody_is_named(answer)
    shares = Counter(bearers(upstream))
    assert min(shares[B], shares[C]) >= 5


async def test_a_key_that_is_revoked_under_load_costs_nobody_an_answer(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Those who were asked with it go on with the other, whatever the others do."""
    gate = Gate()
    answers = by_key({A: BAD_KEY})
    upstream.default = answer_late(gate, answers)
    async with client_of(await house(serve, upstream, (A, B))) as http:
        asked = [asyncio.create_task(http.post(CHAT, json=ask())) for _ in range(12)]
        for _ in asked:
            await upstream.next_request()
        assert Counter(bearers(upstream)) == {A: 6, B: 6}
        gate.open()
        found = [await one for one in asked]
    assert {answer.status_code for answer in found} == {200}
    attempts = Counter(answer.headers["x-roundhouse-attempts"] for answer in found)
    assert attempts == {"1": 6, "2": 6}
    assert Counter(bearers(upstream)) == {A: 6, B: 12}


@pytest.mark.parametrize("balance", ["weighted", "least_busy", "affinity", "ordered"])
async def test_whatever_chooses_the_target_its_keys_are_spread(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, balance: str
) -> None:
    upstream.default = second.default = chat_answer()
    targets = [{"provider": name, "model": "theirs"} for name in ("lab", "den")]
    providers = {"lab": lab(upstream, A, B), "den": lab(second, B, C)}
    named = {"m": {"targets": targets, "balance": balance}}
    server = await serve(providers, models=named)
    server.services.dispatcher.dice.draw = random.Random(1).random
    async with client_of(server) as http:
        for number in range(80):
            headers = {"x-roundhouse-session": f"s{number}"}
            answer = await http.post(CHAT, json=ask(), headers=headers)
            assert answer.status_code == 200
    asked = [one for one in (upstream, second) if one.requests]
    one_is_enough = balance in ("ordered", "least_busy")  # nobody else is busy
    assert len(asked) == (1 if one_is_enough else 2)
    for one in asked:
        shares = Counter(bearers(one))
        assert len(shares) == 2
        assert min(shares.values()) >= sum(shares.values()) / 4
