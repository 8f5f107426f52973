"""A whole server in front of two scripted upstreams, and its metrics as a scraper reads them."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.config.load import load
from server.serving import Roundhouse
from tests.fakes.client import RawClient
from tests.fakes.upstream import ScriptedUpstream

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: Seconds that any test may take; pytest's own limit is a little above.
LONGEST = 110.0
#: The targets of the model `m`, in their order.
ONE, TWO = "one/a", "two/b"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """A server in the test's process is on the loop that it has in life."""
    if on_uvloop(item):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def on_uvloop(item: pytest.Item) -> bool:
    """Not where names are looked up: libuv does so by itself, past what a test says of them."""
    fixtures = getattr(item, "fixturenames", ())
    return "serve" in fixtures and "names" not in fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test waits for ever; on uvloop an alarm's exception is lost, pytest-timeout's too."""
    for item in items:
        if item.path.parent == HERE and isinstance(item, pytest.Function) and on_uvloop(item):
            item.obj = bounded(item.obj)


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The same test, with an end."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(LONGEST):
            await test(*args, **kwargs)

    return run


class House:
    """A running server. What it counted is read from its admin listener, never from its objects."""

    def __init__(self, server: Roundhouse, http: httpx.AsyncClient, path: Path) -> None:
        self.server, self.path = server, path
        self._http = http

    @property
    def port(self) -> int:
        """The public listener's."""
        return int(self.server.url.rpartition(":")[2])

    async def ask(self, **more: Any) -> httpx.Response:
        """One request to the model `m`, to its end."""
        return await self._http.post(f"{self.server.url}{CHAT}", json={**ASK, **more})

    async def get(self, path: str) -> httpx.Response:
        """Of the public listener."""
        return await self._http.get(f"{self.server.url}{path}")

    async def admin(self, method: str, path: str) -> httpx.Response:
        """Of the admin listener."""
        assert self.server.admin_url is not None
        return await self._http.request(method, f"{self.server.admin_url}{path}")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of `roundhouse_<name>` with these labels, once every request that
        was open has been settled."""
        while self.server.services.open:
            await asyncio.sleep(0)
        return await self.metric_now(name, **labels)

    async def metric_now(self, name: str, **labels: str) -> float:
        """The same while requests are open."""
        return read_metric((await self.admin("GET", "/metrics")).text, name, **labels)

    async def write(self, config: dict[str, Any]) -> None:
        """A new config file, which nobody has read yet."""
        self.path.write_text(yaml.safe_dump(config, sort_keys=False))


def read_metric(text: str, name: str, **labels: str) -> float:
    """The sum of all series of `roundhouse_<name>` that have these labels, from a scrape."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"roundhouse_{name}" and labels.items() <= sample.labels.items()
    )


Serve = Callable[..., Awaitable[House]]


def config_of(
    one: str | ScriptedUpstream,
    two: str | ScriptedUpstream,
    *,
    provider: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The model `m` with a target at each of two providers. `provider`: settings of both."""

    def account(upstream: str | ScriptedUpstream) -> dict[str, Any]:
        url = upstream if isinstance(upstream, str) else upstream.url
        return {"dialect": "openai", "base_url": f"{url}/v1", **(provider or {})}

    server = {
        "port": 0,
        "admin": "127.0.0.1:0",
        **more.pop("server", {}),
    }
    server["timeouts"] = {"drain": "5s", **server.get("timeouts", {})}
    targets = [{"provider": "one", "model": "a"}, {"provider": "two", "model": "b"}]
    return {
        "version": 1,
        "server": server,
        "providers": {"one": account(one), "two": account(two)},
        "models": {"m": {"targets": targets}},
        **more,
    }


@pytest.fixture
def one(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """The provider `one`, which is asked first."""
    return upstream


@pytest.fixture
def two(second: ScriptedUpstream) -> ScriptedUpstream:
    """The provider `two`."""
    return second


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers from config dicts; all are stopped afterwards."""
    async with AsyncExitStack() as stack:

        async def start(config: dict[str, Any]) -> House:
            config["server"].setdefault("home", str(tmp_path / "home"))
            path = tmp_path / "roundhouse.yaml"
            path.write_text(yaml.safe_dump(config, sort_keys=False))
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
            server = await stack.enter_async_context(Roundhouse(load(path, environ={})))
            return House(server, http, path)

        yield start


@pytest.fixture
async def house(serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream) -> House:
    """A server with all settings as they come."""
    return await serve(config_of(one, two))


def answered_by(answer: httpx.Response, target: str) -> None:
    """A good answer, whole or a stream, of this target."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-roundhouse-target"] == target
    if "event-stream" in answer.headers["content-type"]:
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer.text
    else:
        assert answer.json()["choices"]


async def events_of(client: RawClient) -> list[bytes]:
    """What is left of a stream, which ends properly."""
    events = []
    while event := await client.read_event():
        events.append(event)
    return events


def broken(events: list[bytes]) -> dict[str, Any]:
    """The error that ends a stream: in the last event, once, and no `[DONE]` anywhere."""
    assert b"[DONE]" not in b"".join(events)
    assert [b'"error"' in event for event in events].count(True) == 1
    error: dict[str, Any] = json.loads(events[-1].removeprefix(b"data: "))["error"]
    return error
