"""The run: every case, every gateway, in turns."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from benchmarks.cases import Case, Plan, order
from benchmarks.gateways import DIRECT, OURS, Gateway, Gateways
from benchmarks.machine import Cores
from benchmarks.measure import turn
from benchmarks.upstream import Upstream

Turn = dict[str, Any]

_FAILURES: Final = 2
_SETTLE: Final = 10.0
_AWAKE: Final = 0.5
#: Beyond all that a turn may take: something hangs, and the run goes on without this turn.
_WATCHDOG: Final = 60.0


class Comparison:
    """Takes the turns, keeps their figures and says a line of each."""

    def __init__(
        self,
        gateways: Gateways,
        upstream: Upstream,
        plan: Plan,
        cores: Cores,
        say: Callable[[str], None],
    ) -> None:
        self.gateways, self.upstream = gateways, upstream
        self.plan, self.cores, self.say = plan, cores, say
        self.turns: list[Turn] = []
        self.notes: list[str] = []
        self._out: set[tuple[str, str]] = set()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._most = _FAILURES if plan.rounds > _FAILURES else 1
        self._done = 0
        self._begin = time.monotonic()

    @property
    def all(self) -> int:
        return self.plan.rounds * len(self.plan.cases) * len(self.gateways.running)

    async def run(self, after_round: Callable[[], None] = lambda: None) -> None:
        self._begin = time.monotonic()
        for number in range(self.plan.rounds):
            for case in self.plan.cases:
                for name in order(list(self.gateways.running), number):
                    await self._one(number, case, self.gateways.running[name])
            after_round()

    async def _one(self, number: int, case: Case, gateway: Gateway) -> None:
        self._done += 1
        if (gateway.name, case.name) in self._out or (gateway.name, "") in self._out:
            return
        if gateway.stopped_between:
            gateway.wake()
            await asyncio.sleep(_AWAKE)
        try:
            async with asyncio.timeout(_WATCHDOG + 4 * self.plan.seconds):
                found = await turn(case, gateway, self.upstream, self.plan, self.cores)
        except TimeoutError:
            found = self._stuck()
        busy_after = not await gateway.quiet(_SETTLE)
        if gateway.stopped_between:
            gateway.sleep()
        gc.collect()  # by hand, between turns: the collector is off within them
        found = {"case": case.name, "contender": gateway.name, "round": number, **found}
        if busy_after:
            found["busy_after"] = True
        self.turns.append(found)
        self.say(f"[{self._done:3}/{self.all}] {line(case, found)}{self._left()}")
        self._judge(case, gateway, found)

    def _stuck(self) -> Turn:
        self.upstream.pace = None
        self.upstream.hang_up()
        error = "the turn hung and was ended"
        return {"values": {}, "errors": 1, "first_error": error, "noisy": False, "failed": True}

    def _judge(self, case: Case, gateway: Gateway, found: Turn) -> None:
        if not gateway.alive():
            self._out.add((gateway.name, ""))
            self._note(f"{gateway.name} died in {case.title}; it has no more turns")
        elif found["failed"] and gateway.name not in (OURS, DIRECT):
            # The first may be an accident, but a gateway that cannot do it takes long.
            self._failures[gateway.name, case.name] += 1
            if self._failures[gateway.name, case.name] == self._most:
                self._out.add((gateway.name, case.name))
                self._note(f"{gateway.name} failed at {case.title}: no more turns of it")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.say(f"  {text}")

    def _left(self) -> str:
        elapsed = time.monotonic() - self._begin
        left = elapsed / self._done * (self.all - self._done)
        return f"  ~{left / 60:.0f} min left" if left >= 90 else f"  ~{left:.0f} s left"


def line(case: Case, found: Turn) -> str:
    """A turn in a line."""
    values: dict[str, float] = found["values"]
    parts = [f"{found['round'] + 1} {case.name:16} {found['contender']:14}"]
    if case.rate and values:
        parts.append(f"{values['cpu_us']:6.1f} µs/chunk  late p99 {values['late_p99_ms']:.2f} ms")
        if values["lost"] or values["doubled"]:
            parts.append(f"lost {values['lost']:.0f} doubled {values['doubled']:.0f}")
    elif values:
        parts.append(f"{values['rate']:8,.0f}/s  p50 {values['p50_ms']:7.2f} ms")
        parts.append(f"p99 {values['p99_ms']:7.2f} ms")
    if values and found["contender"] != DIRECT:
        parts.append(f"gateway {values['gateway_busy']:.0%}")
    if values:
        parts.append(f"load {values['load_busy']:.0%}")
    if found["errors"]:
        parts.append(f"{found['errors']} errors ({found['first_error'][:60]})")
    if found["noisy"]:
        parts.append(f"NOISY {values['foreign']:.0%}")
    if found.get("busy_after"):
        parts.append("busy after")
    return "  ".join(parts)
