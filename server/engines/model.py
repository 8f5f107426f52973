"""What is known of a model from its own folder: parameters, bytes, quantization, what it keeps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.engines.kvcache import Shape, shape_of, text_config, whole
from server.engines.safetensors import Tensor, read_folder, read_json

MAX_CONFIG: Final = 8 * 2**20

_FLOATS: Final = {"F64", "F32", "F16", "BF16"}
_DTYPES: Final = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float32"}
DTYPE_BYTES: Final = {"float16": 2, "bfloat16": 2, "float32": 4}
#: What lies beside quantized weights; no parameters of the model.
_BESIDE: Final = re.compile(
    r"(scales?|scale_inv|_scale_\w+|zeros|zero_point|g_idx|weight_shape|_amax|absmax|quant_map)$"
)
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")
#: Linear layers are what vLLM quantizes while it loads (`OnlineQuantizationConfig`): no tables of
#: words, and no head, which is one (`ParallelLMHead`).
_TABLE: Final = re.compile(r"(embed|wte|wpe|lm_head|word_embeddings|shared\.weight)")

#: Where a length may stand; the smallest counts (`derive_max_model_len_and_key`).
_CONTEXTS: Final = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
    "max_target_positions", "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
#: Of these the length stands scaled already.
_SCALED: Final = frozenset("su longrope llama3 yarn deepseek_yarn deepseek_llama_scaling".split())

#: Methods of checkpoints → bits of a weight, as vLLM 0.32 knows them. None: its config says it.
_METHODS: Final[Mapping[str, float | None]] = {
    "awq": None, "gptq": None, "auto-round": None, "inc": None, "compressed-tensors": None,
    "fp8": 8.0, "fbgemm_fp8": 8.0, "deepseek_v4_fp8": 8.0, "modelopt": 8.0, "modelopt_fp4": 4.0,
    "modelopt_mxfp8": 8.0, "mxfp4": 4.0, "quark": 8.0, "torchao": 8.0, "experts_int8": 8.0,
}  # fmt: skip
#: These left vLLM's core in 0.28.
PLUGINS: Final = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}

#: `quantization:` for weights that come in 16 bits → bytes that a weight then takes
#: (`_ONLINE_SHORTHANDS` of vllm/config/quantization.py; scales per block counted).
ONLINE: Final = {
    "fp8": 1.0, "fp8_per_tensor": 1.0, "fp8_per_channel": 1.0, "fp8_per_block": 1.001,
    "int8_per_channel_weight_only": 1.0, "mxfp8": 1.03125, "nvfp4_per_token": 0.5625,
}  # fmt: skip


def known(quantization: str) -> bool:
    """Is it a method that can be counted? Kernels for a method are named after it."""
    bare = quantization.removeprefix("auto_").removeprefix("gpt_oss_").removesuffix("_marlin")
    return quantization in ONLINE or bare in _METHODS


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a checkpoint's weights are kept. `problem`: why vLLM would not load it, for people."""

    method: str = "none"
    bits: float = 16.0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """`by_dtype`: bytes in the files, by the format's names. `loaded`: bytes once they are loaded
    at `dtype`, of which `linear` are matrices that can be quantized while loading, and `whole`
    small tensors that each rank holds. `context`: what it reads unless `max-model-len` says so, 0
    when unknown; `limit`: the most that may say."""

    parameters: int
    by_dtype: Mapping[str, int]
    loaded: int
    linear: int
    whole: int
    quantization: Quantization
    dtype: str
    shape: Shape | None
    context: int = 0
    limit: int = 0
    heads: int = 0
    hidden: int = 0
    inner: int = 0
    vocabulary: int = 0
    text: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def read_model(folder: Path, *, dtype: str = "auto") -> Model:
    """From a local folder; reads headers and config.json only. Blocks for some milliseconds.

    Raises EngineError (`weights`, terminal).
    """
    return describe(read_folder(folder), read_json(folder / "config.json", MAX_CONFIG), dtype=dtype)


