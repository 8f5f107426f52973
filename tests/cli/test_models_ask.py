"""How `roundhouse models sync` asks, and what it says of what goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from server.cli.models import ask, shelf, syncing
from server.config import providers_table
from server.config.provider import Provider
from server.dialects import models
from server.registry.overlay import read
from tests.cli import model_lists as lists
from tests.cli.synced import CATALOG, KEY, Run, config, sync
from tests.fakes.tls import make_tls
from tests.fakes.upstream import (
    Script,
    ScriptedUpstream,
    Step,
    answer_bytes,
    answer_json,
    closed_port,
    cut_chunk,
    garbage,
    hang_before_head,
    redirect,
    reset_before_head,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> Path:
    """A small catalog, and the folder of the overlays."""
    monkeypatch.setattr(shelf, "builtin", lambda: CATALOG)
    monkeypatch.setattr(syncing, "builtin", lambda: CATALOG)
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(nowhere / "home"))
    return nowhere / "home" / "catalog"


# --- what goes wrong --------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            answer_json(401, {"error": {"message": f"Incorrect API key: {KEY}"}}),
            "refuses the key (HTTP 401). Look at `providers.bad.api_key` in the config.",
        ),
        (answer_json(403, {"error": KEY}), "refuses the key (HTTP 403)."),
        (answer_json(404, {}), "has no list of models at URL (HTTP 404). Is its base_url right?"),
        (answer_json(429, {}), "has had too many requests (HTTP 429). Try again in a while."),
        (answer_json(503, {"error": KEY}), "answers HTTP 503 (URL)."),
        (redirect("https://example.com/v1/models"), "sends elsewhere (HTTP 307)"),
        (answer_bytes(200, PAGE, content_type="text/html"), "answers a web page, not a list"),
        (answer_bytes(200, b"models: all"), "answers something that is no JSON"),
        (answer_bytes(200, b"[" * 100_000), "answers something that is no JSON"),
        (answer_bytes(200, b"\xff\xfe"), "answers something that is no JSON"),
        (answer_bytes(200, b"9" * 5000), "answers something that is no JSON"),
        (answer_json(200, {"object": "list"}), "answers JSON that is no list of models (URL)."),
        (reset_before_head(), "broke the connection in the middle of its answer (URL)."),
        (garbage(), "broke the connection in the middle of its answer (URL)."),
        (hang_before_head(), "does not answer within 0.2 s (URL)."),
    ],
)
async def test_each_fault_is_one_sentence_and_the_others_go_on(
    script: Script | Step, said: str, run: Run, small: Path
) -> None:
    async with (
        ScriptedUpstream(script) as bad,
        ScriptedUpstream(answer_json(200, lists.OPENAI)) as good,
    ):
        config(bad=bad.url, good=good.url)
        result = await sync(run, *(["--timeout", "0.2"] if "0.2 s" in said else []))
    assert result.exit_code == 1
    assert result.stdout.startswith("good: 3 models")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: bad {said.replace('URL', f'{bad.url}/v1/models')}")
    assert [path.name for path in small.iterdir()] == ["good.json"]


async def test_an_answer_that_breaks_off(run: Run) -> None:
    async def broken(exchange: Any) -> None:
        await exchange.head(200, {"content-type": "application/json"})
        await cut_chunk(exchange)

    async with ScriptedUpstream(broken) as upstream:
        config(lab=upstream.url)
        assert "broke the connection in the middle" in (await sync(run)).stderr


async def test_nobody_there(run: Run) -> None:
    with closed_port() as port:
        config(lab=f"http://127.0.0.1:{port}")
        result = await sync(run)
    assert result.exit_code == 1
    assert "Error: lab cannot be reached at http://127.0.0.1:" in result.stderr


async def test_a_certificate_of_nobody(run: Run) -> None:
    async with ScriptedUpstream(ssl=make_tls().server) as upstream:
        config(lab=upstream.url)
        assert "has no certificate that can be trusted" in (await sync(run)).stderr


async def test_a_certificate_of_an_authority_of_the_configs(run: Run) -> None:
    tls = make_tls()
    async with ScriptedUpstream(answer_json(200, lists.OPENAI), ssl=tls.server) as upstream:
        base = {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY}
        Path("private.pem").write_bytes(tls.ca_pem)
        config(lab={**base, "ca": "private.pem"})
        assert (await sync(run)).stdout.startswith("lab: 3 models")


async def test_one_more_account_of_a_known_provider(run: Run, small: Path) -> None:
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        eu = {"like": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY}
        config(eu=eu)
        result = await sync(run)
    assert result.stdout.startswith("openai: 3 models")
    assert [path.name for path in small.iterdir()] == ["openai.json"]


async def test_an_answer_that_drips_for_ever(run: Run) -> None:
    async def dripping(exchange: Any) -> None:
        await exchange.head(200, {"content-type": "application/json"})
        while True:  # each piece is in time; until the client leaves
            await exchange.chunk(b" ")

    async with ScriptedUpstream(dripping) as upstream:
        config(lab=upstream.url)
        result = await sync(run, "--timeout", "0.2")
    assert result.stderr.startswith("Error: lab does not answer within 0.2 s (http://")


async def test_too_many(run: Run, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "MOST_MODELS", 2)
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        assert "Error: lab lists more than 2 models (" in (await sync(run)).stderr
    assert not small.exists()


async def test_too_much(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "MOST_BYTES", 2**20)
    async with ScriptedUpstream(answer_bytes(200, b" " * (2**20 + 1))) as upstream:
        config(lab=upstream.url)
        assert "lab answers more than 1 MiB" in (await sync(run)).stderr


async def test_a_missing_key_has_its_hint_and_the_others_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(openai={}, good=upstream.url)
        result = await sync(run)
    assert result.exit_code == 1
    assert result.stdout.startswith("good: 3 models")
    assert result.stderr.startswith(
        "Error: openai has no key: OPENAI_API_KEY is not set. Get one at "
    )


async def test_a_provider_without_a_key_of_ours_that_wants_one(run: Run) -> None:
    async with ScriptedUpstream(answer_json(401, {})) as upstream:
        config(lab={"dialect": "openai", "base_url": upstream.url})
        result = await sync(run)
        assert upstream.requests[0].header("authorization") is None
    assert "lab wants a key (HTTP 401). Look at `providers.lab.api_key`" in result.stderr


async def test_an_upstream_that_echoes_the_key(run: Run, small: Path) -> None:
    answer = {"data": [{"id": "m", "description": f"for {KEY}"}, {"id": KEY}]}
    async with ScriptedUpstream(answer_json(200, answer)) as upstream:
        config(lab=upstream.url)
        await sync(run)
    assert KEY not in (small / "lab.json").read_text("utf-8")


async def test_an_overlay_that_cannot_be_written(run: Run, small: Path) -> None:
    small.parent.write_text("a file where the home should be")
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        result = await sync(run)
    assert result.exit_code == 1
    assert f"Error: lab has an overlay that cannot be written: {small / 'lab.json'}" in (
        result.stderr
    )


async def test_a_broken_overlay_is_written_anew(run: Run, small: Path) -> None:
    small.mkdir(parents=True)
    (small / "lab.json").write_text("{")
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        result = await sync(run)
    assert result.exit_code == 0
    assert "lab.json could not be read; what it had accepted is lost." in result.stderr
    assert len(read(small / "lab.json").models) == 3


# --- how it asks ------------------------------------------------------------------------------


async def test_headers_and_proxy_of_the_config(run: Run) -> None:
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as proxy:
        lab = {
            "dialect": "openai",
            "base_url": "http://lab.invalid/v1",
            "headers": {"X-Team": "blue"},
            "proxy": proxy.url.replace("://", "://user:password-1234@"),
        }
        config(lab=lab)
        result = await sync(run)
        (request,) = proxy.requests
    assert result.exit_code == 0, result.stderr
    assert request.target == "http://lab.invalid/v1/models"
    assert request.header("x-team") == "blue"
    assert request.header("proxy-authorization") is not None
    assert "password-1234" not in result.output


async def test_a_proxy_of_the_environment_is_not_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        with closed_port() as port:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            assert (await sync(run)).exit_code == 0


OWN: dict[str, Any] = {
    "anthropic": lists.ANTHROPIC,
    "mistral": lists.MISTRAL,
    "cohere": lists.COHERE,
    "huggingface": lists.ROUTER,
    "openrouter": {**lists.OPENROUTER, "links": {}},
    "together": lists.TOGETHER,
    "fireworks": lists.FIREWORKS,
    "azure": lists.AZURE,
    "roundhouse": lists.ROUNDHOUSE,
}


@pytest.mark.parametrize("name", providers_table.ROWS)
async def test_every_known_provider_is_asked_as_it_wants(name: str, run: Run, small: Path) -> None:
    row = providers_table.ROWS[name]
    answer = OWN.get(name, lists.OPENAI)
    path = urlsplit(row.base_url or row.example or "").path
    async with ScriptedUpstream(answer_json(200, answer)) as upstream:
        config(**{name: {"base_url": f"{upstream.url}{path}", "api_key": KEY}})
        result = await sync(run)
        (request,) = upstream.requests
    assert (result.exit_code, result.stderr) == (0, "")
    whole = {"anthropic": "/v1/models?limit=1000", "cohere": "/v1/models?page_size=1000"}
    assert request.target == whole.get(name, f"{path}/models")
    if row.auth == "bearer":
        assert request.header("authorization") == f"Bearer {KEY}"
    else:
        assert (request.header("authorization"), request.header(row.auth)) == (None, KEY)
    assert (request.header("anthropic-version") is not None) is (name == "anthropic")
    listed = {card["model_id"] for card in read(small / f"{name}.json").models}
    assert listed == {one.id for one in models.listed(models.entries(answer))}
    assert listed


async def test_the_next_key_is_tried_where_one_is_refused(run: Run) -> None:
    other = KEY[::-1]
    async with ScriptedUpstream() as upstream:
        upstream.queue(answer_json(401, {}), answer_json(429, {}), answer_json(200, lists.OPENAI))
        lab = {"dialect": "openai", "base_url": f"{upstream.url}/v1"}
        config(lab={**lab, "api_keys": [other, KEY, "sk-the-third-one"]})
        result = await sync(run)
        asked = [request.header("authorization") for request in upstream.requests]
    assert result.exit_code == 0, result.stderr
    assert asked == [f"Bearer {key}" for key in (other, KEY, "sk-the-third-one")]


async def test_all_keys_are_refused(run: Run) -> None:
    async with ScriptedUpstream(answer_json(401, {})) as upstream:
        lab = {"dialect": "openai", "base_url": f"{upstream.url}/v1"}
        config(lab={**lab, "api_keys": [KEY[::-1], KEY]})
        result = await sync(run)
        assert len(upstream.requests) == 2
    assert "Error: lab refuses the key (HTTP 401)." in result.stderr


async def test_accounts_of_one_provider_make_one_list(run: Run, small: Path) -> None:
    own = {"data": [{"id": "ft:gpt-x:team"}]}
    async with (
        ScriptedUpstream(answer_json(200, lists.OPENAI)) as first,
        ScriptedUpstream(answer_json(200, own)) as second,
    ):
        there = {"api_key": KEY, "base_url": f"{second.url}/v1", "like": "openai"}
        config(openai={"api_key": KEY, "base_url": f"{first.url}/v1"}, team=there)
        result = await sync(run)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in small.iterdir()] == ["openai.json"]
    listed = [card["model_id"] for card in read(small / "openai.json").models]
    assert listed == ["gpt-x", "text-embedding-x", "whisper-x", "ft:gpt-x:team"]


async def test_pages_are_read_to_the_end() -> None:
    first = {**lists.ANTHROPIC, "has_more": True}
    async with ScriptedUpstream() as upstream:
        upstream.queue(answer_json(200, first), answer_json(200, lists.ANTHROPIC))
        place = ask.Account("a", f"{upstream.url}/v1/models", {"limit": "1000"})
        found = await asyncio.to_thread(ask.ask, place, 30.0)
        targets = [request.target for request in upstream.requests]
    assert len(found) == 4
    assert targets == ["/v1/models?limit=1000", "/v1/models?limit=1000&after_id=claude-old"]


async def test_a_list_without_an_end() -> None:
    same = {**lists.COHERE, "next_page_token": "t"}
    async with ScriptedUpstream(answer_json(200, same)) as upstream:
        place = ask.Account("a", f"{upstream.url}/v1/models")
        assert len(await asyncio.to_thread(ask.ask, place, 30.0)) == 6  # the page after is the same

    count = 0

    async def endless(exchange: Any) -> None:
        nonlocal count
        count += 1
        await answer_json(200, {**lists.COHERE, "next_page_token": f"t{count}"})(exchange)

    async with ScriptedUpstream(endless) as upstream:
        place = ask.Account("a", f"{upstream.url}/v1/models")
        with pytest.raises(ask.NoAnswer, match="50 pages were read"):
            await asyncio.to_thread(ask.ask, place, 30.0)


@pytest.mark.parametrize(
    ("dialect", "base", "url", "header"),
    [
        ("openai", "https://x.test/v1", "https://x.test/v1/models", "authorization"),
        ("mistral", "https://x.test/v1", "https://x.test/v1/models", "authorization"),
        ("anthropic", "https://x.test", "https://x.test/v1/models", "x-api-key"),
        ("anthropic", "https://x.test/v1", "https://x.test/v1/models", "x-api-key"),
        ("cohere", "https://x.test/v2", "https://x.test/v1/models", "authorization"),
    ],
)
def test_where_each_dialect_has_its_list(
    dialect: str, base: str, url: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth: providers_table.Auth = "x-api-key" if dialect == "anthropic" else "bearer"
    row = providers_table.Row(dialect, base, ("X",), auth)
    monkeypatch.setitem(providers_table.ROWS, "some", row)
    place = ask.account_of("some", Provider.model_validate({"api_key": KEY}))
    assert place.url == url
    assert KEY in place.headers[header]
    assert ("anthropic-version" in place.headers) is (dialect == "anthropic")
    assert KEY not in repr(place)
    assert place.key_hint == "Look at X, or at `providers.some.api_key` in the config."
