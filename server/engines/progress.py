"""What vLLM's log says of how far a start has come. Pure.

Written against the lines of vLLM 0.32; a line that is not known changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """`rank` grows during a start, so that late lines of one process do not move it back."""

    rank: int
    text: str


SPAWNED = Stage(0, "starting the process")

#: (pattern, rank, text); `{}` takes the pattern's groups.
_STAGES: tuple[tuple[re.Pattern[str], int, str], ...] = tuple(
    (re.compile(pattern), rank, text)
    for pattern, rank, text in (
        (r"non-default args:|vLLM API server version", 1, "reading the model's config"),
        (r"Resolved architecture: (\w+)", 2, "importing ({})"),
        (r"Fetching \d+ files: +(\d+)%", 3, "downloading weights ({}%)"),
        (r"\.safetensors: +(\d+)%\|", 3, "downloading weights ({}%)"),
        (r"Initializing a V1 LLM engine", 4, "starting the engine core"),
        (r"Starting to load model", 5, "loading weights"),
        (r"Loading \w+ checkpoint shards: +(\d+)% Completed", 5, "loading weights ({}%)"),
        (r"Loading weights took|Model loading took", 6, "weights loaded"),
        (r"Starting torch\.compile|Dynamo bytecode transform", 7, "compiling"),
        (r"Warming up model for the compilation", 7, "compiling"),
        (r"torch\.compile took|Warming up done", 8, "compiled"),
        (r"Capturing CUDA graphs.*?(\d+)%", 10, "capturing CUDA graphs ({}%)"),
        (r"GiB for KV cache|Available KV cache memory|KV cache size:", 9, "preparing the KV cache"),
        (r"init engine \(profile", 11, "engine core is up"),
        (r"Starting vLLM (?:API )?server", 12, "starting the server"),
        (r"Application startup complete", 13, "ready"),
    )
)


def advance(stage: Stage, line: str) -> Stage:
    """The stage after `line`; the same object when it tells nothing new."""
    for pattern, rank, text in _STAGES:
        if rank >= stage.rank and (match := pattern.search(line)):
            new = Stage(rank, text.format(*match.groups()))
            return stage if new == stage else new
    return stage
