from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server.engines.control import Control, Health, Motion
from server.engines.logs import LogFile
from server.engines.process import EngineProcess
from server.errors import EngineError
from tests.engines.conftest import fake_launch


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, bytes]]]:
    says = {"answer": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says["answer"])
        if says["answer"]:
            writer.close()
        else:
            await reader.read()
            writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(serve, path):
        yield path, says


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Health.WELL),
        (b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", Health.DEAD),
        (b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n", Health.MISSED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Health.MISSED),
        (b"garbage\r\n\r\n", Health.MISSED),
        (b"", Health.MISSED),
    ],
)
async def test_health(socket: tuple[str, dict[str, bytes]], answer: bytes, health: Health) -> None:
    path, says = socket
    says["answer"] = answer
    async with Control(path) as control:
        assert await control.health(0.2) is health


async def test_nobody_there(tmp_path: Path) -> None:
    async with Control(str(tmp_path / "none")) as control:
        assert await control.health(1) is Health.DEAD


async def test_out_of_descriptors_is_not_held_against_the_engine(
    socket: tuple[str, dict[str, bytes]],
) -> None:
    path, _ = socket
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Control(path) as control:
        assert await control.health(5) is Health.WELL
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            health = await control.health(5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert health is Health.UNKNOWN
        assert await control.health(5) is Health.WELL


def metrics(running: float, steps: float | None) -> bytes:
    text = f'vllm:num_requests_running{{engine="0"}} {running}\n'
    if steps is not None:
        text += f'vllm:iteration_tokens_total_count{{engine="0"}} {steps}\n'
    return text.encode()


def test_motion() -> None:
    motion = Motion(limit=100)
    looks = [
        (0, 1, 5, False),  # the first look tells nothing
        (50, 1, 5, False),
        (140, 1, 5, False),  # still for 90 s
        (145, 1, 6, False),  # it moved
        (146, 1, 6, False),
        (240, 0, 6, False),  # no work: no hang, and the count begins anew
        (245, 1, 6, False),
        (340, 1, 6, False),
        (345, 1, 6, True),
    ]
    for now, running, steps, stuck in looks:
        assert motion.stuck(metrics(running, steps), now) is stuck, now


def test_motion_without_the_metrics_says_nothing() -> None:
    motion = Motion(limit=0)
    assert not motion.stuck(b"", 1)
    assert not motion.stuck(metrics(1, None), 2)
    assert not motion.stuck(metrics(1, None), 3)


# --- sleep ----------------------------------------------------------------------------------------


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Control]]]:
    """Starts fake engines as vLLM would answer in sleep mode; their controls."""
    made: list[EngineProcess] = []

    async def start(**script: Any) -> Control:
        scratch = tmp_path / f"e{len(made)}"
        scratch.mkdir()
        process = EngineProcess(
            fake_launch(scratch, str(scratch / "s"), **script),
            socket=str(scratch / "s"),
            file=LogFile(tmp_path / "log"),
        )
        made.append(process)
        await process.start()
        await process.wait_ready(20)
        return process.control

    yield start
    for process in made:
        await process.kill()


async def test_sleep_and_wake(sleeper: Callable[..., Awaitable[Control]]) -> None:
    control = await sleeper()
    assert not await control.asleep()
    await control.sleep()
    assert await control.asleep()
    await control.wake()
    assert not await control.asleep()
    await control.canary("fake")


@pytest.mark.parametrize(
    ("how", "told"), [("refuses", "refused /sleep?level=1 (500): no"), ("ignores", "is awake")]
)
async def test_it_does_not_sleep(
    sleeper: Callable[..., Awaitable[Control]], how: str, told: str
) -> None:
    control = await sleeper(sleep=how)
    with pytest.raises(EngineError) as caught:
        await control.sleep()
    assert told in caught.value.message
    assert caught.value.reason == "crash"


async def test_what_it_says_after_it_slept_is_none(
    sleeper: Callable[..., Awaitable[Control]],
) -> None:
    control = await sleeper(sleep="breaks")
    await control.canary("fake")
    await control.sleep()
    await control.wake()
    with pytest.raises(EngineError, match="one token"):
        await control.canary("fake")


