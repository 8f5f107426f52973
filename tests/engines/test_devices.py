from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.engines import devices
from server.engines.devices import GIB, RUNTIME_MEMORY


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


def test_shortage() -> None:
    assert devices.shortage(weights=GIB, kv_cache=GIB, available=2 * GIB + RUNTIME_MEMORY) is None
    told = devices.shortage(weights=GIB, kv_cache=4 * GIB, available=2 * GIB + RUNTIME_MEMORY)
    assert told is not None
    assert "3.0 GiB too little" in told
    assert "`kv_cache: 1024MiB` would fit" in told
    told = devices.shortage(weights=8 * GIB, kv_cache=GIB, available=GIB)
    assert told is not None
    assert "smaller weights" in told
