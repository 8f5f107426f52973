"""One Roundhouse in front of one scripted upstream that is every provider, and a client of it."""

from __future__ import annotations

import asyncio
import inspect
import random
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import yaml

from server.config.load import load
from server.serving import Roundhouse
from tests.dialects.replay import cut
from tests.fakes.exchange import Exchange as Asked
from tests.fakes.exchange import Script
from tests.fakes.upstream import ScriptedUpstream
from tests.replay.exchanges import Exchange

#: Of the cards: only what the client says shall arrive.
_NO_DEFAULTS = {"temperature": None, "top_p": None}
KEY = "sk-test-0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class World:
    """`strict` is the client that everybody's types are tried with; `lenient` the same SDK as most
    people have it."""

    upstream: ScriptedUpstream
    strict: openai.AsyncOpenAI
    lenient: openai.AsyncOpenAI
    #: The heads of the server's answers.
    heads: list[Mapping[str, str]]

    def answer(self, one: Exchange, cuts: int = 0) -> None:
        """The upstream's next answers are this recorded one, and it knows of no requests. `cuts`:
        which places it is cut at."""
        self.upstream.default = recorded(one, cuts)
        self.upstream.requests.clear()
        self.heads.clear()

    def asked(self) -> Asked:
        """The one request that came in since then."""
        (found,) = self.upstream.requests
        return found


def recorded(one: Exchange, cuts: int = 0) -> Script:
    """The recorded answer, in pieces: cut inside of lines and of characters, at places that are the
    same in every run."""
    seed = zlib.crc32(one.body) + cuts

    async def script(exchange: Asked) -> None:
        if one.streamed or random.Random(seed).random() < 0.5:
            await exchange.head(one.status, one.data["headers"], framing="chunked")
        else:
            length = len(one.body)
            await exchange.head(one.status, one.data["headers"], framing="length", length=length)
        for piece in cut(one.body, seed) if one.streamed else _halves(one.body, seed):
            await exchange.chunk(piece)
            await asyncio.sleep(0)  # the server reads it by itself

    return script


def _halves(body: bytes, seed: int) -> tuple[bytes, bytes]:
    place = random.Random(seed).randint(0, len(body))
    return body[:place], body[place:]


# --- names


def account_of(one: Exchange) -> str:
    """The name of an account in the config: of one provider, one for each base URL."""
    return "-".join([one.provider, *one.base.strip("/").split("/")]).rstrip("-")


def key_of(one: Exchange) -> str:
    """An account's key."""
    return f"key-of-{account_of(one)}"


def name_of(one: Exchange) -> str:
    """A model as clients name it: otherwise than its provider."""
    return f"{account_of(one)}/{one.model}"


def config_of(url: str, home: Path, all_of_them: Iterable[Exchange]) -> dict[str, Any]:
    """Every account and model that was asked."""
    providers: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for one in all_of_them:
        account = account_of(one)
        providers[account] = {
            "dialect": one.provider,
            "base_url": f"{url}{one.base}",
            "api_key": key_of(one),
        }
        models[name_of(one)] = {
            "targets": [{"provider": account, "model": one.model}],
            "defaults": _NO_DEFAULTS,
        }
    server = {
        "port": 0,
        "admin": None,
        "home": str(home),
        "keys": [{"name": "tests", "key": KEY}],
    }
    return {"version": 1, "server": server, "providers": providers, "models": models}


@asynccontextmanager
async def world_of(folder: Path, all_of_them: Iterable[Exchange]) -> AsyncIterator[World]:
    """The server runs in the loop of who asks for it."""
    async with ScriptedUpstream() as upstream:
        path = folder / "roundhouse.yaml"
        path.write_text(yaml.safe_dump(config_of(upstream.url, folder / "home", all_of_them)))
        async with Roundhouse(load(path, environ={})) as server:
            heads: list[Mapping[str, str]] = []

            async def note(response: httpx2.Response) -> None:
                heads.append(response.headers)

            how: dict[str, Any] = {
                "base_url": f"{server.url}/v1",
                "api_key": KEY,
                "max_retries": 0,
                "timeout": 20,
            }
            async with openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}) as http:
                how["http_client"] = http
                strict = openai.AsyncOpenAI(**how, _strict_response_validation=True)
                yield World(upstream, strict, openai.AsyncOpenAI(**how), heads)


def spoken(method: Any, body: dict[str, Any]) -> dict[str, Any]:
    """A body as the arguments of an SDK's method: what it does not know is `extra_body`."""
    known = inspect.signature(method).parameters
    said = {name: value for name, value in body.items() if name in known}
    more = {name: value for name, value in body.items() if name not in known}
    return {**said, "extra_body": more} if more else said
