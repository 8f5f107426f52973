"""A whole server in the test's own loop, in front of scripted upstreams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config.load import load
from server.serving import Roundhouse
from tests.fakes.upstream import ScriptedUpstream

KEY = "sk-test-0123456789abcdef0123456789abcdef"
AUTH = {"authorization": f"Bearer {KEY}"}
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

Serve = Callable[..., Awaitable[Roundhouse]]


def config_of(
    upstream: ScriptedUpstream, second: ScriptedUpstream | None = None, **more: Any
) -> dict[str, Any]:
    """Models `m` (one target) and `both` (two, both with a fallback on the second)."""
    providers = {"up": {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": "up-key"}}
    models: dict[str, Any] = {
        "m": {"targets": [{"provider": "up", "model": "upstream-m"}]},
        "alias-of-m": {"alias": "m"},
        "org/model-x": {"targets": [{"provider": "up", "model": "x"}]},
    }
    if second is not None:
        providers["second"] = {"dialect": "openai", "base_url": f"{second.url}/v1"}
        models["both"] = {
            "targets": [{"provider": "up", "model": "a"}, {"provider": "second", "model": "b"}]
        }
    server = {
        "port": 0,
        "admin": "127.0.0.1:0",
        "timeouts": {"drain": "5s"},
        **more.pop("server", {}),
    }
    return {"version": 1, "server": server, "providers": providers, "models": models, **more}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers from config dicts; all are stopped afterwards."""
    async with AsyncExitStack() as stack:

        async def start(config: dict[str, Any]) -> Roundhouse:
            config["server"].setdefault("home", str(tmp_path / "home"))
            path = tmp_path / "roundhouse.yaml"
            path.write_text(yaml.safe_dump(config, sort_keys=False))
            return await stack.enter_async_context(Roundhouse(load(path, environ={})))

        yield start


@pytest.fixture
async def server(serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream) -> Roundhouse:
    """A server with one key, in front of both upstreams."""
    keys = [
        {"name": "tests", "key": KEY},
        {"name": "narrow", "key": KEY[::-1], "models": ["org/*"]},
    ]
    return await serve(config_of(upstream, second, server={"keys": keys}))


@pytest.fixture
async def http(server: Roundhouse) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key."""
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10) as client:
        yield client


@pytest.fixture
async def admin(server: Roundhouse) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the admin listener."""
    assert server.admin_url is not None
    async with httpx.AsyncClient(base_url=server.admin_url, timeout=10) as client:
        yield client


def port_of(server: Roundhouse) -> int:
    """The public listener's port."""
    return int(server.url.rpartition(":")[2])
