"""Roundhouse as people run it, with everything on: a key, access lines as JSON, metrics."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import roundhouse
from benchmarks.contenders.base import MODEL, Running
from benchmarks.contenders.spawn import Command, free_ports, started


class Roundhouse:
    """This checkout's server, by the interpreter that runs the benchmark."""

    name = "roundhouse"

    def installed(self) -> str | None:
        return roundhouse.__version__ if self._command().exists() else None

    def missing(self) -> str:
        return "roundhouse is not installed beside this Python: make setup"

    def argv(self) -> tuple[str, ...]:
        return (str(self._command()),)

    def env(self) -> dict[str, str]:
        return {}

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        port, admin = free_ports(2)
        key = secrets.token_hex(16)
        config = folder / "roundhouse.yaml"
        # YAML holds JSON.
        config.write_text(json.dumps(self.config(upstream, port, admin, key, folder), indent=2))
        command = Command(
            name=self.name,
            version=roundhouse.__version__,
            argv=(*self.argv(), "serve", str(config)),
            port=port,
            env=self.env(),
            headers={"authorization": f"Bearer {key}"},
        )
        with started(command, core=core, folder=folder) as running:
            yield running

    def config(
        self, upstream: str, port: int, admin: int, key: str, folder: Path
    ) -> dict[str, Any]:
        """Its configuration in front of `upstream`."""
        return {
            "version": 1,
            "server": {
                "host": "127.0.0.1",
                "port": port,
                "admin": f"127.0.0.1:{admin}",
                "keys": [{"name": "bench", "key": key, "models": ["*"]}],
                "home": str(folder / "home"),
            },
            "log": {"level": "info", "format": "json", "access": True},
            "providers": {"upstream": {"dialect": "openai", "base_url": f"{upstream}/v1"}},
            "models": {MODEL: {"targets": [{"provider": "upstream", "model": MODEL}]}},
        }

    def _command(self) -> Path:
        return Path(sys.executable).parent / "roundhouse"


class Before(Roundhouse):
    """Another checkout's server, an earlier commit's say, by the same interpreter: what a change
    costs. Its dependencies are those that are installed here."""

    name = "before"

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout.resolve()

    def installed(self) -> str | None:
        there = (self._checkout / "server" / "cli" / "__init__.py").exists()
        return super().installed() if there else None

    def missing(self) -> str:
        return "--before names no checkout of Roundhouse"

    def argv(self) -> tuple[str, ...]:
        # -P: the folder that the benchmark runs in is this checkout, and would come first.
        return (sys.executable, "-P", "-c", "import sys; from server.cli import main; main()")

    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self._checkout)}