def describe(tensors: Iterable[Tensor], config: Mapping[str, Any], *, dtype: str = "auto") -> Model:
    """The same from what was read. `dtype` is the engine's setting."""
    text = text_config(config)
    kept = [tensor for tensor in tensors if _is_loaded(tensor.name, text)]
    stored: Counter[str] = Counter()
    for tensor in kept:
        stored[tensor.dtype] += tensor.size
    served = _served(dtype, config, stored)
    quantization = _quantization(config)
    parameters = loaded = linear = single = 0
    for tensor in kept:
        beside = _BESIDE.search(tensor.name) is not None
        parameters += 0 if beside else int(tensor.elements * _packed(tensor, quantization))
        size = tensor.size
        if tensor.dtype in _FLOATS and not beside:
            size = tensor.elements * DTYPE_BYTES[served]
            if len(tensor.shape) > 1 and not _TABLE.search(tensor.name):
                linear += size
        loaded += size
        if len(tensor.shape) < 2:
            single += size
    context, limit = _context(text)
    return Model(
        parameters=parameters,
        by_dtype=dict(sorted(stored.items())),
        loaded=loaded,
        linear=linear,
        whole=single,
        quantization=quantization,
        dtype=served,
        shape=shape_of(config, dtype=served),
        context=context,
        limit=limit,
        heads=whole(text, "num_attention_heads", "n_head", "n_heads"),
        hidden=whole(text, "hidden_size", "n_embd", "d_model"),
        inner=whole(text, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
        vocabulary=whole(text, "vocab_size"),
        text=text,
    )


def _is_loaded(name: str, text: Mapping[str, Any]) -> bool:
    """Does vLLM load it? Not the layers behind the last, which guess tokens ahead (`mtp`), nor a
    head that is the table of words once more."""
    if name.endswith("rotary_emb.inv_freq") or name.startswith("mtp."):
        return False
    if text.get("tie_word_embeddings") is True and name.endswith("lm_head.weight"):
        return False
    layers = whole(text, "num_hidden_layers")
    found = _LAYER.search(name)
    ahead = whole(text, "num_nextn_predict_layers")
    return not (ahead and layers and found and len(found[1]) < 9 and int(found[1]) >= layers)


def _served(dtype: str, config: Mapping[str, Any], stored: Mapping[str, int]) -> str:
    """`_get_and_verify_dtype`: what the config says, float32 as bfloat16, unless it was asked."""
    if dtype in DTYPE_BYTES:
        return dtype
    for part in (config, text_config(config)):
        for key in ("dtype", "torch_dtype"):
            said = str(part.get(key) or "").removeprefix("torch.")
            if said in DTYPE_BYTES:
                return "bfloat16" if said == "float32" else said
    floats = {name: size for name, size in stored.items() if name in _DTYPES}
    if not floats:
        return "bfloat16"
    most = _DTYPES[max(sorted(floats), key=lambda name: floats[name])]
    return "bfloat16" if most == "float32" else most


def _context(text: Mapping[str, Any]) -> tuple[int, int]:
    """What it reads by itself, and the most it may be told to (`_get_and_verify_max_len`)."""
    said = [size for key in _CONTEXTS if (size := whole(text, key))]
    if not said:
        return 0, 0
    longest = whole(text, "model_max_length") or min(said)
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, dict) or str(text.get("model_type")).startswith("gemma3"):
        return longest, longest
    kinds = [one for one in rope.values() if isinstance(one, dict)] or [rope]
    named = {str(one.get("rope_type") or one.get("type") or "default"): one for one in kinds}
    for kind, one in named.items():
        factor = one.get("factor")
        if kind not in _SCALED and isinstance(factor, int | float) and 1 <= factor <= 1024:
            longest = int(longest * factor)
    context = longest
    if "longrope" in named:  # the short one unless it is asked: short texts read better so
        context = whole(text, "original_max_position_embeddings") or longest
    return context, longest


# --- quantization -------------------------------------------------------------------------------


def _quantization(config: Mapping[str, Any]) -> Quantization:
    """`ModelArchConfigConvertorBase.get_quantization_config`, as far as memory goes."""
    told = _told(config)
    if told is None:
        return Quantization()
    method = str(told.get("quant_method") or "").lower().replace("compressed_tensors",
                                                                 "compressed-tensors")  # fmt: skip
    inner = told.get("quantization")
    algo = inner.get("quant_algo") if isinstance(inner, dict) else told.get("quant_algo")
    if not method and algo is not None:
        method = "modelopt_fp4" if str(algo).upper() == "NVFP4" else "modelopt"
    if method in PLUGINS:
        return Quantization(method, 4.0, f"{method} needs {PLUGINS[method]} beside vLLM.")
    if method not in _METHODS:
        return Quantization(method or "unknown", 16.0, "vLLM does not know this quantization.")
    bits = _METHODS[method]
    if bits is None:
        bits = _bits(told)
    return Quantization(method, bits)


def _told(config: Mapping[str, Any]) -> dict[str, Any] | None:
    for part in (config, text_config(config)):
        for key in ("quantization_config", "compression_config"):
            told = part.get(key)
            if isinstance(told, dict) and told:
                return told
    return None


def _bits(told: Mapping[str, Any]) -> float:
    """From `bits`, or from the first of compressed-tensors' groups. 4 where nothing is said."""
    bits = whole(told, "bits", "w_bit")
    groups = told.get("config_groups")
    if not bits and isinstance(groups, dict):
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, dict) else None
            if isinstance(weights, dict) and (bits := whole(weights, "num_bits")):
                break
    return float(bits) if 1 <= bits <= 16 else 4.0


def _packed(tensor: Tensor, quantization: Quantization) -> float:
    """Weights for each element of a tensor: several of them may lie in one integer."""
    last = tensor.name.rpartition(".")[2]
    if tensor.dtype == "I32" and last in ("qweight", "weight_packed"):
        return 32 / quantization.bits
    half_bytes = last.endswith(("_blocks", "weight_packed")) or (
        quantization.bits == 4 and last == "weight"
    )
    return 2.0 if tensor.dtype == "U8" and half_bytes else 1.0
