"""What the set-up decides, before it installs anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.environments import facts, pythons
from scripts.environments.facts import GIB, Facts, Gpu
from scripts.environments.pythons import NoPythonError, Python
from scripts.environments.verdict import Wanted, judge

LAPTOP = Facts(
    system="Linux",
    machine="x86_64",
    libc=("glibc", (2, 36)),
    flags=frozenset({"sse2", "avx", "avx2"}),
    memory_available=8 * GIB,
    disk_free=50 * GIB,
)
GRAVITON = replace(
    LAPTOP, machine="aarch64", flags=frozenset({"fp", "asimd", "asimdhp", "asimddp"})
)
H200 = Gpu("NVIDIA H200", (580, 65, 6), (9, 0))
WORKSTATION = replace(LAPTOP, gpus=(H200,))

GOES = [
    (LAPTOP, "auto", "cpu", "vLLM for CPU on x86_64"),
    (GRAVITON, "auto", "cpu", "vLLM for CPU on aarch64"),
    (replace(LAPTOP, memory_available=4 * GIB, disk_free=6 * GIB), "auto", "cpu", "vLLM for CPU"),
    (replace(LAPTOP, memory_available=None), "auto", "cpu", "vLLM for CPU"),
    (WORKSTATION, "auto", "cuda", "vLLM for CUDA: NVIDIA H200"),
    (WORKSTATION, "cpu", "cpu", "vLLM for CPU"),
    # Without AVX2 the GPU still does.
    (replace(WORKSTATION, flags=frozenset()), "auto", "cuda", "vLLM for CUDA"),
    # A GPU that will not do is named, and the CPU takes its place.
    (
        replace(LAPTOP, gpus=(Gpu("NVIDIA T4", (535, 183), (7, 5)),)),
        "auto",
        "cpu",
        "driver 535.183 is too old for CUDA 13, which needs 580 or newer",
    ),
    (
        replace(LAPTOP, gpus=(Gpu("Tesla V100", (580, 1), (7, 0)),)),
        "auto",
        "cpu",
        "compute capability 7.0 is below 7.5",
    ),
    (
        replace(GRAVITON, gpus=(H200,), libc=("glibc", (2, 31))),
        "auto",
        "cpu",
        "CUDA wheels for aarch64 need glibc 2.34 or newer",
    ),
    # What nvidia-smi did not tell is no reason against it.
    (replace(LAPTOP, gpus=(Gpu("an NVIDIA GPU"),)), "auto", "cuda", "an NVIDIA GPU"),
]


@pytest.mark.parametrize(("machine", "wanted", "flavour", "text"), GOES)
def test_an_engine_for_this_machine(
    machine: Facts, wanted: Wanted, flavour: str, text: str
) -> None:
    verdict = judge(machine, wanted)
    assert verdict.flavour == flavour
    assert text in verdict.text


REFUSED = [
    (replace(LAPTOP, system="Darwin", machine="aarch64"), "auto", "no wheel for macOS on aarch64"),
    (replace(LAPTOP, system="Windows"), "auto", "no wheel for Windows on x86_64"),
    (replace(LAPTOP, machine="riscv64"), "auto", "no wheel for Linux on riscv64"),
    (replace(LAPTOP, libc=("", ())), "auto", "need glibc"),
    (replace(LAPTOP, libc=("glibc", (2, 28))), "auto", "need glibc 2.31 or newer"),
    (replace(LAPTOP, flags=frozenset({"avx"})), "auto", "does not offer avx2"),
    (replace(GRAVITON, flags=frozenset({"asimd"})), "auto", "does not offer asimdhp, asimddp"),
    (replace(LAPTOP, memory_available=int(2.5 * GIB)), "auto", "2.5 GiB are available here"),
    (replace(LAPTOP, disk_free=5 * GIB), "auto", "need 6 GiB of free disk space"),
    (replace(WORKSTATION, disk_free=10 * GIB), "auto", "need 20 GiB of free disk space"),
    (LAPTOP, "cuda", "no NVIDIA GPU found"),
]


@pytest.mark.parametrize(("machine", "wanted", "reason"), REFUSED)
def test_a_refusal_says_why_and_what_works_instead(
    machine: Facts, wanted: Wanted, reason: str
) -> None:
    verdict = judge(machine, wanted)
    assert verdict.flavour is None
    assert reason in " ".join(verdict.text.split())
    assert "nothing has been installed" in verdict.text
    for way_out in ("python3 scripts/setup.py server", "Ollama", "llama.cpp", "dialect: openai"):
        assert way_out in verdict.text
    assert max(map(len, verdict.text.splitlines())) <= 100


def test_docker_is_offered_where_only_the_system_is_in_the_way() -> None:
    assert "Docker" in judge(replace(LAPTOP, system="Darwin")).text
    assert "Docker" not in judge(replace(LAPTOP, flags=frozenset())).text


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2\n\nflags\t\t: other\n", {"fpu", "avx2"}),
        ("Features\t: fp asimd\n", {"fp", "asimd"}),
        ("", set()),
    ],
)
def test_cpu_flags(cpuinfo: str, flags: set[str]) -> None:
    assert facts.cpu_flags(cpuinfo) == flags


def test_available_memory() -> None:
    meminfo = "MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n"
    assert facts.meminfo_available(meminfo) == 2048 * 1024
    assert facts.meminfo_available("") is None


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    assert facts.cgroup_left(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 100\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert facts.cgroup_left(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert facts.cgroup_left(tmp_path) == 800


def test_what_nvidia_smi_prints() -> None:
    said = "NVIDIA H200, 580.65.06, 9.0\nNVIDIA H200, 580.65.06, 9.0\nNo devices were found\n"
    assert facts.parse_smi(said) == (H200, H200)


@pytest.mark.parametrize(
    ("text", "version"), [("580.65.06", (580, 65, 6)), ("2.36", (2, 36)), ("[N/A]", ()), ("", ())]
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert facts.version_tuple(text) == version


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    read = facts.read_facts(tmp_path)
    assert read.system
    assert read.disk_free > 0


OLD = Python("/usr/bin/python3", (3, 9, 18), True)
BARE = Python("/usr/bin/python3", (3, 11, 2), False)
GOOD = Python("/usr/local/bin/python3.12", (3, 12, 1), True)
NEW = Python("/usr/bin/python3", (3, 14, 0), True)


@pytest.mark.parametrize("found", [[GOOD], [OLD, GOOD], [NEW, BARE, GOOD]])
def test_the_first_python_that_fits(found: list[Python]) -> None:
    assert pythons.choose(found, None) == GOOD


@pytest.mark.parametrize(
    ("found", "override", "says"),
    [
        ([OLD, NEW], None, "needs Python 3.11 to 3.13; found: 3.14.0, 3.9.18"),
        ([], None, "found: none"),
        ([OLD], "python3.9", "PYTHON=python3.9 is 3.9.18"),
        ([], "python9", "PYTHON=python9 is nothing that runs"),
        ([BARE], None, "apt install python3.11-venv"),
    ],
)
def test_no_python_fits(found: list[Python], override: str | None, says: str) -> None:
    with pytest.raises(NoPythonError, match=r".") as caught:
        pythons.choose(found, override)
    assert says in str(caught.value)


def test_a_shim_that_does_not_run_is_passed_over() -> None:
    assert pythons.probe("/nonexistent/python3") is None
    with pytest.raises(NoPythonError):
        pythons.find_python("/nonexistent/python3")


def test_this_python_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answers(path: str) -> Python:
        asked.append(path)
        return GOOD

    monkeypatch.setattr(pythons, "probe", answers)
    assert pythons.find_python(None) == GOOD
    assert len(asked) == 1
