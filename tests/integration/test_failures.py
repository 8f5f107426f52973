"""Starts of real vLLM that fail: each says what was wrong, to the operator, and is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.integration.conftest import guide_engine
from tests.integration.stack import REPO_ROOT, ServerProcess, free_port, until

pytestmark = pytest.mark.usefixtures("engine_environment")

GUIDE = REPO_ROOT / "server" / "embedded" / "guide"
START = 240.0
SMALL = {"kv_cache": "256MiB", "load": "request"}


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
    }
    config = {
        "providers": {"backup": {"dialect": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}},
        "engines": engines,
        "models": {
            **{name: {"targets": [{"engine": name}]} for name in engines},
            "backup": {"targets": [{"provider": "backup", "model": "backup-model"}]},
        },
    }
    made = ServerProcess(folder, config)
    made.start()
    try:
        made.wait_up()
        yield made
    finally:
        made.stop()


def ask(server: ServerProcess, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=START)


FAILURES = {
    "misshapen": ("weights", "tensors are of other sizes than the model's config.json says"),
    "untokenized": ("weights", "A JSON file beside the weights is damaged"),
    "parser": ("arguments", "invalid tool call parser: nope"),
    "slow": ("timeout", "it was not ready in time in 2 starts in a row"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_start_that_fails(server: ServerProcess, name: str) -> None:
    reason, told = FAILURES[name]
    answer = ask(server, name)
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


def test_a_process_that_is_killed_while_it_starts(server: ServerProcess) -> None:
    """As the kernel's OOM killer does it: by SIGKILL, and no log says so. Its first process: where
    its core alone is killed early enough, vLLM itself waits for it until `start_timeout`."""
    httpx.post(f"{server.admin_url}/engines/killed/load").raise_for_status()

    def begun() -> Any:
        view = server.engines()["killed"]
        return view["state"] == "starting" and view["pid"]

    os.kill(until(begun, within=START, what="it starts"), signal.SIGKILL)

    def died() -> Any:
        view = server.engines()["killed"]
        return view["error"] and view

    view = until(died, within=START, what="it is told of")
    assert "was killed while it started" in view["error"]
    httpx.post(f"{server.admin_url}/engines/killed/unload", timeout=START).raise_for_status()


async def test_the_server_goes_on(server: ServerProcess, port: int) -> None:
    async with ScriptedUpstream(port=port) as upstream, httpx.AsyncClient(timeout=30) as client:
        upstream.default = chat_answer("from the backup")
        body = {"model": "backup", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
