"""How much memory a model needs to be served as wished. Pure.

Weights and KV cache are counted; what computing and the runtime take is estimated, rather high.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from server.engines import kvcache
from server.engines.devices import GIB, RUNTIME_MEMORY
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
#: Shares of the weights that ranks cannot split evenly (heads, latent projections).
_UNEVEN: Final = 0.03


@dataclass(frozen=True, slots=True)
class Wish:
    """How a model is to be served. `context` 0: as long as it reads. `ranks`: devices that share
    it by tensor parallelism, in each of `stages` of a pipeline. `cache` is vLLM's `kv-cache-dtype`,
    `quantization` our setting. `given`: bytes of the cache on each rank, instead of counted."""

    context: int = 0
    concurrency: int = 1
    kind: DeviceKind = "cuda"
    ranks: int = 1
    cache: str = "auto"
    quantization: str | None = None
    eager: bool = False
    batch: int = 2048
    block: int | None = None
    given: int | None = None
    stages: int = 1


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
    stages: int = 1

    @property
    def each(self) -> int:
        """On each rank."""
        return self.weights + self.cache + self.computing + self.runtime

    @property
    def per_device(self) -> int:
        """On each device: a CPU's ranks share one."""
        return self.each * (self.ranks * self.stages if self.kind == "cpu" else 1)

    @property
    def devices(self) -> int:
        return 1 if self.kind == "cpu" else self.ranks * self.stages

    @property
    def kv_cache_memory_bytes(self) -> int | None:
        """For vLLM's flag, which counts per rank; None when nothing is kept."""
        return self.cache or None


def need(model: Model, wish: Wish) -> Need:
    """What it takes. Raises EngineError (`arguments`, `weights`) where the wish makes no sense."""
    _check(model, wish)
    serving = serving_of(model, wish)
    cache, exact = 0, model.shape is not None
    if model.shape is not None:
        exact = model.shape.exact
        raw = kvcache.needed(
            model.shape, wish.context or model.context or 4096, wish.concurrency, serving
        )
        cache = -(-int(raw * _stage(model, wish)) // MIB) * MIB
    if wish.given is not None:
        cache = wish.given
    runtime, host = _runtime(wish)
    return Need(
        weights=_weights(model, wish), cache=cache, computing=_computing(model, wish),
        runtime=runtime, host=host, kind=wish.kind, ranks=wish.ranks, exact=exact,
        stages=wish.stages,
    )  # fmt: skip


def guess(size: int, wish: Wish) -> Need:
    """Where the model cannot be counted: its files' bytes, and a GiB each for the cache, unless
    that is given, and for computing."""
    runtime, host = _runtime(wish)
    return Need(
        weights=share_of(size, 0, wish.ranks * wish.stages),
        cache=GIB if wish.given is None else wish.given,
        computing=0 if wish.kind == "cpu" else GIB, runtime=runtime, host=host, kind=wish.kind,
        ranks=wish.ranks, exact=False, stages=wish.stages,
    )  # fmt: skip


def asleep(need: Need) -> tuple[int, int]:
    """Bytes that stay on each device, and in host memory, at vLLM's sleep level 1: the weights go
    to the host, the cache is dropped, context and graphs stay."""
    return need.runtime, need.host + need.weights * need.ranks * need.stages


def batch_of(kind: DeviceKind, total: int, ranks: int = 1) -> int:
    """Tokens that vLLM computes in one step unless it is told, by the device's whole memory."""
    if kind == "cpu":
        return 2048 * ranks
    if total >= 160 * GIB:
        return 16384
    return 8192 if total >= _LARGE else 2048


# --- parts --------------------------------------------------------------------------------------


def _runtime(wish: Wish) -> tuple[int, int]:
    """On each rank, and in host memory."""
    workers = wish.ranks * wish.stages
    if wish.kind == "cpu":
        return (RUNTIME_MEMORY + WORKER * (workers - 1)) // workers, 0
    on_device = CONTEXT + (0 if wish.eager else GRAPHS) + (COLLECTIVES if workers > 1 else 0)
    return on_device, HOST + HOST_WORKER * workers


def _check(model: Model, wish: Wish) -> None:
    if model.quantization.problem:
        raise EngineError(model.quantization.problem, reason="weights", terminal=True)
    if min(wish.concurrency, wish.ranks, wish.batch, wish.stages) < 1 or wish.context < 0:
        raise ValueError(wish)
    if wish.cache not in CACHE_DTYPES:
        raise _wrong(f"`kv-cache-dtype: {wish.cache}` is not known. {_of(CACHE_DTYPES)}")
    limit = model.limit or model.context
    if limit and wish.context > limit:
        raise _wrong(f"The model reads {limit:,} tokens, and `max-model-len` is {wish.context:,}.")
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


def serving_of(model: Model, wish: Wish) -> Serving:
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
    return int(share_of(loaded, model.whole, wish.ranks) * _stage(model, wish))


def _stage(model: Model, wish: Wish) -> float:
    """The largest stage's part of the layers, and of the tables at both ends."""
    layers = sum(one.count for one in model.shape.layers) if model.shape else 0
    if wish.stages == 1 or not layers:
        return 1.0
    return min(1.0, -(-layers // wish.stages) / layers * (1 + _UNEVEN))


def share_of(loaded: int, single: int, ranks: int) -> int:
    if ranks == 1:
        return loaded
    return single + int((loaded - single) * (1 + _UNEVEN) / ranks)


def _computing(model: Model, wish: Wish) -> int:
    """The largest tensors of one step that live at one time: hidden states, the inner ones of a
    layer, and the scores of all words for each request, in 32 bits, twice."""
    step = max(wish.batch, 1) * (6 * model.hidden + 3 * model.inner // wish.ranks) * 2
    asked = min(max(wish.concurrency, 256), 1024)
    return step + asked * model.vocabulary * 8
