"""What a wish takes, and what is said where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.devices import GIB
from server.engines.model import Model, describe
from server.engines.needs import Need, Wish, asleep, batch_of, need
from server.engines.rooms import Room, TooBig, fit
from server.errors import EngineError
from tests.engines import model_configs as known
from tests.engines.model_configs import tensor

LLAMA = describe(known.dense(known.LLAMA), known.LLAMA)
OSS = describe(known.gpt_oss(), known.GPT_OSS)
DEEPSEEK = describe(known.deepseek(), known.DEEPSEEK)
SMALL = {**known.LLAMA, "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512}


def model(told: dict[str, Any] | None, *tensors: Any, **changes: Any) -> Model:
    extra = {} if told is None else {"quantization_config": told}
    return describe(tensors, {**SMALL, **extra, **changes})


def too_big(found: Need | TooBig) -> TooBig:
    assert isinstance(found, TooBig)
    return found


# --- needs --------------------------------------------------------------------------------------


def test_a_need_adds_up() -> None:
    found = need(LLAMA, Wish(context=8192, concurrency=4))
    assert found.weights == LLAMA.loaded == 16060522496
    # Four times 512 blocks of 16 tokens, and the one that the pool keeps back; whole MiB.
    assert found.cache == (4 * 512 + 1) * 16 * 131072
    assert found.kv_cache_memory_bytes == found.cache
    assert found.per_device == found.weights + found.cache + found.computing + found.runtime
    assert found.exact
    assert 20 * GIB < found.per_device < 22 * GIB


def test_without_a_context_it_reads_all_it_can() -> None:
    assert need(LLAMA, Wish()) == need(LLAMA, Wish(context=131072))


def test_an_encoder_keeps_nothing() -> None:
    found = need(model(None, model_type="bert"), Wish(context=512))
    assert found.cache == 0
    assert found.kv_cache_memory_bytes is None


def test_what_cannot_be_counted_is_said() -> None:
    found = need(describe([], {"model_type": "strange"}), Wish(context=512))
    assert not found.exact


def test_several_devices_share_it() -> None:
    one, four = (need(LLAMA, Wish(context=8192, ranks=ranks)) for ranks in (1, 4))
    assert one.weights / 4 < four.weights < one.weights / 4 * 1.04
    assert four.cache < one.cache / 3.9
    assert (four.devices, four.ranks) == (4, 4)
    assert four.runtime > one.runtime  # buffers to talk to each other
    assert four.host > one.host


def test_ranks_on_a_cpu_share_one_memory() -> None:
    one, two = (need(LLAMA, Wish(context=2048, kind="cpu", ranks=ranks)) for ranks in (1, 2))
    assert two.devices == 1
    assert two.per_device == 2 * two.each
    assert two.per_device > one.per_device


def test_weights_that_are_quantized_while_they_load() -> None:
    plain, eight = (need(LLAMA, Wish(quantization=name)) for name in (None, "fp8"))
    tables = 2 * 2 * 128256 * 4096
    norms = 2 * 65 * 4096
    assert eight.weights == tables + norms + LLAMA.linear // 2
    assert plain.cache == eight.cache
    four = need(LLAMA, Wish(quantization="nvfp4_per_token"))
    assert four.weights < eight.weights


def test_a_cache_of_fp8() -> None:
    plain, eight = (need(LLAMA, Wish(context=4096, cache=name)) for name in ("auto", "fp8"))
    assert plain.cache == 2 * eight.cache


def test_asleep_the_weights_are_with_the_host() -> None:
    found = need(LLAMA, Wish(context=4096, ranks=2))
    device, host = asleep(found)
    assert device == found.runtime
    assert host == found.host + 2 * found.weights


def test_eager_spares_the_graphs() -> None:
    assert need(LLAMA, Wish(eager=True)).runtime < need(LLAMA, Wish()).runtime


@pytest.mark.parametrize(
    ("kind", "total", "ranks", "tokens"),
    [("cpu", 64, 2, 4096), ("cuda", 24, 1, 2048), ("cuda", 141, 1, 8192), ("cuda", 192, 4, 16384)],
)
def test_tokens_of_one_step(kind: Any, total: int, ranks: int, tokens: int) -> None:
    assert batch_of(kind, total * GIB, ranks) == tokens


# --- quantization -------------------------------------------------------------------------------

PACKED = [
    # A matrix of 256 × 64, as each keeps it.
    ({"quant_method": "awq", "bits": 4},
     [("qweight", "I32", 256, 8), ("qzeros", "I32", 2, 8), ("scales", "F16", 2, 64)]),
    ({"quant_method": "gptq", "bits": 8},
     [("qweight", "I32", 64, 64), ("qzeros", "I32", 2, 16), ("scales", "F16", 2, 64),
      ("g_idx", "I32", 256)]),
    ({"quant_method": "fp8"}, [("weight", "F8_E4M3", 64, 256), ("weight_scale_inv", "F32", 1, 2)]),
    ({"quant_method": "compressed-tensors",
      "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
     [("weight_packed", "I32", 64, 32), ("weight_scale", "BF16", 64, 2),
      ("weight_shape", "I64", 2), ("weight_zero_point", "I32", 8, 2)]),
    ({"quant_method": "compressed-tensors",
      "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}},
     [("weight", "F8_E4M3", 64, 256), ("weight_scale", "BF16", 64, 1), ("input_scale", "F32", 1)]),
    ({"quant_method": "compressed_tensors",
      "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float"}}}},
     [("weight_packed", "U8", 64, 128), ("weight_scale", "F8_E4M3", 64, 16),
      ("weight_global_scale", "F32", 1)]),
    ({"quant_method": "mxfp4"}, [("up_blocks", "U8", 64, 8, 16), ("up_scales", "U8", 64, 8)]),
    ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
     [("weight", "U8", 64, 128), ("weight_scale", "F8_E4M3", 64, 16),
      ("weight_scale_2", "F32", 1)]),
    (None, [("weight", "BF16", 64, 256)]),
]  # fmt: skip


@pytest.mark.parametrize(("told", "parts"), PACKED)
def test_parameters_behind_packed_tensors(told: dict[str, Any] | None, parts: Any) -> None:
    made = [tensor(f"model.layers.0.mlp.up_proj.{name}", *rest) for name, *rest in parts]
    found = model(told, *made)
    assert found.parameters == 64 * 256
    assert found.quantization.problem is None
    assert found.loaded == sum(one.size for one in made)


def test_scales_stay_as_they_are() -> None:
    scales = tensor("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", 4, 4)
    assert model({"quant_method": "fp8"}, scales).loaded == 64
    assert model({"quant_method": "fp8"}, tensor("model.norm.weight", "F32", 16)).loaded == 32


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "vllm-bnb-plugin"),
        ({"quant_method": "GGUF"}, "vllm-gguf-plugin"),
        ({"quant_method": "aqlm"}, "does not know"),
        ({"something": 1}, "does not know"),
    ],
)
def test_quantizations_that_cannot_be_served(told: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        need(model(told), Wish(context=64))
    assert caught.value.reason == "weights"


@pytest.mark.parametrize(("bits", "expected"), [(4, 4), (8, 8), ("4", 4), (None, 4), (99, 4)])
def test_bits_that_are_said_and_not(bits: Any, expected: int) -> None:
    assert model({"quant_method": "gptq", "bits": bits}).quantization.bits == expected


@pytest.mark.parametrize(
    ("told", "said", "words"),
    [
        ("float16", "auto", "float16"), ("float32", "auto", "bfloat16"),
        (None, "auto", "float16"), ("bfloat16", "float32", "float32"),
        ("torch.bfloat16", "auto", "bfloat16"), ("int8", "auto", "float16"),
    ],
)  # fmt: skip
def test_the_numbers_it_is_served_in(told: str | None, said: str, words: str) -> None:
    made = [tensor("a", "F16", 8, 8), tensor("b", "F32", 2)]
    assert describe(made, {**SMALL, "torch_dtype": told}, dtype=said).dtype == words
    assert describe([], {**SMALL, "torch_dtype": None}).dtype == "bfloat16"


# --- wishes that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wish", "words"),
    [
        (LLAMA, Wish(context=200_000), "reads 131,072 tokens"),
        (LLAMA, Wish(ranks=3), "32 attention heads"),
        (LLAMA, Wish(cache="fp7"), "not known. Use one of auto"),
        (LLAMA, Wish(quantization="awq"), "not for weights that come in 16 bits"),
        (LLAMA, Wish(quantization="fp8", kind="cpu"), "on a CPU"),
        (OSS, Wish(quantization="fp8"), "come as mxfp4"),
    ],
)
def test_wishes_that_make_no_sense(found: Model, wish: Wish, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        need(found, wish)
    assert (caught.value.reason, caught.value.terminal) == ("arguments", True)


@pytest.mark.parametrize("changes", [{"concurrency": 0}, {"ranks": 0}, {"context": -1}])
def test_numbers_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Wish"):
        need(LLAMA, replace(Wish(), **changes))


@pytest.mark.parametrize("name", ["gpt_oss_mxfp4", "mxfp4"])
def test_the_method_that_it_has_may_be_named(name: str) -> None:
    assert need(OSS, Wish(quantization=name)) == need(OSS, Wish())


# --- too big ------------------------------------------------------------------------------------


def test_it_fits() -> None:
    wish = Wish(context=8192, concurrency=4)
    assert fit(LLAMA, wish, Room("cuda", 24 * GIB)) == need(LLAMA, wish)


def test_what_would_fit() -> None:
    wish = Wish(context=8192, concurrency=8)
    room = Room("cuda", 20 * GIB, 2)
    found = too_big(fit(LLAMA, wish, room, [Room("cuda", 80 * GIB), Room("cpu", 64 * GIB)]))
    assert found.lacking == found.need.per_device - 20 * GIB
    assert found.settings == (
        "`quantization: fp8`",
        "an edition of the weights in 4 bits (AWQ, GPTQ)",
    )
    assert found.elsewhere == ("2 devices of 20.0 GiB", "a device of 80.0 GiB", "the CPU")
    said = str(found)
    assert "24.8 GiB on each device" in said
    assert "4.8 GiB too little" in said
    assert f"`max-model-len: {found.context}`, or {found.concurrency} of such requests" in said
    error = found.error()
    assert (error.reason, error.terminal, error.message) == ("memory", True, f"It {said}")


def test_an_fp8_cache_is_told_where_it_helps() -> None:
    found = too_big(fit(LLAMA, Wish(context=65536, concurrency=1), Room("cuda", 22 * GIB)))
    assert "`kv-cache-dtype: fp8`" in found.settings


def test_nothing_would_fit() -> None:
    found = too_big(fit(DEEPSEEK, Wish(context=4096), Room("cuda", 80 * GIB, 2)))
    assert (found.context, found.concurrency, found.settings, found.elsewhere) == (0, 0, (), ())
    assert "use a smaller model" in str(found)
    eight = Room("cuda", 141 * GIB, 8)
    assert too_big(fit(DEEPSEEK, Wish(context=4096), eight)).elsewhere == (
        "8 devices of 141.0 GiB",
    )


def test_more_devices_than_there_are() -> None:
    found = too_big(fit(LLAMA, Wish(context=4096, ranks=4), Room("cuda", 80 * GIB, 2)))
    assert "4 devices, of which there are 2" in str(found)
    assert found.lacking == 0
    assert found.elsewhere == ()


def test_a_quantization_that_another_device_does_not_have() -> None:
    wish = Wish(context=4096, quantization="fp8")
    found = too_big(fit(LLAMA, wish, Room("cuda", 8 * GIB), [Room("cpu", 64 * GIB)]))
    assert found.elsewhere == ()


def test_a_cpu_that_is_too_small() -> None:
    wish = Wish(context=4096, kind="cpu")
    found = too_big(fit(LLAMA, wish, Room("cpu", 18 * GIB), [Room("cuda", 80 * GIB)]))
    assert "of memory" in str(found)
    assert found.settings == ("an edition of the weights in 4 bits (AWQ, GPTQ)",)
    assert found.elsewhere == ("a device of 80.0 GiB",)


@given(
    st.sampled_from([LLAMA, OSS, DEEPSEEK]),
    st.integers(1, 131072),
    st.integers(1, 64),
    st.integers(1, 200),
    st.sampled_from([1, 2, 8]),
)
def test_what_is_said_to_fit_does_and_no_more(
    found: Model, context: int, concurrency: int, free: int, ranks: int
) -> None:
    wish = Wish(context=context, concurrency=concurrency, ranks=ranks)
    room = Room("cuda", free * GIB, 8)
    answer = fit(found, wish, room)
    if isinstance(answer, Need):
        assert answer.per_device <= room.free
        return
    assert answer.lacking > 0
    if answer.context:
        assert isinstance(fit(found, replace(wish, context=answer.context), room), Need)
        assert answer.context < context
    if answer.concurrency:
        assert isinstance(fit(found, replace(wish, concurrency=answer.concurrency), room), Need)
        more = replace(wish, concurrency=answer.concurrency + 1)
        assert isinstance(fit(found, more, room), TooBig)


@given(st.integers(1, 100_000), st.integers(1, 64), st.integers(1, 1000))
def test_more_never_takes_less(context: int, concurrency: int, step: int) -> None:
    for found in (LLAMA, OSS, DEEPSEEK):
        base = need(found, Wish(context=context, concurrency=concurrency))
        longer = need(found, Wish(context=context + step, concurrency=concurrency))
        wider = need(found, Wish(context=context, concurrency=concurrency + step))
        assert base.per_device <= min(longer.per_device, wider.per_device)
