"""Folders of weights without tensors, for vLLM's `--load-format dummy`: a shape and a tokenizer.

vLLM fills the shape with random numbers, which cost what trained ones cost. The tokenizer and the
chat template are the embedded model's. Random weights say every token of the vocabulary, so the
tokenizer gets a word for each number that it lacks: text comes back for every token, of about the
length that real tokens have, and no merge makes those words, so prompts are read as before.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.stack import ROOT

SOURCE: Final = ROOT / "server" / "embedded" / "guide"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a Llama's config.json differs from shape to shape."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    positions: int
    rope_theta: float


#: `8b` is Llama 3 8B, `135m` SmolLM2 135M with an output layer of its own. `tiny` has as much as
#: a trial on two cores bears, all the rest the same way.
SHAPES: Final = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128_256, 8192, 500_000.0),
    "135m": Shape(576, 1536, 30, 9, 3, 49_152, 8192, 100_000.0),
    "tiny": Shape(256, 512, 2, 8, 4, 8_192, 4096, 10_000.0),
}


def config_json(shape: Shape) -> dict[str, Any]:
    """Keys as Llama 3's own file has them: transformers 4 and 5 both read those."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": 2,
        "head_dim": shape.hidden_size // shape.heads,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }


def parameters(shape: Shape) -> int:
    """How many numbers the shape has."""
    kv = shape.hidden_size // shape.heads * shape.kv_heads
    attention = 2 * shape.hidden_size**2 + 2 * shape.hidden_size * kv
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
    return shape.layers * layer + 2 * shape.vocabulary * shape.hidden_size + shape.hidden_size


def padded(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    """The tokenizer with a token for every number below `size`."""
    vocabulary: dict[str, int] = dict(tokenizer["model"]["vocab"])
    # Those that are only added would be numbered anew, behind a vocabulary that has grown.
    vocabulary |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    free = sorted(set(range(size)) - set(vocabulary.values()))
    if len(vocabulary) + len(free) != size:
        raise ValueError(f"the tokenizer has more than {size} tokens")
    word = 0
    for number in free:
        while (text := _word(word)) in vocabulary:
            word += 1
        vocabulary[text] = number
        word += 1
    return {**tokenizer, "model": {**tokenizer["model"], "vocab": vocabulary}}


def _word(number: int) -> str:
    """A space (as byte-level BPE writes it) and four letters, all different."""
    letters = []
    for _ in range(4):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "\u0120" + "".join(reversed(letters))


def write(shape: Shape, folder: Path) -> None:
    """The folder that `weights` names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(SOURCE / name, folder / name)
    tokenizer = json.loads((SOURCE / "tokenizer.json").read_text(encoding="utf-8"))
    made = {
        "tokenizer.json": padded(tokenizer, shape.vocabulary),
        "config.json": config_json(shape),
        "generation_config.json": {"eos_token_id": 2, "pad_token_id": 0},
    }
    for name, content in made.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
