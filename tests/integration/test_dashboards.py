"""What a real vLLM says of itself, by way of the server and Prometheus, is what dashboards draw."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx

from tests.dashboards import asked, prometheus
from tests.dashboards.prometheus import Job
from tests.dashboards.test_queries import values
from tests.integration.conftest import KEY
from tests.integration.stack import ServerProcess

#: Long enough for several blocks of the KV cache, of which the second request finds the first ones.
PROMPT = "Roundhouse starts engines, puts them to sleep and wakes them up. " * 40
SEEN_AT_WORK = (
    'max_over_time(vllm:num_requests_running{roundhouse_engine="guide"}[5m]) > 0 '
    'and max_over_time(vllm:kv_cache_usage_perc{roundhouse_engine="guide"}[5m]) > 0'
)
#: Panels that may show nothing but zeros, and why.
ZERO = {
    "engines: Waiting in the engine A": "few requests: all are begun at once",
    "engines: Preempted A": "the cache is large enough",
}


async def ask(http: httpx.AsyncClient, server: ServerProcess, *, stream: bool) -> None:
    body: dict[str, Any] = {
        "model": "guide",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 40,
        "stream": stream,
    }
    headers = {"authorization": f"Bearer {KEY}"}
    answer = await http.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def keep_asking(http: httpx.AsyncClient, server: ServerProcess, *, stream: bool) -> None:
    while True:
        await ask(http, server, stream=stream)


async def test_the_panels_of_vllm_draw_a_real_one(stack: ServerProcess, tmp_path: Path) -> None:
    prometheus.program("prometheus")
    address = f"127.0.0.1:{stack.admin_port}"
    jobs = (Job("roundhouse", address), Job("engines", address, "/metrics/engines"))
    async with (
        prometheus.running(tmp_path, jobs, asked.RULES) as watching,
        httpx.AsyncClient(timeout=120) as http,
    ):
        began = time.time()
        await watching.scraped(jobs)
        # Answers of this engine are over between two scrapes: four clients go on until they have
        # been seen at it.
        async with asyncio.timeout(prometheus.PATIENCE):
            clients = [
                asyncio.create_task(keep_asking(http, stack, stream=bool(at % 2)))
                for at in range(4)
            ]
            for _ in range(4):
                await watching.scraped(jobs)
            while not await watching.query(SEEN_AT_WORK):
                assert not any(client.done() for client in clients)
                await watching.scraped(jobs)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        await watching.scraped(jobs)
        panels = [panel for panel in asked.panels() if "vllm:" in panel.expr]
        assert len(panels) >= 10
        for panel in panels:
            drawn = await watching.drawn(panel.expr, began)
            found = values(drawn)
            assert found, panel
            assert {one["metric"]["roundhouse_engine"] for one in drawn} >= {"guide"}, panel
            assert any(found) or panel.where in ZERO, panel
        (stages,) = [panel for panel in asked.panels() if panel.where.endswith("start's stages A")]
        told = await watching.query(stages.expr)
        assert {"importing", "loading weights"} <= {one["metric"]["stage"] for one in told}