class Scripted:
    """Answers by path; what has none is vLLM's 404."""

    def __init__(self, **answers: tuple[int, str] | None) -> None:
        self.answers = {f"/{path}": answer for path, answer in answers.items()}
        self.asked: list[tuple[str, bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head.lower())
        body = await reader.readexactly(int(found[1])) if found else b""
        path = head.split()[1].decode().partition("?")[0]
        self.asked.append((path, body))
        answer = self.answers.get(path.removeprefix("/v1"), (404, '{"detail":"Not Found"}'))
        if answer is None:
            await reader.read()
        else:
            status, text = answer
            head = (
                f"HTTP/1.1 {status} x\r\ncontent-length: {len(text)}\r\nconnection: close".encode()
            )
            writer.write(head + b"\r\n\r\n" + text.encode())
        writer.close()


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Control]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(**answers: tuple[int, str] | None) -> Control:
            server = await asyncio.start_server(Scripted(**answers), "127.0.0.1", 0)
            await stack.enter_async_context(server)
            port = server.sockets[0].getsockname()[1]
            control = Control(None, url=f"http://127.0.0.1:{port}", vllm=False)
            return await stack.enter_async_context(control)

        yield start


async def test_an_engine_without_sleep_mode(
    scripted: Callable[..., Awaitable[Control]],
) -> None:
    control = await scripted()
    with pytest.raises(EngineError, match="without `sleep`") as caught:
        await control.wake()
    assert caught.value.reason == "environment"
    with pytest.raises(EngineError, match="does not say whether it sleeps"):
        await control.asleep()


async def test_it_does_not_wake(scripted: Callable[..., Awaitable[Control]]) -> None:
    control = await scripted(wake_up=(200, ""), is_sleeping=(200, '{"is_sleeping": true}'))
    with pytest.raises(EngineError, match="says that it sleeps"):
        await control.wake()
    control = await scripted(wake_up=None)
    with pytest.raises(TimeoutError):
        await control.wake(0.05)


TOKEN = '{"choices": [{"text": " a", "finish_reason": "length"}]}'


@pytest.mark.parametrize(
    ("pooling", "answers", "told"),
    [
        (False, {"completions": (200, TOKEN)}, None),
        (False, {}, None),  # speech: nothing to be asked there
        (False, {"completions": (200, TOKEN.replace("length", "abort"))}, "one token"),
        (False, {"completions": (200, TOKEN.replace('" a"', "null"))}, "one token"),
        (False, {"completions": (200, '{"choices": []}')}, "one token"),
        (False, {"completions": (200, "no JSON")}, "one token"),
        (False, {"completions": (500, '{"error": "core\n"}')}, "a trial with 500"),
        (False, {"completions": (404, '{"error": {"type": "NotFoundError"}}')}, "with 404"),
        (True, {"embeddings": (200, '{"data": [{"embedding": [0.1, -2]}]}')}, None),
        (True, {"embeddings": (200, '{"data": [{"embedding": [0.1, NaN]}]}')}, "one vector"),
        (True, {"embeddings": (200, '{"data": [{"embedding": []}]}')}, "one vector"),
        (True, {"embeddings": (200, '{"data": [3]}')}, "one vector"),
        (True, {"classify": (200, '{"data": [{"probs": [0.1, 0.9]}]}')}, None),
        (True, {"pooling": (200, '{"data": [{"data": [[0.1], [0.9]]}]}')}, None),
        (True, {"pooling": (500, "")}, "with 500: nothing more."),
        (True, {}, "no path for vectors"),
        (False, {"embeddings": (200, '{"data": [{"embedding": [0.1, -2]}]}')}, None),
        (False, {"embeddings": (200, '{"data": [{"embedding": [NaN]}]}')}, "one vector"),
    ],
)
async def test_canary(
    scripted: Callable[..., Awaitable[Control]],
    pooling: bool,
    answers: dict[str, tuple[int, str]],
    told: str | None,
) -> None:
    control = await scripted(**answers)
    if told is None:
        await control.canary("m", pooling)
        return
    with pytest.raises(EngineError) as caught:
        await control.canary("m", pooling)
    assert told in caught.value.message
    assert caught.value.message.isprintable()


async def test_a_canary_that_does_not_come_back(
    scripted: Callable[..., Awaitable[Control]],
) -> None:
    control = await scripted(completions=None)
    with pytest.raises(TimeoutError):
        await control.canary("m", timeout=0.05)


@pytest.mark.parametrize(
    ("answers", "health"),
    [
        ({"health": (200, "")}, Health.WELL),
        ({"models": (200, "{}")}, Health.WELL),
        ({"models": (503, "")}, Health.MISSED),
        ({"health": (503, "")}, Health.MISSED),
        ({"health": (500, ""), "models": (200, "{}")}, Health.MISSED),
        ({}, Health.MISSED),
    ],
)
async def test_health_of_what_is_no_vllm(
    scripted: Callable[..., Awaitable[Control]], answers: dict[str, Any], health: Health
) -> None:
    control = await scripted(**answers)
    assert await control.health(5) is health
