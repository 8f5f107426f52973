"""`roundhouse unload`, `stop` and `default`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeServer
from tests.cli.terminal import Start, open_terminals, start

__all__ = ["open_terminals", "start"]

Run = Callable[..., Result]
OURS: dict[str, Any] = {"name": "guide", "state": "ready", "origin": "config", "models": ["guide"]}
ADDED: dict[str, Any] = {"name": "q", "state": "ready", "origin": "loaded", "models": ["org/Q"]}
GONE: dict[str, Any] = {
    "name": "q", "forgotten": True, "models": ["org/Q"], "default_cleared": False
}  # fmt: skip


@pytest.fixture
def server(fake: FakeServer) -> FakeServer:
    """One engine of the config, one that was added, and one of somebody else's."""
    theirs = {"name": "far", "state": "ready", "origin": "config", "replicas": []}
    fake.json("GET", "/engines", {"engines": [OURS, ADDED, theirs]})
    for engine in (OURS, ADDED):
        path = f"/engines/{engine['name']}"
        fake.json("GET", path, engine)
        fake.json("POST", f"{path}/unload", {**engine, "state": "stopped"})
    fake.json("GET", "/engines/org%2FQ", ADDED)
    fake.json("DELETE", "/engines/q", GONE)
    return fake


def calls(fake: FakeServer) -> list[str]:
    return [f"{seen.method} {seen.path}" for seen in fake.seen if seen.method != "GET"]


@pytest.mark.parametrize("word", ["unload", "stop"])
def test_one_of_the_config_is_stopped(run: Run, server: FakeServer, word: str) -> None:
    result = run(word, "guide", "--admin-url", server.url)
    assert (result.exit_code, result.stdout) == (0, "guide is stopped.\n")
    assert calls(server) == ["POST /engines/guide/unload"]


@pytest.mark.parametrize("name", ["q", "org/Q"])
def test_an_added_one_is_forgotten(run: Run, server: FakeServer, name: str) -> None:
    result = run("unload", name, "--admin-url", server.url)
    assert (result.exit_code, result.stdout) == (
        0, "q is stopped and forgotten, and with it the model org/Q.\n"
    )  # fmt: skip
    assert calls(server) == ["DELETE /engines/q"]
    server.json("DELETE", "/engines/q", {**GONE, "default_cleared": True})
    said = run("unload", name, "--admin-url", server.url).stdout
    assert said.endswith("org/Q. There is no default model any more.\n")


def test_an_added_one_may_be_kept(run: Run, server: FakeServer) -> None:
    said = run("unload", "q", "--keep", "--admin-url", server.url).stdout
    assert said == "q is stopped. It is kept for the next `roundhouse load`.\n"
    assert calls(server) == ["POST /engines/q/unload"]


def test_all(run: Run, server: FakeServer) -> None:
    result = run("unload", "--all", "--admin-url", server.url)
    assert result.stdout.splitlines() == [
        "guide is stopped.", "q is stopped and forgotten, and with it the model org/Q."
    ]  # fmt: skip
    assert json.loads(run("unload", "--all", "--json", "--admin-url", server.url).stdout) == [
        {**OURS, "state": "stopped"}, GONE
    ]  # fmt: skip
    server.json("GET", "/engines", {"engines": [{**OURS, "state": "stopped"}]})
    assert run("unload", "--all", "--admin-url", server.url).stdout == "Nothing is loaded.\n"


def test_what_is_left_out_is_forgotten(run: Run, server: FakeServer) -> None:
    left_out = {"engines": [OURS], "left_out": ["Guide", "old"]}
    server.json("GET", "/engines", left_out)
    gone = {"forgotten": True, "models": [], "default_cleared": False}
    server.json("DELETE", "/engines/guide", {"name": "Guide", **gone})
    server.json("DELETE", "/engines/old", {"name": "old", **gone})
    server.error("GET", "/engines/old", 404, "There is no engine `old`.")
    server.error("POST", "/engines/old/unload", 404, "There is no engine `old`.")
    result = run("unload", "old", "--admin-url", server.url)
    assert (result.exit_code, result.stdout) == (
        0, "old is forgotten: it was kept, and left out.\n"
    )  # fmt: skip
    # The config's own stops as ever; what had its name besides is gone.
    result = run("unload", "guide", "--admin-url", server.url)
    assert (result.exit_code, result.stdout.splitlines()) == (
        0, ["guide is stopped.", "What was loaded as guide, and left out, is forgotten."]
    )  # fmt: skip
    assert calls(server) == [
        "DELETE /engines/old", "POST /engines/guide/unload", "DELETE /engines/guide"
    ]  # fmt: skip
    server.seen.clear()
    assert run("unload", "guide", "--keep", "--admin-url", server.url).exit_code == 0
    assert run("unload", "old", "--keep", "--admin-url", server.url).exit_code == 1
    assert calls(server) == ["POST /engines/guide/unload", "POST /engines/old/unload"]


def test_wrong_usage(run: Run, server: FakeServer) -> None:
    for flags in ((), ("q", "--all")):
        result = run("unload", *flags, "--admin-url", server.url)
        assert (result.exit_code, "Name one engine, or say --all." in result.stderr) == (2, True)
    server.error("GET", "/engines/a%2Fb", 404, "There is no engine `a/b`.")
    result = run("unload", "a/b", "--admin-url", server.url)
    assert (result.exit_code, result.stderr) == (1, "Error: There is no engine `a/b`.\n")
    server.json("GET", "/engines/x", "?")
    assert "is not the admin API" in run("unload", "x", "--admin-url", server.url).stderr


def test_ctrl_c_while_it_drains(start: Start, server: FakeServer) -> None:
    asked, leave = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        asked.set()
        leave.wait(30)
        yield b"{}"

    server.answers["POST", "/engines/guide/unload"] = (200, slowly())
    terminal = start("unload", "guide", "--admin-url", server.url)
    assert asked.wait(30)
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "guide goes on stopping" in terminal.shown
    leave.set()


# --- default


def test_default(run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/default", {"model": None, "origin": None})
    fake.json("PUT", "/default", {"model": "org/Q", "origin": "loaded"})
    fake.json("DELETE", "/default", {"model": None, "origin": None})
    nobody = "There is no default model: every request names its own.\n"
    assert run("default", "--admin-url", fake.url).stdout == nobody
    assert run("default", "org/Q", "--admin-url", fake.url).stdout == "org/Q (set at run time)\n"
    assert fake.seen[-1].body == {"model": "org/Q"}
    assert run("default", "--clear", "--admin-url", fake.url).stdout == nobody
    fake.json("GET", "/default", {"model": "m", "origin": "config"})
    assert run("default", "--admin-url", fake.url).stdout == "m (in the config)\n"
    fake.json("DELETE", "/default", {"model": "m", "origin": "config"})
    assert run("default", "--clear", "--admin-url", fake.url).stdout == (
        "m (in the config). What was set at run time is forgotten.\n"
    )
    told = json.loads(run("default", "--json", "--admin-url", fake.url).stdout)
    assert told == {"model": "m", "origin": "config"}


def test_wrong_use_of_default(run: Run, fake: FakeServer) -> None:
    result = run("default", "m", "--clear", "--admin-url", fake.url)
    assert (result.exit_code, "not both" in result.stderr) == (2, True)
    fake.error("PUT", "/default", 409, "The default is `m` by `default` in a.yaml.")
    result = run("default", "x", "--admin-url", fake.url)
    assert (result.exit_code, result.stderr) == (
        1, "Error: The default is `m` by `default` in a.yaml.\n"
    )  # fmt: skip
