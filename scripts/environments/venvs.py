"""One environment: its folder, its steps and the stamp that makes a second run instant.

Every step is stamped by itself, after it has succeeded, with a hash of what it depends on. A run
that was interrupted goes on at the step that was not finished; nothing is ever half stamped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scripts.environments.pythons import Python, probe, venv_python

STAMP = "roundhouse-setup.json"
LOG = "roundhouse-setup.log"
TAIL = 25


class SetupFailedError(Exception):
    """A step failed; the message holds what the user needs to see."""


@dataclass(frozen=True)
class Step:
    """`inputs` are hashed, and so is `extra`: while none changes, `run` is not called again."""

    name: str
    title: str
    run: Callable[[], None]
    inputs: tuple[Path, ...] = ()
    extra: str = ""

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.extra.encode())
        for path in self.inputs:
            digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


class Folder:
    """A folder that steps fill: a virtual environment, or node_modules."""

    def __init__(self, path: Path, log: Path | None = None) -> None:
        self.path = path
        self.log = log or path / LOG

    def stamps(self) -> dict[str, str]:
        try:
            data = json.loads((self.path / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def write_stamps(self, stamps: dict[str, str]) -> None:
        draft = self.path / f"{STAMP}.part"
        draft.write_text(json.dumps(stamps, indent=2) + "\n", encoding="utf-8")
        draft.replace(self.path / STAMP)

    def pending(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that are not done, or whose inputs have changed since."""
        stamps = self.stamps()
        done = {step.name for step in steps if stamps.get(step.name) == step.fingerprint()}
        return [step for step in steps if step.name not in done]

    def perform(self, step: Step) -> None:
        stamps = self.stamps()
        if stamps.pop(step.name, None) is not None:
            self.write_stamps(stamps)
        say(self.path.name, step.title)
        began = time.monotonic()
        try:
            step.run()
        except BaseException:
            print(" – failed", flush=True)
            raise
        self.write_stamps({**self.stamps(), step.name: step.fingerprint()})
        print(f"  {time.monotonic() - began:.1f} s", flush=True)

    def call(self, argv: Sequence[str], what: str, cwd: Path | None = None) -> None:
        """Runs a command with its output in the log; on failure its last lines are the message."""
        text = self.attempt(argv, cwd)
        if text is not None:
            raise SetupFailedError(
                f"{what} failed. The last lines of {self.log}:\n\n{tail(text)}\n\n"
                "The next run goes on from here."
            )

    def attempt(self, argv: Sequence[str], cwd: Path | None = None) -> str | None:
        """None if the command succeeded, else what it printed."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(argv)}\n")
            log.flush()
            start = log.tell()
            code = run_to(log, argv, cwd)
        if code == 0:
            return None
        with self.log.open("rb") as written:
            written.seek(start)
            return written.read().decode("utf-8", "replace")


class Venv(Folder):
    """A virtual environment built from `python`."""

    @property
    def interpreter(self) -> str:
        return venv_python(self.path)

    def site_packages(self) -> Path:
        if os.name == "nt":
            return self.path / "Lib" / "site-packages"
        return next((self.path / "lib").glob("python3.*/site-packages"), self.path / "none")

    def pip(self, *args: str, what: str) -> None:
        self.call(self.pip_argv(*args), what)

    def pip_argv(self, *args: str) -> list[str]:
        options = ["--disable-pip-version-check", "--no-input"]
        return [self.interpreter, "-I", "-m", "pip", *options, *args]

    def torch(self) -> bool:
        return (self.site_packages() / "torch").exists()

    def identity(self) -> tuple[str, str]:
        """Of what Python and flavour it was made, as stamped; empty where it was not."""
        version, _, flavour = self.stamps().get("python", "").partition(" ")
        return version, flavour

    def stands(self, flavour: str, minor: str | None) -> bool:
        """It was made for this flavour, and for this Python if one was asked for."""
        version, made_for = self.identity()
        fits = bool(version) and made_for == flavour and minor in (None, version)
        return fits and Path(self.interpreter).exists()

    def make(self, python: Python, flavour: str = "") -> None:
        """A new environment in place of what stands here; one made by hand is taken over."""
        by_hand = None if self.stamps() else probe(self.interpreter)
        if by_hand is not None and by_hand.minor != python.minor:
            raise SetupFailedError(
                f"{self.path} was made by hand, with Python {by_hand.dotted}. Move it out of the "
                f"way, or say PYTHON={self.interpreter}."
            )
        if by_hand is None:
            self._remove()
            say(self.path.name, f"a new environment for Python {python.dotted}")
            began = time.monotonic()
            self.call([python.path, "-m", "venv", str(self.path)], "Making the environment")
            print(f"  {time.monotonic() - began:.1f} s", flush=True)
        self.write_stamps({"python": f"{python.minor} {flavour}".strip()})

    def _remove(self) -> None:
        if not self.path.exists():
            return
        ours = (self.path / "pyvenv.cfg").exists() or (self.path / LOG).exists()
        if not ours:
            raise SetupFailedError(
                f"{self.path} is in the way: it is no virtual environment. Move it."
            )
        shutil.rmtree(self.path)


def run_to(log: IO[str], argv: Sequence[str], cwd: Path | None) -> int:
    """subprocess.run kills the child if we are interrupted, so no pip outlives this run."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            check=False,
        )
    except OSError as error:
        log.write(f"{error}\n")
        return 127
    return done.returncode


def tail(text: str, lines: int = TAIL) -> str:
    """The last lines, indented."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])


def say(where: str, what: str) -> None:
    print(f"  {where:<13} {what}", end="", flush=True)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Waits until no other set-up of this checkout runs. The lock goes when its process does."""
    with path.open("a+", encoding="utf-8") as held:
        if not _try_lock(held):
            print("another set-up of this checkout is running; waiting for it", flush=True)
            while not _try_lock(held):
                time.sleep(0.5)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
