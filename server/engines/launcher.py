"""From an engine's config to a checked `Launch`: the one place that joins the pure parts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from server.config.engine import Engine, Runtime
from server.engines import arguments, command, devices, fitting, runtimes, turns, weights
from server.engines.devices import Devices, Others
from server.engines.fitting import Fitted
from server.engines.patience import Patience, in_time
from server.engines.placement import Device
from server.engines.runtimes import EnginePython, Launch, Placement
from server.engines.weights import StoreSettings, Weights
from server.errors import EngineError

log = structlog.get_logger(__name__)

#: An engine on a CPU leaves the server, which relays for all, the first say on the cores.
CPU_NICE = 5


@dataclass
class VllmLauncher:
    """The real one. What blocks runs in threads; a pull, which may take hours, in one of its own.

    `memory` and `store` are the config's `placement.memory` and `weights`.
    """

    home: Path
    base: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    engines: Mapping[str, Engine] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    store: StoreSettings = field(default_factory=StoreSettings)
    _others: Others = field(default_factory=Others, repr=False)
    #: As the planner has it, so that what is said of a need and what is planned agree.
    _devices: tuple[Device, ...] | None = field(default=None, repr=False)
    #: As it was last seen.
    _found: Devices | None = field(default=None, repr=False)
    _looks: Patience[tuple[Device, ...]] = field(
        default_factory=lambda: Patience("devices"), repr=False
    )
    _probes: Patience[Devices] = field(default_factory=lambda: Patience("probe"), repr=False)
    #: Runtime → which vLLM its Python has, once that was asked.
    _distributions: dict[str, str] = field(default_factory=dict, repr=False)

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

    async def machine(self) -> tuple[Device, ...]:
        try:
            self._devices = await self._looks.ask(self._machine)
        except TimeoutError:
            if self._devices is None:
                raise devices.silent() from None
            log.warning("devices_do_not_answer", seconds=self._looks.limit)
        return self._devices

    def _machine(self, found: Devices | None = None) -> tuple[Device, ...]:
        self._found = found or devices.probe()
        return self._others.machine(self._found, self.memory)

    # --- what it needs ------------------------------------------------------------------------

    async def fit(
        self, name: str, engine: Engine, runtime: Runtime | None, *, note: Callable[[str], None]
    ) -> Fitted:
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def told(text: str) -> None:
            loop.call_soon_threadsafe(note, text)

        # Not one of the loop's own threads: those are few, and others wait for them.
        pool = ThreadPoolExecutor(1, f"fit {name}")
        job = loop.run_in_executor(pool, self._fit, name, engine, runtime, told, stop)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            stop.set()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await job
            raise
        finally:
            pool.shutdown(wait=False)

    def _fit(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        note: Callable[[str], None],
        stop: threading.Event,
        machine: Sequence[Device] | None = None,
    ) -> Fitted:
        if engine.command:
            return fitting.fit_command(engine, machine or self._devices or self._machine())
        examine(engine)
        python = runtimes.find_python(engine.runtime, runtime, base=self.base)
        self._distributions[engine.runtime] = python.distribution
        machine = machine or self._devices or self._machine()
        numbers = [int(one.id.partition(":")[2]) for one in machine if one.kind == "cuda"]
        runtimes.place(engine, python, numbers)  # before it is pulled for nothing
        found = weights.ready(engine, base=self.base, store=self.store, note=note, stop=stop)
        note("counting what it needs")
        crowd = self._crowd(name, python.distribution)
        return fitting.fit(engine, python=python, found=found, machine=machine, crowd=crowd)

    def _crowd(self, name: str, distribution: str) -> list[fitting.Other]:
        """All other engines. Of a runtime that was not asked yet the same vLLM is assumed."""
        return [
            fitting.other(engine, self._distributions.get(engine.runtime, distribution))
            for other, engine in self.engines.items()
            if other != name
        ]

    # --- its command line ---------------------------------------------------------------------

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
        try:
            found = await self._probes.ask(devices.probe)
        except TimeoutError:
            if self._found is None:
                raise devices.silent() from None
            found = self._found
        return await asyncio.to_thread(
            self._prepare, name, engine, runtime, scratch, socket, fitted, placement, found
        )

    def _prepare(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        scratch: str,
        socket: str,
        fitted: Fitted | None,
        place: Placement | None,
        found: Devices,
    ) -> Launch:
        if fitted is None:
            fitted = self._fit(
                name, engine, runtime, _nobody, threading.Event(), self._at_once(found)
            )
        if place is None:
            if fitted.refusal is not None:
                raise EngineError(fitted.refusal, reason="memory", terminal=True)
            place = _first(fitted)
        self._make_home()
        environ = dict(self.environ)
        if place.kind == "cuda":
            # CUDA's own order is by speed; NVML, by which devices are counted here, has this one.
            environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            if found.visible is not None:
                environ["CUDA_VISIBLE_DEVICES"] = found.visible
        if engine.command:
            return command.launch(
                name, engine, runtime, placement=place, environ=environ, base=self.base,
                home=self.home, scratch=scratch,
            )  # fmt: skip
        python, where = fitted.python, fitted.weights
        if python is None or where is None:
            raise ValueError(f"{name} was fitted as a command")
        place = replace(place, utilization=_utilization(fitted, place, found))
        everybody = [fitting.other(engine, python.distribution)]
        everybody += self._crowd(name, python.distribution)
        on_cpu = sum(one.ranks for one in everybody if one.kind == "cpu")
        return Launch(
            argv=runtimes.argv(
                name, engine, python=python, weights=where, placement=place, socket=socket
            ),
            env=runtimes.environment(
                engine,
                runtime,
                environ=environ,
                weights=where,
                placement=place,
                home=self.home,
                scratch=scratch,
                threads=max(1, len(found.cores) // on_cpu) if on_cpu > 1 else None,
            ),
            cwd=str(self.home),
            remove=(scratch,),
            nice=CPU_NICE if place.kind == "cpu" else 0,
            facts={
                "vllm": python.version,
                "device": place.kind,
                "devices": list(place.devices),
                "hub": where.folder is None,
                "weights": where.argument,
            },
        )

    def _at_once(self, found: Devices) -> tuple[Device, ...]:
        """The machine for an engine that nobody makes room for: what is free now."""
        return tuple(
            replace(one, reserved=max(one.reserved, one.total - found.memory))
            if one.kind == "cpu" and found.total
            else one
            for one in self._machine(found)
        )

    def _make_home(self) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise EngineError(
                f"The server's home {self.home} cannot be made ({exc.strerror}). "
                "Set `server.home` to a folder that can be written.",
                reason="disk",
                terminal=True,
            ) from exc


def _nobody(text: str) -> None:
    """Is told what nobody wants to know."""


def _first(fitted: Fitted) -> Placement:
    option = fitted.options[0]
    if option.kind == "cpu":
        return Placement("cpu", kv_cache=fitted.kv_cache)
    return replace(
        Placement.on(option.ids[: option.devices], kv_cache=fitted.kv_cache), kind="cuda"
    )


def _utilization(fitted: Fitted, place: Placement, found: Devices) -> float | None:
    """vLLM's share of its devices, by what was planned for it; None where they do not tell."""
    option = fitted.option(place.devices)
    totals = [card.total for card in found.cards if card.number in place.ids]
    if place.kind != "cuda" or option is None or not totals or not all(totals):
        return None
    part = (option.each - fitted.beside) / min(totals)
    # Rounded down, so that vLLM never wants more than was planned.
    return None if part > 1 else max(0.01, math.floor(part * 1000 + 1e-6) / 1000)


