"""Does a model fit where it is to go, and if not: by how much, and what would. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from server.engines import kvcache
from server.engines.devices import gib
from server.engines.model import DTYPE_BYTES, Model
from server.engines.needs import MIB, DeviceKind, Need, Wish, need, serving_of, share_of
from server.errors import EngineError

#: Weights of 4 bits with their scales, in bytes of each (as in the registry's recommendations).
_FOUR_BITS: Final = 0.57


@dataclass(frozen=True, slots=True)
class Room:
    """Devices of one kind, alike: how many, and the bytes to be had on each."""

    kind: DeviceKind
    free: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class TooBig:
    """It does not fit, and what would. `context` is the longest at the wished concurrency,
    `concurrency` the most at the wished context; `cache` the bytes, where they were given; 0: none.
    Each of the others fits by itself."""

    need: Need
    room: Room
    context: int = 0
    concurrency: int = 0
    cache: int = 0
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
        if self.cache:
            ways.append(f"`kv_cache: {self.cache // MIB}MiB`")
        ways += [*self.settings, *self.elsewhere]
        if not ways:
            return said + "Nothing that is here holds it: use a smaller model."
        return said + f"What would fit: {', or '.join(ways)}."

    def error(self) -> EngineError:
        return EngineError(f"It {self}", reason="memory", terminal=True)


def fit(model: Model, wish: Wish, room: Room, others: Iterable[Room] = ()) -> Need | TooBig:
    """The need, when devices of `room` hold it. `others` is where else it might go.

    Raises EngineError like `need`.
    """
    found = need(model, wish)
    if _holds(room, found):
        return found
    given = wish.given is not None
    return TooBig(
        need=found,
        room=room,
        context=0 if given else _longest(model, wish, room),
        concurrency=0 if given else _most(model, wish, room),
        cache=_cache(found, room, need(model, replace(wish, given=None, concurrency=1)).cache)
        if given
        else 0,
        settings=tuple(_settings(model, wish, room)),
        elsewhere=tuple(_elsewhere(model, wish, room, others)),
    )


def misfit(found: Need, room: Room) -> TooBig | None:
    """Why what was guessed does not fit; None when it does. Only the cache may be smaller."""
    if _holds(room, found):
        return None
    return TooBig(found, room, cache=_cache(found, room))


def starved(model: Model, wish: Wish) -> str | None:
    """Why a cache of the given bytes cannot hold even one request, as vLLM would find at its start;
    None when it can, or when that is not known exactly."""
    shape, given = model.shape, wish.given
    if shape is None or not shape.exact or given is None:
        return None
    serving, context = serving_of(model, wish), wish.context or model.context

    def takes(tokens: int) -> int:
        return kvcache.needed(shape, tokens, 1, serving)

    if not context or takes(context) <= given:
        return None
    text = (
        f"One request of {context:,} tokens needs {-(-takes(context) // MIB):,} MiB of KV cache, "
        f"and {given // MIB:,} MiB is what it has. Set `kv_cache: {-(-takes(context) // MIB)}MiB`"
    )
    longest = _largest(context, lambda tokens: takes(tokens) <= given)
    return f"{text}, or `max-model-len: {longest}` under `args`." if longest else f"{text}."


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


def _cache(found: Need, room: Room, least: int = MIB) -> int:
    """The bytes that would fit instead of those that were given, in whole MiB; 0 where even
    `least` does not."""
    if found.kind != room.kind or found.devices > room.count:
        return 0
    ranks = found.per_device // found.each  # more than one only where they share a CPU
    left = (room.free // ranks - (found.each - found.cache)) // MIB * MIB
    return left if max(least, 1) <= left < found.cache else 0


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
    if _holds(room, replace(need(model, wish), weights=share_of(small, model.whole, wish.ranks))):
        yield "an edition of the weights in 4 bits (AWQ, GPTQ)"


def _elsewhere(model: Model, wish: Wish, room: Room, others: Iterable[Room]) -> Iterator[str]:
    """On more devices of this kind, or on others: the fewest that hold it."""
    for other in (room, *others):
        counts = [n for n in (1, 2, 4, 8, 16) if n <= other.count and not model.heads % n]
        if other.kind == "cpu":
            counts = [1]
        for ranks in counts:
            if other == room and ranks <= wish.ranks * wish.stages:
                continue
            try:
                found = need(model, replace(wish, kind=other.kind, ranks=ranks, stages=1))
            except EngineError:
                break  # its quantization is not for that kind
            if _holds(other, found):
                several = f"{ranks} devices" if ranks > 1 else "a device"
                where = "the CPU" if other.kind == "cpu" else f"{several} of {gib(other.free)}"
                yield where
                break
