"""Which interpreter the environments are built from. Probing acts; choosing is pure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

OLDEST, NEWEST = (3, 11), (3, 13)
NAMES = ("python3.13", "python3.12", "python3.11", "python3", "python")

_PROBE = """
import json, sys
try:
    import ensurepip, venv
    able = True
except ImportError:
    able = False
print(json.dumps({"version": list(sys.version_info[:3]), "venv": able}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter that answered. `venv`: it has both `venv` and `ensurepip`."""

    path: str
    version: tuple[int, ...]
    venv: bool

    @property
    def fits(self) -> bool:
        return OLDEST <= self.version[:2] <= NEWEST

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.version))


class NoPythonError(Exception):
    """No interpreter will do; the message says what to install."""


def probe(path: str) -> Python | None:
    """Asks an interpreter what it is. None if it does not run (a pyenv shim without a version)."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False
        )
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Python(path, tuple(said["version"]), said["venv"])


def find_python(override: str | None) -> Python:
    """The interpreter that was asked for by `PYTHON=`, else this one, else one on the path."""
    if override:
        named = probe(shutil.which(override) or override)
        return choose([named] if named else [], override)
    own = getattr(sys, "_base_executable", None) or sys.executable
    first = probe(own)
    if first and first.fits and first.venv:
        return first
    others = [found for name in NAMES if (path := shutil.which(name)) and (found := probe(path))]
    return choose([*([first] if first else []), *others], None)


def choose(found: Iterable[Python], override: str | None) -> Python:
    """The first that fits and can make environments. Raises `NoPythonError` otherwise."""
    known = list(found)
    for python in known:
        if python.fits and python.venv:
            return python
    raise NoPythonError(_why_none(known, override))


def _why_none(known: list[Python], override: str | None) -> str:
    span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    for python in known:
        if python.fits:
            return (
                f"{python.path} (Python {python.dotted}) lacks `venv` or `ensurepip`, which make "
                f"environments.\nOn Debian and Ubuntu: apt install python{python.minor}-venv"
            )
    how = (
        "Debian, Ubuntu: apt install python3 python3-venv\n"
        "Fedora: dnf install python3.12    macOS: brew install python@3.12\n"
        "or name one that is somewhere else: make serve PYTHON=/path/to/python3.12"
    )
    if override:
        was = known[0].dotted if known else "nothing that runs"
        return f"PYTHON={override} is {was}; Roundhouse needs Python {span}.\n{how}"
    seen = ", ".join(sorted({python.dotted for python in known})) or "none"
    return f"Roundhouse needs Python {span}; found: {seen}.\n{how}"


def venv_python(venv: str | os.PathLike[str]) -> str:
    """Where a virtual environment keeps its interpreter."""
    parts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return os.path.join(venv, *parts)
