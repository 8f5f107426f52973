"""What an engine needs: found out before its first start, and kept until that may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from server.engines.fitting import Fitted
from server.engines.shop import Shop
from server.engines.spec import Spec
from server.engines.troubles import Troubles
from server.engines.watch import Death
from server.errors import EngineError

log = structlog.get_logger(__name__)


class Fits:
    """`found` once it is known; until then one task at a time looks, which may have to pull the
    weights first. `changed` is called when there is something to tell, with `stage` in words;
    `gave_up` when looking again cannot help."""

    def __init__(
        self,
        name: str,
        shop: Shop,
        changed: Callable[[], None],
        gave_up: Callable[[EngineError], None],
    ) -> None:
        self._name, self._shop, self._changed, self._gave_up = name, shop, changed, gave_up
        self.found: Fitted | None = None
        self.found_at = 0.0
        self.stage = ""
        self.error: EngineError | None = None
        #: Looking failed: not again before that.
        self.due: float | None = None
        self.troubles = Troubles(name, shop)
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def looking(self) -> bool:
        return self._task is not None

    def tasks(self) -> set[asyncio.Task[None]]:
        """What is under way, that which was cancelled included."""
        return set(self._ending)

    def look(self, spec: Spec, *, ever_ready: bool) -> None:
        """Begin, unless it is known, under way or not due."""
        if self.found is not None or self._task is not None:
            return
        if self.due is not None and self._shop.clock() < self.due:
            return
        self.due, self.stage = None, ""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(
            self._look(spec, ever_ready), name=f"engine {self._name} fits"
        )
        self._ending.add(self._task)
        self._task.add_done_callback(self._ending.discard)

    def forget(self) -> None:
        """What was found holds no longer; who looks stops."""
        self.found, self.due, self.error = None, None, None
        self.stop()

    def stop(self) -> None:
        self.stage = ""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self, spec: Spec, ever_ready: bool) -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()

        def show(text: str) -> None:
            if self._task is me:
                self.stage = text
                self._changed()

        def note(text: str) -> None:  # said in a thread, perhaps
            loop.call_soon_threadsafe(show, text)

        died, found = None, None
        try:
            found = await self._shop.launcher.fit(self._name, spec.engine, spec.runtime, note=note)
        except EngineError as exc:
            died = Death("start", exc)
        except Exception:  # a fault of ours must not leave an engine waiting for ever
            log.exception("engine_fit_failed", engine=self._name)
            told = "A fault in Roundhouse; see its log."
            died = Death("start", EngineError(told, reason="crash", terminal=True))
        if self._task is not me:
            return  # what was looked for is not wanted any more
        self._task, self.stage = None, ""
        if found is not None:
            self.found, self.error, self.found_at = found, None, self._shop.clock()
            for text in found.notes:
                log.info("engine_need_guessed", engine=self._name, note=text)
            self._changed()
        elif died is not None:
            self._failed(died, ever_ready)

    def _failed(self, died: Death, ever_ready: bool) -> None:
        metrics = self._shop.metrics
        metrics.engine_starts.labels(self._name, "failed").inc()
        metrics.engine_restarts.labels(self._name, died.reason).inc()
        self.due, self.error = self.troubles.judge(died, ever_ready=ever_ready)
        if self.due is None:
            log.error(
                "engine_failed", engine=self._name, reason=self.error.reason,
                error=self.error.message,
            )  # fmt: skip
            self._gave_up(self.error)
        else:
            self.stage = f"next try in {self.due - self._shop.clock():.1f} s"
            self._changed()
