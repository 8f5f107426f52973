"""Pods and the Deployment above them, as the kubelet and its controllers treat them.

A pod that has started joins the name once its readiness probe is green. One that ends leaves the
name in the moment in which its preStop begins; then SIGTERM, and its grace period. What Kubernetes
only waits for goes `FASTER` here; deadlines stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from tests.fakes.dns import NameServer
from tests.rollout.rendered import Life

FASTER: Final = 20.0
ROOT: Final = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that was free a moment ago, on every address."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return int(sock.getsockname()[1])


class Endpoints:
    """The addresses behind one name of a name server."""

    def __init__(self, names: NameServer, name: str) -> None:
        self.name, self._names = name, names
        self.addresses: tuple[str, ...] = ()
        self._say()

    def add(self, address: str) -> None:
        self.addresses = (*self.addresses, address)
        self._say()

    def remove(self, address: str) -> None:
        self.addresses = tuple(one for one in self.addresses if one != address)
        self._say()

    def _say(self) -> None:
        self._names.say(f"{self.name}.", "A", *self.addresses)


@dataclass
class Pod:
    """A process on an address of its own. `ports`: as its container names them."""

    address: str
    ports: Mapping[str, int]
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("ROUNDHOUSE_")}
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv,
                cwd=ROOT,
                env={**env, "PYTHONPATH": str(ROOT), **self.environment},
                stdout=log,
                stderr=log,
            )

    async def ready(self, path: str, port: str, period: float) -> None:
        """Until its probe is green."""
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while not await self._probe(http, path, self.ports[port]):
                assert self.process is not None
                assert self.process.returncode is None, self.told()
                await asyncio.sleep(period)

    async def _probe(self, http: httpx.AsyncClient, path: str, port: int) -> bool:
        try:
            answer = await http.get(f"http://{self.address}:{port}{path}")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def refuses(self) -> None:
        """Until it takes no new connection."""
        while True:
            try:
                _, writer = await asyncio.open_connection(self.address, self.ports["http"])
            except ConnectionError:
                return
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await asyncio.sleep(0.01)  # a process sends no events

    def told(self) -> str:
        return self.log.read_text(errors="replace")

    async def kill(self) -> None:
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()


class Deployment:
    """Pods of one kind behind a name. `make` makes the next one; `arrived` waits for clients that
    were told an address and have not gone there yet."""

    def __init__(
        self,
        life: Life,
        behind: Endpoints,
        make: Callable[[], Pod],
        arrived: Callable[[], Awaitable[None]],
    ) -> None:
        self.life, self.behind, self._make, self._arrived = life, behind, make, arrived
        self.pods: list[Pod] = []
        self.made: list[Pod] = []

    async def __aenter__(self) -> Deployment:
        await asyncio.gather(*(self._begin() for _ in range(self.life.replicas)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for pod in self.made:
            await pod.kill()

    async def _begin(self) -> None:
        pod = self._make()
        self.made.append(pod)
        self.pods.append(pod)
        await pod.start()
        life = self.life
        await pod.ready(life.ready_path, life.ready_port, life.ready_period / FASTER)
        self.behind.add(pod.address)

    async def _end(self, pod: Pod, draining: Callable[[Pod], Awaitable[None]]) -> None:
        assert pod.process is not None
        async with asyncio.timeout(self.life.grace):  # it begins with preStop
            self.behind.remove(pod.address)
            await asyncio.sleep(self.life.pre_stop / FASTER)
            await self._arrived()  # a busy machine may be slower than pods are faster
            pod.process.send_signal(signal.SIGTERM)
            await pod.refuses()
            await draining(pod)
            code = await pod.process.wait()
        assert code in (0, -signal.SIGTERM), pod.told()

    async def roll(self, draining: Callable[[Pod], Awaitable[None]]) -> None:
        """Replace every pod, as many at one time as the strategy says. Where none is to be added
        for the while, one that comes has to wait for the place of one that goes. `draining` is
        called for each that has got its SIGTERM."""
        life, old, started = self.life, list(self.pods), 0
        async with asyncio.TaskGroup() as endings:
            while old or started < life.replicas:
                while started < life.replicas and len(self.pods) < life.replicas + life.surge:
                    await self._begin()
                    started += 1
                if old and len(self.pods) > life.replicas - life.unavailable:
                    pod = old.pop(0)
                    self.pods.remove(pod)
                    ending = endings.create_task(self._end(pod, draining))
                    if not life.surge:
                        await ending


@contextlib.asynccontextmanager
async def cluster_dns(*names: str) -> AsyncIterator[tuple[NameServer, list[Endpoints]]]:
    async with NameServer() as server:
        yield server, [Endpoints(server, name) for name in names]


def roundhouse(*args: str) -> list[str]:
    """The command, as it is installed beside this Python."""
    return [str(Path(sys.executable).with_name("roundhouse")), *args]
