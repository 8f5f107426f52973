"""config.json of well-known models: what of it matters here, as their makers published it; and the
tensors that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.engines.safetensors import BITS, Tensor

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip
QWEN = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": False, "sliding_window": None,
    "use_sliding_window": False, "max_window_layers": 36,
}  # fmt: skip
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "torch_dtype": "bfloat16",
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 32768,
    "max_position_embeddings": 32768, "tie_word_embeddings": False, "sliding_window": None,
}  # fmt: skip
MISTRAL_OLD = {**MISTRAL, "sliding_window": 4096, "vocab_size": 32000}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "torch_dtype": "bfloat16", "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "first_k_dense_replace": 3, "num_nextn_predict_layers": 1, "vocab_size": 129280,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "max_position_embeddings": 163840, "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
}  # fmt: skip
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
    "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
    "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 32, "vocab_size": 201088,
    "sliding_window": 128, "max_position_embeddings": 131072, "tie_word_embeddings": False,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}  # fmt: skip
GEMMA = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "hidden_size": 5376,
        "intermediate_size": 21504, "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model", "num_hidden_layers": 27},
}  # fmt: skip
#: The 4b edition leaves out what its class has as defaults.
GEMMA_4B = {
    "model_type": "gemma3", "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560,
        "intermediate_size": 10240, "sliding_window": 1024,
    },
}  # fmt: skip
QWEN_NEXT = {
    "model_type": "qwen3_next", "torch_dtype": "bfloat16", "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "hidden_size": 2048,
    "full_attention_interval": 4, "linear_num_value_heads": 32, "linear_num_key_heads": 16,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 262144, "vocab_size": 151936,
}  # fmt: skip


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    made = Tensor(name, dtype, shape, 0)
    return Tensor(name, dtype, shape, made.elements * BITS[dtype] // 8)


def dense(config: dict[str, Any], *, normed: bool = False) -> Iterator[Tensor]:
    """A Llama, a Mistral or a Qwen3 (`normed`: queries and keys), in 16 bits."""
    wide, inner = config["hidden_size"], config["intermediate_size"]
    heads, kept = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim", wide // heads)
    yield tensor("model.embed_tokens.weight", "BF16", config["vocab_size"], wide)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        yield tensor(f"{at}.self_attn.q_proj.weight", "BF16", heads * size, wide)
        yield tensor(f"{at}.self_attn.k_proj.weight", "BF16", kept * size, wide)
        yield tensor(f"{at}.self_attn.v_proj.weight", "BF16", kept * size, wide)
        yield tensor(f"{at}.self_attn.o_proj.weight", "BF16", wide, heads * size)
        for part in ("gate", "up", "down"):
            yield tensor(f"{at}.mlp.{part}_proj.weight", "BF16", inner, wide)
        yield tensor(f"{at}.input_layernorm.weight", "BF16", wide)
        yield tensor(f"{at}.post_attention_layernorm.weight", "BF16", wide)
        if normed:
            yield tensor(f"{at}.self_attn.q_norm.weight", "BF16", size)
            yield tensor(f"{at}.self_attn.k_norm.weight", "BF16", size)
    yield tensor("model.norm.weight", "BF16", wide)
    yield tensor("lm_head.weight", "BF16", config["vocab_size"], wide)


def gpt_oss() -> Iterator[Tensor]:
    """gpt-oss-20b: experts in MXFP4, blocks of 32 weights in 16 bytes with one scale."""
    wide, experts, words = 2880, 32, 201088
    yield tensor("model.embed_tokens.weight", "BF16", words, wide)
    for i in range(24):
        at = f"model.layers.{i}"
        for name, rows, columns in (
            ("q_proj", 4096, wide), ("k_proj", 512, wide), ("v_proj", 512, wide),
            ("o_proj", wide, 4096),
        ):  # fmt: skip
            yield tensor(f"{at}.self_attn.{name}.weight", "BF16", rows, columns)
            yield tensor(f"{at}.self_attn.{name}.bias", "BF16", rows)
        yield tensor(f"{at}.self_attn.sinks", "BF16", 64)
        yield tensor(f"{at}.mlp.router.weight", "BF16", experts, wide)
        yield tensor(f"{at}.mlp.router.bias", "BF16", experts)
        for name, rows in (("gate_up_proj", 2 * wide), ("down_proj", wide)):
            yield tensor(f"{at}.mlp.experts.{name}_blocks", "U8", experts, rows, 90, 16)
            yield tensor(f"{at}.mlp.experts.{name}_scales", "U8", experts, rows, 90)
            yield tensor(f"{at}.mlp.experts.{name}_bias", "BF16", experts, rows)
        yield tensor(f"{at}.input_layernorm.weight", "BF16", wide)
        yield tensor(f"{at}.post_attention_layernorm.weight", "BF16", wide)
    yield tensor("model.norm.weight", "BF16", wide)
    yield tensor("lm_head.weight", "BF16", words, wide)


def deepseek() -> Iterator[Tensor]:
    """DeepSeek-V3: FP8 with a scale for each block of 128 × 128, and one layer more (MTP)."""
    wide = 7168

    def eight(name: str, rows: int, columns: int) -> Iterator[Tensor]:
        yield tensor(f"{name}.weight", "F8_E4M3", rows, columns)
        yield tensor(f"{name}.weight_scale_inv", "F32", -(-rows // 128), -(-columns // 128))

    def mlp(at: str, inner: int) -> Iterator[Tensor]:
        yield from eight(f"{at}.gate_proj", inner, wide)
        yield from eight(f"{at}.up_proj", inner, wide)
        yield from eight(f"{at}.down_proj", wide, inner)

    yield tensor("model.embed_tokens.weight", "BF16", 129280, wide)
    for i in range(62):
        at = f"model.layers.{i}"
        yield from eight(f"{at}.self_attn.q_a_proj", 1536, wide)
        yield from eight(f"{at}.self_attn.q_b_proj", 128 * 192, 1536)
        yield from eight(f"{at}.self_attn.kv_a_proj_with_mqa", 576, wide)
        yield from eight(f"{at}.self_attn.kv_b_proj", 128 * 256, 512)
        yield from eight(f"{at}.self_attn.o_proj", wide, 128 * 128)
        yield tensor(f"{at}.self_attn.q_a_layernorm.weight", "BF16", 1536)
        yield tensor(f"{at}.self_attn.kv_a_layernorm.weight", "BF16", 512)
        yield tensor(f"{at}.input_layernorm.weight", "BF16", wide)
        yield tensor(f"{at}.post_attention_layernorm.weight", "BF16", wide)
        if i < 3:
            yield from mlp(f"{at}.mlp", 18432)
            continue
        yield tensor(f"{at}.mlp.gate.weight", "BF16", 256, wide)
        yield tensor(f"{at}.mlp.gate.e_score_correction_bias", "F32", 256)
        yield from mlp(f"{at}.mlp.shared_experts", 2048)
        for expert in range(256):
            yield from mlp(f"{at}.mlp.experts.{expert}", 2048)
    yield tensor("model.layers.61.eh_proj.weight", "BF16", wide, 2 * wide)
    yield tensor("model.norm.weight", "BF16", wide)
    yield tensor("lm_head.weight", "BF16", 129280, wide)