def examine(engine: Engine) -> None:
    """What can be seen by the config alone. Raises EngineError, terminal."""
    if not sys.platform.startswith("linux"):
        raise EngineError(
            "Engines run on Linux only. Use providers here, or run Roundhouse on Linux.",
            reason="environment",
            terminal=True,
        )
    arguments.flags(engine.args)


def check_static(
    engines: Mapping[str, Engine],
    runtime: Mapping[str, Runtime],
    *,
    base: Path,
    machine: Devices | None = None,
    names: Iterable[str] | None = None,
    memory: bool = True,
    caps: Mapping[str, int] | None = None,
    store: StoreSettings | None = None,
    later: bool = False,
) -> tuple[str, ...]:
    """Before anything is started: could these engines start at all? Blocks for up to a second.

    Looks at weights (those of the hub where they have been pulled), Python, devices, and, unless
    `memory` is off, whether each fits here by itself. `caps` is the config's `placement.memory`,
    `store` its `weights`. Raises EngineError whose message is the paragraph to print. What comes
    back is advice, in sentences: who takes turns; and, with `later`, what an engine lacks that is
    loaded with its first request only, instead of an error: others need not wait for that.
    """
    chosen = engines if names is None else {name: engines[name] for name in names}
    if not chosen:
        return ()
    here = Others().machine(_probed() if machine is None else machine, caps or {})
    pythons: dict[str, EnginePython] = {}
    wheres: dict[str, Weights] = {}
    fits: dict[str, Fitted] = {}
    said: list[str] = []

    def trying(name: str) -> contextlib.AbstractContextManager[None]:
        return _telling(name, said) if later and chosen[name].load == "request" else _naming(name)

    for name, engine in chosen.items():
        with trying(name):
            if engine.command:
                own = runtime.get(engine.runtime)
                command.check(name, engine, own, environ=os.environ, base=base)
                fits[name] = fitting.fit_command(engine, here)
                continue
            found = _whereabouts(engine, base, store or StoreSettings())
            pythons[engine.runtime] = pythons.get(engine.runtime) or runtimes.find_python(
                engine.runtime, runtime.get(engine.runtime), base=base
            )
            examine(engine)
            wheres[name] = found
    kinds = {name: one.distribution for name, one in pythons.items()}
    for name, found in wheres.items():
        engine = chosen[name]
        crowd = [
            fitting.other(one, kinds.get(one.runtime, kinds[engine.runtime]))
            for other, one in engines.items()
            if other != name
        ]
        with trying(name):
            fits[name] = fitting.fit(
                engine, python=pythons[engine.runtime], found=found, machine=here,
                crowd=crowd,
            )  # fmt: skip
    for name, fitted in fits.items():
        if memory and fitted.refusal is not None:
            with trying(name):
                raise EngineError(fitted.refusal, reason="memory", terminal=True)
    return (*said, *turns.advice(chosen, fits, here))


