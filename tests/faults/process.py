"""`roundhouse serve` in a process of its own: on its own loop, with its own signals and limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.faults.conftest import read_metric

#: What `roundhouse serve` does, and says where it listens.
PROGRAM = """
import json, sys
from server.config.load import load
from server.serving import serve

def greet(server):
    print(json.dumps([server.url, server.admin_url]), flush=True)

sys.exit(serve(load(sys.argv[1], environ={}), greet))
"""
ROOT = Path(__file__).parents[2]


class Served:
    """A running server process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, admin_url: str) -> None:
        self.process, self.url, self.admin_url = process, url, admin_url
        self.port = int(url.rpartition(":")[2])

    def signal(self, number: int = signal.SIGTERM) -> None:
        """To the server alone."""
        self.process.send_signal(number)

    @property
    def open_files(self) -> int:
        """Descriptors that the process has now."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def sockets(self) -> int:
        """Those among them that are sockets."""
        folder = f"/proc/{self.process.pid}/fd"
        return sum(os.readlink(f"{folder}/{fd}").startswith("socket:") for fd in os.listdir(folder))

    def limit_files(self, soft: int) -> None:
        """Let the process have so many descriptors from now on."""
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (soft, hard))

    async def metric(self, name: str, client: httpx.AsyncClient, **labels: str) -> float:
        """As a scraper reads it, over the client's connection."""
        return read_metric((await client.get(f"{self.admin_url}/metrics")).text, name, **labels)


@contextlib.asynccontextmanager
async def served(
    folder: Path,
    config: dict[str, Any],
    *,
    program: str = PROGRAM,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Served]:
    """A server that is up. It is killed if it has not ended by itself. `environment`: what it has
    beyond our own."""
    config["server"]["home"] = str(folder / "home")
    path = folder / "served.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    env = {k: v for k, v in os.environ.items() if not k.startswith("ROUNDHOUSE_")}
    env |= environment or {}
    with (folder / "served.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(path)),
            cwd=ROOT,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        told = await process.stdout.readline()
        assert told, (folder / "served.log").read_text()
        url, admin_url = json.loads(told)
        yield Served(process, url, admin_url)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
