"""From an engine's config to a checked `Launch`: the one place that joins the pure parts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from server.config.engine import Engine, Runtime
from server.engines import devices, placement, runtimes, weights
from server.engines.devices import Devices
from server.engines.fitting import Fitted
from server.engines.runtimes import EnginePython, Launch, Placement
from server.engines.weights import StoreSettings
from server.errors import EngineError

#: An engine on a CPU leaves the server, which relays for all, the first say on the cores.
CPU_NICE = 5


class Launcher(Protocol):
    """What the supervisor needs: where engines may go, what each needs, and its command line."""

    async def machine(self) -> tuple[placement.Device, ...]:
        """The devices, and what of them is not for engines at this moment. Never fails."""

    async def fit(
        self, name: str, engine: Engine, runtime: Runtime | None, *, note: Callable[[str], None]
    ) -> Fitted:
        """See that the weights are here, pulling them where they are not, and count the need.

        `note` is told what it is about. Cancelled, it stops pulling. Raises EngineError.
        """

    async def prepare(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        *,
        scratch: str,
        socket: str,
        fitted: Fitted | None = None,
        placement: Placement | None = None,
    ) -> Launch:
        """The command line for that place. What is left out is found as for a single engine.
        Raises EngineError."""

    def configure(
        self,
        engines: Mapping[str, Engine],
        *,
        memory: Mapping[str, int] | None = None,
        store: StoreSettings | None = None,
    ) -> None:
        """All engines of the config, since they share devices and cores; the config's
        `placement.memory` and where pulled weights are. None: as before."""


@dataclass
class VllmLauncher:
    """The real one. Finding Python and devices blocks, so that runs in a thread, once each."""

    home: Path
    base: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    engines: Mapping[str, Engine] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    store: StoreSettings = field(default_factory=StoreSettings)

    def configure(
        self,
        engines: Mapping[str, Engine],
        *,
        memory: Mapping[str, int] | None = None,
        store: StoreSettings | None = None,
    ) -> None:
        self.engines = dict(engines)
        self.memory = self.memory if memory is None else dict(memory)
        self.store = self.store if store is None else store

    async def machine(self) -> tuple[placement.Device, ...]:
        found = await asyncio.to_thread(devices.probe)
        cpu = placement.Device("cpu", "cpu", found.memory, cores=found.cores)
        cuda = [
            placement.Device(f"cuda:{i}", "cuda", 2**40, sleeps=True) for i in range(found.gpus)
        ]
        return (cpu, *cuda)

    async def fit(
        self, name: str, engine: Engine, runtime: Runtime | None, *, note: Callable[[str], None]
    ) -> Fitted:
        return await asyncio.to_thread(self._fit, name, engine, runtime)

    def _fit(self, name: str, engine: Engine, runtime: Runtime | None) -> Fitted:
        machine = devices.probe()
        python, place, found = examine(name, engine, runtime, base=self.base, machine=machine)
        kv_cache = runtimes.kv_cache_bytes(engine, place)
        each = found.size + (kv_cache or 0) + devices.RUNTIME_MEMORY
        count = runtimes.tensor_parallel(engine, place.ids) if place.kind == "cuda" else 1
        return Fitted(
            (placement.Option(place.kind, each, count),), kv_cache, found, python,
            _shortage(engine, place, found, machine.memory),
        )  # fmt: skip

    async def prepare(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        *,
        scratch: str,
        socket: str,
        fitted: Fitted | None = None,
        placement: Placement | None = None,
    ) -> Launch:
        return await asyncio.to_thread(self._prepare, name, engine, runtime, scratch, socket)

    def _prepare(
        self, name: str, engine: Engine, runtime: Runtime | None, scratch: str, socket: str
    ) -> Launch:
        machine = devices.probe()
        python, placement, found = examine(name, engine, runtime, base=self.base, machine=machine)
        if lack := _shortage(engine, placement, found, machine.memory):
            raise EngineError(f"It {lack}", reason="memory", terminal=True)
        on_cpu = [
            (other, runtimes.tensor_parallel(config))
            for other, config in self.engines.items()
            if not config.device.startswith("cuda")
        ]
        binding = runtimes.bindings(on_cpu, machine.cores).get(name)
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise EngineError(
                f"The server's home {self.home} cannot be made ({exc.strerror}). "
                "Set `server.home` to a folder that can be written.",
                reason="disk",
                terminal=True,
            ) from exc
        return Launch(
            argv=runtimes.argv(
                name, engine, python=python, weights=found, placement=placement, socket=socket
            ),
            env=runtimes.environment(
                engine,
                runtime,
                environ=self.environ,
                weights=found,
                placement=placement,
                home=self.home,
                scratch=scratch,
                binding=binding,
                threads=max(1, len(machine.cores) // max(1, len(on_cpu))),
            ),
            cwd=str(self.home),
            remove=(scratch,),
            nice=CPU_NICE if placement.kind == "cpu" else 0,
            facts={
                "vllm": python.version,
                "device": placement.kind,
                "hub": found.folder is None,
                "weights": found.argument,
            },
        )


def examine(
    name: str, engine: Engine, runtime: Runtime | None, *, base: Path, machine: Devices
) -> tuple[EnginePython, Placement, weights.Weights]:
    """All that can be known before a start. Blocks. Raises EngineError, terminal."""
    if not sys.platform.startswith("linux"):
        raise EngineError(
            "Engines run on Linux only. Use providers here, or run Roundhouse on Linux.",
            reason="environment",
            terminal=True,
        )
    dummy = engine.args.get("load-format") == "dummy"
    found = weights.resolve(engine.local_weights, base=base, dummy=dummy)
    runtimes.flags(engine.args)
    python = runtimes.find_python(engine.runtime, runtime, base=base)
    return python, runtimes.place(name, engine, python, machine), found


def _shortage(
    engine: Engine, placement: Placement, found: weights.Weights, available: int
) -> str | None:
    if placement.kind != "cpu":
        return None  # GPU memory is vLLM's to judge
    kv_cache = runtimes.kv_cache_bytes(engine, placement) or 0
    return devices.shortage(weights=found.size, kv_cache=kv_cache, available=available)


def check_static(
    engines: Mapping[str, Engine],
    runtime: Mapping[str, Runtime],
    *,
    base: Path,
    machine: Devices | None = None,
    names: Iterable[str] | None = None,
    memory: bool = True,
) -> None:
    """Before anything is started: could these engines start at all? Blocks for up to a second.

    Looks at weights, Python, devices, and, unless `memory` is off (a reload, whose engines hold
    the memory already), at what all engines with `load: startup` take together. Raises EngineError
    whose message is the paragraph to print.
    """
    chosen = engines if names is None else {name: engines[name] for name in names}
    if not chosen:
        return
    machine = devices.probe() if machine is None else machine
    left = machine.memory
    for name, engine in chosen.items():
        try:
            _, placement, found = examine(
                name, engine, runtime.get(engine.runtime), base=base, machine=machine
            )
            if memory and engine.load == "startup" and placement.kind == "cpu":
                if lack := _shortage(engine, placement, found, left):
                    raise EngineError(f"It {lack}", reason="memory", terminal=True)
                kv_cache = runtimes.kv_cache_bytes(engine, placement) or 0
                left -= found.size + kv_cache + devices.RUNTIME_MEMORY
        except EngineError as exc:
            raise named(name, exc) from None


def named(name: str, error: EngineError) -> EngineError:
    """The error with its engine's name before it, for people."""
    return EngineError(
        f"Engine {name!r}: {error.message}",
        reason=error.reason,
        terminal=error.terminal,
        log_tail=error.log_tail,
        detail=error.detail,
    )
