from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.engines import devices, nvml
from server.engines.devices import GIB, UNKNOWN, Devices, Others
from server.engines.nvml import Card
from server.engines.placement import Device


def test_probe_finds_something() -> None:
    found = devices.probe()
    assert found.cores
    assert found.memory > 0
    assert found.gpus >= 0


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("0,1,2", 2), ("", 0), ("-1", 0)]
)
def test_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:02").mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus(tmp_path) == count


def test_gpus_by_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = "GPU 0: NVIDIA H200 (UUID: GPU-x)\n  MIG …\nGPU 1: NVIDIA H200 (UUID: GPU-y)\n"

    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, told, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert devices.gpus(tmp_path / "none") == 2

    def none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", none)
    assert devices.gpus(tmp_path / "none") == 0


def test_one_cpu_of_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 9})
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert devices.cores(tmp_path) == (0, 1, 9)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert devices.cores(tmp_path) == (0, 1)


def test_a_containers_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text(str(3 * 2**20))
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 1048576\n")
    (tmp_path / "memory.max").write_text(str(4 * 2**20))
    assert devices.memory(tmp_path) == 2 * 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.memory(tmp_path) > 2 * 2**20


def test_the_memory_that_there_is(tmp_path: Path) -> None:
    whole = devices.total_memory(tmp_path)
    assert whole > devices.memory(tmp_path) > 0
    (tmp_path / "memory.max").write_text("1048576")
    assert devices.total_memory(tmp_path) == 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.total_memory(tmp_path) == whole


def test_without_nvml_gpus_have_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "cards", lambda visible: None)
    monkeypatch.setattr(devices, "gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = devices.probe()
    assert (found.gpus, found.numbers, found.visible) == (2, (0, 1), None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a")
    assert devices.probe().visible == "3,GPU-a"
    assert {one.id: one.total for one in Others().machine(devices.probe(), {"cuda:1": GIB})} == {
        "cpu": found.total, "cuda:0": UNKNOWN, "cuda:1": GIB,
    }  # fmt: skip


# --- what engines may have ------------------------------------------------------------------------


class World:
    """Engines' processes, and what they are seen to use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pids: set[int] = set()
        self.used: dict[str, int] = {}
        monkeypatch.setattr(devices, "descendants", lambda: self.pids)
        monkeypatch.setattr(devices, "used_by", lambda who, found: {"engines": self.used})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def found(*used: int, free: int = 60) -> Devices:
    """A host of 64 GiB, and GPUs of 80 GiB."""
    cards = tuple(
        Card(n, str(n), uuid=f"GPU-{n}", total=80 * GIB, used=size * GIB)
        for n, size in enumerate(used)
    )
    return Devices(len(cards), (0, 1, 2, 3), free * GIB, 64 * GIB, cards)


def test_what_others_use_is_not_for_engines(world: World) -> None:
    assert Others().machine(found(3), {}) == (
        Device("cpu", "cpu", 64 * GIB, 4 * GIB, cores=(1, 2, 3)),
        Device("cuda:0", "cuda", 80 * GIB, 3 * GIB, sleeps=True),
    )
    world.pids, world.used = {7}, {"cpu": 3 * GIB, "cuda:0": 2 * GIB}
    cpu, cuda = Others().machine(found(3), {})
    assert (cpu.reserved, cuda.reserved) == (GIB, GIB)
    # More than is used there: both are looked at, one after the other.
    world.used = {"cpu": 5 * GIB, "cuda:0": 4 * GIB}
    cpu, cuda = Others().machine(found(3), {})
    assert (cpu.reserved, cuda.reserved) == (0, 0)


def test_small_changes_are_none(world: World) -> None:
    one = Devices(0, (0,), 10 * GIB - 5, 16 * GIB)
    two = Devices(0, (0,), 10 * GIB - GIB // 8, 16 * GIB)
    assert Others().machine(one, {}) == Others().machine(two, {})
    assert Others().machine(one, {})[0].cores == (0,)


@pytest.mark.parametrize(
    ("caps", "reserved"),
    [
        ({}, [4, 1, 9]),
        ({"cpu": 16 * GIB}, [48, 1, 9]),
        ({"cpu": 100 * GIB}, [4, 1, 9]),
        ({"cuda": 75 * GIB}, [4, 5, 9]),
        ({"cuda": 75 * GIB, "cuda:1": 40 * GIB, "cuda:7": 1}, [4, 5, 40]),
    ],
)
def test_the_operators_bounds(world: World, caps: dict[str, int], reserved: list[int]) -> None:
    assert [one.reserved for one in Others().machine(found(1, 9), caps)] == [
        size * GIB for size in reserved
    ]


def test_in_a_container_others_are_those_of_before(world: World) -> None:
    others = Others()
    assert others.machine(found(3), {})[1].reserved == 3 * GIB
    world.pids, world.used = {7}, {"cpu": 0}
    assert others.machine(found(50), {})[1].reserved == 3 * GIB
    assert others.machine(found(2), {})[1].reserved == 2 * GIB
    world.pids = set()
    assert others.machine(found(6), {})[1].reserved == 6 * GIB


def test_what_processes_use(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "x = bytes([1]) * (64 << 20); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in devices.descendants()
        assert devices.groups([child.pid]) == {child.pid: {child.pid}}
        used = devices.used_by({"a": [child.pid], "b": [2**22 + 1]}, Devices())
        assert 64 * 2**20 <= used["a"]["cpu"] < 256 * 2**20
        assert used["b"] == {"cpu": 0}
        monkeypatch.setattr(nvml, "used_by", lambda sets, cards: {"a": {1: GIB}, "b": {}})
        used = devices.used_by({"a": [child.pid], "b": []}, found(1, 1))
        assert (used["a"]["cuda:0"], used["a"]["cuda:1"], used["b"]["cuda:1"]) == (0, GIB, 0)
    finally:
        child.communicate(b"\n", timeout=10)


def test_slices_are_named_to_cuda() -> None:
    cards = (Card(0, "MIG-1", part=True), Card(2, "2"))
    assert Devices(2, cards=cards).visible == "MIG-1,1,2"
    assert Devices(1, cards=(Card(0, "0"),)).visible is None
    assert Devices(0).visible is None
