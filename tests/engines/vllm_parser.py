"""Run by the engine's Python: vLLM's own parsers for command lines, one on each line of stdin.

``{"argv": [...], "device": "cuda" | "cpu", "ask": "parse" | "config", "values": [...]}`` gets
``{"values": {...}}`` or ``{"error": "..."}``. ``parse`` is what both entries do before they make an
engine; ``config`` goes on until the engine's whole configuration stands, for which no device is
needed: here is a CUDA platform that tells what an H100 would.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import types
from typing import Any

STUBS = ("vllm._C_stable_libtorch", "vllm._moe_C", "vllm._C")


def pretend() -> Any:
    """A platform that can be turned from one kind into the other."""
    for name in STUBS:  # kernels for CUDA, which this build has not
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
    from vllm import platforms
    from vllm.platforms import cpu, cuda, interface

    class Cuda(cuda.NonNvmlCudaPlatform):  # type: ignore[misc]
        get_device_capability = classmethod(
            lambda cls, device_id=0: interface.DeviceCapability(9, 0)
        )
        get_device_total_memory = classmethod(lambda cls, device_id=0: 80 * 2**30)
        get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H100 80GB HBM3")
        is_cumem_allocator_available = classmethod(lambda cls: True)
        device_count = classmethod(lambda cls: 8)

    class Cpu(cpu.CpuPlatform):  # type: ignore[misc]
        pass

    platform = platforms._current_platform = Cuda()

    def turn(device: str) -> None:
        platform.__class__ = Cuda if device == "cuda" else Cpu

    return turn


class Parsers:
    def __init__(self) -> None:
        from vllm.entrypoints.cli import serve
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        self.entry = make_arg_parser(FlexibleArgumentParser())
        self.main = FlexibleArgumentParser()
        commands = self.main.add_subparsers(required=False, dest="subparser")
        for command in serve.cmd_init():
            command.subparser_init(commands).set_defaults(dispatch_function=command.cmd)

    def parse(self, argv: list[str]) -> Any:
        """As the module that is named would."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

        _, dash, module, *line = argv
        assert dash == "-m"
        assert importlib.util.find_spec(module) is not None
        sys.argv = [module, *line]
        args = (self.main if module.endswith("cli.main") else self.entry).parse_args()
        validate_parsed_serve_args(args)
        if getattr(args, "model_tag", None) is not None:
            args.model = args.model_tag
        return args, AsyncEngineArgs.from_cli_args(args)


def answer(parsers: Parsers, case: dict[str, Any]) -> dict[str, Any]:
    args, engine = parsers.parse(case["argv"])
    found: dict[str, Any] = {**vars(args), **vars(engine)}
    if case["ask"] == "config":
        from vllm.usage.usage_lib import UsageContext

        config = engine.create_engine_config(UsageContext.OPENAI_API_SERVER)
        found = {
            "max_model_len": config.model_config.max_model_len,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization,
            "enforce_eager": config.model_config.enforce_eager,
            "enable_sleep_mode": config.model_config.enable_sleep_mode,
            "kv_cache_memory_bytes": config.cache_config.kv_cache_memory_bytes,
            "gpu_memory_utilization": config.cache_config.gpu_memory_utilization,
            "block_size": config.cache_config.block_size,
            "batch": config.scheduler_config.max_num_batched_tokens,
            "world_size": config.parallel_config.world_size,
        }
    return {name: found[name] for name in case["values"]}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to stdout
    turn, parsers = pretend(), Parsers()
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        case, said = json.loads(line), io.StringIO()
        turn(case["device"])
        told: dict[str, Any]
        try:
            with contextlib.redirect_stderr(said):
                told = {"values": answer(parsers, case)}
        except SystemExit as exc:
            told = {"error": f"exit {exc.code}: {said.getvalue()[-2000:]}"}
        except Exception as exc:
            told = {"error": f"{type(exc).__name__}: {exc}"[:2000]}
        print(json.dumps(told, default=str), file=out, flush=True)


if __name__ == "__main__":
    main()
