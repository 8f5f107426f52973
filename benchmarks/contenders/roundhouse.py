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

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        port, admin = free_ports(2)
        key = secrets.token_hex(16)
        config = folder / "roundhouse.yaml"
        # YAML holds JSON.
        config.write_text(json.dumps(_config(upstream, port, admin, key, folder), indent=2))
        command = Command(
            name=self.name,
            version=roundhouse.__version__,
            argv=(str(self._command()), "serve", str(config)),
            port=port,
            headers={"authorization": f"Bearer {key}"},
        )
        with started(command, core=core, folder=folder) as running:
            yield running

    def _command(self) -> Path:
        return Path(sys.executable).parent / "roundhouse"


def _config(upstream: str, port: int, admin: int, key: str, folder: Path) -> dict[str, Any]:
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
