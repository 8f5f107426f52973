"""Portkey's gateway, on Node. It has no config: headers of each request say where it goes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.base import BENCH, Running, get_it, package_version
from benchmarks.contenders.spawn import Command, free_ports, started

_PACKAGE = BENCH / "portkey" / "node_modules" / "@portkey-ai" / "gateway"


class Portkey:
    """https://www.npmjs.com/package/@portkey-ai/gateway

    It listens on all interfaces; there is no flag against it.
    """

    name = "portkey"

    def installed(self) -> str | None:
        if shutil.which("node") is None:
            return None
        return package_version(_PACKAGE / "package.json")

    def missing(self) -> str:
        return get_it(self.name, " (needs Node 20 or newer)")

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        (port,) = free_ports(1)
        # Headless: without the page that shows requests to a developer.
        argv = ("node", str(_PACKAGE / "build" / "start-server.js"), f"--port={port}", "--headless")
        command = Command(
            name=self.name,
            version=self.installed() or "?",
            argv=argv,
            port=port,
            headers={
                "authorization": "Bearer none",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"{upstream}/v1",
            },
            env={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"},
        )
        with started(command, core=core, folder=folder) as running:
            yield running
