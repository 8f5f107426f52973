"""How many bytes of KV cache a model takes, from its config.json. Pure.

The sizes are vLLM's own: one page is `AttentionSpec.page_size_bytes` (v1/kv_cache_interface.py),
a request takes `max_memory_usage_bytes` of each group, and groups of layers share one pool as in
`_get_kv_cache_groups_uniform_page_size` (v1/core/kv_cache_utils.py). Checked with vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal

Kind = Literal["full", "sliding", "state"]

#: Bits per number of the cache. The per-head kinds bring a scale of four bytes for each vector,
#: NVFP4 one of a byte for 16 numbers (`AttentionSpec`, `nvfp4_kv_cache_full_dim`).
_CACHE_BITS: Final = {
    "float16": 16.0, "bfloat16": 16.0,
    "fp8": 8.0, "fp8_e4m3": 8.0, "fp8_e5m2": 8.0, "fp8_inc": 8.0,
    "int8_per_token_head": 8.0, "fp8_per_token_head": 8.0, "int4_per_token_head": 4.0,
    "nvfp4": 4.5, "nvfp4_4over6": 4.5,
}  # fmt: skip
#: One token of a layout that packs all of it (`MLAAttention.get_kv_cache_spec`).
_PACKED: Final = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
CACHE_DTYPES: Final = ("auto", *_CACHE_BITS, *_PACKED)

#: `ModelArchConfigConvertorBase.is_deepseek_mla`: of these, the ones with a `kv_lora_rank`.
_MLA: Final = frozenset(
    "axk1 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 deepseek_v41 dots3_note glm5_next "
    "glm5_next_text glm_moe_dsa glm4_moe_lite kimi_k2 kimi_linear longcat_flash pangu_ultra_moe "
    "bailing_hybrid hy_v4".split()
)
#: They read a text whole and keep nothing of it.
_ENCODERS: Final = frozenset(
    "albert bert camembert deberta deberta-v2 distilbert electra ernie gte modernbert mpnet "
    "nomic_bert new roberta xlm-roberta".split()
)
#: What config.json leaves out, since transformers has it as the class's default.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "gemma2": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
               "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                    "sliding_window": 4096, "sliding_window_pattern": 6, "vocab_size": 262208,
                    "max_position_embeddings": 131072},
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "gpt_oss": {"sliding_window": 128, "sliding_window_pattern": 2},
    "mistral": {"num_key_value_heads": 8},
    "qwen3": {"head_dim": 128},
    "deepseek_v3": {"kv_lora_rank": 512, "qk_rope_head_dim": 64},
}  # fmt: skip
#: The layouts of these are not like anything below; what is said is a guess.
_STRANGE: Final = ("compress_ratios", "mamba_d_state", "ssm_state_size", "hybrid_override_pattern",
                   "block_configs", "layers_block_type", "attn_layer_period", "mamba_expand",
                   "linear_attn_config")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that keep alike. `token` is numbers per token and head, keys and values together;
    a `state` layer keeps `state` numbers per request instead, however long it is."""

    kind: Kind
    count: int
    heads: int = 1
    token: int = 0
    window: int = 0
    state: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model keeps. `exact` is False where vLLM does more than is counted here."""

    layers: tuple[Layers, ...]
    mla: bool = False
    #: Bytes per token and layer that a sparse attention's index takes.
    index: int = 0
    default: str = "bfloat16"
    exact: bool = True

    @property
    def empty(self) -> bool:
        return not self.layers


@dataclass(frozen=True, slots=True)
class Serving:
    """How it is served, as far as the cache goes. `batch`: tokens of one step
    (`max-num-batched-tokens`); two steps may be under way (`VllmConfig.max_in_flight_tokens`)."""

    dtype: str = "auto"
    ranks: int = 1
    block: int = 16
    batch: int = 2048


# --- the shape ----------------------------------------------------------------------------------


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the language model, with what transformers would add to it."""
    for name in ("text_config", "llm_config", "language_config", "thinker_config"):
        inner = config.get(name)
        if isinstance(inner, dict) and (whole(inner, *_LAYERS) or "model_type" in inner):
            return text_config(inner)
    return {**_DEFAULTS.get(str(config.get("model_type")), {}), **config}


