"""Engines that are killed, run out of memory, stop, fill the disk or have bad weights: what clients
see, what comes back, what does not, and what is counted. The real supervisor and its guards, over
fake engines; `tests/integration/test_kills.py` kills real ones."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.engines.watch import Timing
from tests.engines.conftest import (
    QUICK,
    FakeLauncher,
    alive,
    ask,
    gone,
    nothing_left,
    ready,
    tell,
    until,
)
from tests.fakes.client import RawClient
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream
from tests.faults.conftest import (
    ASK,
    CHAT,
    TWO,
    House,
    Serve,
    answered_by,
    broken,
    config_of,
    events_of,
)

__all__ = ["nothing_left"]

ENGINE = "engine/local"
ALONE = {"model": "alone"}
HELD = {"messages": [{"role": "user", "content": "hold"}]}
Start = Callable[..., Awaitable[House]]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> FakeLauncher:
    """Every supervisor's from now on; it comes back as soon as its policy lets it."""
    made = FakeLauncher()
    supervisor = functools.partial(
        Supervisor, launcher=made, policy=QUICK, timing=Timing(term=0.3, drain_poll=0.01)
    )
    monkeypatch.setattr("server.serving.Supervisor", supervisor)
    monkeypatch.setattr("server.serving.check_static", lambda *args, **more: ())
    return made


@pytest.fixture
def start(serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream) -> Start:
    """A server with an engine: `m` has it first and `two` behind it, `alone` has nothing else."""

    async def started(**engine: Any) -> House:
        config = config_of(one, two)
        settings = {"health_interval": "100ms", "start_timeout": "20s", "stop_timeout": "1s"}
        config["engines"] = {"local": {"weights": "fake", **settings, **engine}}
        config["models"] = {
            "m": {"targets": [{"engine": "local"}, {"provider": "two", "model": "b"}]},
            "alone": {"targets": [{"engine": "local"}]},
        }
        # How a target's breaker takes an engine's death is told elsewhere.
        config["routing"] = {"breaker": {"failures": 1000, "volume": 1000}}
        return await serve(config)

    return started


async def is_ready(house: House, generation: int = 0) -> EngineView:
    return await ready(house.server.supervisor, "local", generation)


async def running(view: EngineView, count: int) -> None:
    """Until the engine itself says that it works on so many."""
    text = f'vllm:num_requests_running{{engine="0",model_name="fake"}} {count}.0'
    async with asyncio.timeout(20):
        while text not in await ask(view, "/metrics"):
            await asyncio.sleep(0.01)  # a process of its own sends no events


async def begun(house: House, **more: Any) -> RawClient:
    """A client whose stream has begun."""
    client = RawClient(port=house.port)
    await client.connect()
    await client.post(CHAT, {**ASK, **more, "stream": True})
    assert (await client.read_head()).status == 200
    await client.read_event()
    return client


async def test_a_fake_engine_answers(start: Start, launcher: FakeLauncher) -> None:
    house = await start()
    view = await is_ready(house)
    answered_by(await house.ask(), ENGINE)
    client = await begun(house)
    await tell(view, "finish")
    assert (await events_of(client))[-1] == b"data: [DONE]"
    client.close()
    assert await house.metric("attempts_total", target=ENGINE, outcome="ok") == 2


# --- killed