def _probed() -> Devices:
    """Raises EngineError when they do not answer in time."""
    try:
        return in_time(devices.probe)
    except TimeoutError:
        raise devices.silent() from None


def _whereabouts(engine: Engine, base: Path, store: StoreSettings) -> Weights:
    """As far as can be told without a hub."""
    dummy = engine.args.get("load-format") == "dummy"
    found = weights.resolve(
        engine.local_weights, base=base, dummy=dummy, allow_pickle=store.allow_pickle
    )
    if found.folder is None:
        with contextlib.suppress(EngineError):  # not pulled yet, perhaps
            found = weights.ready(engine, base=base, store=replace(store, pull=False))
    return found


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except EngineError as exc:
        raise named(name, exc) from None


@contextlib.contextmanager
def _telling(name: str, said: list[str]) -> Iterator[None]:
    try:
        yield
    except EngineError as exc:
        error = named(name, exc)
        said.append(f"{error.message} It is not loaded before it is asked for, and cannot be then.")


def named(name: str, error: EngineError) -> EngineError:
    """The error with its engine's name before it, for people."""
    return EngineError(
        f"Engine {name!r}: {error.message}",
        reason=error.reason,
        terminal=error.terminal,
        log_tail=error.log_tail,
        detail=error.detail,
    )
