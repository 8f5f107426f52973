"""One engine's model, as far as its memory goes: what its config wishes, counted or guessed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from server.config.engine import Engine
from server.engines import needs, rooms
from server.engines.arguments import whole_number
from server.engines.devices import GIB
from server.engines.model import PLUGINS, Model, known, read_model
from server.engines.needs import Need, Wish
from server.engines.rooms import Room, TooBig
from server.engines.weights import Weights
from server.errors import EngineError

#: Arguments by which ranks share the cache in ways that are not counted.
_SPLIT: Final = {
    "decode-context-parallel-size", "prefill-context-parallel-size", "pipeline-parallel-size",
}  # fmt: skip
#: What takes memory, too, and is not looked at.
_UNCOUNTED: Final = {
    "speculative-config": "The model that guesses ahead is",
    "enable-lora": "LoRA adapters are",
}


@dataclass
class Subject:
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
            given=self._given(kind),
            stages=times(self.engine, "pipeline-parallel-size"),
        )

    def _given(self, kind: needs.DeviceKind) -> int | None:
        """What vLLM's variable for CPUs says comes before what any flag says."""
        space = whole_number(self.engine.env.get("VLLM_CPU_KVCACHE_SPACE"))
        return space * GIB if space and kind == "cpu" else self.engine.kv_cache

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


def times(engine: Engine, flag: str) -> int:
    """By how many an argument multiplies the devices."""
    return max(1, whole_number(engine.args.get(flag)) or 1)
