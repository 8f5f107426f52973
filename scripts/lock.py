#!/usr/bin/env python3
"""Resolves pyproject.toml and the *.in beside the locks into the locks. Run by `make lock`.

Pins that still fit are kept; `--upgrade` takes the newest. Either way nothing that was published
in the last seven days is taken: most hijacked releases are found within days.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COOL_DOWN = datetime.timedelta(days=7)
UV = Path(sys.executable).parent / "uv"

# A lock names packages and hashes, never the places that they came from.
NO_PLACES = ("--no-emit-index-url", "--no-emit-find-links")


@dataclass(frozen=True)
class Lock:
    """One file of `folder`, made from `sources` (both relative to the repository)."""

    name: str
    sources: tuple[str, ...]
    made: str
    options: tuple[str, ...] = ()
    folder: str = "requirements"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"


PROJECT = ("pyproject.toml", "requirements/build.in")
ANYWHERE = "for every platform, Python 3.11 and newer"
LOCKS = (
    Lock("server.txt", PROJECT, f"{ANYWHERE}. The server's environment, .venv"),
    Lock(
        "dev.txt",
        PROJECT,
        f"{ANYWHERE}. The server's lock and the development tools, .venv",
        ("--extra=dev", "--constraints=requirements/server.txt"),
    ),
    Lock(
        "image.txt",
        ("pyproject.toml",),
        f"{ANYWHERE}. Of the server's lock what it needs to run: the images",
        ("--constraints=requirements/server.txt",),
    ),
    Lock(
        "build.txt",
        ("requirements/build.in",),
        f"{ANYWHERE}. Of the server's lock what builds the package, for the images",
        ("--constraints=requirements/server.txt",),
    ),
    Lock(
        "engine-cpu.txt",
        ("requirements/engine-cpu.in",),
        "for Linux, Python 3.11 to 3.13. .venv-engine without a GPU; torch is installed beside it",
        ("--overrides=requirements/engine-cpu.overrides",),
    ),
    Lock(
        "engine-cuda.txt",
        ("requirements/engine-cuda.in",),
        "for Linux, Python 3.11 to 3.13, torch included. .venv-engine with an NVIDIA GPU",
    ),
    Lock(
        "test-weights.txt",
        ("requirements/test-weights.in",),
        "for every platform. Weights for the tests; its dependencies are left out on purpose",
        ("--no-deps",),
    ),
    *(
        Lock(
            f"{peer}.txt",
            (f"benchmarks/peers/{peer}.in",),
            f"{ANYWHERE}. A gateway that benchmarks put beside Roundhouse, .bench/{peer}",
            folder="benchmarks/peers",
        )
        for peer in ("litellm", "sglang-router", "vllm-router")
    ),
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as server.txt; all without a name")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    options = parser.parse_args(argv)
    day = datetime.datetime.now(datetime.UTC).date() - COOL_DOWN
    for lock in LOCKS:
        if options.names and lock.name not in options.names:
            continue
        subprocess.run(command(lock, day, upgrade=options.upgrade), cwd=ROOT, check=True)
        label(ROOT / lock.path, lock, day)
        print(lock.path)
    return 0


def command(lock: Lock, day: datetime.date, *, upgrade: bool) -> list[str]:
    """The resolver's command line."""
    return [
        str(UV), "pip", "compile", *lock.sources, *lock.options,
        "--universal", "--python-version=3.11", "--generate-hashes", *NO_PLACES,
        f"--exclude-newer={day.isoformat()}T00:00:00Z", "--no-header", "--quiet",
        *(["--upgrade"] if upgrade else []),
        f"--output-file={lock.path}",
    ]  # fmt: skip


def label(path: Path, lock: Lock, day: datetime.date) -> None:
    """Says at the top how the lock was made."""
    text = path.read_text(encoding="utf-8")
    head = (
        f"# Made by `make lock` from {' and '.join(lock.sources)}\n"
        f"# {lock.made}.\n"
        f"# All of it was published before {day.isoformat()}. Install with --no-deps.\n"
    )
    path.write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
