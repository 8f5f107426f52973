"""What becomes of an engine's config on GPUs: options, the cache, what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines import needs
from server.engines import placement as planned
from server.engines.devices import GIB, UNKNOWN
from server.engines.fitting import Other
from server.engines.model import read_model
from server.engines.needs import CONTEXT, GRAPHS, Wish
from server.engines.placement import Device, Option, Policy, Refuse, Start, World
from server.engines.planner import plan
from server.engines.weights import Weights
from tests.engines import model_configs as known
from tests.engines.fitting_house import (
    HOST,
    MIB,
    folder,
    gpus,
    on_cpu,
    on_cuda,
    only,
    refused,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Llama 3.1 8B: 15 GiB of weights, 16 GiB of cache for a request of full length."""
    made = tmp_path_factory.mktemp("models") / "llama"
    return folder(made, known.LLAMA, known.dense(known.LLAMA))


# --- on GPUs --------------------------------------------------------------------------------------


def test_alone_on_a_gpu_vllm_takes_what_it_takes(llama: Weights) -> None:
    found = on_cuda(llama)
    assert only(found) == Option(
        "cuda", int(0.92 * 80 * GIB), host=4 * GIB, ids=("cuda:0",)
    )  # fmt: skip
    assert (found.kv_cache, found.refusal, found.beside, found.notes) == (None, None, 0, ())
    # Not more than others have left.
    assert only(on_cuda(llama, gpus(80, reserved=20))).each == 60 * GIB


def test_sharing_a_gpu_it_takes_what_four_requests_need(llama: Weights) -> None:
    args = {"max-model-len": 8192}
    found = on_cuda(llama, crowd=[Other("cuda")], args=args)
    counted = needs.need(
        read_model(Path(llama.argument)), Wish(context=8192, concurrency=4, batch=8192)
    )
    assert found.kv_cache == counted.cache == 4098 * MIB
    assert only(found).each == counted.each
    assert found.beside == CONTEXT + GRAPHS
    assert on_cuda(llama, crowd=[Other("cuda", (0,))], args=args) == found
    # As many as fit, where four do not.
    small = on_cuda(llama, gpus(20), crowd=[Other("cuda")], args=args)
    assert small.refusal is None
    assert 3 * GIB <= (small.kv_cache or 0) < 4 * GIB
    one = on_cuda(llama, gpus(80), crowd=[Other("cuda")])
    assert 48 * GIB < (one.kv_cache or 0) < 49 * GIB
    for others in ([Other("cuda", (1,))], [Other("cpu")], []):
        assert on_cuda(llama, crowd=others, device="cuda:0").kv_cache is None


@pytest.mark.parametrize(
    ("config", "each", "cache"),
    [
        ({"args": {"gpu-memory-utilization": 0.5}}, 40.0, None),
        ({"args": {"gpu-memory-utilization": "0.5"}}, 40.0, None),
        ({"memory": "30GiB"}, 30.0, None),
        ({"memory": "30GiB", "kv_cache": "2GiB"}, 30.0, 2.0),
        ({"kv_cache": "2GiB"}, 19.5, 2.0),
        ({"kv_cache": "2GiB", "args": {"gpu-memory-utilization": 0.5}}, 40.0, 2.0),
        ({"concurrency": 2}, 19.5, 2.0),
        ({"concurrency": 2, "args": {"kv-cache-dtype": "fp8"}}, 18.5, 1.0),
        ({"quantization": "fp8", "kv_cache": "2GiB"}, 13.0, 2.0),
        ({"concurrency": 2, "args": {"enforce-eager": True}}, 18.8, 2.0),
    ],
)
@pytest.mark.parametrize("crowd", [[], [Other("cuda")]])
def test_what_the_config_says_of_memory(
    llama: Weights, crowd: list[Other], config: dict[str, Any], each: float, cache: float | None
) -> None:
    args = {"max-model-len": 8192, **config.get("args", {})}
    found = on_cuda(llama, crowd=crowd, **{**config, "args": args})
    assert only(found).each / GIB == pytest.approx(each, abs=0.15)
    assert found.kv_cache is None if cache is None else found.kv_cache is not None
    assert (found.kv_cache or 0) / GIB == pytest.approx(cache or 0, abs=0.01)
    assert found.refusal is None


