"""External engines, as the rest of the house sees them: replicas that somebody else runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from server.config.engine import Engine
from server.engines import discovery
from server.engines.discovery import Resolver
from server.engines.external import External, Means, Settings
from server.engines.feed import Feed
from server.engines.replicas import Replica, Standing
from server.engines.state import EngineState, EngineView
from server.errors import Draining, EngineNotReady, Overloaded
from server.telemetry.metrics import Metrics
from server.transport.pool import tls_context

#: Retry-After of what only time brings back, and of what only an operator does.
_SOON, _NOT_COMING = 5.0, 60.0


def settings_of(engines: Mapping[str, Engine]) -> dict[str, Settings]:
    """The external ones among the config's engines."""
    return {name: Settings.of(engine) for name, engine in engines.items() if engine.external}


class Fleet:
    """Create it anywhere; `start` and all else belong to one event loop.

    `in_flight` tells how many requests of ours a replica answers, by `engine/NAME@ADDRESS`.
    """

    def __init__(
        self,
        engines: Mapping[str, Settings],
        *,
        metrics: Metrics,
        in_flight: Callable[[str], int] = lambda key: 0,
        resolve: Resolver = discovery.resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._means = Means(metrics, in_flight, resolve, clock, tls_context, self._publish)
        self._engines = {name: External(name, one, self._means) for name, one in engines.items()}
        self._feeds: set[Feed] = set()
        self._guests: set[Feed] = set()
        self._closed = False

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look; does not wait for what is found."""
        await self._read_certificates(one.settings for one in self._engines.values())
        for engine in self._engines.values():
            engine.start()

    async def close(self) -> None:
        """End all looking, and wake requests that wait. Requests in flight are not touched."""
        self._closed = True
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))
        for feed in list(self._feeds):
            feed.end()

    async def apply(self, engines: Mapping[str, Settings]) -> None:
        """Take over a new config. What did not change is not touched; replicas that stay keep
        their standing."""
        await self._read_certificates(engines.values())
        if self._closed:
            return
        gone = [self._engines.pop(name) for name in [*self._engines] if name not in engines]
        for name, settings in engines.items():
            if (engine := self._engines.get(name)) is not None:
                engine.respec(settings)
            else:
                self._engines[name] = External(name, settings, self._means)
                self._engines[name].start()
        await asyncio.gather(*(engine.close() for engine in gone))
        for engine in gone:
            for metric in (self._metrics.replicas, self._metrics.replica_changes):
                for labels in [labels for labels in metric.series if labels[0] == engine.name]:
                    metric.remove(*labels)

    async def _read_certificates(self, engines: Iterable[Settings]) -> None:
        """Before they are needed on the loop: reading them takes 100 ms, once."""
        if any(url.startswith("https:") for one in engines for url in one.urls):
            await asyncio.to_thread(tls_context)

    # --- reads, for the data path -------------------------------------------------------------

    def replicas(self, name: str) -> tuple[Replica, ...]:
        """Those that are well now; a new tuple at each change."""
        engine = self._engines.get(name)
        return () if engine is None else engine.replicas

    def view(self, name: str) -> EngineView | None:
        engine = self._engines.get(name)
        return None if engine is None else engine.view

    def views(self) -> tuple[EngineView, ...]:
        return tuple(engine.view for engine in self._engines.values())

    def members(self, name: str) -> tuple[tuple[str, Standing], ...]:
        """For operators: every replica's address and standing, the ill ones, too."""
        engine = self._engines.get(name)
        return () if engine is None else engine.members()

    def subscribe(self) -> Feed:
        """The feed of changes; use it in a `with`."""
        feed = Feed(self.views(), self._feeds.discard)
        self._feeds.add(feed)
        if self._closed:
            feed.end()
        return feed

    @contextmanager
    def into(self, feed: Feed) -> Iterator[None]:
        """Meanwhile a feed of others has these engines' views, too. Its end is theirs to say."""
        for view in self.views():
            feed.put(view)
        self._guests.add(feed)
        try:
            yield
        finally:
            self._guests.discard(feed)

    def _publish(self, view: EngineView) -> None:
        for feed in (*self._feeds, *self._guests):
            feed.put(view)

    # --- requests -----------------------------------------------------------------------------

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        """A view with state `ready`: there is a replica that is well.

        Raises EngineNotReady (none within `timeout` seconds, or the engine is gone), Overloaded
        when `max_waiting` requests wait already, Draining at shutdown.
        """
        engine = self._engines.get(name)
        if engine is None:
            raise EngineNotReady("The model's engine is gone.", retry_after=_NOT_COMING)
        if engine.view.state is EngineState.READY:
            return engine.view
        self._check(engine)
        if engine.waiting >= engine.settings.max_waiting:
            self._metrics.shed.labels("engine_queue").inc()
            raise Overloaded(
                "Too many requests wait for a replica of the model.", retry_after=_SOON
            )
        engine.count_waiting(1)
        try:
            async with asyncio.timeout(timeout):
                return await self._wait(engine)
        except TimeoutError:
            raise EngineNotReady(
                "No replica of the model is well.", code="no_replica", retry_after=_SOON
            ) from None
        finally:
            engine.count_waiting(-1)

    async def _wait(self, engine: External) -> EngineView:
        while engine.view.state is not EngineState.READY:
            await engine.bell.wait()
            self._check(engine)
        return engine.view

    def _check(self, engine: External) -> None:
        if self._closed:
            raise Draining("The server is shutting down.", retry_after=_SOON)
        if engine.closed:
            raise EngineNotReady("The model's engine was removed.", retry_after=_NOT_COMING)

    def report_failure(self, name: str, address: str) -> None:
        """A request met a reset, a refusal or silence there: look at that replica now."""
        if (engine := self._engines.get(name)) is not None:
            engine.poke(address)
