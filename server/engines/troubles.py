"""What is made of a death: the next try after a pause, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog

from server.engines import backoff
from server.engines.launcher import named
from server.engines.shop import Shop
from server.engines.watch import Death
from server.errors import EngineError

log = structlog.get_logger(__name__)

#: Reasons that are only given when the cause is known.
EXPLAINED: Final = {"weights", "memory", "arguments", "environment", "disk"}


class Troubles:
    """The deaths of one instance so far, or the failures to prepare one engine."""

    def __init__(self, name: str, shop: Shop) -> None:
        self._name, self._shop = name, shop
        self._history = backoff.History()
        self.count = 0

    def over(self) -> None:
        """It came to be ready: what failed before was no row of failures."""
        self._history = replace(self._history, never_ready=0, slow=0)

    def judge(self, died: Death, *, ever_ready: bool) -> tuple[float | None, EngineError]:
        """(when to try again, the error for people); None: do not."""
        shop, now = self._shop, self._shop.clock()
        error = named(self._name, died.error)
        decision = backoff.after_death(
            self._history, now=now, ready_for=died.ready_for, dice=shop.rng.random(),
            policy=shop.policy, timed_out=died.reason == "timeout",
        )  # fmt: skip
        log.warning(
            "engine_died", engine=self._name, reason=died.reason, error=error.message,
            log_tail=list(error.log_tail[-5:]),
        )  # fmt: skip
        # What the log explains is no accident, unless the engine has been well before.
        if error.terminal or (not ever_ready and error.reason in EXPLAINED):
            self._history = backoff.History()
            return None, error
        if isinstance(decision, backoff.GiveUp):
            self._history = backoff.History()
            return None, EngineError(
                f"Engine {self._name!r} was given up: {decision.why}. {died.error.message}",
                reason=error.reason,
                log_tail=error.log_tail,
            )
        self._history = decision.history
        self.count += 1
        return now + decision.delay, error
