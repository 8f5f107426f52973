"""From an engine's config to the ways in which the planner may place it: what it takes, and where.

Pure, but for the headers of the weights. All sizes come from `needs`; here is decided what to ask
it, and who gets how much of a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from server.config.engine import Engine
from server.engines import needs, placement, rooms, runtimes
from server.engines.arguments import share, whole_number
from server.engines.devices import GIB, UNKNOWN, gib
from server.engines.model import PLUGINS, Model, known, read_model
from server.engines.needs import Need, Wish
from server.engines.rooms import Room, TooBig
from server.engines.runtimes import KV_CACHE_CPU, EnginePython
from server.engines.weights import Weights
from server.errors import EngineError

#: `CacheConfig.gpu_memory_utilization`: what vLLM takes of a GPU unless it is told.
UTILIZATION: Final = 0.92
#: Requests of full length that a cache is made for, where engines share a GPU.
CONCURRENCY: Final = 4
#: Arguments by which ranks share the cache in ways that are not counted.
_SPLIT: Final = {
    "decode-context-parallel-size", "prefill-context-parallel-size", "pipeline-parallel-size",
}  # fmt: skip
#: What takes memory, too, and is not looked at.
_UNCOUNTED: Final = {
    "speculative-config": "The model that guesses ahead is",
    "enable-lora": "LoRA adapters are",
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """What an engine needs. `options`, the best first, are for the planner; `kv_cache` is what each
    rank's cache gets (None: vLLM takes what is left). `refusal`: why it can never fit, for people.
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
    name: str,
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
    numbers = [int(one.id.partition(":")[2]) for one in machine if one.kind == "cuda"]
    place = runtimes.place(name, engine, python, numbers)
    subject = _Subject(engine, found)
    if place.kind == "cpu":
        fitted = _on_cpu(engine, subject, machine, crowd)
    else:
        fitted = _on_cuda(engine, subject, _named(machine, place.ids), machine, crowd)
    return replace(fitted, weights=found, python=python, notes=tuple(subject.notes))


def fit_command(engine: Engine) -> Fitted:
    """Of a command nothing is counted: it takes the `memory` that the config says, and goes where
    `device` says."""
    kind, ids = runtimes.kind_of(engine.device, "vllm-cpu"), runtimes.ids_of(engine.device)
    names = tuple(f"cuda:{number}" for number in ids) if kind == "cuda" else ()
    option = placement.Option(kind, engine.memory or 0, max(1, len(ids)), ids=names)
    notes = () if engine.memory else ("What a command takes is not counted; `memory` says it.",)
    return Fitted((option,), notes=notes)


# --- what it takes ------------------------------------------------------------------------------


@dataclass
class _Subject:
    """One engine's model, counted where it can be, else guessed by the size of its files."""

    engine: Engine
    found: Weights
    notes: list[str] = field(default_factory=list)
    model: Model | None = None

    def __post_init__(self) -> None:
        problem = self._read()
        if problem is not None:
            self.model = None
            self.notes.append(f"Not counted but guessed from the size of its files: {problem}")
        for flag, what in _UNCOUNTED.items():
            if self.engine.args.get(flag):
                self.notes.append(f"{what} not counted.")

    def _read(self) -> str | None:
        """Why it cannot be counted."""
        if self.found.folder is None:
            return "the weights are not here yet."
        if "cpu-offload-gb" in self.engine.args:
            return "a part of the weights stays in the host's memory (`cpu-offload-gb`)."
        try:
            self.model = model = read_model(self.found.folder, dtype=self.engine.dtype)
        except EngineError as error:
            return error.message
        given, has = self.engine.quantization, model.quantization.method
        if has in (*PLUGINS, "unknown") or (given is not None and not known(given)):
            return f"vLLM alone does not load weights in {given or has}."
        if model.shape is None:
            return "its config.json does not say what its layers keep."
        if not model.shape.exact:
            self.notes.append("What some of its layers keep is not known exactly.")
        return None

    @property
    def size(self) -> int:
        """Of its files, less what stays in the host's memory."""
        offloaded = whole_number(self.engine.args.get("cpu-offload-gb")) or 0
        return max(0, self.found.size - offloaded * GIB)

    def wish(self, kind: needs.DeviceKind, ranks: int, total: int) -> Wish:
        """How it is to be served, by the config and its `args`."""
        args = self.engine.args
        context = whole_number(args.get("max-model-len")) or 0
        limit = 0 if self.model is None else self.model.limit
        longer = "hf-overrides" in args or "VLLM_ALLOW_LONG_MAX_MODEL_LEN" in self.engine.env
        if limit and context > limit and longer:
            context = limit
            self.notes.append(f"Its cache is counted for {limit:,} tokens of each request.")
        cache = args.get("kv-cache-dtype")
        return Wish(
            context=context,
            concurrency=self.engine.concurrency or 1,
            kind=kind,
            ranks=ranks,
            cache=str(cache) if isinstance(cache, str) else "auto",
            quantization=self.engine.quantization,
            eager=args.get("enforce-eager") is True,
            batch=whole_number(args.get("max-num-batched-tokens"))
            or needs.batch_of(kind, total, ranks),
            block=whole_number(args.get("block-size")) or None,
            given=self.engine.kv_cache,
            stages=_size(self.engine, "pipeline-parallel-size"),
        )

    def fit(self, wish: Wish, room: Room, others: Iterable[Room] = ()) -> Need | TooBig:
        if self.model is not None:
            return rooms.fit(self.model, wish, room, others)
        found = needs.guess(self.size, wish)
        return rooms.misfit(found, room) or found

    def check_cache(self, wish: Wish) -> None:
        """Raises EngineError where the cache is too small for a single request."""
        args = self.engine.args
        fits_itself = str(args.get("max-model-len", "")).lower() in ("auto", "-1")
        if self.model is None or fits_itself or _SPLIT & set(args):
            return
        if (said := rooms.starved(self.model, wish)) is not None:
            raise EngineError(said, reason="memory", terminal=True)


