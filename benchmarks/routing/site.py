"""Two engines behind one server, a model for each policy: ours, or ones that stand elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import psutil

from benchmarks.engine.stack import ROOT, Server, counts, free_port, leave, new_key
from benchmarks.routing.client import Door

NAMES: Final = ("one", "two")
POLICIES: Final = ("ordered", "least_busy", "affinity")
GUIDE: Final = ROOT / "server" / "embedded" / "guide"
_MIB: Final = 2**20
_WANTED: Final = ("prefix_cache_hits", "prefix_cache_queries", "num_preemptions")
#: Nice as the server starts its own engines.
_NICE: Final = 5


def flags(seats: int) -> dict[str, Any]:
    """vLLM's, of each engine. Prefix caching is on by default; it is said for the reader."""
    return {"max-model-len": 2048, "max-num-seqs": seats, "enable-prefix-caching": True}


def config(
    engines: dict[str, Any], *, ports: tuple[int, int], key: str, home: Path
) -> dict[str, Any]:
    """The same two targets under every policy."""
    targets = [{"engine": name} for name in NAMES]
    return {
        "version": 1,
        "server": {
            "port": ports[0],
            "admin": f"127.0.0.1:{ports[1]}",
            "home": str(home),
            "keys": [{"name": "benchmark", "key": key}],
        },
        "engines": engines,
        "models": {policy: {"balance": policy, "targets": targets} for policy in POLICIES},
    }


def ours(seats: int, kv_mib: int) -> dict[str, Any]:
    """Engines that the server runs."""
    engine = {
        "weights": str(GUIDE),
        "device": "cpu",
        "kv_cache": f"{kv_mib}MiB",
        "args": flags(seats),
    }
    return dict.fromkeys(NAMES, engine)


def elsewhere(ports: tuple[int, ...]) -> dict[str, Any]:
    """Engines that somebody else runs: one is found by DNS, the other by its URL."""
    common = {"runtime": "external", "refresh": "1s", "health_interval": "1s"}
    return {
        "one": {**common, "discover": f"dns://localhost:{ports[0]}"},
        "two": {**common, "urls": [f"http://127.0.0.1:{ports[1]}"]},
    }


class Site:
    """What a run needs of the running server. `replicas`: ports of engines elsewhere."""

    def __init__(self, server: Server, key: str, replicas: tuple[int, ...] = ()) -> None:
        self.server, self.replicas = server, replicas
        self.door = Door(server.ports[0], key)

    def counts(self) -> dict[str, float]:
        """vLLM's own counters, over both engines."""
        if not self.replicas:
            return counts(self.server.ask("/metrics/engines").decode(), _WANTED)
        total = dict.fromkeys(_WANTED, 0.0)
        for port in self.replicas:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                for name, value in counts(answer.read().decode(), _WANTED).items():
                    total[name] += value
        return total


@contextmanager
def running(
    folder: Path, python: str, *, seats: int, kv_mib: int, external: bool, within_s: float
) -> Iterator[Site]:
    """Both engines ready, behind a server; all is ended afterwards."""
    before = signal.signal(signal.SIGTERM, leave)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        replicas: tuple[int, ...] = ()
        if external:
            replicas = tuple(free_port() for _ in NAMES)
            for name, port in zip(NAMES, replicas, strict=True):
                log = folder / f"vllm-{name}.log"
                stack.enter_context(_vllm(python, port, flags(seats), kv_mib, log))
            engines = elsewhere(replicas)
        else:
            engines = ours(seats, kv_mib)
        ports, key = (free_port(), free_port()), new_key()
        made = config(engines, ports=ports, key=key, home=folder / "home")
        made["runtimes"] = {"vllm": {"python": python}}
        server = Server(folder, made, ports)
        stack.callback(server.stop)
        server.wait_ready(within_s)
        yield Site(server, key, replicas)


@contextmanager
def _vllm(python: str, port: int, args: dict[str, Any], kv_mib: int, log: Path) -> Iterator[None]:
    """A vLLM server on a TCP port, as somebody else would run it."""
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in args.items()]
    argv = [
        python, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(GUIDE),
        "--served-model-name", "their-guide", "--host", "127.0.0.1", "--port", str(port),
        "--enforce-eager", "--disable-uvicorn-access-log",
        f"--kv-cache-memory-bytes={kv_mib * _MIB}", *words,
    ]  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        # Two of them would bind the same cores; as the server's own engines share them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, cores // len(NAMES))),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=env, stdout=out, stderr=out, start_new_session=True)
    with suppress(psutil.Error):
        psutil.Process(process.pid).nice(_NICE)
    try:
        yield
    finally:
        # Its core and its worker outlive it, unless the whole group is killed.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
