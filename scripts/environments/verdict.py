"""Which engine goes on this machine, decided before anything is installed. Pure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

from scripts.environments.facts import GIB, Facts

Flavour = Literal["cpu", "cuda"]
Wanted = Literal["auto", "cpu", "cuda"]

MEMORY_FLOOR = 4 * GIB
DISK_FLOOR: dict[Flavour, int] = {"cpu": 6 * GIB, "cuda": 20 * GIB}
# The newest that a wheel of the locks asks for: llguidance; pynvvideocodec and tilelang for CUDA.
GLIBC_FLOOR = (2, 31)
GLIBC_FLOOR_CUDA = {"x86_64": (2, 31), "aarch64": (2, 34)}
DRIVER_FLOOR = (580,)  # CUDA 13
CAPABILITY_FLOOR = (7, 5)  # the oldest devices that CUDA 13 compiles for

# What the CPU wheel's oldest code path is compiled with.
CPU_FLAGS: dict[str, tuple[str, ...]] = {
    "x86_64": ("avx2",),
    "aarch64": ("asimd", "asimdhp", "asimddp"),
}
CPU_FLAG_WORDS = {
    "x86_64": "AVX2 (Intel since 2013, AMD since 2015)",
    "aarch64": "NEON with half precision and dot products (ARMv8.2 and newer)",
}


@dataclass(frozen=True)
class Verdict:
    """`flavour` None is a refusal; `text` is then the whole paragraph for the user."""

    flavour: Flavour | None
    text: str


def judge(facts: Facts, wanted: Wanted = "auto") -> Verdict:
    """An engine for this machine, or the reason why none runs here and what does."""
    reason = _no_wheel(facts)
    if reason:
        return _refuse(reason, elsewhere="docker")

    flavour: Flavour = "cpu"
    note = ""
    if wanted == "cuda" or (wanted == "auto" and facts.gpus):
        unfit = gpu_unfit(facts)
        if not unfit:
            flavour = "cuda"
        elif wanted == "cuda":
            return _refuse(unfit, elsewhere="machine")
        else:
            note = f" ({unfit})"

    if flavour == "cpu":
        missing = [flag for flag in CPU_FLAGS[facts.machine] if flag not in facts.flags]
        if missing:
            reason = (
                f"vLLM's CPU build needs {CPU_FLAG_WORDS[facts.machine]}; "
                f"this CPU does not offer {', '.join(missing)}."
            )
            return _refuse(reason, elsewhere="machine")

    reason = _too_small(facts, flavour)
    if reason:
        return _refuse(reason, elsewhere="machine")

    if flavour == "cuda":
        names = ", ".join(gpu.name for gpu in facts.gpus)
        return Verdict("cuda", f"vLLM for CUDA: {names}")
    return Verdict("cpu", f"vLLM for CPU on {facts.machine}{note}")


def _no_wheel(facts: Facts) -> str:
    where = f"{facts.system} on {facts.machine}"
    if facts.system != "Linux":
        names = {"Darwin": "macOS", "Windows": "Windows"}
        return (
            f"vLLM has no wheel for {names.get(facts.system, facts.system)} on {facts.machine}; "
            "its wheels are for Linux on x86_64 and aarch64."
        )
    if facts.machine not in CPU_FLAGS:
        return f"vLLM has no wheel for {where}; its wheels are for Linux on x86_64 and aarch64."
    name, version = facts.libc
    if name != "glibc":
        return f"vLLM's wheels need glibc; this {where} has another C library (musl, as on Alpine)."
    if version < GLIBC_FLOOR:
        return (
            f"vLLM's wheels need glibc {_dots(GLIBC_FLOOR)} or newer; "
            f"this {where} has {_dots(version)}."
        )
    return ""


def gpu_unfit(facts: Facts) -> str:
    """Why the CUDA build will not do; empty if it will. An unknown figure is no reason."""
    if not facts.gpus:
        return "no NVIDIA GPU found"
    glibc = GLIBC_FLOOR_CUDA[facts.machine]
    if facts.libc[1] < glibc:
        return f"vLLM's CUDA wheels for {facts.machine} need glibc {_dots(glibc)} or newer"
    for gpu in facts.gpus:
        if gpu.driver and gpu.driver < DRIVER_FLOOR:
            return (
                f"{gpu.name} is there, but its driver {_dots(gpu.driver)} is too old for CUDA 13, "
                f"which needs {_dots(DRIVER_FLOOR)} or newer"
            )
        if gpu.capability and gpu.capability < CAPABILITY_FLOOR:
            return (
                f"{gpu.name} is there, but its compute capability {_dots(gpu.capability)} "
                f"is below {_dots(CAPABILITY_FLOOR)}"
            )
    return ""


def _too_small(facts: Facts, flavour: Flavour) -> str:
    memory = facts.memory_available
    if memory is not None and memory < MEMORY_FLOOR:
        return (
            f"An engine needs {_gib(MEMORY_FLOOR)} of free memory, even with the small model "
            f"that comes along; {_gib(memory)} are available here."
        )
    floor = DISK_FLOOR[flavour]
    if facts.disk_free < floor:
        return (
            f"vLLM and torch need {_gib(floor)} of free disk space to install; "
            f"{_gib(facts.disk_free)} are free here."
        )
    return ""


def _refuse(reason: str, *, elsewhere: Literal["docker", "machine"]) -> Verdict:
    other = (
        "Docker: in a Linux container (image python:3.12, 6 GiB of memory) the same commands work."
        if elsewhere == "docker"
        else "An engine on another machine: a provider with dialect openai and that server's URL."
    )
    text = f"""\
No engine can run here, and nothing has been installed for one.
{textwrap.fill(reason, 96)}

What works on this machine:
  - Remote providers only. Make the server's light environment, without vLLM:
      python3 scripts/setup.py server
    and serve a config that has `providers` and no `engines`:
      .venv/bin/roundhouse serve my.yaml
  - Local models by way of Ollama or a llama.cpp server, as a provider:
      providers:
        ollama: {{dialect: openai, base_url: "http://127.0.0.1:11434/v1"}}
        llamacpp: {{dialect: openai, base_url: "http://127.0.0.1:8080/v1"}}
  - {other}
"""
    return Verdict(None, text)


def _dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB".replace(".0 ", " ")
