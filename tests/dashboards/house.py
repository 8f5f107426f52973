"""A Roundhouse with something of everything: upstreams that fail in each way, limits that are met,
engines that take turns, die and wait, replicas that are lost, a config that is refused."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from server.config.engine import PORT
from server.config.load import load
from server.serving import Roundhouse
from tests.fakes.exchange import Exchange
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    chat_events,
    chat_stream,
    error,
    reset,
    sse,
)

FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"
VLLM = Path(__file__).parents[1] / "data" / "vllm-metrics.prom"
KEY, LIMITED, ADMIN, METRICS = (
    f"sk-{who}-0123456789abcdef" for who in ("all", "few", "adm", "met")
)
CHAT = "/v1/chat/completions"
LEFT = {
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "40",
    "x-ratelimit-reset-requests": "20s",
}
WEIGHTS = "org/small"


def config(folder: Path, upstream: str, far: str, lost: str) -> dict[str, Any]:
    def provider(path: str) -> dict[str, str]:
        return {"dialect": "openai", "base_url": f"{upstream}/{path}/v1", "api_key": "a-key"}

    def engine(**script: Any) -> dict[str, Any]:
        line = [sys.executable, "-I", "-S", str(FAKE), PORT, json.dumps(script)]
        return {
            "runtime": "command", "cmd": shlex.join(line), "device": "cpu", "memory": "1GiB",
            "load": "request", "residency": 0, "stop_timeout": "1s", "health_interval": "1s",
        }  # fmt: skip

    def target(provider: str, **more: Any) -> dict[str, Any]:
        return {"provider": provider, "model": provider, **more}

    def replicas(url: str) -> dict[str, Any]:
        return {"runtime": "external", "urls": [url], "model": "m", "health_interval": "1s"}

    held = {**engine(gate=str(folder / "gate")), "memory": "1MiB"}
    late = {**engine(gate=str(folder / "never")), "memory": "1MiB"}
    return {
        "version": 1,
        "server": {
            "port": 0,
            "admin": "127.0.0.1:0",
            "home": str(folder / "home"),
            "admin_key": ADMIN,
            "metrics_key": METRICS,
            "keys": [
                {"name": "all", "key": KEY},
                {"name": "few", "key": LIMITED, "rpm": 1},
            ],
        },
        "weights": {"folder": str(folder / "hub")},
        "placement": {"starvation": "1s", "drain": "2s", "memory": {"cpu": "2200MiB"}},
        "providers": {
            name: provider(name) for name in ("well", "ill", "full", "closed", "slow", "broken")
        },
        "engines": {
            **dict.fromkeys(("one", "two", "three"), engine()),
            "held": held,
            "late": late,
            "far": replicas(far),
            "lost": replicas(lost),
        },
        "models": {
            "good": {
                "targets": [target("well")],
                "prices": {"input": 2, "cached_input": 1, "output": 8},
            },
            "spare": {"targets": [target("ill"), target("well")]},
            "dead": {"targets": [target("ill")]},
            "rested": {"targets": [target("full")]},
            "refused": {"targets": [target("closed")]},
            "cut": {"targets": [target("broken")]},
            "narrow": {"targets": [target("slow", max_in_flight=1, max_waiting=1)]},
            "one": {"targets": [{"engine": "one"}]},
            "two": {"targets": [{"engine": "two"}]},
            "three": {"targets": [{"engine": "three"}]},
            "held": {"targets": [{"engine": "held"}]},
            "bridged": {"targets": [{"engine": "late"}], "bridge": "good"},
        },
    }


class House:
    """The running server, and what is asked of it."""

    def __init__(self, server: Roundhouse, http: httpx.AsyncClient, folder: Path) -> None:
        self.server, self.http, self.folder = server, http, folder
        #: Set, slow answers go on.
        self.go_on = asyncio.Event()

    async def ask(self, model: str, text: str = "hi", key: str = KEY, **more: Any) -> int:
        """One request to its end; its status."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        headers = {"authorization": f"Bearer {key}"}
        return (
            await self.http.post(self.server.url + CHAT, json=body, headers=headers)
        ).status_code

    async def admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {ADMIN}"}
        return await self.http.request(
            method, f"{self.server.admin_url}{path}", headers=headers, **more
        )

    async def round(self, seen: Awaitable[None]) -> list[int]:
        """Something of everything; meanwhile requests wait, until `seen` is done."""
        self.go_on.clear()
        waiting = [asyncio.create_task(self.ask("narrow", stream=True)) for _ in range(3)]
        waiting.append(asyncio.create_task(self.ask("held")))
        try:
            statuses = [
                await self.ask(model, stream=stream)
                for model in ("good", "spare", "rested", "refused", "dead", "cut", "bridged", "one")
                for stream in ((False,) if model == "one" else (False, True))
            ]
            statuses += [await self.ask("good", key=LIMITED), await self.ask("good", key=LIMITED)]
            statuses += await asyncio.gather(*(self.ask(name) for name in ("one", "two", "three")))
            await seen
        finally:
            self.go_on.set()
            (self.folder / "gate").touch()
        return statuses + await asyncio.gather(*waiting)

    async def mishaps(self) -> None:
        """What happens once: an engine is killed by a request, and weights are pulled."""
        assert await self.ask("one") == 200
        await self.ask("one", "poison")
        await self.admin("POST", "/weights", json={"model": WEIGHTS})

    async def spoil_config(self) -> None:
        """Its file is refused, and stays so."""
        (self.folder / "roundhouse.yaml").write_text("version: 2")
        assert (await self.admin("POST", "/reload")).status_code == 400