def test_asleep_its_weights_are_on_the_host(llama: Weights) -> None:
    option = only(on_cuda(llama, sleep=True))
    assert option.asleep is not None
    stays, slept = option.asleep
    assert stays == CONTEXT + GRAPHS
    assert slept == read_model(Path(llama.argument)).loaded
    assert only(on_cuda(llama)).asleep is None
    assert only(on_cpu(sleep=True)).asleep is None


@pytest.mark.parametrize(
    ("config", "count", "ids"),
    [
        ({}, 1, "0123"),
        ({"device": "cuda"}, 1, "0123"),
        ({"device": "cuda:2"}, 1, "2"),
        ({"device": "cuda:1,3"}, 2, "13"),
        ({"args": {"tensor-parallel-size": 2}}, 2, "0123"),
        ({"device": "cuda:0,1,2", "args": {"tensor-parallel-size": 2}}, 2, "012"),
        ({"args": {"pipeline-parallel-size": 2, "tensor-parallel-size": 2}}, 4, "0123"),
        ({"args": {"data-parallel-size": 2}}, 2, "0123"),
        ({"device": "cuda:0,1", "args": {"data-parallel-size": 2}}, 2, "01"),
    ],
)
def test_which_devices(llama: Weights, config: dict[str, Any], count: int, ids: str) -> None:
    option = only(on_cuda(llama, gpus(80, 80, 80, 80), **config))
    assert (option.devices, option.ids) == (count, tuple(f"cuda:{n}" for n in ids))


def test_several_devices_share_what_one_would_hold(llama: Weights) -> None:
    machine, short = gpus(80, 80), {"max-model-len": 4096}
    one, two, stages = (
        only(on_cuda(llama, machine, kv_cache="1GiB", args={**short, **args})).each
        for args in ({}, {"tensor-parallel-size": 2}, {"pipeline-parallel-size": 2})
    )
    assert two < one - 6 * GIB
    assert abs(stages - two) < GIB


def test_devices_of_two_sizes_are_two_options(llama: Weights) -> None:
    args = {"max-model-len": 8192}
    found = on_cuda(llama, gpus(80, 24, 16, 24), args=args)
    assert [(one.ids, one.each) for one in found.options] == [
        (("cuda:1", "cuda:3"), int(0.92 * 24 * GIB)), (("cuda:0",), int(0.92 * 80 * GIB)),
    ]  # fmt: skip
    assert found.refusal is None
    assert found.option(["cuda:3"]) == found.options[0]
    assert found.option(["cuda:0"]) == found.options[1]
    assert found.option(["cuda:2"]) is None
    # The same cache wherever it goes.
    shared = on_cuda(llama, gpus(80, 20), crowd=[Other("cuda")], args=args)
    assert 3 * GIB <= (shared.kv_cache or 0) < 4 * GIB
    small, large = shared.options
    assert small.each <= 20 * GIB
    assert large.each - small.each < 2 * GIB
    # Where no size has enough of them, all that are there.
    both = only(on_cuda(llama, gpus(80, 24), args={**args, "tensor-parallel-size": 2}))
    assert (both.devices, both.each) == (2, int(0.92 * 24 * GIB))


def test_too_big_for_every_gpu(llama: Weights) -> None:
    found = on_cuda(llama, gpus(16, 12), device="cuda:1", args={"max-model-len": 8192})
    assert found.refusal is not None
    assert "12.0 GiB can be had" in found.refusal
    assert "`quantization: fp8`" in found.refusal or "4 bits" in found.refusal
    told = on_cuda(llama, gpus(24), args={"gpu-memory-utilization": 0.5}).refusal
    assert told is not None
    assert "12.0 GiB can be had" in told
    more = on_cuda(llama, gpus(80, 24), device="cuda:1", kv_cache="16.1GiB").refusal
    assert more is not None
    assert "a device of 80.0 GiB" in more
    four = on_cuda(llama, gpus(80), args={"tensor-parallel-size": 4}).refusal
    assert four is not None
    assert "4 devices, of which there are 1" in four


