"""Well-known models against what is known of them, and against vLLM's own count."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from server.engines import kvcache
from server.engines.kvcache import Serving, Shape, shape_of, token_bytes
from server.engines.model import describe
from server.engines.safetensors import Tensor
from server.registry.catalog import builtin
from tests.engines import model_configs as known

#: Bytes per token of a long conversation, in 16 bits: 2 · layers · heads · head size · 2.
PER_TOKEN = [
    (known.LLAMA, 2 * 32 * 8 * 128 * 2),
    (known.QWEN, 2 * 36 * 8 * 128 * 2),
    (known.MISTRAL, 2 * 32 * 8 * 128 * 2),
    (known.MISTRAL_OLD, 0),  # it sees 4096 tokens, however long it talks
    (known.DEEPSEEK, 61 * (512 + 64) * 2),
    (known.GPT_OSS, 2 * 12 * 8 * 64 * 2),
    (known.GEMMA, 2 * 10 * 16 * 128 * 2),
    (known.GEMMA_4B, 2 * 5 * 4 * 256 * 2),
    (known.QWEN_NEXT, 2 * 12 * 2 * 256 * 2),
]
#: Parameters by the registry's card, bytes by the index of the published weights.
WEIGHTS = [
    (known.LLAMA, known.dense(known.LLAMA), "meta-llama/Llama-3.1-8B-Instruct", 16060522496),
    (known.QWEN, known.dense(known.QWEN, normed=True), "Qwen/Qwen3-8B", 16381470720),
    (known.MISTRAL, known.dense(known.MISTRAL), "mistralai/Mistral-7B-Instruct-v0.3", 14496047104),
    (known.GPT_OSS, known.gpt_oss(), "openai/gpt-oss-20b", 13761264768),
    (known.DEEPSEEK, known.deepseek(), "deepseek-ai/DeepSeek-V3", None),
]


def shape(config: dict[str, Any]) -> Shape:
    found = shape_of(config)
    assert found is not None
    return found


def per_token(shape: Shape, serving: Serving) -> int:
    """Bytes that one more token of a long conversation takes, on each rank."""
    return sum(
        layers.count * token_bytes(shape, layers, serving)
        for layers in shape.layers
        if layers.kind == "full"
    )


@pytest.mark.parametrize(("config", "expected"), PER_TOKEN)
def test_bytes_of_a_token(config: dict[str, Any], expected: int) -> None:
    assert per_token(shape(config), Serving()) == expected
    assert shape(config).exact
    assert per_token(shape(config), Serving(dtype="fp8")) == expected // 2


@pytest.mark.parametrize(
    ("config", "tensors", "card", "size"), WEIGHTS, ids=lambda value: str(value)[:24]
)
def test_weights_and_the_registrys_cards(
    config: dict[str, Any], tensors: Iterable[Tensor], card: str, size: int | None
) -> None:
    model = describe(tensors, config)
    told = builtin()[card].specs.parameters
    assert told is not None
    assert abs(model.parameters - told) <= told * 1e-4
    if size is not None:
        assert model.loaded == sum(model.by_dtype.values()) == size


def test_the_layer_that_guesses_ahead_is_not_loaded() -> None:
    model = describe(known.deepseek(), known.DEEPSEEK)
    assert model.parameters == 671_026_419_200
    ahead = describe(known.deepseek(), {**known.DEEPSEEK, "num_nextn_predict_layers": 0})
    assert 11e9 < ahead.parameters - model.parameters < 12e9


def test_the_cache_of_several_ranks() -> None:
    one, four, sixteen = (
        per_token(shape(known.LLAMA), Serving(ranks=ranks)) for ranks in (1, 4, 16)
    )
    assert (four, sixteen) == (one // 4, one // 8)  # a head at least on each
    latent = [per_token(shape(known.DEEPSEEK), Serving(ranks=ranks)) for ranks in (1, 8)]
    assert latent[0] == latent[1]  # the latent vector is on each rank


def test_layouts_of_the_cache() -> None:
    deepseek = shape(known.DEEPSEEK)
    assert per_token(deepseek, Serving(dtype="fp8_ds_mla")) == 61 * 656
    sparse = shape({**known.DEEPSEEK, "index_topk": 2048, "index_head_dim": 128})
    assert per_token(sparse, Serving(dtype="fp8_ds_mla")) == 61 * (656 + 132)
    llama = shape(known.LLAMA)
    assert per_token(llama, Serving(dtype="int8_per_token_head")) == 32 * 8 * (256 + 8)
    assert per_token(llama, Serving(dtype="nvfp4")) == 32 * 8 * 144


@pytest.mark.parametrize(
    "told",
    [
        {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
        {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"},
        {"producer": {"name": "modelopt"}, "quantization": {"kv_cache_quant_algo": "FP8"}},
    ],
)
def test_a_checkpoint_that_brings_scales_for_its_cache(told: dict[str, Any]) -> None:
    found = shape({**known.LLAMA, "quantization_config": told})
    assert found.default == "fp8"
    assert per_token(found, Serving()) == 65536
    assert per_token(found, Serving(dtype="bfloat16")) == 131072


def test_a_window_bounds_a_long_conversation() -> None:
    old, new = shape(known.MISTRAL_OLD), shape(known.MISTRAL)
    small = Serving(batch=512)
    long = [kvcache.needed(old, context, 1, small) for context in (8192, 32768)]
    assert long[0] == long[1]
    assert kvcache.needed(new, 32768, 1, small) > 4 * long[1]


def test_states_take_the_same_however_long() -> None:
    states = [one for one in shape(known.QWEN_NEXT).layers if one.kind == "state"]
    assert [one.count for one in states] == [36]
    short, long = (
        kvcache.needed(shape(known.QWEN_NEXT), context, 1, Serving()) for context in (4096, 131072)
    )
    assert long - short < 2 * 131072 * per_token(shape(known.QWEN_NEXT), Serving())


@pytest.mark.parametrize(
    ("config", "layers", "heads", "token"),
    [
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768}, 12, 12, 128),
        ({"model_type": "falcon", "num_hidden_layers": 32, "num_attention_heads": 71,
          "hidden_size": 4544, "multi_query": True}, 32, 1, 128),
        ({"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32,
          "hidden_size": 4096, "multi_query_attention": True, "multi_query_group_num": 2,
          "kv_channels": 128}, 28, 2, 256),
        ({"model_type": "x", "thinker_config": {"model_type": "y", "text_config": known.LLAMA}},
         32, 8, 256),
    ],
)  # fmt: skip
def test_other_names_for_the_same(
    config: dict[str, Any], layers: int, heads: int, token: int
) -> None:
    (found,) = shape(config).layers
    assert (found.count, found.heads, found.token) == (layers, heads, token)


def test_what_is_not_known_is_said() -> None:
    assert shape_of({}) is None
    assert shape_of({"num_hidden_layers": 2}) is None
    assert shape_of({**known.LLAMA, "num_hidden_layers": "many"}) is None
    assert shape_of({**known.LLAMA, "num_hidden_layers": 10**9}) is None
    assert shape_of({"model_type": "bert", "num_hidden_layers": 12}) == Shape(())
    assert not shape({**known.LLAMA, "layer_types": ["new_attention"] * 32}).exact
    assert not shape({**known.LLAMA, "ssm_state_size": 128}).exact
    assert shape({**known.LLAMA, "layer_types": ["chunked_attention"] * 32}).exact


#: Layers as vLLM is told of them: kind, how many, heads on a rank, head size, window.
COUNTED: list[tuple[dict[str, Any], list[list[Any]]]] = [
    (known.LLAMA, [["full", 32, 8, 128, 0]]),
    (known.QWEN, [["full", 36, 8, 128, 0]]),
    (known.MISTRAL_OLD, [["sliding", 32, 8, 128, 4096]]),
    (known.DEEPSEEK, [["mla", 61, 1, 576, 0]]),
    (known.GPT_OSS, [["full", 12, 8, 64, 0], ["sliding", 12, 8, 64, 128]]),
    (known.GEMMA, [["full", 10, 16, 128, 0], ["sliding", 52, 16, 128, 1024]]),
    (known.GEMMA_4B, [["full", 5, 4, 256, 0], ["sliding", 29, 4, 256, 1024]]),
]


@pytest.mark.parametrize(
    ("config", "context", "limit"),
    [
        ({}, 0, 0),
        ({"max_position_embeddings": 4096}, 4096, 4096),
        ({"n_positions": 1024, "seq_length": 2048}, 1024, 1024),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072, 131072),
        # Scaled by its factor, or standing scaled already.
        ({"max_position_embeddings": 4096,
          "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"max_position_embeddings": 4096,
          "rope_parameters": {"rope_type": "dynamic", "factor": 2}}, 8192, 8192),
        ({"max_position_embeddings": 131072,
          "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072, 131072),
        ({"max_position_embeddings": 163840,
          "rope_scaling": {"type": "yarn", "factor": 40}}, 163840, 163840),
        ({"max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
          "rope_scaling": {"type": "longrope", "factor": 32.0}}, 4096, 131072),
        ({"max_position_embeddings": 4096, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0},
            "sliding_attention": {"rope_type": "default"}}}, 8192, 8192),
        ({"model_type": "gemma3_text", "max_position_embeddings": 131072,
          "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072, 131072),
        # Strangers write these files.
        ({"max_position_embeddings": -1, "n_positions": "x"}, 0, 0),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 1e30}},
         4096, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": ["linear"]}, 4096, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": None}},
         4096, 4096),
    ],
)  # fmt: skip
def test_how_long_a_model_reads(config: dict[str, Any], context: int, limit: int) -> None:
    found = describe([], {"model_type": "llama", **config})
    assert (found.context, found.limit) == (context, limit)


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_same_as_vllm_counts(repo_root: Path) -> None:
    cases, ours = [], []
    for config, layers in COUNTED:
        for dtype, context, ranks in (
            ("bfloat16", 8192, 1),
            ("fp8", 40000, 1),
            ("bfloat16", 33, 4),
        ):
            shared = [[kind, count, max(1, heads // ranks), *rest]
                      for kind, count, heads, *rest in layers]  # fmt: skip
            cases.append(
                {"layers": shared, "dtype": dtype, "context": context, "block": 16, "batch": 2048}
            )
            ours.append(
                kvcache.needed(shape(config), context, 1, Serving(dtype=dtype, ranks=ranks))
            )
    done = subprocess.run(
        [str(repo_root / ".venv-engine/bin/python"), str(Path(__file__).parent / "vllm_sizes.py")],
        input=json.dumps(cases), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ours
