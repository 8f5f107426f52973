"""Engines that are loaded, added, unloaded and forgotten over the admin API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config.load import load
from server.serving import Roundhouse
from tests.api.conftest import Serve
from tests.api.engine_house import admin_of, config, error_of, launcher, new, server, told
from tests.engines.conftest import FakeLauncher, failed, nothing_left
from tests.fakes.client import RawClient

__all__ = ["config", "launcher", "nothing_left", "server"]

ADMIN_KEY = "sk-admin-0123456789abcdef0123456789abcdef"


# --- what is told


async def test_an_engine_is_told(server: Roundhouse, admin: httpx.AsyncClient) -> None:
    (big, small) = (await admin.get("/engines")).json()["engines"]
    assert (big["name"], small["name"]) == ("big", "small")
    one = (await admin.get("/engines/big")).json()
    assert one.pop("since_s") >= big.pop("since_s") >= 0
    assert one == big
    assert big == {
        "name": "big", "state": "stopped", "origin": "config", "weights": "org/Big",
        "models": ["large", "either"], "stage": "", "eta_s": None, "restarts": 0, "pid": None,
        "waiting": 0, "in_flight": 0, "devices": [], "memory": {"planned": None, "used": None},
        "pinned": False, "idle_s": None, "idle_limit_s": 900.0, "unload_in_s": None,
        "error": None, "error_reason": None, "log": [], "instances": [],
    }  # fmt: skip


async def test_a_loaded_one_is_idle_since_it_is_ready(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/engines/big/load")).status_code == 202
    engine = await told(admin, "big", "ready")
    assert engine["idle_s"] >= 0
    assert engine["pid"] > 0


async def test_it_is_not_idle_while_it_answers(
    server: Roundhouse, admin: httpx.AsyncClient
) -> None:
    await admin.post("/engines/big/load")
    await told(admin, "big", "ready")
    port = int(server.url.rpartition(":")[2])
    async with RawClient(port=port) as client:
        held = {"model": "large", "messages": [{"role": "user", "content": "hold"}]}
        await client.post("/v1/chat/completions", {**held, "stream": True})
        assert (await client.read_head()).status == 200
        engine = (await admin.get("/engines/large")).json()
        assert (engine["name"], engine["in_flight"], engine["idle_s"]) == ("big", 1, 0.0)


async def test_a_failed_one_has_the_last_lines_of_its_log(
    admin: httpx.AsyncClient, launcher: FakeLauncher
) -> None:
    lines = [f"line {n}" for n in range(30)]
    launcher.scripts["big"] = {
        "say": [*lines, "error: unrecognized arguments: --nope"], "exit": 2
    }  # fmt: skip
    await admin.post("/engines/big/load")
    engine = await told(admin, "big", "failed")
    assert "--nope" in engine["error"]
    assert engine["error_reason"] == "arguments"
    assert len(engine["log"]) == 20
    assert engine["log"][-1] == "error: unrecognized arguments: --nope"


# --- which one is meant


@pytest.mark.parametrize(
    ("name", "engine"), [("big", "big"), ("large", "big"), ("org/Big", "big"), ("small", "small")]
)
async def test_engines_by_any_name(admin: httpx.AsyncClient, name: str, engine: str) -> None:
    assert (await admin.get(f"/engines/{name}")).json()["name"] == engine
    quoted = name.replace("/", "%2F")
    answer = await admin.post(f"/engines/{quoted}/unload")
    assert (answer.status_code, answer.json()["name"]) == (200, engine)


async def test_names_that_mean_none_or_several(admin: httpx.AsyncClient) -> None:
    message = error_of(await admin.get("/engines/either"), 409, "ambiguous_name")
    assert "any of these engines: `big`, `small`" in message
    message = error_of(await admin.post("/engines/bigg/load"), 404, "engine_not_found")
    assert message == "There is no engine `bigg`. Did you mean `big`?"
    message = error_of(await admin.post("/engines/xyz/load"), 404, "engine_not_found")
    assert message == "There is no engine `xyz`. Engines: big, small."
    message = error_of(await admin.delete("/engines/m"), 404, "engine_not_found")
    assert "has no engine here: providers answer for it" in message


# --- adding


async def test_weights_are_added_and_served(
    server: Roundhouse, admin: httpx.AsyncClient, launcher: FakeLauncher
) -> None:
    body = new(settings={"context": 4096, "concurrency": 2, "args": {"max-num-seqs": 8}})
    answer = await admin.post("/engines", json=body)
    assert answer.status_code == 202
    assert (answer.json()["name"], answer.json()["origin"]) == ("new-1b", "loaded")
    engine = await told(admin, "new-1b", "ready")
    assert engine["models"] == ["org/New-1B"]
    assert launcher.engines["new-1b"].args == {"max-num-seqs": 8, "max-model-len": 4096}
    assert launcher.engines["new-1b"].concurrency == 2
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
        asked = {"model": "org/New-1B", "messages": [{"role": "user", "content": "hi"}]}
        said = await http.post("/v1/chat/completions", json=asked)
    assert said.json()["choices"][0]["message"]["content"] == "from the engine"
    assert [one["name"] for one in (await admin.get("/engines")).json()["engines"]] == [
        "big", "small", "new-1b"
    ]  # fmt: skip


async def test_what_was_added_is_there_after_a_restart(
    server: Roundhouse, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    await admin.post("/engines", json=new(name="n", **{"as": "mine", "default": True}))
    await told(admin, "n", "ready")
    again = load(tmp_path / "roundhouse.yaml", environ={}).with_state()
    assert set(again.config.engines) == {"big", "small", "n"}
    assert again.config.default == "mine"
    async with Roundhouse(again) as second, admin_of(second) as other:
        engine = await told(other, "mine", "ready")
        assert (engine["name"], engine["origin"]) == ("n", "loaded")
        assert (await other.get("/default")).json() == {"model": "mine", "origin": "loaded"}


async def test_a_reload_keeps_what_was_added(
    server: Roundhouse, admin: httpx.AsyncClient, config: dict[str, Any], tmp_path: Path
) -> None:
    await admin.post("/engines", json=new())
    before = await told(admin, "new-1b", "ready")
    del config["engines"]["small"], config["models"]["either"]
    (tmp_path / "roundhouse.yaml").write_text(yaml.safe_dump(config))
    assert (await admin.post("/reload")).json()["result"] == "ok"
    assert (await admin.get("/engines/new-1b")).json()["pid"] == before["pid"]


async def test_the_same_again_only_loads_it(admin: httpx.AsyncClient) -> None:
    await admin.post("/engines", json=new())
    before = await told(admin, "new-1b", "ready")
    for same in (new(), {"model": "org/New-1B"}, {"model": "new-1b"}, new(name="new-1b")):
        answer = await admin.post("/engines", json=same)
        assert answer.status_code == 202, answer.text
        assert answer.json()["pid"] == before["pid"]
    message = error_of(
        await admin.post("/engines", json=new(settings={"context": 9})), 409, "name_taken"
    )
    assert "was loaded with other settings. Unload it first (roundhouse unload new-1b)" in message


async def test_what_the_config_has_is_loaded_and_not_changed(
    admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    for name in ("big", "large", "org/Big"):
        answer = await admin.post("/engines", json={"model": name})
        assert (answer.status_code, answer.json()["name"]) == (202, "big")
    for body in (
        {"model": "org/Big", "settings": {"context": 9}},
        {"model": "big", "settings": {"context": 9}},
        {"model": "org/Other", "name": "big"},
    ):
        message = error_of(await admin.post("/engines", json=body), 409, "set_in_config")
        assert f"`big` is in {tmp_path / 'roundhouse.yaml'}" in message
    assert not (tmp_path / "home" / "state.json").exists()


async def test_the_same_weights_under_another_name(admin: httpx.AsyncClient) -> None:
    body = {**new(settings={"context": 9}), "model": "org/Big", "as": "big-short"}
    answer = await admin.post("/engines", json=body)
    assert (answer.status_code, answer.json()["models"]) == (202, ["big-short"])
    message = error_of(await admin.get("/engines/org/Big"), 409, "ambiguous_name")
    assert "`big`, `big-short`" in message
    again = await admin.post("/engines", json=body)
    assert (again.status_code, again.json()["name"]) == (202, "big-short")
    assert (await admin.post("/engines", json={"model": "org/Big", "as": "large"})).json()[
        "name"
    ] == "big"
    for more in ({"name": "x"}, {"as": "x"}):
        answer = await admin.post("/engines", json={"model": "large", **more})
        assert "there already, as the engine `big`" in error_of(answer, 400, "invalid_value")
    message = error_of(await admin.post("/engines", json={**body, "name": "x"}), 409, "name_taken")
    assert "There is a model `big-short` already" in message


async def test_a_folder_of_the_server_s_machine(
    admin: httpx.AsyncClient, tmp_path: Path, launcher: FakeLauncher
) -> None:
    folder = tmp_path / "My Model"
    folder.mkdir()
    body = {**new(), "model": f"{folder}/"}
    answer = await admin.post("/engines", json=body)
    assert (answer.json()["name"], answer.json()["models"]) == ("my-model", ["My-Model"])
    assert launcher.engines["my-model"].weights == str(folder)
    assert (await admin.post("/engines", json=body)).json()["name"] == "my-model"
    for said in (f"{folder}x", "~nobody-of-this-name/x", "/\0"):
        answer = await admin.post("/engines", json={"model": said})
        assert "no folder" in error_of(answer, 404, "weights_not_found")
    answer = await admin.post("/engines", json={"model": "./x"})
    assert "Give the folder's whole path" in error_of(answer, 400, "invalid_value")


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"", 400, "invalid_json", "The body is no JSON"),
        (b"{", 400, "invalid_json", 'such as {"model": "Qwen/Qwen3-8B"}'),
        (b"[]", 400, "invalid_value", "Expected `object`"),
        (b"\xff", 400, "invalid_json", "UTF-8"),
        (b'{"model": "a/b", "settings": {"args": ' + b"[" * 500 + b"]" * 500 + b"}}", 400,
         "nested_too_deeply", "more than 64 levels"),
        (b"[" * 200_000, 400, "nested_too_deeply", "more than 64 levels"),
        (b"{}", 400, "invalid_value", "missing required field `model`"),
        (b'{"model": " "}', 400, "invalid_value", "`model` is empty"),
        (b'{"model": "a/b", "nmae": "x"}', 400, "invalid_value", "unknown field `nmae`"),
        (b'{"model": "nobody"}', 404, "engine_not_found", "There is no engine `nobody`"),
        (b'{"model": "bigg"}', 404, "engine_not_found", "Did you mean `big`?"),
        (b'{"model": "a/b", "settings": {"weights": "c"}}', 400, "invalid_value", "leave"),
        (b'{"model": "a/b", "settings": {"context": "8k"}}', 400, "invalid_value", "16384"),
        (b'{"model": "a/b", "settings": {"context": 8, "args": {"max-model-len": 9}}}', 400,
         "invalid_value", "say the same"),
        (b'{"model": "a/b", "settings": {"devise": "cpu"}}', 400, "invalid_config",
         "Did you mean `device`?"),
        (b'{"model": "a/b", "settings": {"device": "gpu"}}', 400, "invalid_config", "device"),
        (b'{"model": "a/b", "settings": {"args": 7}}', 400, "invalid_config", "args"),
        (b'{"model": "a/b", "settings": {"args": {"port": 1}}}', 400, "invalid_config", "socket"),
        (b'{"model": "a/b", "name": "no name"}', 400, "invalid_config", "no name"),
        (b'{"model": "a/b", "as": "m"}', 409, "name_taken", "There is a model `m` already"),
        (b'{"model": "a/b", "settings": {"env": {"A": "b"}}}', 403, "admin_key_needed", "`env`"),
        (b'{"model": "a/b", "settings": {"trust_remote_code": true}}', 403, "admin_key_needed",
         "set server.admin_key"),
        (b'{"model": "a/b", "settings": {"args": {"middleware": "a.b"}}}', 403,
         "admin_key_needed", "`args.middleware`"),
        (b'{"model": "a/b", "settings": {"args": {"hf-overrides.auto_map": "x"}}}', 403,
         "admin_key_needed", "`args.hf-overrides.auto_map`"),
        (b'{"model": "a/b", "settings": {"args": {"trust-remote": true}}}', 400,
         "invalid_config", "may be short for 'trust-remote-code'"),
        (b'{"model": "a/b", "settings": {"args": {"chat-template=/x": true}}}', 400,
         "invalid_config", "is no flag"),
        (b'{"model": "a/b", "name": "large"}', 409, "name_taken", "There is a model `large`"),
        (b'{"model": "a/b", "as": "big"}', 409, "name_taken", "There is an engine `big`"),
        (b'{"model": "nobody"}', 404, "engine_not_found", "Weights are named by"),
    ],
)  # fmt: skip
async def test_what_is_refused(
    admin: httpx.AsyncClient, tmp_path: Path, body: bytes, status: int, code: str, said: str
) -> None:
    message = error_of(await admin.post("/engines", content=body), status, code)
    assert said in message
    assert "state.json" not in message
    assert not (tmp_path / "home" / "state.json").exists()
    assert len((await admin.get("/engines")).json()["engines"]) == 2


async def test_with_an_admin_key_all_settings_may_be_given(
    serve: Serve, config: dict[str, Any], launcher: FakeLauncher
) -> None:
    config["server"]["admin_key"] = ADMIN_KEY
    server = await serve(config)
    settings = {"env": {"A": "b"}, "args": {"tool-parser-plugin": "/x.py"}}
    async with admin_of(server, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as admin:
        answer = await admin.post("/engines", json=new(settings=settings))
        assert answer.status_code == 202, answer.text
        assert launcher.engines["new-1b"].env == {"A": "b"}


async def test_two_at_one_time_are_both_kept(admin: httpx.AsyncClient) -> None:
    bodies = [{**new(), "model": f"org/N{n}"} for n in range(4)]
    answers = await asyncio.gather(*(admin.post("/engines", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {202}
    assert len((await admin.get("/engines")).json()["engines"]) == 6


async def test_a_start_that_fails_is_told_and_kept(
    admin: httpx.AsyncClient, launcher: FakeLauncher
) -> None:
    launcher.scripts["new-1b"] = failed()
    await admin.post("/engines", json=new())
    assert "no such folder" in (await told(admin, "new-1b", "failed"))["error"]
    launcher.scripts.clear()
    await admin.post("/engines/new-1b/load")
    await told(admin, "new-1b", "ready")


async def test_one_that_does_not_run_takes_other_settings(
    admin: httpx.AsyncClient, launcher: FakeLauncher, tmp_path: Path
) -> None:
    """Who asked for too much asks for less."""
    launcher.scripts["new-1b"] = failed("memory")
    await admin.post("/engines", json=new(settings={"context": 99999}, default=True))
    await told(admin, "new-1b", "failed")
    launcher.scripts.clear()
    short = new(settings={"context": 9}, name="new-1b", **{"as": "short"})
    for body in (new(settings={"context": 99}), short):
        answer = await admin.post("/engines", json=body)
        assert (answer.status_code, answer.json()["name"]) == (202, "new-1b")
        engine = await told(admin, "new-1b", "ready")
        assert engine["models"] == [body.get("as", "org/New-1B")]
        args = launcher.engines["new-1b"].args
        assert args == {"max-model-len": body["settings"]["context"]}
        await admin.post("/engines/new-1b/unload")
    assert (await admin.get("/default")).json()["model"] is None  # its model is called otherwise
    answer = await admin.post("/engines", json={"model": "short", "settings": {"pinned": True}})
    assert (await told(admin, "new-1b", "ready"))["pinned"] is True
    kept = json.loads((tmp_path / "home" / "state.json").read_text())
    assert kept["engines"] == {"new-1b": {"weights": "org/New-1B", "pinned": True}}
    assert list(kept["models"]) == ["short"]
    answer = await admin.post("/engines", json=new(name="new-1b", **{"as": "m"}))
    error_of(answer, 409, "name_taken")


# --- forgetting


async def test_forgetting(server: Roundhouse, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    await admin.post("/engines", json=new(default=True))
    await told(admin, "new-1b", "ready")
    answer = await admin.delete("/engines/org/New-1B")
    assert answer.json() == {
        "name": "new-1b", "forgotten": True, "models": ["org/New-1B"], "default_cleared": True
    }  # fmt: skip
    error_of(await admin.get("/engines/new-1b"), 404, "engine_not_found")
    assert "org/New-1B" not in server.services.state.models
    state = json.loads((tmp_path / "home" / "state.json").read_text())
    assert (state["engines"], state["models"], state["default"]) == ({}, {}, None)
    await admin.post("/engines", json=new())
    await told(admin, "new-1b", "ready")


async def test_of_the_config_nothing_is_forgotten(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    message = error_of(await admin.delete("/engines/big"), 409, "set_in_config")
    assert str(tmp_path / "roundhouse.yaml") in message
    assert "`roundhouse unload big`" in message


async def test_an_unload_leaves_it_known(admin: httpx.AsyncClient) -> None:
    await admin.post("/engines", json=new())
    await told(admin, "new-1b", "ready")
    answer = await admin.post("/engines/new-1b/unload")
    assert (answer.json()["state"], answer.json()["origin"]) == ("stopped", "loaded")
    assert (await admin.post("/engines", json={"model": "org/New-1B"})).status_code == 202
    await told(admin, "new-1b", "ready")
