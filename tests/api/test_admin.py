"""The admin listener of a server without engines: metrics, states, and names that are not there."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.engines.state import EngineState
from server.serving import Roundhouse
from tests.api.conftest import Serve, config_of
from tests.engines.replica_house import a_replica, address, ill, says_load, these, until, well
from tests.fakes.upstream import ScriptedUpstream


async def test_metrics_in_the_form_that_is_asked_for(admin: httpx.AsyncClient) -> None:
    plain = await admin.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert 'roundhouse_build_info{version="' in plain.text
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    assert (await admin.get("/metrics", headers=wanted)).text.endswith("# EOF\n")


async def test_no_engines(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/engines")).json() == {"engines": [], "left_out": []}
    merged = await admin.get("/metrics/engines")
    assert (merged.status_code, merged.text) == (200, "")


@pytest.mark.parametrize("action", ["load", "unload"])
async def test_an_engine_that_is_not_there(admin: httpx.AsyncClient, action: str) -> None:
    answer = await admin.post(f"/engines/nope/{action}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "engine_not_found"
    assert "Engines: none." in error["message"]


async def test_a_reload_without_a_change(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/reload")).json() == {
        "result": "unchanged",
        "changed": [],
        "warnings": [],
    }


# --- external engines


async def external(
    serve: Serve, provider: ScriptedUpstream, *replicas: ScriptedUpstream
) -> Roundhouse:
    engine: dict[str, Any] = {
        "runtime": "external", "urls": [one.url for one in replicas], "health_interval": "100ms"
    }  # fmt: skip
    return await serve(config_of(provider, engines={"qwen": engine}))


async def test_external_engines_are_told_with_their_replicas(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with a_replica("m") as one, a_replica("m") as two:
        one.routes["/metrics"] = says_load(3, 2)
        ill(two)
        server = await external(serve, upstream, one, two)
        await these(server.fleet, one)
        await until(server.fleet, lambda view: view.stage == "1 of 2 replicas well")
        async with httpx.AsyncClient(base_url=server.admin_url or "", timeout=10) as admin:
            while True:
                (engine,) = (await admin.get("/engines")).json()["engines"]
                if engine["replicas"][0]["load"] is not None and engine["replicas"][1]["error"]:
                    break
            refused = [await admin.post(f"/engines/qwen/{do}") for do in ("load", "unload")]
            nobody = await admin.post("/engines/nope/load")
    assert engine["since_s"] >= 0
    expected = {
        "name": "qwen", "state": "ready", "stage": "1 of 2 replicas well", "eta_s": None,
        "restarts": 0, "pid": None, "waiting": 0, "in_flight": 0, "error": None,
        "error_reason": None, "models": ["qwen"],
        "replicas": [
            {"address": address(one), "well": True, "model": "m", "load": 5.0, "in_flight": 0,
             "error": None},
            {"address": address(two), "well": False, "model": None, "load": None, "in_flight": 0,
             "error": "Its /health says 503."},
        ],
        "origin": "config", "devices": [], "instances": [], "log": [],
    }  # fmt: skip
    assert {name: engine[name] for name in expected} == expected
    assert {answer.status_code for answer in refused} == {400}
    assert "is external" in refused[0].json()["error"]["message"]
    assert "Engines: qwen." in nobody.json()["error"]["message"]


async def test_external_engines_are_in_the_feed(serve: Serve, upstream: ScriptedUpstream) -> None:
    async with a_replica() as one:
        ill(one)
        server = await external(serve, upstream, one)
        await until(server.fleet, lambda view: view.state is EngineState.BACKOFF)
        async with (
            httpx.AsyncClient(base_url=server.admin_url or "", timeout=10) as admin,
            admin.stream("GET", "/events") as events,
        ):
            states = []
            async for line in events.aiter_lines():
                if line.startswith("data:"):
                    states.append(json.loads(line[5:])["state"])
                    well(one)
                if states[-1:] == ["ready"]:
                    break
    assert states == ["backoff", "ready"]
