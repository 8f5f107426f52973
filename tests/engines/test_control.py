from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.engines.control import Control, Health, Motion


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
