"""TLS to replicas, and faults of this process, which no replica must suffer for."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from typing import Any
from unittest.mock import Mock

import pytest

from server.engines import external, fleet
from server.engines.control import Control
from server.engines.replicas import Check, Finding
from server.engines.state import EngineState
from tests.engines.replica_house import NAME, Fleets, a_replica, in_state, these
from tests.fakes.tls import make_tls
from tests.fakes.upstream import ScriptedUpstream


@pytest.mark.parametrize("trusted", [True, False])
async def test_replicas_behind_tls(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    tls = make_tls()
    context: ssl.SSLContext = tls.client if trusted else tls.stranger
    monkeypatch.setattr(fleet, "tls_context", lambda: context)
    plain = a_replica()
    async with ScriptedUpstream(routes=plain.routes, ssl=tls.server) as one:
        found = await fleets.fixed(one)
        if trusted:
            await these(found, one)
            assert found.replicas(NAME)[0].base_url == one.url
        else:
            view = await in_state(found, EngineState.BACKOFF)
            assert view.error is not None
            assert "CERTIFICATE_VERIFY_FAILED" in view.error


async def test_a_fault_of_ours_ends_no_watch(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Check.look
    faults = [ValueError("a bug"), ValueError("another")]

    async def look(self: Check, *args: Any) -> Finding:
        if faults:
            raise faults.pop()
        return await real(self, *args)

    monkeypatch.setattr(Check, "look", look)
    monkeypatch.setattr(external, "_FAULT", 0.01)
    async with a_replica() as one:
        found = await fleets.fixed(one)
        await these(found, one)
        assert faults == []


async def test_out_of_descriptors_is_not_held_against_a_replica(fleets: Fleets) -> None:
    async with a_replica() as one, Control(None, url=one.url) as control:
        check = Check(control)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            finding = await check.look(10, "m")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert finding.ours
        assert await check.look(10, "m") == Finding(model="m")


async def test_what_could_not_be_asked_is_told(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mock()  # where it writes to is for other tests to have decided
    monkeypatch.setattr(external, "log", log)
    async with a_replica() as one:
        found = await fleets.fixed(one, misses=1)
        await these(found, one)
        before = found.replicas(NAME)[0]
        looks = asyncio.Semaphore(0)

        async def look(self: Check, *args: Any) -> Finding:
            looks.release()
            return Finding("It cannot be asked: Too many open files.", ours=True)

        monkeypatch.setattr(Check, "look", look)
        for _ in range(4):
            await looks.acquire()
        assert found.replicas(NAME)[0].address == before.address
        assert "replica_not_asked" in {call.args[0] for call in log.warning.call_args_list}