@pytest.mark.parametrize(("who", "reason"), [("engine", "killed"), ("guard", "exit")])
async def test_killed(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream, who: str, reason: str
) -> None:
    """Streams that had begun end with an error event; whole answers come from the next target; the
    dead engine's processes are reaped, and it comes back."""
    # What has left the engine's session is found by the guard alone.
    launcher.scripts["local"] = {"children": 2, "strays": 1 if who == "engine" else 0}
    two.default = chat_answer("from two")
    house = await start(health_interval="1h")
    view = await is_ready(house)
    pids = await ask(view, "/pids")
    stream, alone = await begun(house), await begun(house, **ALONE)
    whole = asyncio.create_task(house.ask(**HELD))
    hopeless = asyncio.create_task(house.ask(**HELD, **ALONE))
    await running(view, 4)
    launcher.scripts["local"] = {}
    if who == "engine":
        os.kill(pids["self"], signal.SIGKILL)
    else:
        os.kill(parent_of(pids["self"]), signal.SIGKILL)
    for client in (stream, alone):
        assert broken(await events_of(client))["type"] == "server_error"
        client.close()
    answered_by(await whole, TWO)
    await gone(pids["self"], *pids["children"], *pids["strays"])
    again = await is_ready(house, view.generation)
    assert again.pid != view.pid
    await tell(again, "finish")
    assert (await hopeless).status_code in (200, 502, 503)  # 200: it waited for the next life
    answered_by(await house.ask(), ENGINE)
    assert await house.metric("engine_restarts_total", engine="local", reason=reason) == 1
    assert await house.metric("engine_restarts_total") == 1
    assert await house.metric("engine_starts_total", engine="local", result="ready") == 2
    assert await house.metric("engine_state", engine="local", state="ready") == 1
    assert await house.metric("fallbacks_total", model="m") == 1
    assert await house.metric("stream_end_total", reason="done") == 0
    assert await house.metric("stream_end_total") == 2


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(status[1])


async def test_while_it_comes_back_the_next_target_answers(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream, tmp_path: Path
) -> None:
    two.default = chat_answer("from two")
    house = await start()
    view = await is_ready(house)
    launcher.scripts["local"] = {"gate": str(tmp_path / "gate")}
    assert view.pid is not None
    os.kill(view.pid, signal.SIGKILL)
    await until(house.server.supervisor, "local", lambda v: v.state is not EngineState.READY)
    answered_by(await house.ask(), TWO)
    assert await house.metric("engine_state", engine="local", state="ready") == 0
    (tmp_path / "gate").touch()
    await is_ready(house, view.generation)
    answered_by(await house.ask(), ENGINE)
    assert await house.metric("attempts_total", target=TWO, outcome="ok") == 1


async def test_five_crashes_and_it_is_given_up(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream
) -> None:
    launcher.scripts["local"] = {"say": ["RuntimeError: boom"], "exit": 1}
    two.default = chat_answer("from two")
    house = await start()
    await until(house.server.supervisor, "local", lambda v: v.state is EngineState.FAILED)
    assert await house.metric("engine_restarts_total", engine="local", reason="start") == 5
    assert await house.metric("engine_starts_total", engine="local", result="failed") == 5
    assert await house.metric("engine_state", engine="local", state="failed") == 1
    answered_by(await house.ask(), TWO)
    refused = await house.ask(**ALONE)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert "boom" not in refused.text
    # An operator who has mended it brings it back.
    launcher.scripts["local"] = {}
    assert (await house.admin("POST", "/engines/local/load")).status_code in (200, 202)
    await is_ready(house)
    answered_by(await house.ask(**ALONE), ENGINE)


# --- out of memory


async def test_out_of_memory_while_it_serves(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream
) -> None:
    """The kernel's way is a SIGKILL to whoever is largest: engines go before the server."""
    two.default = chat_stream(["from two"])
    house = await start()
    view = await is_ready(house)
    pids = await ask(view, "/pids")
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert int(pids["oom"]) > int(ours)
    client = await begun(house)
    os.kill(pids["self"], signal.SIGKILL)
    broken(await events_of(client))
    client.close()
    await is_ready(house, view.generation)
    assert await house.metric("engine_restarts_total", engine="local", reason="killed") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "memory"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("safetensors_rust.SafetensorError: Error while deserializing header", "weights"),
    ],
)
async def test_what_does_not_pass_by_itself_is_told_and_not_tried_again(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream, line: str, reason: str
) -> None:
    """No memory, a full disk, corrupt weights, met in the start: one clear error, no loop."""
    launcher.scripts["local"] = {"say": [line], "exit": 1}
    two.default = chat_answer("from two")
    house = await start()
    view = await until(house.server.supervisor, "local", lambda v: v.state is EngineState.FAILED)
    assert view.error_reason == reason
    assert launcher.launches == ["local"]
    assert await house.metric("engine_starts_total", engine="local", result="failed") == 1
    assert await house.metric("engine_restarts_total", engine="local", reason="start") == 1
    assert await house.metric("engine_state", engine="local", state="failed") == 1
    shown = (await house.admin("GET", "/engines")).json()["engines"][0]
    assert shown["state"] == "failed"
    assert shown["error"]
    answered_by(await house.ask(), TWO)
    refused = await house.ask(**ALONE)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert line not in refused.text


