"""vllm-router and sglang-router: two routers in Rust, with much the same flags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.base import BENCH, Running, get_it, peer_version
from benchmarks.contenders.spawn import Command, free_ports, started


class _Router:
    """A router before one worker. Logs, metrics, retries and circuit breakers are as they come.

    The policy is not: `cache_aware`, the default, keeps a tree of prompts, which is of no use with
    one worker and would only slow it down.
    """

    name: str
    subcommand: tuple[str, ...] = ()

    def installed(self) -> str | None:
        return peer_version(self.name, self.name)

    def missing(self) -> str:
        return get_it(self.name)

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        port, metrics = free_ports(2)
        argv = (
            *(str(BENCH / self.name / "bin" / self.name), *self.subcommand),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--worker-urls", upstream, "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)),
            # How often they look for a worker that was not there at once; 30 s by default.
            *("--worker-startup-check-interval", "1"),
        )
        command = Command(self.name, self.installed() or "?", argv, port)
        with started(command, core=core, folder=folder) as running:
            yield running


class VllmRouter(_Router):
    """https://pypi.org/project/vllm-router/"""

    name = "vllm-router"


class SglangRouter(_Router):
    """https://pypi.org/project/sglang-router/"""

    name = "sglang-router"
    subcommand = ("launch",)