_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS: Final = ("num_attention_heads", "n_head", "n_heads")
_WIDTH: Final = ("hidden_size", "n_embd", "d_model", "n_embed")


def whole(config: Mapping[str, Any], *names: str) -> int:
    """The first of these that is a sensible whole number; 0 when none is."""
    for name in names:
        value = config.get(name)
        if type(value) is int and 0 < value < 2**40:
            return value
    return 0


def shape_of(config: Mapping[str, Any], *, dtype: str = "bfloat16") -> Shape | None:
    """What the model keeps, from its whole config.json; None when that does not say it."""
    text = text_config(config)
    kind = str(text.get("model_type", ""))
    if kind in _ENCODERS:
        return Shape((), default=dtype)
    count, heads, width = whole(text, *_LAYERS), whole(text, *_HEADS), whole(text, *_WIDTH)
    if not count or count > 4096:
        return None
    default = _own_cache_dtype(config) or dtype
    exact = not any(text.get(name) for name in _STRANGE)
    if kind in _MLA and whole(text, "kv_lora_rank"):
        # One latent vector for keys and values, of all heads: `get_head_size`, `get_num_kv_heads`.
        token = whole(text, "kv_lora_rank") + whole(text, "qk_rope_head_dim")
        index = _index(text)
        full = Layers("full", count, token=token)
        return Shape((full,), mla=True, index=index, default=default, exact=exact)
    size = whole(text, "head_dim", "hidden_size_per_head", "kv_channels")
    if not size and heads:
        size = width // heads
    kept = _kv_heads(text) or heads
    if not size or not kept:
        return None
    layers, known = _by_kind(text, count, kept, size)
    return Shape(layers, default=default, exact=exact and known)


def _kv_heads(text: Mapping[str, Any]) -> int:
    """`ModelArchConfigConvertorBase.get_total_num_kv_heads`; Falcon and StarCoder by their flag."""
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return whole(text, "multi_query_group_num") or 1
    return whole(
        text, "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num",
        "num_attention_groups",
    )  # fmt: skip


def _index(text: Mapping[str, Any]) -> int:
    """`DeepseekV32IndexerCache`: a byte for each number, four for each 128 of them."""
    size = whole(text, "index_head_dim")
    return size + size // 128 * 4 if whole(text, "index_topk") else 0


def _by_kind(
    text: Mapping[str, Any], count: int, heads: int, size: int
) -> tuple[tuple[Layers, ...], bool]:
    """The layers, and whether all kinds of them are known."""
    names = _layer_names(text, count)
    window = whole(text, "sliding_window")
    sliding = sum(name == "sliding_attention" for name in names) if window else 0
    states = sum(name == "linear_attention" for name in names)
    # Local attention in chunks counts as full: vLLM does so unless it is told otherwise
    # (`VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE`).
    full = count - sliding - states
    known = {"full_attention", "chunked_attention", "sliding_attention", "linear_attention"}
    found = []
    if full:
        wide = whole(text, "global_head_dim") if sliding else 0  # Gemma 4
        many = whole(text, "num_global_key_value_heads") if sliding else 0
        found.append(Layers("full", full, many or heads, 2 * (wide or size)))
    if sliding:
        found.append(Layers("sliding", sliding, heads, 2 * size, window=window))
    if states:
        state = _state(text)
        found.append(Layers("state", states, state=state))
        return tuple(found), bool(state) and set(names) <= known
    return tuple(found), set(names) <= known


def _layer_names(text: Mapping[str, Any], count: int) -> list[str]:
    """The kind of each layer, in the words of `layer_types`."""
    names = text.get("layer_types")
    if isinstance(names, list) and len(names) >= count:
        return [str(name) for name in names[:count]]
    if text.get("use_sliding_window") is False or not whole(text, "sliding_window"):
        every = whole(text, "full_attention_interval")
        if every and whole(text, "linear_num_value_heads"):  # Qwen3-Next, Qwen3.5
            return ["full_attention" if (i + 1) % every == 0 else "linear_attention"
                    for i in range(count)]  # fmt: skip
        return ["full_attention"] * count
    pattern = whole(text, "sliding_window_pattern", "_sliding_window_pattern")
    if not pattern:  # `EngineArgs.create_engine_config`: without `layer_types` all layers have it
        return ["sliding_attention"] * count
    return ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention"
            for i in range(count)]  # fmt: skip