# --- stopped, or deaf


@pytest.mark.parametrize("how", ["stopped", "mute"])
async def test_one_that_hangs_is_killed_after_three_misses(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream, how: str
) -> None:
    launcher.scripts["local"] = {"deaf": True}
    two.default = chat_answer("from two")
    house = await start(health_misses=3)
    view = await is_ready(house)
    client = await begun(house)
    whole = asyncio.create_task(house.ask(**HELD))
    await running(view, 2)
    assert view.pid is not None
    launcher.scripts["local"] = {}
    if how == "stopped":
        os.kill(view.pid, signal.SIGSTOP)
    else:
        await tell(view, "mute")
    broken(await events_of(client))
    client.close()
    answered_by(await whole, TWO)
    await gone(view.pid)
    await is_ready(house, view.generation)
    answered_by(await house.ask(), ENGINE)
    assert await house.metric("engine_restarts_total", engine="local", reason="hang") == 1
    assert await house.metric("engine_restarts_total") == 1
    assert await house.metric("fallbacks_total", model="m") == 1


# --- clients


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_frees_the_engine(
    start: Start, launcher: FakeLauncher, stream: bool
) -> None:
    house = await start()
    view = await is_ready(house)
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, **HELD, "stream": stream})
        await running(view, 1)
        client.close()
        await running(view, 0)
    text = (await house.admin("GET", "/metrics/engines")).text
    assert "vllm:num_requests_running" in text
    assert await house.metric("attempts_total", target=ENGINE, outcome="client_gone") == 1
    assert await house.metric("requests_total", status="499") == 1


# --- the end


async def test_a_stopping_server_lets_its_engines_finish(
    start: Start, launcher: FakeLauncher
) -> None:
    """They go when their streams have ended, and none stays behind."""
    house = await start()
    view = await is_ready(house)
    assert view.pid is not None
    client = await begun(house)
    stopping = asyncio.create_task(house.server.__aexit__(None, None, None))
    while not await house.metric_now("drain_seconds"):
        await asyncio.sleep(0)
    assert alive(view.pid)
    await tell(view, "finish")
    assert (await events_of(client))[-1] == b"data: [DONE]"
    client.close()
    await stopping
    await gone(view.pid)


# --- the disk


async def test_a_full_disk_stops_nobody(
    start: Start, launcher: FakeLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the log nor what was learned of the start can be written: it serves all the same."""
    full = OSError(28, "No space left on device")

    def no_room(*args: Any) -> int:
        raise full

    monkeypatch.setattr("server.engines.logs.os.write", no_room)
    monkeypatch.setattr("server.files.os.fsync", no_room)
    house = await start()
    await is_ready(house)
    answered_by(await house.ask(**ALONE), ENGINE)
    assert await house.metric("engine_starts_total", engine="local", result="ready") == 1
    monkeypatch.undo()
    home = tmp_path / "home"
    assert not [path for path in home.rglob(".*") if path.is_file()]  # no half-written file stays


# --- weights


def damaged(folder: Path) -> Path:
    """A model whose tensors were cut off by a copy that did not end."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    header = {"w": {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 100)
    return folder


async def test_corrupt_weights_never_replace_a_good_config(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path
) -> None:
    one.default = chat_answer("from one")
    config = config_of(one, two)
    house = await serve(config)
    bad = str(damaged(tmp_path / "weights"))
    await house.write({**config, "engines": {"local": {"weights": bad, "device": "cpu"}}})
    refused = await house.admin("POST", "/reload")
    assert refused.status_code == 400
    assert "damaged" in refused.json()["error"]["message"]
    assert await house.metric("config_reloads_total", result="rejected") == 1
    assert await house.metric("engine_starts_total") == 0
    answered_by(await house.ask(), "one/a")
