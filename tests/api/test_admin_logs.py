"""Engines' logs over the admin API: the last lines, what comes, and readers of every kind."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from server.engines.logs import numbered
from server.engines.logtail import LogTail
from server.serving import Roundhouse
from tests.api.engine_house import config, error_of, launcher, server, told
from tests.engines.conftest import FakeLauncher, nothing_left
from tests.fakes.client import RawClient

__all__ = ["config", "launcher", "nothing_left", "server"]


async def test_a_log_s_last_lines(
    server: Roundhouse, admin: httpx.AsyncClient, launcher: FakeLauncher
) -> None:
    assert (await admin.get("/engines/big/logs")).content == b""
    launcher.scripts["big"] = {"say": ["one", "two \x1b[31mred\x1b[0m", "three"]}
    await admin.post("/engines/big/load")
    await told(admin, "big", "ready")
    file = server.supervisor.log_file("big")
    async with asyncio.timeout(10):
        while b"complete" not in (await admin.get("/engines/big/logs")).content:
            await asyncio.sleep(0.01)  # a thread writes it
    answer = await admin.get("/engines/large/logs?lines=3")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == b"".join(file.read_bytes().splitlines(keepends=True)[-3:])
    assert b"two \x1b[31mred" in answer.content
    for query in ("lines=x", "lines=-1", "lines=99999999", "follow=perhaps"):
        error_of(await admin.get(f"/engines/big/logs?{query}"), 400, "invalid_value")


async def test_a_log_is_followed_through_a_rotation(
    server: Roundhouse, admin: httpx.AsyncClient
) -> None:
    file = server.supervisor.log_file("big")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("old\nbefore\n")
    async with admin.stream("GET", "/engines/big/logs?lines=1&follow=true") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "before"
        with file.open("a") as log:
            log.write("more\n")
        assert await anext(lines) == "more"
        file.rename(numbered(file, 1))
        file.write_text("after\n")
        assert await anext(lines) == "after"


async def test_a_follower_that_leaves_is_noticed(
    server: Roundhouse, admin: httpx.AsyncClient
) -> None:
    file = server.supervisor.log_file("big")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x\n")

    def following() -> bool:
        return any("_pieces" in str(task.get_stack()) for task in asyncio.all_tasks())

    async with admin.stream("GET", "/engines/big/logs?follow=true") as answer:
        assert await anext(answer.aiter_raw()) == b"x\n"
    async with asyncio.timeout(10):
        while following():
            await asyncio.sleep(0.01)


async def test_a_follower_that_reads_nothing_has_nothing_read_for_it(
    server: Roundhouse, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.supervisor.log_file("big")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 999 + b"\n")
    with file.open("ab") as log:
        log.truncate(64 * 2**20)
    read, look = 0, LogTail.read

    def counted(tail: LogTail) -> bytes:
        nonlocal read
        data = look(tail)
        read += len(data)
        return data

    monkeypatch.setattr(LogTail, "read", counted)
    async with RawClient(port=int(str(server.admin_url).rpartition(":")[2]), rcvbuf=4096) as silent:
        silent.pause()
        await silent.get("/engines/big/logs?lines=9&follow=true")
        before = -1
        while read == 0 or read != before:  # until no more is read while others are answered
            before = read
            for _ in range(20):
                assert (await admin.get("/engines/big")).status_code == 200
    assert 0 < read < 32 * 2**20


async def test_a_follower_does_not_hold_up_the_end(server: Roundhouse) -> None:
    assert server.admin_url is not None
    async with RawClient(port=int(server.admin_url.rpartition(":")[2])) as follower:
        await follower.get("/engines/big/logs?follow=true")
        assert (await follower.read_head()).status == 200
        await asyncio.wait_for(server.__aexit__(None, None, None), 6)
