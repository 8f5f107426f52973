"""`roundhouse ps`: what a person sees of the engines, in a pipe and on terminals of any width."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from server.cli.ps import ago, idle, memory, note
from tests.cli.conftest import FakeServer
from tests.cli.terminal import Start, open_terminals, start

__all__ = ["open_terminals", "start"]

Run = Callable[..., Result]
GIB = 2**30
ENGINE: dict[str, Any] = {
    "name": "qwen",
    "state": "starting",
    "origin": "loaded",
    "stage": "loading weights",
    "eta_s": 12.3,
    "restarts": 1,
    "pid": 42,
    "waiting": 3,
    "in_flight": 0,
    "since_s": 75.2,
    "devices": ["cuda:0", "cuda:1"],
    "memory": {"planned": 24 * GIB, "used": 12.5 * GIB},
    "idle_s": None,
    "idle_limit_s": 900.0,
    "error": None,
    "models": ["qwen3-8b", "fast"],
}
READY: dict[str, Any] = {
    "name": "guide", "state": "ready", "origin": "config", "stage": "", "eta_s": 0.0,
    "devices": ["cpu"], "memory": {"planned": 3 * GIB, "used": None}, "idle_s": 130.0,
    "in_flight": 2, "pid": 43, "models": ["guide"],
}  # fmt: skip
FAILED: dict[str, Any] = {
    "name": "b", "state": "failed", "error": "No\nmemory.", "pid": None, "eta_s": 4.0,
    "log": ["Traceback", "MemoryError\x1b[2J"],
}  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_in_a_pipe(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": [ENGINE, READY, FAILED]})
    result = run("ps", "--admin-url", fake.url, "--admin-key", "adm")
    assert result.exit_code == 0
    head, first, second, third = map(cells, result.stdout.splitlines())
    assert head == [
        "ENGINE", "STATE", "DEVICE", "MEMORY", "IN FLIGHT", "WAITING", "IDLE", "ORIGIN", "MODELS",
        "NOTE",
    ]  # fmt: skip
    assert first == [
        "qwen", "starting", "cuda:0,cuda:1", "12.5 of 24.0 GiB", "0", "3", "- of 15m", "loaded",
        "qwen3-8b, fast", "loading weights, about 12 s",
    ]  # fmt: skip
    assert second == ["guide", "ready", "cpu", "- of 3.0 GiB", "2", "0", "2m", "config", "guide"]
    assert third == ["b", "failed", "-", "-", "0", "0", "-", "-", "-", "No memory."]
    assert fake.seen[0].headers["authorization"] == "Bearer adm"


def test_what_is_left_out(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": [READY], "left_out": ["Guide", "old\x1b[2J"]})
    result = run("ps", "--admin-url", fake.url)
    assert len(result.stdout.splitlines()) == 2
    old = (
        "old[2J was loaded once and is left out; the server's log says why. "
        "`roundhouse unload old[2J` forgets it.\n"
    )
    assert result.stderr == old
    assert run("ps", "-v", "--admin-url", fake.url).stderr == (
        "What was loaded as Guide is left out: the config has an engine of this name, too. "
        f"`roundhouse unload Guide` forgets it.\n{old}"
    )


def test_json(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": [ENGINE, FAILED]})
    assert json.loads(run("ps", "--admin-url", fake.url, "--json").stdout) == [ENGINE, FAILED]


def test_verbose(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": [ENGINE, FAILED]})
    lines = run("ps", "-v", "--admin-url", fake.url).stdout.splitlines()
    assert cells(lines[0])[-4:] == ["SINCE", "PID", "RESTARTS", "NOTE"]
    assert cells(lines[1])[-4:] == ["1m", "42", "1", "loading weights, about 12 s"]
    assert lines[3:] == ["", "b, the last lines of its log:", "  | Traceback", "  | MemoryError[2J"]


def test_of_nothing_and_of_the_wrong_listener(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/engines", {"engines": []})
    said = run("ps", "--admin-url", fake.url).stdout
    assert said == "The server has no engines. `roundhouse load MODEL` adds one.\n"
    fake.json("GET", "/engines", {"object": "list"})
    result = run("ps", "--admin-url", fake.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not the admin API" in result.stderr


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ({"state": "starting", "stage": "", "eta_s": 12.3}, "about 12 s"),
        ({"state": "ready", "stage": "", "eta_s": 0.0}, ""),
        ({"state": "ready", "stage": "ready", "eta_s": 0.0}, ""),
        ({"stage": "x", "error": "broken"}, "broken"),
        ({"name": "q", "error": "Engine 'q': It died."}, "It died."),
        (
            {"stage": "1 of 2 replicas well", "replicas": [
                {"address": "a:1", "error": None}, {"address": "b:2", "error": "503."}]},
            "1 of 2 replicas well; b:2: 503.",
        ),
        (
            {"state": "ready", "instances": [{"state": "ready"}, {"state": "starting"}]},
            "1 of 2 replicas ready",
        ),
        ({"state": "ready", "instances": [{"state": "ready"}, {"state": "ready"}]}, ""),
    ],
)  # fmt: skip
def test_notes(engine: dict[str, Any], text: str) -> None:
    assert note(engine) == text


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, "-"),
        ({"used": GIB, "planned": None}, "1.0 GiB"),
        ({"used": 512 * 2**20, "planned": 2 * GIB}, "512 MiB of 2.0 GiB"),
        ({"used": 200 * GIB, "planned": 2000 * GIB}, "200 GiB of 2.0 TiB"),
    ],
)
def test_memory(told: dict[str, Any], text: str) -> None:
    assert memory(told) == text


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"pinned": True, "idle_s": 5.0}, "pinned"),
        ({"idle_s": 5.0, "idle_limit_s": 900.0}, "5s of 15m"),
        ({"idle_s": 5.0, "idle_limit_s": None}, "5s"),
        ({"idle_s": None, "idle_limit_s": None}, "-"),
    ],
)
def test_idle(told: dict[str, Any], text: str) -> None:
    assert idle(told) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0s"), (59, "59s"), (61, "1m"), (7300, "2h"), (2e5, "2d")],
)
def test_ago(seconds: float | None, text: str) -> None:
    assert ago(seconds) == text


# --- on a terminal


def shown(start: Start, fake: FakeServer, columns: int, *more: str) -> list[str]:
    terminal = start("ps", *more, "--admin-url", fake.url, columns=columns)
    assert terminal.ended() == 0
    lines = terminal.shown.splitlines()
    assert max(map(len, lines)) <= columns
    return lines


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        (160, "ENGINE STATE DEVICE MEMORY IN FLIGHT WAITING IDLE ORIGIN MODELS NOTE"),
        (130, "ENGINE STATE DEVICE MEMORY IN FLIGHT WAITING IDLE MODELS NOTE"),
        (100, "ENGINE STATE DEVICE MEMORY IN FLIGHT NOTE"),
        (80, "ENGINE STATE MEMORY IN FLIGHT NOTE"),
        (40, "ENGINE STATE NOTE"),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns(
    start: Start, fake: FakeServer, columns: int, titles: str
) -> None:
    fake.json("GET", "/engines", {"engines": [ENGINE, READY, FAILED]})
    lines = shown(start, fake, columns)
    head = next(line for line in lines if "ENGINE" in line)
    assert " ".join(head.split()) == titles
    assert any("qwen" in line and "starting" in line for line in lines)


def test_a_long_note_is_folded(start: Start, fake: FakeServer) -> None:
    words = [f"word{n}" for n in range(30)]
    fake.json("GET", "/engines", {"engines": [{**FAILED, "error": " ".join(words)}]})
    text = " ".join(shown(start, fake, 60))
    assert [word for word in text.split() if word.startswith("word")] == words


def test_it_is_shown_anew_until_ctrl_c(start: Start, fake: FakeServer) -> None:
    fake.steps("GET", "/engines", {"engines": [ENGINE]}, {"engines": [READY]})
    terminal = start("ps", "--watch", "--admin-url", fake.url)
    terminal.until("loading weights")
    terminal.until("guide")
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown


def test_watching_needs_a_terminal(run: Run, fake: FakeServer) -> None:
    result = run("ps", "--watch", "--admin-url", fake.url)
    assert (result.exit_code, "needs a terminal" in result.stderr) == (2, True)
    result = run("ps", "--watch", "--json", "--admin-url", fake.url)
    assert (result.exit_code, "GET /events" in result.stderr) == (2, True)
