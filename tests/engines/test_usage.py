"""Memory of engines as metrics."""

from __future__ import annotations

import asyncio

import pytest

from server.engines import usage
from server.engines.state import EngineState
from tests.engines.conftest import House, engine, ready


async def test_what_is_gone_uses_nothing_though_nobody_has_looked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "EVERY", 3600)
    supervisor = await house.start(one=engine(), two=engine())
    await ready(supervisor, "one")
    await ready(supervisor, "two")
    await supervisor._usage.look()

    def used(name: str) -> float:
        labels = {"engine": name, "device": "cpu", "kind": "used"}
        return house.count("roundhouse_engine_memory_bytes", **labels)

    before = used("two")
    assert used("one") > 0
    assert before > 0
    view = await supervisor.unload("one")
    assert view.state is EngineState.STOPPED
    async with asyncio.timeout(20):
        while used("one"):
            await asyncio.sleep(0.001)  # until the next plan
    assert used("two") == before
    whole = {"device": "cpu", "kind": "used"}
    assert house.count("roundhouse_device_memory_bytes", **whole) == before
