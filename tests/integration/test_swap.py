"""Three real engines of which two fit, asked by turns: they swap, whoever asks is answered, and
nobody waits longer than the bound allows.

    SWAP_SECONDS=300 pytest tests/integration/test_swap.py -s

is the longer run.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.integration.conftest import guide_engine
from tests.integration.load import LONGEST, OK, Load
from tests.integration.stack import ServerProcess, running, until

pytestmark = [pytest.mark.usefixtures("engine_environment"), pytest.mark.timeout(3600)]

NAMES: Final = ("one", "two", "three")
EACH, ALL = 4 * 2**30, 9 * 2**30
SECONDS: Final = float(os.environ.get("SWAP_SECONDS", "75"))
#: Seconds: how long one may be passed over, how long those in the way have to end, and how long an
#: engine stays at least.
STARVATION, DRAIN, RESIDENCY = 20.0, 10.0, 5.0
#: States in which an engine has memory.
LOADED: Final = {"starting", "ready", "draining"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    one = guide_engine() | {
        "load": "request",
        "memory": EACH,
        "residency": RESIDENCY,
        "max_waiting": 1000,
    }
    config = {
        "placement": {"starvation": STARVATION, "drain": DRAIN, "memory": {"cpu": ALL}},
        "engines": dict.fromkeys(NAMES, one),
    }
    with running(tmp_path_factory.mktemp("swap"), config) as server:
        server.wait_up()
        yield server


class Watch:
    """Looks at the engines a few times a second: `most` of them had memory at one time."""

    def __init__(self, server: ServerProcess) -> None:
        self.server, self.most, self.planned = server, 0, 0.0

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.server.admin_url, timeout=60) as client:
            while True:
                engines = (await client.get("/engines")).json()["engines"]
                loaded = [one for one in engines if one["state"] in LOADED]
                self.most = max(self.most, len(loaded))
                planned = sum(one["memory"]["planned"] for one in loaded)
                self.planned = max(self.planned, planned)
                await asyncio.sleep(0.25)


async def test_two_that_fit_and_a_third(server: ServerProcess) -> None:
    load = Load(server.port, NAMES[0])
    watch = Watch(server)
    watching = asyncio.create_task(watch.run())
    async with load.steady(1.0, 16, NAMES):
        await asyncio.sleep(SECONDS)
    assert not watching.done(), watching.exception()
    watching.cancel()
    bad = [one for one in load.ended if one.problem or one.end != OK]
    assert not bad, f"{bad[:3]}\n{server.tail()}"
    answered = Counter(one.target for one in load.ended)
    # A stream that has waited for long has its head before anybody knows who will answer.
    assert set(answered) - {""} == {f"engine/{name}" for name in NAMES}
    waits = sorted(one.over - one.sent for one in load.ended)
    half = waits[len(waits) // 2]
    print(f"{len(waits)} requests, the longest {waits[-1]:.0f} s, half within {half:.1f} s")
    assert watch.most == 2
    assert 0 < watch.planned <= ALL

    seconds = server.metric("roundhouse_engine_start_seconds_sum")
    starts = server.metric("roundhouse_engine_start_seconds_count")
    swaps = server.metric("roundhouse_engine_swaps_total")
    print(f"{starts:.0f} starts of {seconds / starts:.0f} s, {swaps:.0f} swaps")
    assert swaps >= 1
    assert server.metric("roundhouse_engine_evictions_total", why="room") >= swaps
    assert server.metric("roundhouse_engine_wait_seconds_count") >= 3
    assert server.metric("roundhouse_engine_residency_seconds_count") >= swaps
    # It may be passed over for so long; then one of each kind may come first, once: a residency, a
    # drain, a stop, and a start, before its own.
    bound = STARVATION + 2 * (RESIDENCY + DRAIN + 2 * seconds / starts)
    assert waits[-1] < bound


def test_a_swap_by_hand(server: ServerProcess) -> None:
    """Alternating requests, one after the other: each is answered, and `/engines` tells why."""

    def settled() -> dict[str, Any]:
        """Those that are loaded may go."""
        loaded = {name: one for name, one in server.engines().items() if one["state"] in LOADED}
        ready = {one["state"] == "ready" and one["since_s"] > RESIDENCY for one in loaded.values()}
        return {} if False in ready else {"loaded": loaded}

    loaded = until(settled, within=LONGEST, what="what is loaded may go")["loaded"]
    first, second, third = sorted(NAMES, key=lambda name: name not in loaded)
    swaps = server.metric("roundhouse_engine_swaps_total")
    for name in (first, second, third, first):
        answer = httpx.post(
            f"{server.url}/v1/completions",
            json={"model": name, "prompt": "Roundhouse is", "max_tokens": 4},
            timeout=LONGEST,
        )
        assert answer.status_code == 200, answer.text + server.tail()
        engines = server.engines()
        assert engines[name]["state"] == "ready"
        assert sum(one["state"] in LOADED for one in engines.values()) <= 2
    until(lambda: server.engines()[second]["state"] == "stopped", within=30, what="one had to go")
    assert server.metric("roundhouse_engine_swaps_total") == swaps + 2
