"""Command engines: from `cmd` to a launch, and processes that answer at a port."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import PORT, Engine, Runtime
from server.engines import command, ports
from server.engines.control import Control, Health
from server.engines.endings import Exit
from server.engines.logs import LogFile
from server.engines.process import EngineProcess
from server.engines.runtimes import Launch, Placement
from server.errors import EngineError
from tests.engines.conftest import FAKE, alive

CPU = Placement("cpu")
ENVIRON = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "sk-1", "HF_TOKEN": "hf", "TMPDIR": "/t"}


def engine(cmd: str, **more: Any) -> Engine:
    return Engine(runtime="command", cmd=cmd, **more)


def launch(
    config: Engine,
    base: Path,
    *,
    runtime: Runtime | None = None,
    placement: Placement = CPU,
    environ: Mapping[str, str] = ENVIRON,
) -> Launch:
    return command.launch(
        "it", config, runtime, placement=placement, environ=environ, base=base,
        home=base / "home", scratch=str(base / "e1"),
    )  # fmt: skip


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


# --- the command line -----------------------------------------------------------------------------


def test_words_and_the_port(tmp_path: Path) -> None:
    server = program(tmp_path / "bin" / "server")
    cmd = (
        f"{server} --port ${{PORT}} --url=http://127.0.0.1:${{PORT}}/ -m 'my model.gguf' '$HOME' *"
    )
    made = launch(engine(cmd, health="/ok"), tmp_path)
    assert made.port is not None
    assert made.argv == (
        str(server), "--port", str(made.port), f"--url=http://127.0.0.1:{made.port}/",
        "-m", "my model.gguf", "$HOME", "*",
    )  # fmt: skip
    assert (made.health, made.cwd) == ("/ok", str(tmp_path))
    assert made.remove == (str(tmp_path / "e1"),)
    assert made.nice > 0
    assert "my model.gguf" not in str(made.facts)
    assert launch(engine(cmd), tmp_path).port != made.port


def test_environment(tmp_path: Path) -> None:
    server = program(tmp_path / "server")
    runtime = Runtime(env={"ONE": "runtime", "TWO": "runtime"})
    made = launch(engine(f"{server} ${{PORT}}", env={"TWO": "engine"}), tmp_path, runtime=runtime)
    assert (made.env["ONE"], made.env["TWO"]) == ("runtime", "engine")
    assert made.env["HF_TOKEN"] == "hf"
    assert made.env["TMPDIR"] == str(tmp_path / "e1")
    assert "OPENAI_API_KEY" not in made.env
    assert "CUDA_VISIBLE_DEVICES" not in made.env


@pytest.mark.parametrize(("outer", "seen"), [(None, "1,3"), ("4,5,6,7", "5,7")])
def test_devices(tmp_path: Path, outer: str | None, seen: str) -> None:
    server = program(tmp_path / "server")
    environ = {**ENVIRON, **({} if outer is None else {"CUDA_VISIBLE_DEVICES": outer})}
    made = launch(
        engine(f"{server} ${{PORT}}"),
        tmp_path,
        placement=Placement("cuda", (1, 3)),
        environ=environ,
    )
    assert made.env["CUDA_VISIBLE_DEVICES"] == seen
    assert made.nice == 0


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("{base}/opt/server", "opt/server"),
        ("opt/server", "opt/server"),
        ("./opt/server", "opt/server"),
        ("server", "opt/server"),
        ("other", "beside/other"),  # a relative folder of PATH
    ],
)
def test_where_a_program_is_found(tmp_path: Path, said: str, where: str) -> None:
    found = program(tmp_path / where)
    path = f"{tmp_path / 'opt'}::beside"
    config = engine(said.format(base=tmp_path) + " ${PORT}", env={"PATH": path})
    assert os.path.samefile(launch(config, tmp_path).argv[0], found)


@pytest.mark.parametrize(
    ("cmd", "told"),
    [
        ("no-such-server ${PORT}", "no program 'no-such-server' in the PATH"),
        ("./no-such-server ${PORT}", "no program './no-such-server' (looked for "),
        ("/nowhere/server ${PORT}", "no program '/nowhere/server'"),
        ("./folder ${PORT}", "folder is no program"),
        ("./text ${PORT}", "text is no program that can be run"),
        ("'open ${PORT}", "cannot be cut into words"),
        ("'' ${PORT}", "names no program"),
    ],
)
def test_a_program_that_is_not_there(tmp_path: Path, cmd: str, told: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no program")
    with pytest.raises(EngineError) as caught:
        launch(engine(cmd), tmp_path)
    assert told in caught.value.message
    assert caught.value.reason == "environment"
    assert caught.value.terminal
    with pytest.raises(EngineError) as before:
        command.check("it", engine(cmd), None, environ=ENVIRON, base=tmp_path)
    assert before.value.message == caught.value.message


def test_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(ports, "free", none)
    with pytest.raises(EngineError, match="Too many open files") as caught:
        launch(engine(f"{program(tmp_path / 'server')} ${{PORT}}"), tmp_path)
    assert not caught.value.terminal


# --- the process ----------------------------------------------------------------------------------


def make(
    tmp_path: Path,
    *,
    port: int | None = None,
    health: str = "/health",
    on_line: Callable[[str], None] = lambda line: None,
    **script: Any,
) -> EngineProcess:
    """A process of the fake engine, by a command line."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "e1").mkdir()
    cmd = shlex.join([sys.executable, "-I", "-S", str(FAKE), PORT, json.dumps(script)])
    made = launch(engine(cmd, health=health), tmp_path)
    if port is not None:
        argv = tuple(str(port) if word == str(made.port) else word for word in made.argv)
        made = replace(made, argv=argv, port=port)
    return EngineProcess(
        made,
        socket=str(tmp_path / "e1" / "s"),
        file=LogFile(tmp_path / "e.log"),
        on_line=on_line,
        parent=str(tmp_path / "none"),
    )


