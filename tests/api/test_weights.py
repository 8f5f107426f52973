"""The admin listener's weights and pulls, on real sockets, against a hub on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.config.load import load
from server.engines.state import EngineState
from server.engines.store import records, service
from server.engines.store.locks import held
from server.engines.store.places import Place
from server.errors import Draining
from server.serving import Roundhouse
from tests.api.conftest import Serve, config_of
from tests.engines.store.conftest import hub
from tests.engines.store.pulls import FILE, REPO, left_over
from tests.fakes.hub import COMMIT, FakeHub, at, cut, model
from tests.fakes.upstream import ScriptedUpstream

__all__ = ["hub"]
JSON = {"accept": "application/json"}


@pytest.fixture
async def server(
    serve: Serve,
    upstream: ScriptedUpstream,
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Roundhouse:
    """With an engine that nobody starts, served from REPO at main."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return await serve(
        config_of(
            upstream,
            weights={"folder": str(tmp_path / "hub")},
            engines={"small": {"weights": REPO, "load": "request"}},
        )
    )


@pytest.fixture
async def admin(server: Roundhouse) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.admin_url or "", timeout=20) as client:
        yield client


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Those of a feed, without its comments."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def pulled(admin: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await admin.post("/weights", json={"model": REPO, **body}, headers=JSON)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def metric(admin: httpx.AsyncClient, line: str) -> bool:
    return line in (await admin.get("/metrics")).text.splitlines()


# --- a pull


