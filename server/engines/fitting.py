"""From an engine's config to the ways in which the planner may place it."""

from __future__ import annotations

from dataclasses import dataclass

from server.engines import placement
from server.engines.runtimes import EnginePython
from server.engines.weights import Weights


@dataclass(frozen=True, slots=True)
class Fitted:
    """What an engine needs. `options`, the best first, are for the planner; `kv_cache` is what each
    rank's cache gets (None: vLLM takes what is left). `refusal`: why it can never fit, for people.
    `notes`: what was guessed instead of counted. No `weights`, no `python`: a runtime without."""

    options: tuple[placement.Option, ...] = ()
    kv_cache: int | None = None
    weights: Weights | None = None
    python: EnginePython | None = None
    refusal: str | None = None
    notes: tuple[str, ...] = ()
