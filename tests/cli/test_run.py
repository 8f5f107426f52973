from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from server.cli import run as module
from server.cli.inside import Inside
from server.config.load import Loaded, from_models
from server.engines.state import EngineState, EngineView
from server.errors import BindError, EngineError
from tests.cli.conftest import DONE, FakeServer

Run = Callable[..., Result]


class House:
    """Stands in for `server.serving.Roundhouse`; `answers` is the server that it says it is."""

    def __init__(self, answers: FakeServer | None = None) -> None:
        self.loaded: Loaded | None = None
        self.fault: Exception | None = None
        self.left = threading.Event()
        self.states = [EngineState.STARTING, EngineState.STARTING, EngineState.READY]
        self.tail: tuple[str, ...] = ()
        self.url = answers.url if answers else ""
        self.supervisor = SimpleNamespace(views=self.views, error=self.error)

    def views(self) -> tuple[EngineView, ...]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return (EngineView("e", state),)

    def error(self, name: str) -> EngineError:
        return EngineError("dead", reason="crash", log_tail=self.tail)

    def __call__(self, loaded: Loaded) -> House:
        self.loaded = loaded
        return self

    async def __aenter__(self) -> House:
        if self.fault is not None:
            raise self.fault
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.left.set()


@pytest.fixture
def house(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> House:
    found = House(fake)
    serving: Any = ModuleType("server.serving")
    serving.Roundhouse = found
    monkeypatch.setitem(sys.modules, "server.serving", serving)
    monkeypatch.setattr(module, "_LOOK", 0.001)
    return found


def test_serve_and_ask(run: Run, house: House, fake: FakeServer) -> None:
    fake.stream("yes", DONE)
    result = run("run", "org/Model", "--system", "s", "--max-tokens", "3", input="hi")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "yes\n", "e: loading\n")
    assert house.left.is_set()
    assert house.loaded is not None
    config = house.loaded.config
    assert (config.server.host, config.server.port, config.server.admin) == ("127.0.0.1", 0, None)
    (key,) = config.server.keys
    assert fake.seen[0].headers["authorization"] == f"Bearer {key.key.get_secret_value()}"
    assert fake.seen[0].body["model"] == "org/Model"
    assert fake.seen[0].body["messages"][0]["content"] == "s"


def test_it_has_a_key_of_its_own(
    run: Run, house: House, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUNDHOUSE_API_KEY", "the-user's-own-key")
    monkeypatch.setenv("ROUNDHOUSE_KEYS_FILE", "nowhere.yaml")
    monkeypatch.setenv("ROUNDHOUSE_HOST", "0.0.0.0")
    fake.stream("yes", DONE)
    assert run("run", input="hi").exit_code == 0
    assert house.loaded is not None
    assert list(house.loaded.config.models) == ["guide"]
    (key,) = house.loaded.config.server.keys
    assert key.key.get_secret_value().startswith("sk-rh-")


def test_an_engine_that_fails(run: Run, house: House) -> None:
    house.states = [EngineState.FAILED]
    house.tail = ("last words",)
    result = run("run", input="hi")
    assert result.exit_code == 4
    assert result.stderr == "Error: The engine e has failed.\n  | last words\n"
    assert house.left.is_set()


def test_a_server_that_cannot_start(run: Run, house: House) -> None:
    house.fault = BindError("No port is free.")
    result = run("run", input="hi")
    assert (result.exit_code, result.stderr) == (3, "Error: No port is free.\n")


def test_stages() -> None:
    view = EngineView("e", EngineState.STARTING, stage="loading weights", eta=7)
    assert module.stage_of(view) == "e: loading weights (loading, about 7 s)"
    assert module.stage_of(EngineView("e", EngineState.BACKOFF)) == "e: restarting"


# --- the server inside


@pytest.fixture
def loaded() -> Loaded:
    return from_models(["a/b"], environ={})


def test_a_fault_later_on_is_raised_while_waiting(loaded: Loaded) -> None:
    class Short(House):
        async def __aenter__(self) -> House:
            asyncio.get_running_loop().call_soon(self.fall, asyncio.current_task())
            return self

        @staticmethod
        def fall(task: asyncio.Task[Any] | None) -> None:
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError), Inside(loaded, make=Short()) as inside:
        inside.wait(30)


def test_leaving_before_it_has_begun(loaded: Loaded) -> None:
    house = House()
    inside = Inside(loaded, make=house)
    inside._leaving = True
    with inside:
        inside.wait(30)
    assert not house.left.is_set()


def test_ctrl_c_while_it_starts(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    inside = Inside(loaded, make=house)

    def interrupted(timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(inside._listening, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), inside:
        raise AssertionError("not entered")
    assert not inside._thread.is_alive()
