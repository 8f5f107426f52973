"""The default model over the admin API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from server.serving import Roundhouse
from tests.api.conftest import Serve
from tests.api.engine_house import admin_of, config, error_of, launcher, new, server, told
from tests.engines.conftest import FakeLauncher, failed, nothing_left

__all__ = ["config", "launcher", "nothing_left", "server"]


async def test_the_default(server: Roundhouse, admin: httpx.AsyncClient) -> None:
    nobody = {"model": None, "origin": None}
    assert (await admin.get("/default")).json() == nobody
    assert (await admin.delete("/default")).json() == nobody
    assert (await admin.put("/default", json={"model": "m"})).json() == {
        "model": "m", "origin": "loaded"
    }  # fmt: skip
    assert server.services.state.default == "default"
    await admin.post("/engines", json={"model": "large", "default": True})
    assert (await admin.get("/default")).json()["model"] == "large"
    await admin.post("/engines", json={"model": "org/Small", "as": "either", "default": True})
    assert (await admin.get("/default")).json()["model"] == "either"
    assert (await admin.put("/default", json={"model": "alias-of-m"})).status_code == 200
    assert (await admin.put("/default", json={"model": "up/any"})).status_code == 200
    message = error_of(
        await admin.put("/default", json={"model": "largee"}), 404, "model_not_found"
    )
    assert "Did you mean `large`" in message
    error_of(await admin.put("/default", json={"modell": "m"}), 400, "invalid_value")
    deep = await admin.put("/default", content="[" * 60_000)
    assert "more than 64 levels" in error_of(deep, 400, "nested_too_deeply")
    assert (await admin.delete("/default")).json() == nobody
    assert server.services.state.default is None


async def test_the_config_s_own_default_wins(
    serve: Serve, config: dict[str, Any], launcher: FakeLauncher, tmp_path: Path
) -> None:
    server = await serve({**config, "default": "m"})
    async with admin_of(server) as admin:
        assert (await admin.get("/default")).json() == {"model": "m", "origin": "config"}
        for answer in (
            await admin.put("/default", json={"model": "large"}),
            await admin.delete("/default"),
            await admin.post("/engines", json=new(default=True)),
        ):
            message = error_of(answer, 409, "set_in_config")
            assert f"`default` in {tmp_path / 'roundhouse.yaml'}" in message
        assert len((await admin.get("/engines")).json()["engines"]) == 2


async def test_another_default_leaves_what_failed_alone_and_a_reload_does_not(
    server: Roundhouse, admin: httpx.AsyncClient, launcher: FakeLauncher, tmp_path: Path
) -> None:
    launcher.fits["big"] = failed()
    await admin.post("/engines", json={"model": "large"})
    await told(admin, "big", "failed")
    for model in ("m", "either", "either"):
        await admin.put("/default", json={"model": model})
    assert (await told(admin, "big", "failed"))["error"]
    assert launcher.fitted == ["big"]
    path = tmp_path / "roundhouse.yaml"
    path.write_text(f"{path.read_text()}\n# Another one.\n")
    assert (await server.reload()).result == "ok"
    await told(admin, "big", "stopped")
