"""One engine process: its guard, its process group, its log, its socket or port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import structlog

from server.engines import endings, guard, ports
from server.engines.control import Control, Health
from server.engines.endings import Exit
from server.engines.logs import LogFile, Output
from server.engines.progress import SPAWNED, advance
from server.engines.runtimes import Launch
from server.engines.state import ON_SOCKET
from server.errors import EngineError

GUARD = Path(guard.__file__)
POLL = 0.1
SPAWN_DEADLINE = 10.0
BURY_DEADLINE = 10.0
#: Why a program cannot be started at this moment, though it may be later.
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})

log = structlog.get_logger(__name__)


class EngineProcess:
    """Owns one guard and one process group, from `start` until `gone`.

    `exited` resolves when the engine's first process has ended, `gone` when none is left: that is
    when its memory is free, and when it may be started again.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        socket: str,
        file: LogFile,
        on_line: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        parent: str | None = None,
    ) -> None:
        self.launch, self.socket = launch, socket
        #: Where it answers: over `socket`, unless it has a port.
        self.url = ON_SOCKET if launch.port is None else f"http://{ports.LOOPBACK}:{launch.port}"
        self.pid: int | None = None
        self._file, self._on_line, self._clock, self._parent = file, on_line, clock, parent
        self._stage, self._stage_since, self._heard = SPAWNED, clock(), clock()
        self._kills: int | None = None  # by the kernel, before it was started
        self._guard: subprocess.Popen[bytes] | None = None
        self._output: Output | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._control: Control | None = None
        self._last: asyncio.Task[None] | None = None
        self._tidy = False  # the guard said that nothing is left
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[int] = loop.create_future()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    # --- start ------------------------------------------------------------------------------

    async def start(self) -> int:
        """Start the guard and the engine; the engine's pid. Raises EngineError."""
        self._kills = endings.memory_kills()
        self._stage_since = self._heard = self._clock()
        try:
            await self._spawn()
            order = {
                "argv": self.launch.argv,
                "env": self.launch.env,
                "cwd": self.launch.cwd,
                "remove": self.launch.remove,
                "nice": self.launch.nice,
                "parent": self._parent,
            }
            self._say(order)
            async with asyncio.timeout(SPAWN_DEADLINE):
                self.pid = await asyncio.shield(self._started)
        except TimeoutError:
            await self.kill()
            raise EngineError("The engine's guard did not start.", reason="environment") from None
        except BaseException:
            await self.kill()
            raise
        return self.pid

    async def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            log_read, log_write = os.pipe()
        except OSError as exc:
            raise _no_guard(exc) from exc
        try:
            self._guard = subprocess.Popen(  # noqa: ASYNC220 - 2 ms, and no watcher of children
                [sys.executable, "-I", "-S", str(GUARD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_write,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,  # a Ctrl-C in the terminal is not for the engines
            )
        except OSError as exc:
            os.close(log_read)
            raise _no_guard(exc) from exc
        finally:
            os.close(log_write)
        output = Output(self._file, self._line)
        self._output = output
        transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(log_read, "rb"))
        self._transports.append(transport)
        reports = Reports(self._report, self._guard_gone)
        assert self._guard.stdout is not None
        transport, _ = await loop.connect_read_pipe(lambda: reports, self._guard.stdout)
        self._transports.append(transport)

    def _say(self, command: dict[str, Any]) -> None:
        pipe: IO[bytes] | None = None if self._guard is None else self._guard.stdin
        if pipe is None or pipe.closed:
            return
        try:  # a few KB at most: the pipe takes them without blocking
            pipe.write(json.dumps(command).encode() + b"\n")
            pipe.flush()
        except OSError:  # the guard is dead: `_guard_gone` sees to it
            return

    def _line(self, line: str) -> None:
        self._heard = self._clock()
        stage = advance(self._stage, line)
        if stage is not self._stage:
            self._stage, self._stage_since = stage, self._heard
        self._on_line(line)

    def _report(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "started" and not self._started.done():
            self._started.set_result(int(event["pid"]))
        elif kind == "refused" and not self._started.done():
            self._started.set_exception(
                EngineError(
                    f"The engine could not be started: {event.get('message')}.",
                    reason="crash" if event.get("errno") in PASSING else "environment",
                    terminal=event.get("errno") not in PASSING,
                )
            )
        elif kind == "exit" and not self.exited.done():
            self.exited.set_result(Exit(event.get("code"), event.get("signal")))
        elif kind == "gone":
            self._tidy = True
            if event.get("left"):
                log.error("engine_processes_left", pid=self.pid, count=event["left"])

    # --- the end ----------------------------------------------------------------------------

    def _guard_gone(self) -> None:
        self._last = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        """The guard has ended: it has seen to everything, unless somebody killed it."""
        try:
            if self._guard is not None:
                await asyncio.to_thread(self._guard.wait)
            pid = self._started.result() if _succeeded(self._started) else None
            if pid is not None and not self._tidy:
                await asyncio.to_thread(_bury, pid)
            guard.remove(self.launch.remove)
            guard.remove_empty(self._parent)
            await self._drain_log()
        finally:
            self._close()

    async def _drain_log(self) -> None:
        """The last lines say why it died: have them in before telling that it is gone."""
        if self._output is not None:
            try:
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self._output.closed)
            except TimeoutError:  # somebody else holds the pipe
                pass
        await self._file.flush()

    def _close(self) -> None:
        for transport in self._transports:
            transport.close()
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):  # unwritten bytes for a dead guard
                self._guard.stdin.close()
        if not self._started.done():
            self._started.set_exception(
                EngineError("The engine's guard died.", reason="environment")
            )
        self._started.exception()  # somebody may never have asked
        if not self.exited.done():
            self.exited.set_result(Exit())
        if not self.gone.done():
            self.gone.set_result(None)

    async def stop(self, grace: float) -> Exit:
        """SIGTERM, `grace` seconds, then SIGKILL to all of it. Returns when nothing is left."""
        self._say({"do": "term"})
        try:
            async with asyncio.timeout(grace):
                await asyncio.shield(self.gone)
        except TimeoutError:
            pass
        await self.kill()
        return self.exited.result()

    async def kill(self) -> None:
        """SIGKILL to all of it, at once. Returns when nothing is left."""
        if self._guard is None:
            self._close()
        self._say({"do": "kill"})
        if self._guard is not None and not self.gone.done():
            if not _succeeded(self._started):
                # No order given or none obeyed: the end of its pipe is enough for it.
                assert self._guard.stdin is not None
                with contextlib.suppress(OSError):
                    self._guard.stdin.close()
            try:
                async with asyncio.timeout(guard.REAP_DEADLINE + 2):
                    await asyncio.shield(self.gone)
            except TimeoutError:  # the guard itself hangs (stopped by a signal): go past it
                self._guard.kill()
                await asyncio.shield(self.gone)
        if self._control is not None:
            control, self._control = self._control, None
            await control.close()

    # --- questions --------------------------------------------------------------------------

    @property
    def vllm(self) -> bool:
        """Does vLLM run, or what an operator's command starts?"""
        return self.launch.port is None

    @property
    def control(self) -> Control:
        if self._control is None:
            self._control = Control(
                self.socket if self.vllm else None,
                url=self.url,
                path=self.launch.health,
                vllm=self.vllm,
            )
        return self._control

    def _listens(self) -> bool:
        return not self.vllm or Path(self.socket).exists()

    def lines(self) -> tuple[str, ...]:
        """All that is kept of its log."""
        return () if self._output is None else self._output.tail()

    def tail(self, count: int = endings.LINES) -> tuple[str, ...]:
        return () if self._output is None else self._output.tail(count)

    async def wait_ready(self, timeout: float) -> float:
        """Until its health is 200; the seconds since this call.

        Raises EngineError: `timeout`, or what the log tells of an end during the start.
        """
        begun = self._clock()
        health = Health.DEAD
        while not self.exited.done():
            now = self._clock()
            if (left := timeout - (now - begun)) <= 0:
                stood, quiet = now - self._stage_since, now - self._heard
                raise endings.not_ready(
                    timeout, self._stage, stood, quiet, self.lines(), self._lacks(health)
                )
            if self._listens():
                health = await self.control.health(min(5.0, left))
            if health is Health.WELL:
                await self._see_whose_port()
                if not self.exited.done():
                    return self._clock() - begun
            await asyncio.wait([self.exited], timeout=min(POLL, left))
        await asyncio.shield(self.gone)
        raise self.start_failure()

    def _lacks(self, health: Health) -> str:
        """What a command's program has not done; vLLM is known to do it when it is ready."""
        port, path = self.launch.port, self.launch.health
        if port is None or health is Health.UNKNOWN:
            return ""
        if health is Health.DEAD:
            return (
                f"Nobody listens on {ports.LOOPBACK}:{port}. Raise `start_timeout` if it was still "
                "loading; else see that `cmd` tells it that address."
            )
        return (
            f"It listens, and {path} does not answer 200. Raise `start_timeout` if it was still "
            "loading; else set `health` to a path that does."
        )

    async def _see_whose_port(self) -> None:
        """Between choosing the port and binding it another process may have been quicker."""
        if self.launch.port is None or self.pid is None or self._guard is None:
            return
        taken = await asyncio.to_thread(ports.stranger, self.launch.port, self.pid, self._guard.pid)
        if taken:
            raise EngineError(
                f"Another process answers at its port, {self.launch.port}. The next start gets "
                "another one.",
                reason="crash",
                log_tail=self.tail(),
            )

    def memory_ran_out(self) -> bool:
        """Has the kernel killed something for want of memory since the start?"""
        now = endings.memory_kills()
        return now is not None and self._kills is not None and now > self._kills

    def start_failure(self) -> EngineError:
        """Why it ended before it was ready. Call it once `gone`."""
        return endings.start_failure(
            self.exited.result(), self.lines(), vllm=self.vllm, no_memory=self.memory_ran_out()
        )

    def death(self) -> EngineError:
        """What it died of after it was ready. Call it once `exited`."""
        return endings.death(
            self.exited.result(), self.lines(), vllm=self.vllm, no_memory=self.memory_ran_out()
        )


def _no_guard(exc: OSError) -> EngineError:
    return EngineError(
        f"The engine's guard could not be started: {exc.strerror}.",
        reason="crash" if exc.errno in PASSING else "environment",
    )


class Reports(asyncio.Protocol):
    """The guard's reports, one JSON object a line; the end of the pipe is the guard's end."""

    def __init__(
        self, on_event: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        self._on_event, self._on_end = on_event, on_end
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_event(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()


def _succeeded(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _bury(pgid: int) -> None:
    """The guard was killed: kill the group it stood over, and wait until it is gone.

    Its orphans are ours to reap where this server is a container's first process.
    """
    shm: set[str] = set()
    seen: set[int] = set()
    give_up = time.monotonic() + BURY_DEADLINE
    alone: float | None = None
    while time.monotonic() < give_up and (left := guard.members(pgid)):
        seen |= left
        shm |= guard.shared_memory(left)
        alone = guard.kill_but_trackers(left, alone)
        time.sleep(0.02)
    for pid in seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    guard.remove(shm)
