"""How much memory a model needs to be served as wished, and what would fit where it does not. Pure.

Weights and KV cache are counted; what computing and the runtime take is estimated, rather high.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from server.engines import kvcache
from server.engines.devices import GIB, RUNTIME_MEMORY, gib
from server.engines.kvcache import CACHE_DTYPES, Serving
from server.engines.model import DTYPE_BYTES, ONLINE, Model
from server.errors import EngineError

DeviceKind = Literal["cuda", "cpu"]

MIB: Final = 2**20
#: A CUDA context with its libraries' workspaces, the graphs that vLLM records, and NCCL's buffers
#: where there are several devices: estimates, per device.
CONTEXT: Final = GIB * 6 // 10
GRAPHS: Final = GIB * 7 // 10
COLLECTIVES: Final = GIB * 6 // 10
#: A worker process more, on a CPU; measured as part of RUNTIME_MEMORY.
WORKER: Final = GIB * 7 // 10
#: In host memory, of an engine on GPUs: server, core, and a worker for each device. Estimates.
HOST: Final = 2 * GIB
HOST_WORKER: Final = 2 * GIB
#: `EngineArgs.get_batch_defaults`: tokens of a step, requests at one time, by what the device has.
_LARGE: Final = 70 * GIB
#: Weights of 4 bits with their scales, in bytes of each (as in the registry's recommendations).
_FOUR_BITS: Final = 0.57
#: Shares of the weights that ranks cannot split evenly (heads, latent projections).
_UNEVEN: Final = 0.03


@dataclass(frozen=True, slots=True)
class Wish:
    """How a model is to be served. `context` 0: as long as it reads. `ranks`: devices that share
    it by tensor parallelism. `cache` is vLLM's `kv-cache-dtype`, `quantization` our setting."""

    context: int = 0
    concurrency: int = 1
    kind: DeviceKind = "cuda"
    ranks: int = 1
    cache: str = "auto"
    quantization: str | None = None
    eager: bool = False
    batch: int = 2048
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on each rank, but `host`: of all, in the machine's memory. `exact` is False where the
    model's cache could not be counted layer by layer."""

    weights: int
    cache: int
    computing: int
    runtime: int
    host: int
    kind: DeviceKind
    ranks: int = 1
    exact: bool = True

    @property
    def each(self) -> int:
        """On each rank."""
        return self.weights + self.cache + self.computing + self.runtime

    @property
    def per_device(self) -> int:
        """On each device: a CPU's ranks share one."""
        return self.each * (self.ranks if self.kind == "cpu" else 1)

    @property
    def devices(self) -> int:
        return 1 if self.kind == "cpu" else self.ranks

    @property
    def kv_cache_memory_bytes(self) -> int | None:
        """For vLLM's flag, which counts per rank; None when nothing is kept."""
        return self.cache or None


@dataclass(frozen=True, slots=True)
class Room:
    """Devices of one kind, alike: how many, and the bytes to be had on each."""

    kind: DeviceKind
    free: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class TooBig:
    """It does not fit, and what would. `context` is the longest at the wished concurrency,
    `concurrency` the most at the wished context; 0: none. Each of the others fits by itself."""

    need: Need
    room: Room
    context: int = 0
    concurrency: int = 0
    settings: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def lacking(self) -> int:
        """Bytes, on each device."""
        return max(0, self.need.per_device - self.room.free)

    def __str__(self) -> str:
        need, times = self.need, self.need.per_device // self.need.each
        what = "of memory" if need.kind == "cpu" else "on each device"
        said = (
            f"needs about {gib(need.per_device)} {what} (weights {gib(need.weights * times)}, "
            f"KV cache {gib(need.cache * times)}, computing {gib(need.computing * times)}, "
            f"vLLM itself {gib(need.runtime * times)}), "
        )
        if need.devices > self.room.count:
            said += f"and {need.devices} devices, of which there are {self.room.count}. "
        else:
            said += f"and {gib(self.room.free)} can be had: {gib(self.lacking)} too little. "
        ways = []
        if self.context:
            ways.append(f"`max-model-len: {self.context}`")
        if self.concurrency:
            ways.append(f"{self.concurrency} of such requests at one time")
        ways += [*self.settings, *self.elsewhere]
        if not ways:
            return said + "Nothing that is here holds it: use a smaller model."
        return said + f"What would fit: {', or '.join(ways)}."

    def error(self) -> EngineError:
        return EngineError(f"It {self}", reason="memory", terminal=True)


