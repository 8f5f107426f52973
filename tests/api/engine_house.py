"""Whole servers whose engines are fakes: real processes, real sockets, short times."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.engines.supervisor import Supervisor
from server.engines.watch import Timing
from server.serving import Roundhouse
from tests.api.conftest import Serve, config_of
from tests.engines.conftest import QUICK, FakeLauncher
from tests.fakes.upstream import ScriptedUpstream

QUICKLY = {"health_interval": "100ms", "start_timeout": "20s", "stop_timeout": "1s"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> FakeLauncher:
    """Every supervisor's from now on."""
    made = FakeLauncher()
    supervisor = functools.partial(
        Supervisor, launcher=made, policy=QUICK, timing=Timing(term=0.3, drain_poll=0.01)
    )
    monkeypatch.setattr("server.serving.Supervisor", supervisor)
    monkeypatch.setattr("server.serving.check_static", lambda *args, **more: ())
    return made


@asynccontextmanager
async def admin_of(server: Roundhouse, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    assert server.admin_url is not None
    async with httpx.AsyncClient(base_url=server.admin_url, timeout=30, **more) as client:
        yield client


async def told(admin: httpx.AsyncClient, name: str, state: str) -> dict[str, Any]:
    """The engine, once it is in that state."""
    async with asyncio.timeout(30):
        while True:
            answer = await admin.get(f"/engines/{name}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if found["state"] == state:
                return found
            await asyncio.sleep(0.01)  # what is polled here is polled by the command, too


def error_of(answer: httpx.Response, status: int, code: str) -> str:
    """The message of an error of this status and code."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code, error
    return str(error["message"])


@pytest.fixture
def config(upstream: ScriptedUpstream) -> dict[str, Any]:
    """Engines `big` and `small`, which load on request; models `big` and `both`."""
    made = config_of(upstream)
    made["engines"] = {
        "big": {"weights": "org/Big", "load": "request", "idle": "15m", **QUICKLY},
        "small": {"weights": "org/Small", "load": "request", **QUICKLY},
    }
    made["models"] |= {
        "large": {"targets": [{"engine": "big"}]},
        "either": {"targets": [{"engine": "big"}, {"engine": "small"}]},
    }
    return made


@pytest.fixture
async def server(serve: Serve, config: dict[str, Any], launcher: FakeLauncher) -> Roundhouse:
    return await serve(config)


def new(**more: Any) -> dict[str, Any]:
    """A body for weights that nobody has, with settings that make it quick."""
    settings = {"health_interval": "100ms", "stop_timeout": "1s", **more.pop("settings", {})}
    return {"model": "org/New-1B", "settings": settings, **more}
