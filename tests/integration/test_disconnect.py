"""Clients that leave: the engine must stop working for them, at once."""

from __future__ import annotations

import asyncio
import json

from tests.fakes.client import RawClient
from tests.integration.conftest import KEY
from tests.integration.stack import ServerProcess, until

CLIENTS = 50


def aborts(stack: ServerProcess) -> int:
    """vLLM's own count of aborted requests.

    From its log (`--enable-log-requests`): 0.32's counter `request_success_total` has a label
    `abort`, but a disconnect takes the request out before anything counts it there.
    """
    log = (stack.home / "logs" / "guide.log").read_text(errors="replace")
    return log.count(" aborted.")


def engine(stack: ServerProcess, metric: str) -> float:
    return stack.metric(f"vllm:{metric}", engines=True, roundhouse_engine="guide")


def running(stack: ServerProcess) -> float:
    return engine(stack, "num_requests_running")


async def test_fifty_clients_leave_in_mid_answer(stack: ServerProcess) -> None:
    before, tokens_before = aborts(stack), engine(stack, "generation_tokens_total")
    gone_before = stack.metric("roundhouse_attempts_total", model="guide", outcome="client_gone")
    clients = [RawClient(port=stack.port) for _ in range(CLIENTS)]

    async def ask(number: int, client: RawClient) -> None:
        await client.connect()
        body = {
            "model": "guide",
            "messages": [{"role": "user", "content": f"Tell me about Roundhouse ({number})"}],
            "stream": number % 2 == 0,
            "ignore_eos": True,
            "max_tokens": 3500,
            "temperature": 1,
        }
        headers = [("authorization", f"Bearer {KEY}")]
        await client.post("/v1/chat/completions", body, headers)
        if number % 2 == 0:
            head = await client.read_head()
            assert head.status == 200
            await client.read_event()

    await asyncio.gather(*(ask(number, client) for number, client in enumerate(clients)))
    # All of them are being generated now, the non-streaming half without a byte out.
    await asyncio.to_thread(
        until, lambda: running(stack) == CLIENTS, within=30, what="50 requests on the engine"
    )
    loop = asyncio.get_running_loop()
    left = loop.time()
    for client in clients:
        client.close()
    await asyncio.to_thread(
        until, lambda: running(stack) == 0, within=30, what="no request left on the engine"
    )
    took = loop.time() - left
    await asyncio.to_thread(
        until, lambda: aborts(stack) - before == CLIENTS, within=30, what="50 aborts counted"
    )
    generated = engine(stack, "generation_tokens_total") - tokens_before
    print(f"running 0 after {took:.2f} s; {generated:.0f} of {CLIENTS * 3500} tokens generated")
    # Each had at least 1,500 tokens still to come.
    assert generated < CLIENTS * 2000
    gone = stack.metric("roundhouse_attempts_total", model="guide", outcome="client_gone")
    assert gone - gone_before == CLIENTS
    assert stack.engines()["guide"]["in_flight"] == 0
    lines = [
        json.loads(line) for line in stack.log.read_text().splitlines() if "client_gone" in line
    ]
    assert sum(line.get("end") == "client_gone" for line in lines) >= CLIENTS
