"""A real vLLM that somebody else runs, on a TCP port: found, asked, scraped, lost, found again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.fakes.client import RawClient
from tests.integration.second import BEARER, KEY, MODEL, Second
from tests.integration.stack import START, ServerProcess, running, until

pytestmark = pytest.mark.usefixtures("engine_environment")

CHAT: Final = "/v1/chat/completions"
ASK: Final = {"model": "far", "messages": [{"role": "user", "content": "What is Roundhouse?"}]}
LONG: Final = {**ASK, "ignore_eos": True, "max_tokens": 1900}
#: More than all buffers on its way hold: nobody can finish it while the client does not read.
ENDLESS: Final = {
    **(LONG | {"stream": True, "temperature": 1.0, "n": 8}),
    "logprobs": True,
    "top_logprobs": 20,
}


@pytest.fixture
def server(tmp_path: Path, second_starting: Second) -> Iterator[ServerProcess]:
    """Its only engine is found by DNS, and may not listen yet."""
    far = {
        "runtime": "external",
        "discover": f"dns://localhost:{second_starting.port}",
        "api_key": KEY,
        "wait": START,
        "refresh": "1s",
        "health_interval": "1s",
        "health_misses": 4,  # a busy machine may make it miss one or two while it is well
    }
    config = {"engines": {"far": far}, "models": {"far": {"targets": [{"engine": "far"}]}}}
    with running(tmp_path, config) as server:
        server.wait_up()
        yield server


def replica(server: ServerProcess) -> dict[str, Any]:
    """What the admin API says of it. Beside 127.0.0.1 the name may have ::1, where nobody is."""
    replicas = server.engines()["far"]["replicas"]
    return next(one for one in replicas if one["address"].startswith("127.0.0.1:"))


def changes(server: ServerProcess, change: str) -> float:
    return server.metric("roundhouse_replica_changes_total", engine="far", change=change)


def well(server: ServerProcess) -> float:
    return server.metric("roundhouse_replicas", engine="far", state="well")


async def sees(vllm: Second, what: str, look: Callable[[], bool], *, within: float = 60) -> None:
    try:
        await asyncio.to_thread(until, look, within=within, what=what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{vllm.tail()}") from None


async def test_found_scraped_lost_and_found(server: ServerProcess, second_starting: Second) -> None:
    vllm = second_starting
    async with httpx.AsyncClient(timeout=START + 60) as http:
        # Asked before it listens: the request waits for it.
        answer = await http.post(f"{server.url}{CHAT}", json=ASK)
        assert answer.status_code == 200, answer.text + vllm.tail()
        assert answer.headers["x-roundhouse-target"] == "engine/far"
        assert answer.json()["choices"][0]["message"]["content"]
        found = replica(server)
        assert (found["well"], found["model"], found["address"]) == (
            True, MODEL, f"127.0.0.1:{vllm.port}",
        )  # fmt: skip
        assert well(server) == 1

        # Somebody else's requests, straight to it: what the scrape is for.
        theirs = [
            asyncio.create_task(
                http.post(f"{vllm.url}{CHAT}", json={**LONG, "model": MODEL}, headers=BEARER)
            )
            for _ in range(3)
        ]
        await sees(vllm, "a load of 3", lambda: replica(server)["load"] == 3)
        assert replica(server)["in_flight"] == 0
        assert [one.status_code for one in await asyncio.gather(*theirs)] == [200] * 3
        await sees(vllm, "a load of 0", lambda: replica(server)["load"] == 0)

        # It hangs, and is left out; it goes on, and is asked again.
        vllm.signal(signal.SIGSTOP)
        await sees(vllm, "lost", lambda: well(server) == 0)
        assert changes(server, "lost") >= 1
        waiting = asyncio.create_task(http.post(f"{server.url}{CHAT}", json=ASK))
        await sees(vllm, "a request waits", lambda: server.engines()["far"]["waiting"] == 1)
        vllm.signal(signal.SIGCONT)
        assert (await waiting).status_code == 200
        assert changes(server, "returned") >= 1


async def test_it_dies(server: ServerProcess, second: Second) -> None:
    """With a stream of ours open. The last of the tests that have this vLLM."""
    await sees(second, "found", lambda: well(server) == 1)
    async with RawClient(port=server.port) as stream:
        await stream.post(CHAT, ENDLESS)
        assert (await stream.read_head()).status == 200
        events = [await stream.read_event()]
        second.kill()
        while event := await stream.read_event():
            events.append(event)
    assert b'"error"' in events[-1]
    assert b"[DONE]" not in b"".join(events)
    await sees(second, "lost for good", lambda: well(server) == 0)
    assert changes(server, "lost") >= 1
    # With nobody left a request that may not wait long is told so.
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(
            f"{server.url}{CHAT}", json=ASK, headers={"x-roundhouse-timeout": "1"}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
    assert server.engines()["far"]["state"] == "backoff"
