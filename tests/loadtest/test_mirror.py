from __future__ import annotations

import asyncio

import pytest

from server.loadtest.mirror import EVERY, Mirror, Strain


async def test_it_sees_a_late_loop_and_the_cpu() -> None:
    now = cpu = 0.0
    looks = asyncio.Event()
    lates = iter([0.0, 0.25, -0.001])

    async def sleep(seconds: float) -> None:
        nonlocal now, cpu
        assert seconds == EVERY
        late = next(lates, None)
        if late is None:
            looks.set()
            await asyncio.get_running_loop().create_future()
        now += seconds + (late or 0.0)
        cpu += 0.07

    async with Mirror(lambda: now, lambda: cpu, sleep) as mirror:
        await looks.wait()
    assert mirror.strain.lag == pytest.approx(0.25)
    assert mirror.strain.cpu_share == pytest.approx(0.21 / 0.279)
    assert mirror.strain.as_json()["event_loop_lag_p99_seconds"] == mirror.strain.lag


async def test_a_step_that_was_over_at_once() -> None:
    async with Mirror(lambda: 0.0, lambda: 0.0) as mirror:
        pass
    assert mirror.strain == Strain(0.0, None)


@pytest.mark.parametrize(
    ("strain", "said"),
    [
        (Strain(0.9, 0.01), None),
        (Strain(0.1, None), None),
        (Strain(0.95, 0.001), "This client was a bottleneck: it used 95% of a core. Some of the"),
        (Strain(0.2, 0.05), "its event loop came 50 ms late (p99). Some"),
        (Strain(1.0, 0.05), "it used 100% of a core and its event loop came 50 ms late (p99)."),
    ],
)
def test_when_the_client_was_the_bottleneck(strain: Strain, said: str | None) -> None:
    warning = strain.warning()
    assert warning is None if said is None else said in (warning or "")