def need(model: Model, wish: Wish) -> Need:
    """What it takes. Raises EngineError (`arguments`, `weights`) where the wish makes no sense."""
    _check(model, wish)
    serving = _serving(model, wish)
    cache, exact = 0, model.shape is not None
    if model.shape is not None:
        exact = model.shape.exact
        raw = kvcache.needed(
            model.shape, wish.context or model.context or 4096, wish.concurrency, serving
        )
        cache = -(-raw // MIB) * MIB
    weights = _weights(model, wish)
    runtime = CONTEXT + (0 if wish.eager else GRAPHS) + (COLLECTIVES if wish.ranks > 1 else 0)
    host = HOST + HOST_WORKER * wish.ranks
    if wish.kind == "cpu":
        runtime = (RUNTIME_MEMORY + WORKER * (wish.ranks - 1)) // wish.ranks
        host = 0
    return Need(
        weights=weights, cache=cache, computing=_computing(model, wish), runtime=runtime,
        host=host, kind=wish.kind, ranks=wish.ranks, exact=exact,
    )  # fmt: skip


def asleep(need: Need) -> tuple[int, int]:
    """Bytes that stay on each device, and in host memory, at vLLM's sleep level 1: the weights go
    to the host, the cache is dropped, context and graphs stay."""
    return need.runtime, need.host + need.weights * need.ranks


def fit(model: Model, wish: Wish, room: Room, others: Iterable[Room] = ()) -> Need | TooBig:
    """The need, when devices of `room` hold it. `others` is where else it might go.

    Raises EngineError like `need`.
    """
    found = need(model, wish)
    if _holds(room, found):
        return found
    return TooBig(
        need=found,
        room=room,
        context=_longest(model, wish, room),
        concurrency=_most(model, wish, room),
        settings=tuple(_settings(model, wish, room)),
        elsewhere=tuple(_elsewhere(model, wish, room, others)),
    )


def batch_of(kind: DeviceKind, total: int, ranks: int = 1) -> int:
    """Tokens that vLLM computes in one step unless it is told, by the device's whole memory."""
    if kind == "cpu":
        return 2048 * ranks
    if total >= 160 * GIB:
        return 16384
    return 8192 if total >= _LARGE else 2048


# --- parts --------------------------------------------------------------------------------------


def _check(model: Model, wish: Wish) -> None:
    if model.quantization.problem:
        raise EngineError(model.quantization.problem, reason="weights", terminal=True)
    if min(wish.concurrency, wish.ranks, wish.batch) < 1 or wish.context < 0:
        raise ValueError(wish)
    if wish.cache not in CACHE_DTYPES:
        raise _wrong(f"`kv-cache-dtype: {wish.cache}` is not known. {_of(CACHE_DTYPES)}")
    if model.context and wish.context > model.context:
        raise _wrong(
            f"The model reads {model.context:,} tokens, and `max-model-len` is {wish.context:,}."
        )
    if model.heads and model.heads % wish.ranks:
        raise _wrong(
            f"The model has {model.heads} attention heads, which {wish.ranks} devices cannot share "
            "evenly."
        )
    given, has = wish.quantization, model.quantization.method
    if given is None or _same(given, has):
        return
    if has != "none":
        raise _wrong(f"The weights come as {has}; `quantization: {given}` does not go with that.")
    if given not in ONLINE:
        raise _wrong(f"`quantization: {given}` is not for weights that come in 16 bits. "
                     f"{_of(ONLINE)}")  # fmt: skip
    if wish.kind == "cpu":
        raise _wrong("Weights are not quantized while they are loaded on a CPU.")


def _same(given: str, has: str) -> bool:
    """Names of kernels for a method are that method: `awq_marlin`, `auto_gptq`."""
    bare = given.removeprefix("auto_").removeprefix("gpt_oss_").removesuffix("_marlin")
    return bare == has or (given.startswith("fp8") and has == "fp8")


def _wrong(message: str) -> EngineError:
    return EngineError(message, reason="arguments", terminal=True)


def _of(names: Iterable[str]) -> str:
    return f"Use one of {', '.join(names)}."


def _serving(model: Model, wish: Wish) -> Serving:
    mla = model.shape is not None and model.shape.mla
    # `CpuPlatform.check_and_update_config`; on a GPU the backends for MLA want 64.
    block = wish.block or ((16 if mla else 128) if wish.kind == "cpu" else (64 if mla else 16))
    return Serving(dtype=wish.cache, ranks=wish.ranks, block=block, batch=wish.batch)


def _weights(model: Model, wish: Wish) -> int:
    """Layers are quantized one after the other while they load, so the peak is the end."""
    loaded = model.loaded
    if wish.quantization in ONLINE and model.quantization.method == "none":
        loaded -= model.linear
        loaded += int(model.linear / DTYPE_BYTES[model.dtype] * ONLINE[wish.quantization])
    return _share(loaded, model.whole, wish.ranks)


def _share(loaded: int, single: int, ranks: int) -> int:
    if ranks == 1:
        return loaded
    return single + int((loaded - single) * (1 + _UNEVEN) / ranks)


def _computing(model: Model, wish: Wish) -> int:
    """The largest tensors of one step that live at one time: hidden states, the inner ones of a
    layer, and the scores of all words for each request, in 32 bits, twice."""
    step = max(wish.batch, 1) * (6 * model.hidden + 3 * model.inner // wish.ranks) * 2
    asked = min(max(wish.concurrency, 256), 1024)
    return step + asked * model.vocabulary * 8


# --- what would fit -----------------------------------------------------------------------------


def _holds(room: Room, found: Need) -> bool:
    return (
        found.kind == room.kind
        and found.devices <= room.count
        and found.per_device <= room.free
    )  # fmt: skip


def _largest(top: int, fits: Callable[[int], bool]) -> int:
    """The largest of 1 … top that fits, 0 for none. `fits` must be monotonic."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _longest(model: Model, wish: Wish, room: Room) -> int:
    """In steps of 256 tokens once there are that many."""
    top = (wish.context or model.context or 4096) - 1
    found = _largest(top, lambda n: _holds(room, need(model, replace(wish, context=n))))
    return found - found % 256 if found > 256 else 0


def _most(model: Model, wish: Wish, room: Room) -> int:
    return _largest(
        wish.concurrency - 1, lambda n: _holds(room, need(model, replace(wish, concurrency=n)))
    )


def _settings(model: Model, wish: Wish, room: Room) -> Iterator[str]:
    if wish.kind == "cuda" and wish.cache == "auto" and model.shape and not model.shape.empty:
        changed = need(model, replace(wish, cache="fp8"))
        if _holds(room, changed) and changed.cache < need(model, wish).cache:
            yield "`kv-cache-dtype: fp8`"
    if model.quantization.method != "none" or wish.quantization is not None:
        return
    if wish.kind == "cuda" and _holds(room, need(model, replace(wish, quantization="fp8"))):
        yield "`quantization: fp8`"
    small = model.loaded - model.linear
    small += int(model.linear / DTYPE_BYTES[model.dtype] * _FOUR_BITS)
    if _holds(room, replace(need(model, wish), weights=_share(small, model.whole, wish.ranks))):
        yield "an edition of the weights in 4 bits (AWQ, GPTQ)"


def _elsewhere(model: Model, wish: Wish, room: Room, others: Iterable[Room]) -> Iterator[str]:
    """On more devices of this kind, or on others: the fewest that hold it."""
    for other in (room, *others):
        counts = [n for n in (1, 2, 4, 8, 16) if n <= other.count and not model.heads % n]
        if other.kind == "cpu":
            counts = [1]
        for ranks in counts:
            if other == room and ranks <= wish.ranks:
                continue
            try:
                found = need(model, replace(wish, kind=other.kind, ranks=ranks))
            except EngineError:
                break  # its quantization is not for that kind
            if _holds(other, found):
                several = f"{ranks} devices" if ranks > 1 else "a device"
                where = "the CPU" if other.kind == "cpu" else f"{several} of {gib(other.free)}"
                yield where
                break
