"""Do the weights fit? A model's need of memory, from its parameters alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.registry.cards import ModelInfo

GIB: Final = 2**30
#: How weights are kept → bytes per parameter, the best first. 4 bits: groups of weights bring a
#: scale each, and embeddings often stay as they were, so it is more than half a byte.
FORMATS: Final = {"bf16": 2.0, "8-bit": 1.05, "4-bit": 0.57}
#: Weights that come in fewer bits already, by what stands in their id.
STORED: Final = {
    "fp8": "8-bit",
    "int8": "8-bit",
    "w8a8": "8-bit",
    "awq": "4-bit",
    "gptq": "4-bit",
    "int4": "4-bit",
    "w4a16": "4-bit",
    "4bit": "4-bit",
    "fp4": "4-bit",
    "mxfp4": "4-bit",
    "nvfp4": "4-bit",
}
#: Architectures whose makers publish the weights so, and not as bf16: OpenAI gives gpt-oss in MXFP4
#: (README of openai/gpt-oss), DeepSeek V3 and R1 in FP8 (README_WEIGHTS.md of DeepSeek-V3).
BORN: Final = {"gpt_oss": "4-bit", "deepseek_v3": "8-bit", "deepseek_v32": "8-bit"}
#: For the cache of one or two conversations, and what computing needs: a share, and a fixed part.
ALLOWANCE: Final = 0.15
FIXED: Final = 1 * GIB


@dataclass(frozen=True, slots=True)
class Fit:
    """`needed`: bytes, the allowance in it."""

    needed: int
    available: int
    format: str

    def __str__(self) -> str:
        of = f"{self.needed / GIB:.1f} of {self.available / GIB:.0f} GiB"
        return f"fits: {of} as {self.format}"


def need(card: ModelInfo, form: str) -> int | None:
    """Bytes that the weights take in a format with the allowance; None: parameters unknown."""
    if card.specs.parameters is None:
        return None
    weights = card.specs.parameters * FORMATS[form]
    return int(weights * (1 + ALLOWANCE)) + FIXED


def stored(card: ModelInfo) -> str:
    """The format that its weights come in."""
    words = card.model_id.lower().replace("_", "-").split("-")
    born = BORN.get(card.specs.architecture or "", next(iter(FORMATS)))
    return next((STORED[word] for word in words if word in STORED), born)


def fit(card: ModelInfo, available: int, *, quantised: bool = True) -> Fit | None:
    """The best format in which it fits; None when it does in none, or has no weights. Without
    `quantised` only the first format counts."""
    if not card.local:
        return None
    formats = list(FORMATS)
    for form in formats[formats.index(stored(card)) :] if quantised else formats[:1]:
        needed = need(card, form)
        if needed is not None and needed <= available:
            return Fit(needed, available, form)
    return None
