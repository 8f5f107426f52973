"""The running server: binds, starts, reloads, and stops in order.

Stopping: unready → short delay → stop accepting → drain → error events → engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Final

import structlog
import uvloop

from server.access.admission import Admission
from server.api import pools
from server.api.bounds import bounds_of
from server.api.intake import BodyBudget
from server.api.listener import Listener, bind, listener
from server.api.services import Services, State, build_state
from server.app import admin_app, public_app
from server.config.additions import Additions
from server.config.load import Loaded
from server.config.reload import ReloadReport, Watcher
from server.config.resolve import local_engines
from server.engines.fleet import Fleet, settings_of
from server.engines.launcher import check_static
from server.engines.state import EngineState
from server.engines.store.service import StoreService, counting
from server.engines.supervisor import Supervisor
from server.engines.weights import StoreSettings
from server.errors import EngineError
from server.routing.chain import Route
from server.routing.dispatch import Dispatcher
from server.routing.settings import Settings
from server.telemetry import logs, pulse
from server.telemetry.metrics import Metrics
from server.transport import Transport

log = structlog.get_logger("roundhouse")

#: Seconds that exchanges have to send their last error event after the drain.
_LAST_WORDS: Final = 2.0
#: Seconds that a client's connection stays after its last answer while the server drains: the next
#: request may be on its way. Less than the last words.
_LINGER: Final = 1.0


def version() -> str:
    """The installed distribution's version."""
    return metadata.version("roundhouse-llm")