async def pids(made: EngineProcess) -> Any:
    _, body = await made.control.get("/pids", 5)
    return json.loads(body)


@pytest.mark.parametrize("plain", [False, True])
async def test_start_ready_stop(tmp_path: Path, plain: bool) -> None:
    made = make(tmp_path, plain=plain, children=1, strays=1)
    pid = await made.start()
    assert await made.wait_ready(20) > 0
    assert made.url == f"http://127.0.0.1:{made.launch.port}"
    assert await made.control.health(5) is Health.WELL
    family = await pids(made)
    assert await made.stop(5) == Exit(signal=signal.SIGTERM)
    assert not any(alive(one) for one in (pid, *family["children"], *family["strays"]))
    assert not (tmp_path / "e1").exists()
    async with Control(None, url=made.url, vllm=False) as control:
        assert await control.health(5) is Health.DEAD


async def test_a_program_that_ignores_sigterm(tmp_path: Path) -> None:
    made = make(tmp_path, deaf=True)
    await made.start()
    await made.wait_ready(20)
    assert await made.stop(0.1) == Exit(signal=signal.SIGKILL)


async def test_503_is_a_miss_and_not_the_end(tmp_path: Path) -> None:
    """llama.cpp says so while it loads, others while they are busy."""
    made = make(tmp_path)
    await made.start()
    await made.wait_ready(20)
    await made.control.get("/do/sick", 5)
    assert await made.control.health(5) is Health.MISSED
    await made.kill()


async def test_nobody_listens_where_it_should(tmp_path: Path) -> None:
    made = make(tmp_path, gate=str(tmp_path / "never"))
    await made.start()
    with pytest.raises(EngineError, match=f"listens on 127.0.0.1:{made.launch.port}") as caught:
        await made.wait_ready(0.3)
    assert caught.value.reason == "timeout"
    await made.kill()


async def test_its_health_is_at_another_path(tmp_path: Path) -> None:
    listens = asyncio.Event()
    made = make(tmp_path, health="/do/hickup", on_line=lambda line: listens.set())
    await made.start()
    await listens.wait()  # its only line
    with pytest.raises(EngineError, match=r"/do/hickup does not answer 200") as caught:
        await made.wait_ready(0.2)
    assert caught.value.reason == "timeout"
    await made.kill()


async def test_the_port_is_taken_when_it_comes_to_bind_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    with socket.socket() as thief:
        assert made.launch.port is not None
        thief.bind((ports.LOOPBACK, made.launch.port))
        await made.start()
        with pytest.raises(EngineError, match="in use by another process") as caught:
            await made.wait_ready(20)
    assert caught.value.reason == "crash"
    assert not caught.value.terminal


async def test_somebody_else_answers_at_the_port(tmp_path: Path) -> None:
    """The engine is still loading, and what is well is another server."""
    made = make(tmp_path, gate=str(tmp_path / "never"))
    thief = make(tmp_path / "other", port=made.launch.port)
    await thief.start()
    try:
        await thief.wait_ready(20)
        await made.start()
        with pytest.raises(EngineError, match="Another process answers at its port") as caught:
            await made.wait_ready(20)
    finally:
        await made.kill()
        await thief.kill()
    assert caught.value.reason == "crash"
    assert not caught.value.terminal


@pytest.mark.parametrize(
    ("say", "code", "reason", "told", "terminal"),
    [
        (["sh: 1: llama-server: not found"], 127, "environment", "llama-server: not found", True),
        (["error: invalid argument: --nope"], 1, "arguments", "know an argument: --nope", True),
        (["x.py: error: argument --port: invalid"], 2, "arguments", "argument --port", True),
        (["ModuleNotFoundError: No module named 'sglang'"], 1, "environment", "sglang", True),
        (["/usr/bin/python: No module named sglang"], 1, "environment", "sglang", True),
        (
            ["x: error while loading shared libraries: libcudart.so.12: cannot open"],
            127, "environment", "libcudart.so.12", True,
        ),
        (
            ["main: error: failed to load model, 'no.gguf'"],
            1, "weights", "cannot load its weights: 'no.gguf'.", True,
        ),
        (["ggml: cudaMalloc failed: out of memory"], 1, "memory", "GPU ran out", False),
        (["OSError: [Errno 28] No space left on device"], 1, "disk", "disk is full", False),
        (["couldn't bind HTTP server socket, hostname: 127.0.0.1"], 1, "crash", "in use", False),
        (["odd", "ValueError: who knows"], 2, "crash", "(exit code 2): ValueError: who", False),
        ([], 0, "crash", "(exit code 0).", False),
    ],
)  # fmt: skip
async def test_starts_that_fail(
    tmp_path: Path, say: list[str], code: int, reason: str, told: str, terminal: bool
) -> None:
    made = make(tmp_path, say=say, exit=code)
    await made.start()
    with pytest.raises(EngineError) as caught:
        await made.wait_ready(20)
    assert caught.value.reason == reason
    assert told in caught.value.message
    assert "vLLM" not in caught.value.message
    assert caught.value.terminal is terminal
    assert caught.value.log_tail == tuple(say)