def test_what_vllm_would_refuse_is_refused(llama: Weights) -> None:
    two = gpus(80, 80)
    assert "want 4 devices" in refused(
        "arguments", llama, two, device="cuda:0,1", args={"tensor-parallel-size": 4}
    )
    assert "want 4 devices" in refused("arguments", llama, two, args={"data-parallel-size": 4})
    assert "131,072 tokens" in refused("arguments", llama, two, args={"max-model-len": 200_000})
    assert "not known" in refused("arguments", llama, two, args={"kv-cache-dtype": "fp3"})
    assert "2 GPUs" in refused("environment", llama, two, device="cuda:2")
    assert "vLLM for GPUs only" in refused("environment", llama, two, device="cpu")
    assert "of KV cache" in refused("memory", llama, two, kv_cache="1GiB")


def test_longer_than_the_model_reads_where_it_is_allowed(llama: Weights) -> None:
    long = {"max-model-len": 200_000}
    for found in (
        on_cuda(llama, args=long, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}),
        on_cuda(llama, args={**long, "hf-overrides": "{}"}),
    ):
        assert "131,072 tokens" in found.notes[0]


def test_gpus_without_figures(llama: Weights) -> None:
    machine = (HOST, Device("cuda:0", "cuda", UNKNOWN, sleeps=True))
    alone, beside = on_cuda(llama, machine), on_cuda(llama, machine, [Other("cuda")])
    assert alone.kv_cache is None
    assert 15 * GIB < only(alone).each < 40 * GIB
    assert (beside.kv_cache or 0) > 60 * GIB
    assert "not known" in alone.notes[0]


def test_the_hosts_memory_alone_refuses_nobody(llama: Weights) -> None:
    machine = (replace(HOST, total=2 * GIB), *gpus(80)[1:])
    assert only(on_cuda(llama, machine)).host == 2 * GIB


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(4, 200),
    reserved=st.integers(0, 60),
    count=st.sampled_from([1, 2, 4]),
    crowded=st.booleans(),
    concurrency=st.none() | st.integers(1, 64),
    context=st.sampled_from([256, 8192, 131072]),
    told=st.none() | st.sampled_from([0.1, 0.5, 0.92]),
)
def test_what_is_not_refused_fits(
    llama: Weights, total: int, reserved: int, count: int, crowded: bool, concurrency: int | None,
    context: int, told: float | None,
) -> None:  # fmt: skip
    """Whatever the config: what is refused here is refused by the planner, and what is not is
    started, with room for a request at least."""
    args: dict[str, Any] = {"max-model-len": context, "tensor-parallel-size": count}
    if told is not None:
        args["gpu-memory-utilization"] = told
    machine = gpus(*[total] * count, reserved=min(reserved, total))
    crowd = [Other("cuda")] if crowded else []
    found = on_cuda(llama, machine, crowd, concurrency=concurrency, args=args)
    engine = planned.Engine("x", found.options, refusal=found.refusal)
    world = World(machine, {"x": engine}, wishes=(planned.Wish("x", 0),), policy=Policy(host="cpu"))
    (action,) = plan(world, 0).actions
    if found.refusal is not None:
        assert action == Refuse("x", found.refusal)
        return
    option = only(found)
    assert isinstance(action, Start)
    assert (action.option, len(action.devices)) == (option, count)
    least = needs.need(
        read_model(Path(llama.argument)),
        Wish(context=context, ranks=count, batch=needs.batch_of("cuda", total * GIB, count)),
    )
    assert least.each <= option.each


def test_a_share_that_others_have_taken(llama: Weights) -> None:
    args = {"max-model-len": 8192, "gpu-memory-utilization": 0.9}
    said = on_cuda(llama, gpus(80, reserved=20), args=args).refusal or ""
    assert said.startswith("It takes 72.0 GiB, by its `gpu-memory-utilization`, and 60.0 GiB can")
    # With bytes for the cache the share is only what has to be free at the start.
    small = {**args, "gpu-memory-utilization": 0.1}
    assert on_cuda(llama, kv_cache="2GiB", args=small).refusal is None
    assert on_cuda(llama, args=small).refusal is not None
