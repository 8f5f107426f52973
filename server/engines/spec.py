"""An engine as the config has it: what a running process can take over, and what it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from server.config.engine import EXTERNAL_KEYS, Engine, Runtime
from server.engines.estimates import fingerprint

#: Config that takes effect without a new process.
SOFT = {
    "load", "max_waiting", "start_timeout", "stop_timeout", "health_interval", "health_misses",
    "timeouts", "wait", "max_in_flight", "pinned", "idle", "residency", "groups", "replicas",
    *EXTERNAL_KEYS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    engine: Engine
    runtime: Runtime | None

    def hard(self) -> tuple[object, ...]:
        """What a running process cannot take over: a change of it needs a restart."""
        return self.engine.model_dump(exclude=SOFT), self.runtime

    def fingerprint(self) -> str:
        return fingerprint(
            engine=self.engine.model_dump(mode="json", exclude=SOFT),
            runtime=None if self.runtime is None else self.runtime.model_dump(mode="json"),
        )