class Roundhouse:
    """A whole server in this event loop. Use as an async context manager, or `run` it.

    Entering binds both listeners first (BindError), checks the engines' needs (EngineError), then
    accepts requests while engines load. Nothing is left running after leaving.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def __aenter__(self) -> Roundhouse:
        config = self._loaded.config
        self.metrics = metrics = Metrics()
        metrics.build_info.labels(version()).set(1)
        local = local_engines(config)
        await self._check(self._loaded, before=self._loaded.additions, start=True)
        server = config.server
        sockets = [bind(server.host, server.port)]
        try:
            if server.admin is not None:
                host, _, port = server.admin.rpartition(":")
                sockets.append(bind(host.strip("[]"), int(port), what="The admin listener"))
            self.supervisor = Supervisor(
                local,
                config.runtimes,
                home=self._loaded.home,
                base=self._loaded.folder,
                metrics=metrics,
                placement=config.placement,
                store=StoreSettings.of(config.weights, self._loaded.folder, counting(metrics)),
                in_flight=self._in_flight,
            )
            self.fleet = Fleet(
                settings_of(config.engines),
                metrics=metrics,
                in_flight=lambda key: self.services.dispatcher.in_flight(key),
            )
            self.store = StoreService(self._loaded, metrics)
            transport = Transport()
            admission = Admission(metrics)
            dispatcher = Dispatcher(
                transport, metrics, rooms=admission.rooms, settings=Settings.of(config)
            )
            state = self._state(self._loaded, dispatcher)
            dispatcher.limits.retain(state.builder.accounts())
            self.services = Services(
                state=state,
                metrics=metrics,
                transport=transport,
                supervisor=self.supervisor,
                fleet=self.fleet,
                admission=admission,
                dispatcher=dispatcher,
                budget=BodyBudget(server.limits.all_bodies, metrics),
                version=version(),
                store=self.store,
            )
            metrics.set_models(state.models)
            self.watcher = Watcher(self._loaded, self._apply, metrics)
            self._listeners = self._listen(sockets)
            await self.supervisor.start()
            try:
                await self.fleet.start()
                for one in self._listeners:
                    await one.start()
            except BaseException:
                await self.fleet.close()
                await self.supervisor.close(drain=False)
                raise
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self._background = [
            asyncio.create_task(self.watcher.run()),
            asyncio.create_task(pools.forget_dead(self.services)),
            asyncio.create_task(pulse.watch(metrics.loop_lag)),
        ]
        metrics.config_loaded.set(time.time())
        return self

    async def _check(self, loaded: Loaded, *, before: Additions, start: bool = False) -> None:
        """Raises EngineError when an engine could never start; who takes turns is told. What was
        added `before`, or at the server's `start` waits for a request, shows when it is loaded."""
        config = loaded.config
        known = {
            name
            for name, entry in loaded.additions.engines.items()
            if before.engines.get(name) == entry
        }
        advice = await asyncio.to_thread(
            check_static,
            local_engines(config),
            config.runtimes,
            base=loaded.folder,
            names=[name for name in local_engines(config) if name not in known],
            memory=start,
            caps=config.placement.memory,
            store=StoreSettings.of(config.weights, loaded.folder),
            later=start,
        )
        for text in advice:
            log.warning("placement_advice", advice=text)

    def _in_flight(self, engine: str, replica: int) -> int:
        """Requests that an instance of an engine of ours is answering."""
        # An engine with one replica has no numbers; a reload may just have changed that.
        places = [f"engine/{engine}@{replica}", *([] if replica else [f"engine/{engine}"])]
        return sum(map(self.services.dispatcher.in_flight, places))

    def _state(self, loaded: Loaded, dispatcher: Dispatcher) -> State:
        return build_state(
            loaded, self.supervisor, self.fleet, dispatcher.standings, dispatcher.forget
        )

    def _listen(self, sockets: list[socket.socket]) -> list[Listener]:
        apps = [
            public_app(self.services, created=int(time.time())),
            admin_app(self.services, self.watcher),
        ]
        bounds = bounds_of(self._loaded.config.server)
        return [
            listener(sock, app, metrics=self.metrics, bounds=bounds, backstop=_LAST_WORDS, linger=s)
            for sock, app, s in zip(sockets, apps, (_LINGER, 0.0), strict=False)
        ]

    @property
    def url(self) -> str:
        """The public listener's URL, without `/v1`."""
        return self._listeners[0].url

    @property
    def admin_url(self) -> str | None:
        """The admin listener's URL; None when it is switched off."""
        return self._listeners[1].url if len(self._listeners) > 1 else None

    # --- config ---------------------------------------------------------------------------

    async def reload(self) -> ReloadReport:
        """Read the config again now."""
        return await self.watcher.reload()

    async def _apply(self, loaded: Loaded) -> None:
        """Swap in a config that passed every check. Requests in flight keep what they have."""
        config = loaded.config
        local = local_engines(config)
        await self._check(loaded, before=self._loaded.additions)
        services = self.services
        before, state = services.state, self._state(loaded, services.dispatcher)
        # Who reloads wants to see again what failed; who adds something means only that.
        now = self._loaded
        reloaded = loaded.kept == now.kept and loaded.digest != now.digest
        await self.supervisor.apply(
            local,
            config.runtimes,
            placement=config.placement,
            store=StoreSettings.of(config.weights, loaded.folder, counting(self.metrics)),
            forgive=reloaded,
        )
        await self.fleet.apply(settings_of(config.engines))
        self.store.apply(loaded)
        services.state = state
        services.dispatcher.configure(Settings.of(config))
        services.dispatcher.retain(
            state.builder.keys(state.chains.values()), state.builder.accounts()
        )
        limits = config.server.limits
        services.admission.apply(
            {key.name for key in config.server.keys},
            server=None if limits.in_flight is None else (limits.in_flight, limits.waiting),
            models={
                m.name: (m.max_in_flight, m.max_waiting)
                for m in state.models.values()
                if m.max_in_flight is not None
            },
            targets={r.place: (r.slots, r.bound) for r in _routes(state) if r.slots is not None},
            providers={
                name: (one.max_in_flight, one.max_waiting)
                for name, one in config.providers.items()
                if one.max_in_flight is not None
            },
        )
        services.budget.limit = config.server.limits.all_bodies
        for one in self._listeners:
            one.limit(bounds_of(config.server))
        logs.configure(config.log.level, config.log.format, access=config.log.access)
        self.metrics.set_models(state.models)
        self.metrics.forget("model", set(before.models) - set(state.models))
        self.metrics.forget("engine", set(before.config.engines) - set(config.engines))
        self.metrics.forget("target", _labels(before) - _labels(state))
        self.metrics.config_loaded.set(time.time())
        self._loaded = loaded

    # --- life -----------------------------------------------------------------------------

    async def run(self, greet: Callable[[Roundhouse], None]) -> int:
        """Until a signal says stop. Returns the exit code; raises EngineError when nothing that
        the config asks for can ever answer."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.watcher.trigger)
        greeter = asyncio.create_task(self._greet_when_settled(greet))
        stopper = asyncio.create_task(self._stop.wait())
        hopeless = asyncio.create_task(self._hopeless())
        try:
            await asyncio.wait({stopper, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if hopeless.done() and (error := hopeless.result()) is not None:
                raise error
            return 0
        finally:
            for task in (greeter, stopper, hopeless):
                task.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._hurry.set)

    def stop(self) -> None:
        """Begin to stop, once; a second call hurries the drain."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _greet_when_settled(self, greet: Callable[[Roundhouse], None]) -> None:
        """Greet now, and again when every engine that loads at startup is ready or has failed."""
        greet(self)
        if not self._starting():
            return
        with self.supervisor.subscribe() as changes, self.fleet.into(changes):
            async for _ in changes:
                if not self._starting():
                    greet(self)
                    return

    def _starting(self) -> bool:
        # Replicas elsewhere are somebody else's: they are waited for until the first look.
        return self.supervisor.starting() or any(
            view.state is EngineState.STARTING for view in self.fleet.views()
        )

    async def _hopeless(self) -> EngineError | None:
        """Waits, during the start, for the moment from which no model can ever be answered.

        One engine that fails beside others that serve is no reason to end the server.
        """
        with self.supervisor.subscribe() as changes, self.fleet.into(changes):
            async for view in changes:
                if view.state is EngineState.READY:
                    break
                targets = [route.target for route in _routes(self.services.state)]
                if any(target.ready or target.may_become_ready for target in targets):
                    continue
                if (error := self.supervisor.first_error()) is not None:
                    return error
        await self._stop.wait()
        return None

    async def __aexit__(self, *exc: object) -> None:
        times = self.services.state.timeouts
        public, *admin = self._listeners
        self.services.ready = False
        for task in self._background:
            task.cancel()
        begun = time.monotonic()
        public.part()
        await self._watch_drain(begun, times.unready, lambda: True)
        public.stop_accepting()
        # Who has a connection may ask once more: nothing that comes in is lost.
        await self._watch_drain(
            begun, times.drain, lambda: bool(self.services.open) or public.expecting
        )
        self.services.accepting = False
        seconds, left = time.monotonic() - begun, list(self.services.open)
        log.info("drained", seconds=round(seconds, 3), cut=len(left))
        for exchange in left:
            exchange.stop()
        for one in admin:  # until now it could tell how the drain went
            one.stop_accepting()
        async with asyncio.TaskGroup() as group:
            for one in self._listeners:
                group.create_task(one.stopped(hurry=self._hurry.is_set()))
            group.create_task(self._close_engines())
            group.create_task(self.fleet.close())
            group.create_task(self.store.close())
        await self.services.transport.close()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _watch_drain(self, begun: float, limit: float, busy: Callable[[], bool]) -> None:
        """While `busy`, for `limit` seconds at most, or until somebody is in a hurry."""
        deadline = time.monotonic() + limit
        while busy() and (now := time.monotonic()) < deadline and not self._hurry.is_set():
            self.metrics.drain.set(now - begun)
            await _until(self._hurry, min(0.01, deadline - now))

    async def _close_engines(self) -> None:
        """Drain and stop them; a second signal skips the drain."""
        closing = asyncio.create_task(self.supervisor.close(drain=not self._hurry.is_set()))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            await self.supervisor.close(drain=False)
        hurried.cancel()
        await closing


async def _until(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _labels(state: State) -> set[str]:
    return {route.target.label for route in _routes(state)}


def _routes(state: State) -> Iterator[Route]:
    """Every route of every model, as they are now; of those that share one each."""
    for chain in state.chains.values():
        for group in chain.groups():
            yield from group.routes()


def serve(loaded: Loaded, greet: Callable[[Roundhouse], None]) -> int:
    """Serve until signalled; the exit code. Raises StartError before anything is left running."""
    log_settings = loaded.config.log
    logs.configure(log_settings.level, log_settings.format, access=log_settings.access)

    async def main() -> int:
        async with Roundhouse(loaded) as server:
            return await server.run(greet)

    # Requests leave no circles behind (a test holds that), so that the collector finds little: it
    # may look less often, and not at what was there from the start.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


__all__ = ["Roundhouse", "serve", "version"]
