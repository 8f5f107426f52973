#!/usr/bin/env python3
"""Puts the gateways that benchmarks stand beside Roundhouse into environments of their own.

    python3 benchmarks/peers/install.py                 all of them, into .bench/
    python3 benchmarks/peers/install.py litellm portkey those two

Standard library only. A second run finds everything stamped and is done at once. A peer that cannot
be installed here is reported with the reason and the others go on.
Variables: PYTHON (the interpreter to build from).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from scripts.environments.plans import install_lock  # noqa: E402
from scripts.environments.pythons import NoPythonError, find_python  # noqa: E402
from scripts.environments.venvs import (  # noqa: E402
    Folder,
    SetupFailedError,
    Step,
    Venv,
    only_one,
)

LOCKS = Path(__file__).resolve().parent
BENCH = ROOT / ".bench"
PYTHON_PEERS = ("litellm", "sglang-router", "vllm-router")
PEERS = (*PYTHON_PEERS, "portkey")


def main(argv: list[str]) -> int:
    """Exit codes: 0 at least one peer is there, 1 none is, 130 interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    peers = parser.parse_args(argv).peers or list(PEERS)
    if unknown := sorted(set(peers) - set(PEERS)):
        parser.error(f"no such peer: {', '.join(unknown)}. There are {', '.join(PEERS)}")
    began = time.monotonic()
    BENCH.mkdir(exist_ok=True)
    try:
        with only_one(BENCH / "install.lock"):
            there = [peer for peer in peers if install(peer)]
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on from here", file=sys.stderr)
        return 130
    took = time.monotonic() - began
    print(f"{', '.join(there) or 'no peer'}: ready after {took:.1f} s", flush=True)
    return 0 if there else 1


def install(peer: str) -> bool:
    """Whether the peer is there now; if it cannot be, one line says why."""
    try:
        folder, steps = python_peer(peer) if peer in PYTHON_PEERS else node_peer(peer)
        for step in folder.pending(steps):
            folder.perform(step)
    except (NoPythonError, SetupFailedError) as error:
        print(f"  {peer:<13} not installed: {reason(str(error))}", flush=True)
        return False
    return True


def python_peer(peer: str) -> tuple[Folder, list[Step]]:
    """A virtual environment with exactly what the peer's lock lists, wheels only."""
    override = os.environ.get("PYTHON") or None
    venv = Venv(BENCH / peer)
    if not venv.stands("", find_python(override).minor if override else None):
        venv.make(find_python(override))
    lock = LOCKS / f"{peer}.txt"
    title = f"what benchmarks/peers/{lock.name} lists"
    return venv, [Step(peer, title, partial(install_lock, venv, lock), inputs=(lock,))]


def node_peer(peer: str) -> tuple[Folder, list[Step]]:
    """A folder with the peer's package.json, its lock, and what `npm ci` makes of them."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        raise SetupFailedError(f"{' and '.join(missing)} not found; it needs Node 20 or newer")
    folder = Folder(BENCH / peer)
    sources = tuple(LOCKS / peer / name for name in ("package.json", "package-lock.json"))
    run = partial(npm_ci, folder, sources)
    return folder, [Step(peer, "npm ci", run, inputs=sources)]


def npm_ci(folder: Folder, sources: tuple[Path, ...]) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copyfile(source, folder.path / source.name)
    npm = shutil.which("npm") or "npm"
    quiet = ("--ignore-scripts", "--no-progress", "--no-audit", "--no-fund")
    folder.call([npm, "ci", *quiet], "npm ci", cwd=folder.path)


def reason(said: str) -> str:
    """The line of a failure that names the cause: the first that calls itself an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "npm error", "npm ERR!"))]
    return (errors or lines or ["no reason given"])[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
