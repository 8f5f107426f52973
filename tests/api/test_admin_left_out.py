"""What was added at run time and is not in force: it is told, and can be forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config import additions as state
from server.config.additions import Additions, Found
from server.config.load import load
from server.serving import Roundhouse
from tests.api.engine_house import admin_of, config, error_of, launcher, new, told
from tests.engines.conftest import FakeLauncher, nothing_left

__all__ = ["config", "launcher", "nothing_left"]

MINE = {"weights": "org/Mine", "load": "request"}
GOOD = Additions({"good": MINE}, {"org/Good": {"targets": [{"engine": "good"}]}})
#: Beside `good` one that the config has too, and one that is no longer valid.
KEPT = Additions(
    {"Big": MINE, "broken": {"weights": "org/B", "no-such-key": 1}},
    {
        "org/Mine": {"targets": [{"engine": "Big"}]},
        "org/B": {"targets": [{"engine": "broken"}]},
    },
    "org/B",
).over(GOOD)


@pytest.fixture
async def server(
    config: dict[str, Any], launcher: FakeLauncher, tmp_path: Path
) -> AsyncIterator[Roundhouse]:
    """Whose home holds KEPT from before."""
    home, path = tmp_path / "home", tmp_path / "roundhouse.yaml"
    state.write(home, KEPT)
    config["server"]["home"] = str(home)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    async with Roundhouse(load(path, environ={}).with_state()) as made:
        yield made


@pytest.fixture
async def admin(server: Roundhouse) -> AsyncIterator[httpx.AsyncClient]:
    async with admin_of(server) as client:
        yield client


async def listed(admin: httpx.AsyncClient) -> tuple[list[str], list[str]]:
    """The names of the engines, and of those that are left out."""
    answer = (await admin.get("/engines")).json()
    return [one["name"] for one in answer["engines"]], answer["left_out"]


async def test_it_is_told_and_forgotten(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    engines = ["big", "small", "good"]
    assert await listed(admin) == (engines, ["Big", "broken"])
    await admin.post("/engines/big/load")
    before = await told(admin, "big", "ready")
    # The config's own engine is not touched, whatever else had its name.
    assert (await admin.delete("/engines/big")).json() == {
        "name": "Big", "forgotten": True, "models": ["org/Mine"], "default_cleared": False
    }  # fmt: skip
    assert (await admin.get("/engines/big")).json()["pid"] == before["pid"]
    assert await listed(admin) == (engines, ["broken"])
    error_of(await admin.delete("/engines/big"), 409, "set_in_config")
    # By its model, with the default that was one of its models.
    assert (await admin.delete("/engines/org%2FB")).json() == {
        "name": "broken", "forgotten": True, "models": ["org/B"], "default_cleared": True
    }  # fmt: skip
    assert await listed(admin) == (engines, [])
    assert state.read(tmp_path / "home") == Found(GOOD)
    error_of(await admin.delete("/engines/broken"), 404, "engine_not_found")


async def test_what_is_added_meanwhile_stays(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    await admin.post("/engines", json=new(name="n"))
    await admin.delete("/engines/broken")
    assert await listed(admin) == (["big", "small", "good", "n"], ["Big"])
    await admin.delete("/engines/n")
    assert list(state.read(tmp_path / "home").additions.engines) == ["Big", "good"]


@pytest.mark.parametrize("targets", ["junk", None, 5, ["junk"], [None], {"engine": "odd"}])
async def test_what_is_left_out_may_be_anything(
    config: dict[str, Any], launcher: FakeLauncher, tmp_path: Path, targets: Any
) -> None:
    home, path = tmp_path / "home", tmp_path / "roundhouse.yaml"
    state.write(home, Additions({"odd": {"weights": 1}}, {"x": {"targets": targets}}))
    config["server"]["home"] = str(home)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    async with (
        Roundhouse(load(path, environ={}).with_state()) as server,
        admin_of(server) as admin,
    ):
        error_of(await admin.delete("/engines/nobody"), 404, "engine_not_found")
        error_of(await admin.delete("/engines/big"), 409, "set_in_config")
        assert (await admin.delete("/engines/odd")).json()["models"] == []
        assert await listed(admin) == (["big", "small"], [])


async def test_a_default_that_is_left_out(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    assert (await admin.get("/default")).json()["model"] is None
    assert (await admin.delete("/default")).json() == {"model": None, "origin": None}
    assert state.read(tmp_path / "home").additions == Additions(KEPT.engines, KEPT.models)


async def test_a_default_that_the_config_overrules(
    server: Roundhouse, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "roundhouse.yaml"
    path.write_text(f"{path.read_text()}default: m\n")
    assert (await admin.post("/reload")).json()["changed"] == ["default"]
    assert (await admin.delete("/default")).json() == {"model": "m", "origin": "config"}
    assert state.read(tmp_path / "home").additions.default is None
    error_of(await admin.delete("/default"), 409, "set_in_config")
    # Of a file that is read again after that, an engine that has failed gets another try.
    assert server._loaded.kept == server.watcher.loaded.kept


async def test_what_cannot_be_kept_is_nobody_s_wrong_request(
    admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "home" / state.FILE
    text = file.read_text().replace('"version": 1', '"version": 99')
    file.write_text(text)
    for answer in (
        await admin.delete("/engines/broken"),
        await admin.post("/engines", json=new()),
        await admin.put("/default", json={"model": "m"}),
    ):
        message = error_of(answer, 503, "state_unwritable")
        assert "nothing was changed" in message
        assert str(file) in message
    assert await listed(admin) == (["big", "small", "good"], ["Big", "broken"])
    assert file.read_text() == text