def _need(answer: Need | TooBig) -> Need:
    return answer.need if isinstance(answer, TooBig) else answer


def _refusal(answer: Need | TooBig, memory: int | None, room: Room) -> str | None:
    if memory is not None:
        if memory <= room.free:
            return None
        return (
            f"It takes {gib(memory)}, by its `memory`, and {gib(room.free)} can be had: "
            f"{gib(memory - room.free)} too little."
        )
    return f"It {answer}" if isinstance(answer, TooBig) else None


# --- on a CPU -----------------------------------------------------------------------------------


def _on_cpu(
    engine: Engine,
    subject: _Subject,
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
    subject: _Subject,
    cards: Sequence[placement.Device],
    machine: Sequence[placement.Device],
    crowd: Sequence[Other],
) -> Fitted:
    ids = runtimes.ids_of(engine.device)
    copies = _size(engine, "data-parallel-size")
    ranks = runtimes.tensor_parallel(engine, ids)
    count = ranks * _size(engine, "pipeline-parallel-size") * copies
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
    subject: _Subject
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
        told = share(engine.args.get("gpu-memory-utilization"))
        if told and total < UNKNOWN:
            room = replace(room, free=min(room.free, int(told * total)))
        alone = self._alone(group)
        wish = subject.wish("cuda", self.ranks, total)
        counted = wish.given is not None or engine.concurrency is not None
        if not (counted or engine.memory or told or alone) and subject.model is not None:
            wish, counted = _as_many(subject, wish, room), True
        if cache is not None:
            wish = replace(wish, given=cache)
        answer = subject.fit(wish, room, _rooms(self.machine, group))
        need = _need(answer)
        if wish.given is not None and not isinstance(answer, TooBig):
            subject.check_cache(wish)
        each = need.each
        if total >= UNKNOWN:
            subject.notes.append("How much memory the GPUs have is not known.")
        elif told:
            each = max(each, int(told * total)) if counted else int(told * total)
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
        fitted = Fitted(
            kv_cache=need.kv_cache_memory_bytes if counted else None,
            refusal=_refusal(answer, engine.memory, room),
            beside=need.runtime if counted else 0,
        )
        return fitted, option

    def _alone(self, group: Sequence[placement.Device]) -> bool:
        """May no other engine of the config be placed on these?"""
        names = {one.id for one in group}
        return not any(
            one.kind == "cuda" and (not one.ids or names & _names(one.ids)) for one in self.crowd
        )


def _as_many(subject: _Subject, wish: Wish, room: Room) -> Wish:
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
    for size in sorted({one.total for one in rest}):
        free = [one.total - one.reserved for one in rest if one.total == size]
        yield Room("cuda", min(free), len(free))


def _named(machine: Sequence[placement.Device], ids: Sequence[int]) -> list[placement.Device]:
    return [one for one in machine if one.kind == "cuda" and (not ids or one.id in _names(ids))]


def _names(ids: Iterable[int]) -> set[str]:
    return {f"cuda:{number}" for number in ids}


def _size(engine: Engine, flag: str) -> int:
    return max(1, whole_number(engine.args.get(flag)) or 1)
