"""A server with accounts at providers, and what is known of it from outside and inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.config.load import load
from server.serving import Roundhouse
from tests.fakes.upstream import Exchange, Script, ScriptedUpstream, chat_answer

#: The client's, at our server.
KEY = "sk-test-0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]

Serve = Callable[..., Awaitable[Roundhouse]]


def config_of(providers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """With a key of ours; `server`: more of that section."""
    server = {
        "port": 0,
        "admin": "127.0.0.1:0",
        "keys": [{"name": "tests", "key": KEY}],
        "timeouts": {"drain": "5s"},
        **more.pop("server", {}),
    }
    return {"version": 1, "server": server, "providers": providers, "models": {}, **more}


@asynccontextmanager
async def start(
    folder: Path, providers: dict[str, Any], environ: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[Roundhouse]:
    """Nothing is under way in it when it is left."""
    config = config_of(providers, **more)
    config["server"].setdefault("home", str(folder / "home"))
    path = folder / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    async with Roundhouse(load(path, environ=environ or {})) as server:
        yield server
        quiet(server)


async def change(server: Roundhouse, folder: Path, config: dict[str, Any]) -> None:
    """Swap in another config, which must be a good one."""
    config["server"].setdefault("home", str(folder / "home"))
    (folder / "roundhouse.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    report = await server.reload()
    assert report.result == "ok", report


def quiet(server: Roundhouse) -> None:
    """Nothing is under way, and every place is free."""
    dispatcher = server.services.dispatcher
    assert not server.services.open
    assert all(standing.in_flight == 0 for standing in dispatcher.standings)
    assert all((room.inside, room.depth) == (0, 0) for room in dispatcher.rooms.all())


def client_of(server: Roundhouse) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10)


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **more}


def bearers(upstream: ScriptedUpstream) -> list[str]:
    """The keys that came in, in order."""
    return [
        (sent.header("authorization") or "").removeprefix("Bearer ") for sent in upstream.requests
    ]


class Shown:
    """What a scraper reads."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def __call__(self, name: str, /, **labels: str) -> float | None:
        """The one sample with exactly these labels; None: it is not shown."""
        found = [s.value for s in self._samples if (s.name, s.labels) == (name, labels)]
        return found[0] if found else None


async def metrics_of(server: Roundhouse) -> Shown:
    async with httpx.AsyncClient(base_url=str(server.admin_url), timeout=10) as admin:
        return Shown((await admin.get("/metrics")).text)


async def until_waiting(server: Roundhouse, count: int) -> None:
    """Until so many requests wait for a place."""
    while sum(room.depth for room in server.services.dispatcher.rooms.all()) != count:
        await asyncio.sleep(0)


# --- several keys


def lab(upstream: ScriptedUpstream, *keys: str, **more: Any) -> dict[str, Any]:
    """An account with these keys."""
    return {
        "dialect": "openai",
        "base_url": f"{upstream.url}/v1",
        "api_keys": list(keys),
        **more,
    }


def models(*names: str, **more: Any) -> dict[str, Any]:
    """Models with one target each at the account `lab`, by the same name."""
    return {
        name: {"targets": [{"provider": "lab", "model": f"their-{name}", **more}]} for name in names
    }


def by_key(answers: Mapping[str, Script], otherwise: Script | None = None) -> Script:
    """Answers each key in its own way."""

    async def script(exchange: Exchange) -> None:
        key = (exchange.header("authorization") or "").removeprefix("Bearer ")
        await answers.get(key, otherwise or chat_answer())(exchange)

    return script