def _state(text: Mapping[str, Any]) -> int:
    """`MambaStateShapeCalculator.gated_delta_net_state_shape`, in numbers, over all ranks."""
    keys = whole(text, "linear_num_key_heads") * whole(text, "linear_key_head_dim")
    values = whole(text, "linear_num_value_heads") * whole(text, "linear_value_head_dim")
    kernel = whole(text, "linear_conv_kernel_dim") or 1
    return (2 * keys + values) * (kernel - 1) + values * whole(text, "linear_key_head_dim")


def _own_cache_dtype(config: Mapping[str, Any]) -> str | None:
    """fp8, where the checkpoint brings scales for it (`resolve_kv_cache_dtype_string`)."""
    for part in (config, text_config(config)):
        told = part.get("quantization_config")
        if isinstance(told, dict):
            scheme = told.get("kv_cache_scheme")
            inner = told.get("quantization")
            algo = told.get("kv_cache_quant_algo")
            if algo is None and isinstance(inner, dict):
                algo = inner.get("kv_cache_quant_algo")
            if str(algo).upper() == "FP8":
                return "fp8"
            if isinstance(scheme, dict) and scheme.get("num_bits") == 8:
                return "fp8"
    return None


# --- the bytes ----------------------------------------------------------------------------------


def token_bytes(shape: Shape, layers: Layers, serving: Serving) -> int:
    """Bytes that one token takes in one of these layers, on each rank."""
    dtype = shape.default if serving.dtype == "auto" else serving.dtype
    if dtype in _PACKED:
        return _PACKED[dtype] + shape.index
    # `ModelConfig.get_num_kv_heads`: heads are shared out, and each rank has one at least.
    heads = max(1, layers.heads // serving.ranks)
    each = ceil(layers.token * _CACHE_BITS.get(dtype, 32.0) / 8)
    scales = 8 if dtype.endswith("_per_token_head") else 0
    return heads * (each + scales) + shape.index


def needed(shape: Shape, context: int, concurrency: int, serving: Serving) -> int:
    """Bytes on each rank for so many requests of that length at one time; the least that vLLM
    accepts as `kv-cache-memory-bytes` when the concurrency is 1."""
    if shape.empty:
        return 0
    block = _block(shape, serving)
    pages = {layers: _page(shape, layers, block, serving) for layers in shape.layers}
    if len(shape.layers) == 1:
        groups = [(1, shape.layers[0])]
        wide = shape.layers[0].count
    else:
        # Groups of equally many layers draw blocks of one size from one pool.
        counts = [layers.count for layers in shape.layers]
        wide = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
        groups = [(-(-layers.count // wide), layers) for layers in shape.layers]
    blocks = sum(times * _blocks(layers, context, block, serving.batch) for times, layers in groups)
    # The pool keeps one block back (`BlockPool.null_block`).
    return wide * max(pages.values()) * (blocks * concurrency + 1)


def _block(shape: Shape, serving: Serving) -> int:
    """Tokens of a block. A layer's state is one page, so pages grow until it goes into one
    (`HybridAttentionMambaModelConfig`)."""
    states = [layers.state for layers in shape.layers if layers.kind == "state"]
    rest = [token_bytes(shape, one, serving) for one in shape.layers if one.kind != "state"]
    if not states or not rest:
        return serving.block
    tokens = _state_bytes(max(states), serving) / min(rest)
    return max(serving.block, ceil(tokens / serving.block) * serving.block)


def _page(shape: Shape, layers: Layers, block: int, serving: Serving) -> int:
    if layers.kind == "state":
        return _state_bytes(layers.state, serving)
    return block * token_bytes(shape, layers, serving)


def _state_bytes(numbers: int, serving: Serving) -> int:
    """States are kept in 16 or 32 bits; counted as 32."""
    return ceil(numbers / serving.ranks) * 4


def _blocks(layers: Layers, context: int, block: int, batch: int) -> int:
    """Blocks that one request may hold in one group."""
    if layers.kind == "state":
        return 2  # `MambaSpec.max_memory_usage_bytes`, with prefix caching
    if layers.kind == "sliding":
        # `SlidingWindowSpec.max_admission_blocks_per_request`.
        return -(-min(layers.window - 1 + 2 * batch, context) // block) + 1
    return -(-context // block)
