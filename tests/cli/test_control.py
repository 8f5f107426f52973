"""The commands against a whole server whose engines are fakes: real processes at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from server.serving import Roundhouse
from tests.api.conftest import Serve, config_of, serve
from tests.api.engine_house import QUICKLY, launcher
from tests.cli.terminal import Start, Terminal, open_terminals, start
from tests.engines.conftest import FakeLauncher, nothing_left
from tests.fakes.upstream import ScriptedUpstream

__all__ = ["launcher", "nothing_left", "open_terminals", "serve", "start"]

NEW = ("org/New-1B", "--set", "health_interval=100ms", "--set", "stop_timeout=1s")
Ask = Callable[..., Terminal]


@pytest.fixture
async def server(serve: Serve, upstream: ScriptedUpstream, launcher: FakeLauncher) -> Roundhouse:
    config = config_of(upstream)
    config["engines"] = {"small": {"weights": "org/Small", "load": "request", **QUICKLY}}
    return await serve(config)


@pytest.fixture
def ask(start: Start, server: Roundhouse) -> Ask:
    """A command that asks this server, on a terminal."""

    def begun(*arguments: str) -> Terminal:
        return start(*arguments, "--admin-url", str(server.admin_url), columns=160)

    return begun


async def ended(terminal: Terminal, code: int = 0) -> str:
    """All that it showed, while the server in this loop goes on."""
    found = await asyncio.to_thread(terminal.ended)
    assert found == code, terminal.shown
    assert "Traceback" not in terminal.shown
    return terminal.shown


def row_of(shown: str, engine: str) -> list[str]:
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == [engine])
    return line.split()


async def test_from_load_to_unload(ask: Ask, launcher: FakeLauncher) -> None:
    launcher.scripts["new-1b"] = {"say": ["Starting to load model"]}
    shown = await ended(ask("load", *NEW, "--default"))
    assert shown.endswith("new-1b is ready. It answers for: org/New-1B.\r\n")
    shown = await ended(ask("ps"))
    assert row_of(shown, "new-1b")[1] == "ready"
    assert "loaded" in row_of(shown, "new-1b")
    assert "config" in row_of(shown, "small")
    assert await ended(ask("default")) == "org/New-1B (set at run time)\r\n"
    assert "Starting to load model" in await ended(ask("logs", "org/New-1B"))
    shown = await ended(ask("unload", "new-1b"))
    assert shown == (
        "new-1b is stopped and forgotten, and with it the model org/New-1B. "
        "There is no default model any more.\r\n"
    )
    assert "new-1b" not in await ended(ask("ps"))
    assert "There is no engine `new-1b`" in await ended(ask("logs", "new-1b"), 1)


async def test_one_of_the_config(ask: Ask) -> None:
    assert "small is ready" in await ended(ask("load", "small"))
    assert "small is ready" in await ended(ask("load", "org/Small"))
    shown = await ended(ask("load", "small", "--context", "99"), 1)
    assert "change them there" in shown
    assert await ended(ask("stop", "small")) == "small is stopped.\r\n"
    assert await ended(ask("unload", "--all")) == "Nothing is loaded.\r\n"
    assert "Did you mean `small`?" in await ended(ask("unload", "smal"), 1)


async def test_a_start_that_fails(ask: Ask, launcher: FakeLauncher) -> None:
    launcher.scripts["new-1b"] = {
        "say": ["about to fail", "vllm: error: unrecognized arguments: --nope"], "exit": 2
    }  # fmt: skip
    shown = await ended(ask("load", *NEW), 1)
    assert "vLLM does not know these arguments: --nope" in shown
    assert "`roundhouse unload new-1b` forgets it" in shown
    assert "  | about to fail\r\n" in shown
    shown = await ended(ask("ps", "-v"))
    assert row_of(shown, "new-1b")[1] == "failed"
    assert "  | about to fail\r\n" in shown


async def test_ctrl_c_leaves_it_loading(ask: Ask, launcher: FakeLauncher, tmp_path: Any) -> None:
    launcher.scripts["new-1b"] = {"say": ["Starting to load model"], "gate": str(tmp_path / "go")}
    terminal = ask("load", *NEW)
    await asyncio.to_thread(terminal.until, "loading weights")
    terminal.type("\x03")
    assert "new-1b goes on loading" in await ended(terminal, 130)
    (tmp_path / "go").touch()
    assert "new-1b is ready" in await ended(ask("load", "new-1b"))


async def test_a_log_is_followed(ask: Ask, server: Roundhouse) -> None:
    terminal = ask("logs", "small", "-f")
    file = server.supervisor.log_file("small")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("the first line\n")
    await asyncio.to_thread(terminal.until, "the first line")
    await ended(ask("load", "small"))
    await asyncio.to_thread(terminal.until, "Application startup complete.")
    terminal.type("\x03")
    await ended(terminal, 130)
