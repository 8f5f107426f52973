"""The command behind `scripts/setup.py`: judge first, then install, then say how long it took."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import cast

from scripts.environments import plans
from scripts.environments.facts import read_facts
from scripts.environments.pythons import NoPythonError, Python, find_python
from scripts.environments.venvs import Folder, SetupFailedError, Step, Venv, only_one
from scripts.environments.verdict import Flavour, Wanted, gpu_unfit, judge

ROOT = Path(__file__).resolve().parent.parent.parent
TARGETS = ("server", "dev", "weights", "engine", "node")


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 1 failed, 2 this machine will not do, 130 interrupted."""
    options = _parse(argv)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with only_one(ROOT / ".setup.lock"):
            return Setup(ROOT, options.optional and not in_ci()).run(options.targets)
    except (NoPythonError, SetupFailedError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on from here", file=sys.stderr)
        return 130


class Setup:
    """One run over the targets. `optional`: an engine or a Node that is refused is only a note."""

    def __init__(self, root: Path, optional: bool = False) -> None:
        self.root = root
        self.optional = optional
        self.venv = Venv(root / ".venv")
        self.engine = Venv(root / ".venv-engine")
        self.override = os.environ.get("PYTHON") or None
        self.began = time.monotonic()
        self.worked = False

    @cached_property
    def python(self) -> Python:
        return find_python(self.override)

    @property
    def minor(self) -> str | None:
        """The version that was asked for; without one, environments keep theirs."""
        return self.python.minor if self.override else None

    def run(self, targets: list[str]) -> int:
        flavour: Flavour | None = None
        if "engine" in targets and not self._engine_done():
            # Before anything is installed: the answer may be that no engine runs here.
            verdict = judge(read_facts(self.root), _wanted())
            flavour = verdict.flavour
            print(verdict.text if flavour is None else f"  {'engine':<13} {verdict.text}")
            if flavour is None and not self.optional:
                return 2
        if {"server", "dev", "weights"} & set(targets):
            self._server(targets)
        if flavour is not None:
            self._prepare(self.engine, flavour)
            self._perform(self.engine, plans.engine_steps(self.engine, self.root, flavour))
        if "node" in targets and not self._node():
            return 2
        took = time.monotonic() - self.began
        done = f"ready after {took:.1f} s" if self.worked else "all up to date"
        print(f"{', '.join(targets)}: {done}", flush=True)
        return 0

    def _server(self, targets: list[str]) -> None:
        venv = self.venv
        self._prepare(venv, "")
        lean, full = (plans.server_steps(venv, self.root, dev=dev) for dev in (False, True))
        # The tools of an earlier `make test` may stay when only the server is asked for.
        steps = full if "dev" in targets or not venv.pending(full) else lean
        if "weights" in targets:
            steps.append(plans.weights_step(venv, self.root))
        self._perform(venv, steps)
        if venv.torch():
            raise SetupFailedError(f"{venv.path} holds torch; the server's environment must not.")

    def _engine_done(self) -> bool:
        wanted = _wanted()
        flavour = self.engine.identity()[1]
        if flavour not in ("cpu", "cuda") or wanted not in ("auto", flavour):
            return False
        if not self.engine.stands(flavour, self.minor):
            return False
        steps = plans.engine_steps(self.engine, self.root, cast(Flavour, flavour))
        if self.engine.pending(steps):
            return False
        # A GPU that came later is worth another look.
        return flavour == "cuda" or wanted == "cpu" or bool(gpu_unfit(read_facts(self.root)))

    def _node(self) -> bool:
        missing = plans.node_missing()
        if missing:
            print(f"  {'node':<13} {missing}", flush=True)
            return self.optional
        modules = plans.node_folder(self.root)
        self._perform(modules, plans.node_steps(modules))
        return True

    def _prepare(self, venv: Venv, flavour: str) -> None:
        if not venv.stands(flavour, self.minor):
            venv.make(self.python, flavour)

    def _perform(self, folder: Folder, steps: list[Step]) -> None:
        for step in folder.pending(steps):
            folder.perform(step)
            self.worked = True


def in_ci() -> bool:
    """In CI nothing is optional."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def _wanted() -> Wanted:
    wanted = os.environ.get("ROUNDHOUSE_ENGINE") or "auto"
    if wanted not in ("auto", "cpu", "cuda"):
        raise SetupFailedError(f"ROUNDHOUSE_ENGINE={wanted}: it may be auto, cpu or cuda.")
    return cast(Wanted, wanted)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/setup.py", description="Makes or updates Roundhouse's environments."
    )
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument(
        "--optional",
        action="store_true",
        help="an engine or a Node that this machine will not run is a note, not a failure "
        "(never so where CI=true)",
    )
    return parser.parse_args(argv)


def _terminated(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