async def test_a_pull_is_a_feed(hub: FakeHub, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    answer = await admin.post("/weights", json={"model": REPO})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [kind for kind, _ in found if kind != "progress"] == ["pull", "note", "done"]
    assert found[0][1]["id"] == "pull-1"
    assert FILE in dict(found)["note"]["message"]
    done = found[-1][1]
    size = sum(map(len, model().values()))
    assert (done["state"], done["commit"], done["done"]) == ("done", COMMIT, size)
    assert records.located(tmp_path / "hub", REPO) is not None
    assert await metric(admin, 'roundhouse_pulls_total{outcome="ok"} 1.0')
    assert await metric(admin, f"roundhouse_pull_bytes_total {float(size)}")
    assert not left_over(tmp_path / "hub")


async def test_a_pull_for_who_takes_json_alone(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.add(REPO)
    answer = await pulled(admin)
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    (told,) = (await admin.get("/pulls")).json()["pulls"]
    assert (told["id"], told["model"], told["state"]) == ("pull-1", REPO, "done")


async def test_an_engine_s_name_stands_for_its_weights(
    serve: Serve,
    upstream: ScriptedUpstream,
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.add(REPO, model() | {"own.py": b"pass"}, branches=("main", "v2"))
    lazy = {"load": "request"}
    engines = {
        "small": {"weights": REPO, "revision": "v2", "trust_remote_code": True, **lazy},
        "own": {"weights": "./folder", **lazy},
    }
    weights = {"folder": str(tmp_path / "hub")}
    for name in model():
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(model()[name])
    server = await serve(config_of(upstream, weights=weights, engines=engines))
    async with httpx.AsyncClient(base_url=server.admin_url or "", timeout=20) as admin:
        told = (await pulled(admin, model="small")).json()
        assert (told["model"], told["revision"]) == (REPO, "v2")
        assert (Place(tmp_path / "hub", REPO).snapshot(COMMIT) / "own.py").is_file()
        assert error_of(await pulled(admin, model="own")) == (400, "invalid_value")


async def test_one_pull_serves_all_and_goes_on_when_they_leave(
    hub: FakeHub, admin: httpx.AsyncClient
) -> None:
    hub.add(REPO)
    sent, go_on = threading.Event(), threading.Event()
    hub.fault(FILE, at(sent, 300, go_on))
    async with admin.stream("POST", "/weights", json={"model": REPO}) as first:
        lines = first.aiter_lines()
        assert await anext(lines) == "event: pull"
        assert await asyncio.to_thread(sent.wait, 20)
    # The first client is gone; the second finds the same one.
    (told,) = (await admin.get("/pulls")).json()["pulls"]
    assert told["state"] == "running"
    async with (
        admin.stream("POST", "/weights", json={"model": REPO}) as second,
        admin.stream("POST", "/weights", json={"model": REPO}) as third,
    ):
        feeds = [one.aiter_text() for one in (second, third)]
        begun = [await anext(feed) for feed in feeds]
        go_on.set()
        for text, feed in zip(begun, feeds, strict=True):
            found = events(text + "".join([part async for part in feed]))
            assert [found[0][1]["id"], found[-1][0]] == ["pull-1", "done"]
    assert hub.bytes_asked(FILE) == [None]


async def test_a_pull_is_stopped(hub: FakeHub, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    hub.add(REPO)
    sent = threading.Event()
    hub.fault(FILE, at(sent, 300, hub.gone))
    async with admin.stream("POST", "/weights", json={"model": REPO}) as feed:
        assert await asyncio.to_thread(sent.wait, 20)
        stopped = await admin.delete("/pulls/pull-1")
        assert stopped.json()["state"] == "stopped"
        kind, facts = events("".join([part async for part in feed.aiter_text()]))[-1]
    assert (kind, facts["error"]["code"]) == ("error", "pull_stopped")
    assert not left_over(tmp_path / "hub")
    assert await metric(admin, 'roundhouse_pulls_total{outcome="stopped"} 1.0')
    again = await pulled(admin)
    assert again.json()["id"] == "pull-2"
    assert hub.bytes_asked(FILE)[-1] == "bytes=300-"
    assert error_of(await admin.delete("/pulls/nothing")) == (404, "pull_not_found")


async def test_the_server_ends_its_pulls(
    upstream: ScriptedUpstream, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.add(REPO)
    sent = threading.Event()
    hub.fault(FILE, at(sent, 300, hub.gone))
    config = config_of(upstream, weights={"folder": "hub"}, server={"home": str(tmp_path / "home")})
    (tmp_path / "roundhouse.yaml").write_text(json.dumps(config))
    server = Roundhouse(load(tmp_path / "roundhouse.yaml", environ={}))
    async with httpx.AsyncClient(timeout=20) as admin:
        async with server:
            url = f"{server.admin_url}/weights"
            feed = asyncio.create_task(admin.post(url, json={"model": REPO}))
            whole = asyncio.create_task(admin.post(url, json={"model": REPO}, headers=JSON))
            assert await asyncio.to_thread(sent.wait, 20)
        kind, facts = events((await feed).text)[-1]
        assert (kind, facts["error"]["code"]) == ("error", "pull_stopped")
        assert error_of(await whole) == (409, "pull_stopped")
    with pytest.raises(Draining):
        server.store.pull(REPO, "main", allow_code=False, asked_by="a test")
    assert not left_over(tmp_path / "hub")
    assert not [one for one in threading.enumerate() if one.name.startswith("pull-")]


async def test_so_many_pulls_and_no_more(
    hub: FakeHub, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST", 1)
    monkeypatch.setattr(service, "KEPT", 1)
    hub.add(REPO)
    hub.add("org/other")
    sent, go_on = threading.Event(), threading.Event()
    hub.fault(FILE, at(sent, 300, go_on))
    first = asyncio.create_task(pulled(admin))
    assert await asyncio.to_thread(sent.wait, 20)
    assert error_of(await pulled(admin, model="org/other")) == (503, "overloaded")
    go_on.set()
    assert (await first).status_code == 200
    for _ in range(3):
        assert (await pulled(admin, model="org/other")).status_code == 200
    told = (await admin.get("/pulls")).json()["pulls"]
    assert [one["id"] for one in told] == ["pull-3", "pull-4"]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"model": "org/none"}, 404, "weights_not_found", "has no model org/none"),
        ({"model": REPO, "revision": "v9"}, 404, "weights_not_found", "no revision 'v9'"),
        ({"model": "org/gated"}, 403, "weights_gated", "Accept its terms"),
        ({"model": "org/old"}, 400, "unsafe_weights", "weights.allow_pickle"),
        ({"model": "org/bad"}, 502, "pull_failed", "another hash"),
        ({"model": "./folder"}, 400, "invalid_value", "roundhouse pull ./FOLDER"),
        ({"model": "/etc"}, 400, "invalid_value", "no id"),
        ({"model": "../../x"}, 400, "invalid_value", "no id"),
        ({"model": "http://10.0.0.1/a/b"}, 400, "invalid_value", "no id"),
        ({"model": REPO, "revision": "../up"}, 400, "invalid_value", "no revision"),
        ({"model": 1}, 400, "invalid_type", "`str`"),
        ({"model": REPO, "store": "/x"}, 400, "invalid_type", "store"),
        ({}, 400, "invalid_type", "`model`"),
        ("{", 400, "invalid_json", "Qwen/Qwen3-8B"),
        ("[" * 60_000, 400, "nested_too_deeply", "more than 64 levels"),
    ],
)
async def test_refusals(
    body: Any, status: int, code: str, says: str, hub: FakeHub, admin: httpx.AsyncClient
) -> None:
    hub.add(REPO)
    hub.add("org/gated", gated=True)
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.add("org/bad").said[FILE] = b"other" + model()[FILE][5:]
    text = body if isinstance(body, str) else json.dumps(body)
    answer = await admin.post("/weights", content=text, headers=JSON)
    assert error_of(answer) == (status, code)
    assert says in answer.json()["error"]["message"]


async def test_a_refusal_ends_a_feed(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    kind, facts = events((await admin.post("/weights", json={"model": "org/none"})).text)[-1]
    assert (kind, facts["error"]["code"]) == ("error", "weights_not_found")
    assert await metric(admin, 'roundhouse_pulls_total{outcome="not_found"} 1.0')


async def test_a_full_disk_and_a_store_that_is_none(
    hub: FakeHub, admin: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
        assert error_of(await pulled(admin)) == (503, "disk_full")
    shutil.rmtree(tmp_path / "hub")
    (tmp_path / "hub").write_text("")
    assert error_of(await pulled(admin)) == (503, "store_unusable")


async def test_a_fault_of_ours_is_told_as_one(
    hub: FakeHub, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(service, "counted", broken)
    answer = await pulled(admin)
    assert error_of(answer) == (503, "store_unusable")
    assert "a secret" not in answer.text


# --- what is there


async def test_what_is_there(
    hub: FakeHub, admin: httpx.AsyncClient, server: Roundhouse, tmp_path: Path
) -> None:
    empty = (await admin.get("/weights")).json()
    assert (empty["models"], empty["size"], empty["store"]) == ([], 0, str(tmp_path / "hub"))
    hub.add(REPO)
    await pulled(admin)
    listed = (await admin.get("/weights")).json()
    (row,) = listed["models"]
    assert (row["name"], row["state"], row["commit"]) == (REPO, "verified", COMMIT)
    assert row["used_by"] == ["small"]
    assert row["asked_by"] == "the admin API"
    assert listed["free"] > 0
    assert listed["usage"][0]["size"] == listed["size"] > 0
    (shown,) = (await admin.get(f"/weights/{REPO}?revision=main")).json()["models"]
    assert {file["path"] for file in shown["record"]["files"]} == set(model())
    assert error_of(await admin.get(f"/weights/{REPO}?revision=v9")) == (404, "weights_not_found")
    assert error_of(await admin.get(f"/weights/{REPO}?revision=..")) == (400, "invalid_value")
    near = await admin.get("/weights/org/smal")
    assert error_of(near) == (404, "weights_not_found")
    assert f"Did you mean {REPO}?" in near.json()["error"]["message"]
    assert error_of(await admin.get("/weights/%2Fetc")) == (400, "invalid_value")


async def test_removing(hub: FakeHub, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    hub.add("org/other")
    await pulled(admin, model="org/other")
    dry = (await admin.delete("/weights/org/other?dry_run=true")).json()
    assert (dry["removed"], dry["commits"]) == (False, [COMMIT])
    assert error_of(await admin.delete("/weights/org/other?dry_run=maybe")) == (
        400,
        "invalid_value",
    )
    with held(Place(tmp_path / "hub", "org/other").lock, "org/other"):
        assert error_of(await admin.delete("/weights/org/other")) == (409, "weights_in_use")
    gone = (await admin.delete("/weights/org/other")).json()
    assert (gone["removed"], gone["freed"]) == (True, dry["freed"])
    assert (await admin.get("/weights")).json()["models"] == []
    assert error_of(await admin.delete("/weights/org/other")) == (404, "weights_not_found")


async def test_what_an_engine_uses_stays(
    hub: FakeHub, admin: httpx.AsyncClient, server: Roundhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO)
    await pulled(admin)
    refused = await admin.delete(f"/weights/{REPO}")
    assert error_of(refused) == (409, "weights_in_use")
    assert "does not run now" in refused.json()["error"]["message"]
    # While it runs, not even by force.
    view = server.supervisor.view("small")
    assert view is not None
    with monkeypatch.context() as patch:
        running = type("Running", (), {"state": EngineState.READY})()
        patch.setattr(server.supervisor, "view", lambda name: running)
        refused = await admin.delete(f"/weights/{REPO}?force=true")
        assert error_of(refused) == (409, "weights_in_use")
        assert "roundhouse unload small" in refused.json()["error"]["message"]
    assert (await admin.delete(f"/weights/{REPO}?force=true")).json()["removed"] is True


async def test_a_folder_is_told_and_not_touched(
    hub: FakeHub, admin: httpx.AsyncClient, server: Roundhouse, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    record = records.Record(
        name="mine", files=(), when=records.now(), asked_by="me", path=str(folder)
    )
    records.write(record, records.folder_file(server.store.home, folder))
    (row,) = (await admin.get("/weights")).json()["models"]
    assert (row["name"], row["state"]) == ("mine", "gone")
    refused = await admin.delete("/weights/mine?force=true")
    assert error_of(refused) == (400, "invalid_value")
    assert records.folder_file(server.store.home, folder).exists()


async def test_a_store_that_cannot_be_read(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*args: object) -> None:  # tests may run as root, whom nothing is denied
        raise PermissionError(13, "Permission denied", "/the/store")

    monkeypatch.setattr("server.engines.store.holdings.holdings", denied)
    for method, path in (("GET", "/weights"), ("GET", "/weights/a/b"), ("DELETE", "/weights/a/b")):
        answer = await admin.request(method, path)
        assert error_of(answer) == (503, "store_unusable")
        assert "Permission denied" in answer.json()["error"]["message"]
