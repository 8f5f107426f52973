"""A whole server in a thread of this process, for `run`: when the process ends, so does it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from server.config.load import Loaded
from server.engines.state import EngineView

Make = Callable[[Loaded], AbstractAsyncContextManager[Any]]


def _roundhouse(loaded: Loaded) -> AbstractAsyncContextManager[Any]:
    from server.serving import Roundhouse

    return Roundhouse(loaded)


class Inside:
    """Use as a context manager: entering waits until the server listens, leaving until it, and
    every engine, is gone. Raises what the server raises (StartError)."""

    def __init__(self, loaded: Loaded, make: Make = _roundhouse) -> None:
        self._loaded = loaded
        self._make = make
        self._listening = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roundhouse", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._leaving = False
        self._server: Any = None
        self._error: BaseException | None = None

    def __enter__(self) -> Inside:
        self._thread.start()
        try:
            self._listening.wait()
        except KeyboardInterrupt:
            self._end()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        """A second Ctrl-C while engines stop leaves the rest to their guards."""
        self._leaving = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens, without `/v1`."""
        return str(self._server.url)

    def views(self) -> tuple[EngineView, ...]:
        """The engines' states now."""
        found: tuple[EngineView, ...] = self._server.supervisor.views()
        return found

    def log_tail(self, engine: str) -> tuple[str, ...]:
        """The last lines of a failed engine's log."""
        error = self._server.supervisor.error(engine)
        return tuple(getattr(error, "log_tail", ()))

    def wait(self, seconds: float) -> None:
        """Until the server has ended by itself, or `seconds` are over. Raises what ended it."""
        if self._ended.wait(seconds) and self._error is not None:
            raise self._error

    def _run(self) -> None:
        import uvloop

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            self._error = error
        finally:
            self._ended.set()
            self._listening.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._leaving:
            return
        async with self._make(self._loaded) as server:
            self._server = server
            self._listening.set()
            await self._stop.wait()
