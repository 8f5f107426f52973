"""The gateway's probes, put to a server that has the chart's own config."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from scripts import helm_render
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_stream
from tests.faults.process import Served
from tests.helm.policies import Manifest, of_kind
from tests.helm.test_ask import IMAGE, KEY, gateway, provider

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PATIENT: dict[str, Any] = {"trust_env": False, "timeout": 60}
ASK = {"model": "b-small", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def made(config: dict[str, Any]) -> list[Manifest]:
    return helm_render.manifests({"image": IMAGE, "config": config})


async def probed(manifests: list[Manifest], server: Served, *names: str) -> list[int]:
    """What the kubelet gets: status codes, each over a connection of its own, without a key."""
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    where = {"http": server.url, "admin": server.admin_url}
    found = []
    for name in names:
        probe = pod[name]["httpGet"]
        async with httpx.AsyncClient(**PATIENT) as client:
            answer = await client.get(f"{where[probe['port']]}{probe['path']}")
        found.append(answer.status_code)
    return found


async def test_they_need_no_key_and_no_model(tmp_path: Path) -> None:
    manifests = made({})
    async with gateway(manifests, tmp_path) as server:
        assert await probed(manifests, server, *PROBES) == [200, 200, 200]


async def test_a_server_with_all_its_connections_is_alive_and_ready(tmp_path: Path) -> None:
    manifests = made({"server": {"limits": {"connections": 1}}})
    async with gateway(manifests, tmp_path) as server, httpx.AsyncClient(**PATIENT) as client:
        assert (await client.get(f"{server.url}/health")).status_code == 200
        # The client keeps its connection, the only one that there may be.
        assert await probed(manifests, server, *PROBES) == [503, 200, 200]


async def test_a_server_that_drains_is_alive_and_not_ready(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = Gate(1)
    upstream.queue(chat_stream(["Where ", "engines ", "sleep."], gate=gate))
    manifests = made(provider(upstream))
    headers = {"authorization": f"Bearer {KEY}"}
    async with gateway(manifests, tmp_path) as server, httpx.AsyncClient(**PATIENT) as client:
        url = f"{server.url}/v1/chat/completions"
        async with asyncio.timeout(60), client.stream("POST", url, json=ASK, headers=headers) as it:
            assert it.status_code == 200
            server.signal()
            while await probed(manifests, server, "readinessProbe") == [200]:
                pass
            assert await probed(manifests, server, "readinessProbe", "livenessProbe") == [503, 200]
            gate.open()
            said = [line async for line in it.aiter_lines()]
        assert "data: [DONE]" in said
        assert await server.process.wait() == 0