def vllm() -> ScriptedUpstream:
    """A replica that says what a real vLLM has said; what grows grows from scrape to scrape."""
    scrapes = 0

    async def metrics(exchange: Exchange) -> None:
        nonlocal scrapes
        scrapes += 1
        body = grown(VLLM.read_text(), scrapes).encode()
        await answer_bytes(200, body, content_type="text/plain; version=0.0.4")(exchange)

    return ScriptedUpstream(
        chat_answer("far"), routes={"/health": answer_json(200, {}), "/metrics": metrics}
    )


def grown(text: str, times: int) -> str:
    """Counters and histograms so many times as large, which keeps them right in themselves."""
    lines = []
    for line in text.splitlines():
        if line.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum")):
            series, _, value = line.rpartition(" ")
            line = f"{series} {float(value) * times}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def scripted(house: list[House]) -> ScriptedUpstream:
    """All upstreams in one, by the first part of the path."""

    async def answer(exchange: Exchange) -> None:
        asked = exchange.json() if exchange.body else {}
        stream = asked.get("stream", False)
        match exchange.path.split("/")[1]:
            case "ill":
                script = answer_json(500, error("no"))
            case "full":
                script = answer_json(429, error("slow down"), {"retry-after": "3", **LEFT})
            case "closed":
                script = answer_json(401, error("who are you?"))
            case "broken" if stream:
                script = chat_stream(["a", "b"], then=reset)
            case "slow":
                first, *rest = chat_events(["a", "b", "c"])
                script = sse([first, house[0].go_on, *rest])
            case _ if stream:
                script = chat_stream(["a", "b", "c"], cached_tokens=2, headers=LEFT)
            case _:
                script = chat_answer("a", headers=LEFT)
        await script(exchange)

    return ScriptedUpstream(answer)


@dataclass(frozen=True)
class Street:
    """The house, and the replicas that others run."""

    house: House
    far: ScriptedUpstream
    lost: ScriptedUpstream


@asynccontextmanager
async def street(folder: Path) -> AsyncIterator[Street]:
    """All of it, running."""
    houses: list[House] = []
    async with scripted(houses) as upstream, vllm() as far, vllm() as lost:
        file = folder / "roundhouse.yaml"
        file.write_text(yaml.safe_dump(config(folder, upstream.url, far.url, lost.url)))
        async with (
            Roundhouse(load(file, environ={})) as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            houses.append(House(server, http, folder))
            yield Street(houses[0], far, lost)
