"""`roundhouse load`: what is asked for, the stages, how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeServer
from tests.cli.terminal import Start, open_terminals, start

__all__ = ["open_terminals", "start"]

Run = Callable[..., Result]


def engine(state: str, stage: str = "", **more: Any) -> dict[str, Any]:
    return {
        "name": "qwen3-8b", "state": state, "stage": stage, "eta_s": None,
        "models": ["Qwen/Qwen3-8B"], **more,
    }  # fmt: skip


READY = engine("ready")
PATH = "/engines/qwen3-8b"


@pytest.fixture
def loads(fake: FakeServer) -> FakeServer:
    """A server whose engine loads in stages."""
    fake.json("POST", "/engines", engine("stopped"), 202)
    fake.steps(
        "GET",
        PATH,
        engine("waiting", "pulling: 34 %, 514 MiB of 1.5 GiB"),
        engine("waiting", "pulling: 99 %, 1.5 GiB of 1.5 GiB"),
        engine("starting", "loading weights (42%)", eta_s=31.0),
        engine("starting", "preparing the KV cache", eta_s=4.0),
        READY,
    )
    return fake


def test_stages_in_a_pipe(run: Run, loads: FakeServer) -> None:
    result = run("load", "Qwen/Qwen3-8B", "--admin-url", loads.url)
    assert (result.exit_code, result.stdout) == (
        0, "qwen3-8b is ready. It answers for: Qwen/Qwen3-8B.\n"
    )  # fmt: skip
    assert result.stderr.splitlines() == [
        "qwen3-8b: about to load",
        "qwen3-8b: pulling: 34 %, 514 MiB of 1.5 GiB",
        "qwen3-8b: loading weights (42%)",
        "qwen3-8b: preparing the KV cache",
    ]
    assert "\x1b" not in result.output
    assert loads.seen[0].body == {"model": "Qwen/Qwen3-8B"}


def test_the_line_on_a_terminal(start: Start, loads: FakeServer) -> None:
    terminal = start("load", "Qwen/Qwen3-8B", "--admin-url", loads.url, columns=60)
    terminal.until("qwen3-8b: loading weights (42%), ")
    terminal.until("about 31 s left")
    assert terminal.ended() == 0
    text = terminal.raw.decode()
    line, _, rest = text.rpartition("\r\x1b[2K")
    assert rest == "qwen3-8b is ready. It answers for: Qwen/Qwen3-8B.\r\n"
    assert "\n" not in line
    assert all(len(one) < 60 for one in line.split("\r\x1b[2K"))


def test_a_terminal_that_can_do_nothing(start: Start, loads: FakeServer) -> None:
    terminal = start("load", "Qwen/Qwen3-8B", "--admin-url", loads.url, term="dumb")
    assert terminal.ended() == 0
    assert b"\x1b" not in terminal.raw
    assert "qwen3-8b: preparing the KV cache\r\n" in terminal.shown


def test_a_narrow_terminal_cuts_the_line(start: Start, loads: FakeServer) -> None:
    terminal = start("load", "Qwen/Qwen3-8B", "--admin-url", loads.url, columns=24)
    assert terminal.ended() == 0
    lines = terminal.raw.decode().split("\r\x1b[2K")[1:-1]
    assert "qwen3-8b: loading weigh" not in lines
    assert "qwen3-8b: loading weig…" in lines


def test_a_failure_with_the_last_lines(run: Run, fake: FakeServer) -> None:
    fake.json("POST", "/engines", engine("starting"), 202)
    error = "The GPU ran out of memory.\nLower `max-model-len`."
    log = ["a\x1b[31m", "torch.OutOfMemoryError"]
    fake.json("GET", PATH, engine("failed", error=error, log=log))
    result = run("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "qwen3-8b: starting\n"
        "Error: qwen3-8b has failed. The GPU ran out of memory.\nLower `max-model-len`.\n"
        "  | a[31m\n  | torch.OutOfMemoryError\n"
    )


def test_a_failure_of_what_was_added(run: Run, fake: FakeServer) -> None:
    fake.json("POST", "/engines", engine("failed", error="No.", origin="loaded"), 202)
    result = run("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    assert result.stderr == (
        "Error: qwen3-8b has failed. No. `roundhouse unload qwen3-8b` forgets it.\n"
    )


def test_one_that_is_forgotten_meanwhile(run: Run, fake: FakeServer) -> None:
    fake.json("POST", "/engines", engine("starting"), 202)
    gone = {"error": {"message": "There is no engine.", "code": "engine_not_found"}}
    fake.json("GET", PATH, gone, 404)
    result = run("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        "Error: qwen3-8b is gone: somebody has unloaded it meanwhile."
    ]


def test_one_that_is_tried_again_and_one_that_is_stopped_meanwhile(
    run: Run, fake: FakeServer
) -> None:
    fake.json("POST", "/engines", engine("starting"), 202)
    fake.steps("GET", PATH, engine("backoff", error="It died."), engine("stopped"))
    result = run("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        "qwen3-8b: tried again soon; it said: It died.",
        "Error: qwen3-8b is stopped: somebody has unloaded it meanwhile.",
    ]


def test_ctrl_c_ends_the_waiting_alone(start: Start, fake: FakeServer) -> None:
    fake.json("POST", "/engines", engine("starting", "loading weights"), 202)
    fake.json("GET", PATH, engine("starting", "loading weights"))
    terminal = start("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    while len(fake.seen) < 3:
        terminal.until("loading weights")
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "qwen3-8b goes on loading" in terminal.shown
    assert "`roundhouse unload qwen3-8b` ends it" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert {seen.method for seen in fake.seen[1:]} == {"GET"}


def test_ctrl_c_before_the_server_has_answered(start: Start, fake: FakeServer) -> None:
    asked, leave = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        asked.set()
        leave.wait(60)
        yield b"{}"

    fake.answers["POST", "/engines"] = (202, slowly())
    terminal = start("load", "Qwen/Qwen3-8B", "--admin-url", fake.url)
    assert asked.wait(60)
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "It may load it all the same: `roundhouse ps` shows it." in terminal.shown
    assert "Traceback" not in terminal.shown
    leave.set()


def test_a_wait_with_an_end(run: Run, fake: FakeServer) -> None:
    fake.json("POST", "/engines", engine("starting", "loading weights"), 202)
    fake.json("GET", PATH, engine("starting", "loading weights"))
    result = run("load", "Qwen/Qwen3-8B", "--timeout", "10ms", "--admin-url", fake.url)
    assert result.exit_code == 1
    assert "is not ready after 0.01 s. It goes on loading" in result.stderr
    result = run("load", "x", "--timeout", "soon", "--admin-url", fake.url)
    assert (result.exit_code, "is no duration" in result.stderr) == (2, True)


def test_without_waiting(run: Run, loads: FakeServer) -> None:
    result = run("load", "Qwen/Qwen3-8B", "--no-wait", "--admin-url", loads.url)
    assert (result.exit_code, result.stdout, result.stderr) == (
        0, "qwen3-8b is being loaded. `roundhouse ps` shows how far it is.\n", ""
    )  # fmt: skip
    assert len(loads.seen) == 1


def test_json(run: Run, loads: FakeServer) -> None:
    assert json.loads(run("load", "a/b", "--json", "--admin-url", loads.url).stdout) == READY


def test_settings(run: Run, loads: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "h")
    flags = (
        "--name q --as qwen --context 4096 --concurrency 8 --kv-cache 2GiB --device cuda:1 "
        "--dtype float16 --quantization fp8 --revision v1 --replicas 2 --memory 20GiB --idle 15m "
        "--pinned --sleep --group a --group b --arg max-num-seqs=8 --arg enforce-eager "
        "--arg tool-call-parser=hermes --arg --seed=null --env A=b=c --env FROM_HERE "
        "--set max_in_flight=32 --set load=request --default --no-wait"
    )
    result = run("load", "Qwen/Qwen3-8B", *flags.split(), "--admin-url", loads.url)
    assert result.exit_code == 0, result.output
    assert loads.seen[0].body == {
        "model": "Qwen/Qwen3-8B",
        "name": "q",
        "as": "qwen",
        "default": True,
        "settings": {
            "context": 4096, "concurrency": 8, "kv_cache": "2GiB", "device": "cuda:1",
            "dtype": "float16", "quantization": "fp8", "revision": "v1", "replicas": 2,
            "memory": "20GiB", "idle": "15m", "pinned": True, "sleep": True, "groups": ["a", "b"],
            "args": {
                "max-num-seqs": 8, "enforce-eager": True, "tool-call-parser": "hermes",
                "seed": None,
            },
            "env": {"A": "b=c", "FROM_HERE": "h"}, "max_in_flight": 32, "load": "request",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "Missing argument 'WHAT'"),
        (("./nothing",), "There is no folder './nothing' (looked for /"),
        (("x", "--env", "NOT_HERE"), "NOT_HERE is not set here"),
        (("x", "--env", "=b"), "write --env NAME=VALUE"),
        (("x", "--arg", "=b"), "write --arg NAME=VALUE"),
        (("x", "--set", "pinned"), "write --set pinned=VALUE"),
        (("x", "--context", "0"), "0 is not in the range"),
        (("x", "--no-wait", "--timeout", "5s"), "--timeout is for a wait"),
        (("x", "--replicas", "two"), "'two' is not a valid integer"),
    ],
)
def test_wrong_usage(run: Run, fake: FakeServer, flags: tuple[str, ...], said: str) -> None:
    result = run("load", *flags, "--admin-url", fake.url)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not fake.seen


def test_folders_go_by_their_whole_path(run: Run, loads: FakeServer, nowhere: Path) -> None:
    (nowhere / "org" / "model").mkdir(parents=True)
    for what in ("./org/model", "org/model", "org/../org/model/", str(nowhere / "org" / "model")):
        run("load", what, "--no-wait", "--admin-url", loads.url)
        assert loads.seen[-1].body == {"model": str(nowhere / "org" / "model")}
    run("load", "/on/the/server", "--no-wait", "--admin-url", loads.url)
    assert loads.seen[-1].body == {"model": "/on/the/server"}


def test_what_the_server_refuses(run: Run, fake: FakeServer, nowhere: Path) -> None:
    fake.error("POST", "/engines", 404, "There is no engine `mine`. Engines: none.")
    result = run("load", "mine", "--admin-url", fake.url)
    assert (result.exit_code, result.stderr) == (
        1, "Error: There is no engine `mine`. Engines: none.\n"
    )  # fmt: skip
    (nowhere / "mine").mkdir()
    said = run("load", "mine", "--admin-url", fake.url).stderr
    assert said.endswith("Engines: none. For the folder here: `roundhouse load ./mine`.\n")
    fake.error("POST", "/engines", 409, "Engine `mine` is in roundhouse.yaml.")
    assert run("load", "mine", "--admin-url", fake.url).exit_code == 1
    fake.json("POST", "/engines", "?")
    assert "is not the admin API" in run("load", "mine", "--admin-url", fake.url).stderr
