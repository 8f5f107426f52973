"""The admin listener of a server without engines: metrics, states, and names that are not there."""

from __future__ import annotations

import httpx
import pytest


async def test_metrics_in_the_form_that_is_asked_for(admin: httpx.AsyncClient) -> None:
    plain = await admin.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert 'roundhouse_build_info{version="' in plain.text
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    assert (await admin.get("/metrics", headers=wanted)).text.endswith("# EOF\n")


async def test_no_engines(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/engines")).json() == {"engines": []}
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
