"""Starts of real vLLM that fail: each says what was wrong, to the operator, and is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.integration.conftest import guide_engine
from tests.integration.stack import REPO_ROOT, START, ServerProcess, free_port, running, until

pytestmark = pytest.mark.usefixtures("engine_environment")

GUIDE = REPO_ROOT / "server" / "embedded" / "guide"
SMALL = {"kv_cache": "256MiB", "load": "request", "wait": START}
#: Stages in which an engine core is at work for its model.
LOADS = {"loading weights", "weights loaded", "preparing the KV cache"}
#: Why they fail, and what is told of it.
FAILURES = {
    "misshapen": ("weights", "tensors are of other sizes than the model's config.json says"),
    "untokenized": ("weights", "A JSON file beside the weights is damaged"),
    "parser": ("arguments", "invalid tool call parser: nope"),
    "slow": ("timeout", "it was not ready in time in 2 starts in a row"),
}


def copy(folder: Path) -> Path:
    shutil.copytree(GUIDE, folder)
    return folder


def misshapen(folder: Path) -> Path:
    """Weights of which one tensor is of another shape than the config says."""
    file = copy(folder) / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if "mlp" in name)
    rows, columns = header[name]["shape"]
    header[name]["shape"] = [rows * 2, columns // 2]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return folder


def untokenized(folder: Path) -> Path:
    """Weights whose tokenizer is damaged."""
    (copy(folder) / "tokenizer.json").write_text("{not json")
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[ServerProcess]:
    """Engines that load with their first request; the model `backup` keeps the server alive."""
    folder = tmp_path_factory.mktemp("failures")
    engines: dict[str, dict[str, Any]] = {
        "misshapen": {"weights": str(misshapen(folder / "misshapen")), **SMALL},
        "untokenized": {"weights": str(untokenized(folder / "untokenized")), **SMALL},
        "parser": {**guide_engine(**{"tool-call-parser": "nope"}), "load": "request"},
        "slow": {**guide_engine(), **SMALL, "start_timeout": "2s"},
        "killed": {**guide_engine(), **SMALL},
        "coreless": {**guide_engine(), **SMALL},
    }
    config = {
        "providers": {"backup": {"dialect": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}},
        "engines": engines,
        "models": {
            **{name: {"targets": [{"engine": name}]} for name in engines},
            "backup": {"targets": [{"provider": "backup", "model": "backup-model"}]},
        },
    }
    with running(folder, config) as made:
        made.wait_up()
        yield made


@pytest.fixture(scope="module")
def first(server: ServerProcess) -> Iterator[dict[str, Future[httpx.Response]]]:
    """The first request to each of those that fail by themselves, all at once: no start keeps two
    cores busy."""
    with ThreadPoolExecutor(len(FAILURES)) as pool:
        yield {name: pool.submit(ask, server, name) for name in FAILURES}


def ask(server: ServerProcess, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=START)


def told_of(server: ServerProcess, name: str) -> str:
    """What is said of one that somebody has killed; it does not start again."""

    def died() -> Any:
        return server.engines()[name]["error"]

    error: str = until(died, within=START, what="it is told of")
    httpx.post(f"{server.admin_url}/engines/{name}/unload", timeout=START).raise_for_status()
    return error


# As the kernel's OOM killer does it: by SIGKILL, and no log says so.


def test_its_first_process_is_killed_while_it_starts(server: ServerProcess) -> None:
    httpx.post(f"{server.admin_url}/engines/killed/load").raise_for_status()

    def begun() -> Any:
        view = server.engines()["killed"]
        return view["state"] == "starting" and view["pid"]

    os.kill(until(begun, within=START, what="it starts"), signal.SIGKILL)
    assert "It was killed while it started" in told_of(server, "killed")


def test_its_core_is_killed_while_it_loads(server: ServerProcess) -> None:
    """Before that vLLM itself would wait for its core until `start_timeout`."""
    httpx.post(f"{server.admin_url}/engines/coreless/load").raise_for_status()

    def loads() -> bool:
        view = server.engines()["coreless"]
        assert view["state"] != "ready", "nobody saw it load"
        return view["stage"].partition(" (")[0] in LOADS

    until(loads, within=START, what="it loads its weights")
    family = server.engine_processes("coreless")
    (core,) = [one for one in family if "EngineCore" in " ".join(one.cmdline())]
    core.send_signal(signal.SIGKILL)
    assert "One of its processes was killed while it started" in told_of(server, "coreless")


@pytest.mark.parametrize("name", FAILURES)
def test_a_start_that_fails(
    server: ServerProcess, first: dict[str, Future[httpx.Response]], name: str
) -> None:
    reason, told = FAILURES[name]
    answer = first[name].result()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "engine_failed"), server.tail()
    assert str(server.folder) not in answer.text
    assert told not in answer.text
    view = server.engines()[name]
    assert (view["state"], view["error_reason"]) == ("failed", reason)
    assert told in view["error"]
    # It is not tried again: by time, or by the next request.
    assert ask(server, name).status_code == 503
    failed = server.metric("roundhouse_engine_starts_total", engine=name, result="failed")
    assert failed == (2 if name == "slow" else 1)
    if name == "slow":
        assert "it stood at «" in view["error"]


async def test_the_server_goes_on(server: ServerProcess, port: int) -> None:
    async with ScriptedUpstream(port=port) as upstream, httpx.AsyncClient(timeout=30) as client:
        upstream.default = chat_answer("from the backup")
        body = {"model": "backup", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
