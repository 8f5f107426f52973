"""A Prometheus of the test's own: loopback, a folder that goes, a scrape a second."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

#: Seconds between scrapes, and between evaluations of the rules.
EVERY = 1
#: Seconds for what takes a moment, on a machine that is busy.
PATIENCE = 60.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. Skips with the way out; in CI it is an error."""
    found = shutil.which(name)
    if found is None:
        said = f"no {name}: apt-get install prometheus (Debian, Ubuntu), or brew install prometheus"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return found


@dataclass(frozen=True)
class Job:
    """What is scraped: `host:port`, a path, the key that it asks for, and labels for all of it."""

    name: str
    address: str
    path: str = "/metrics"
    key: str | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "job_name": self.name,
            "metrics_path": self.path,
            "static_configs": [{"targets": [self.address], "labels": dict(self.labels)}],
        }
        if self.key is not None:
            found["authorization"] = {"credentials": self.key}
        return found


class Prometheus:
    """The running one, over its HTTP API."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        """`data` of an answer. Raises AssertionError with what it said."""
        answer = await self._http.get(f"/api/v1/{path}", params=query)
        said = answer.json()
        assert said["status"] == "success", f"{query}: {said.get('error')}"
        return said["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """Now."""
        result: list[dict[str, Any]] = (await self.get("query", query=expr))["result"]
        return result

    async def drawn(self, expr: str, since: float) -> list[dict[str, Any]]:
        """As a panel draws it, from a time until now."""
        data = await self.get(
            "query_range", query=expr, start=str(since), end=str(time.time()), step=f"{EVERY}s"
        )
        result: list[dict[str, Any]] = data["result"]
        return result

    async def scraped(self, jobs: Sequence[Job]) -> None:
        """Until each job was scraped once more, well, by a scrape that began after this call."""
        now, deadline = time.time(), time.monotonic() + PATIENCE
        names = "|".join(job.name for job in jobs)
        # Of an expression `timestamp` would be that of the question.
        up = f'up{{job=~"{names}"}}'
        while time.monotonic() < deadline:
            seen = await self.query(f"timestamp({up}) and {up} == 1")
            if len(seen) == len(jobs) and all(float(one["value"][1]) > now for one in seen):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not scraped within {PATIENCE:g} s: {names}")


@asynccontextmanager
async def running(folder: Path, jobs: Sequence[Job], rules: Path) -> AsyncIterator[Prometheus]:
    """Starts one; it is ended, and nothing of it stays."""
    port = _free_port()
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(_config(jobs, rules)))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            await _ready(process, http, folder / "prometheus.log")
            yield Prometheus(http)
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        finally:
            process.kill()
            process.wait()


def _config(jobs: Sequence[Job], rules: Path) -> Mapping[str, Any]:
    return {
        "global": {
            "scrape_interval": f"{EVERY}s",
            "scrape_timeout": f"{EVERY}s",
            "evaluation_interval": f"{EVERY}s",
        },
        "rule_files": [str(rules)],
        "scrape_configs": [job.config() for job in jobs],
    }


async def _ready(process: subprocess.Popen[bytes], http: httpx.AsyncClient, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if (await http.get("/-/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"Prometheus is not ready:\n{log.read_text(errors='replace')[-4000:]}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
