"""The route tables: what is there, what it needs, and what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from server import app
from server.api import openapi
from server.serving import Roundhouse
from tests.api.conftest import *  # noqa: F403 - the fixtures of a whole server
from tests.api.conftest import Serve, config_of
from tests.fakes.upstream import ScriptedUpstream


def table(rows: tuple[tuple[object, ...], ...]) -> set[tuple[str, str]]:
    return {(str(row[0]), str(row[1])) for row in rows}


def test_every_route_is_documented() -> None:
    extra = {("GET", "/docs"), ("GET", "/openapi.json")}
    ours = table(app.SURFACES) | table(app.PUBLIC)
    public = {(method, path.replace("{id:path}", "{id}")) for method, path in ours}
    assert set(openapi.PUBLIC_PATHS) - extra == public
    admin = {(method, path.replace(":path}", "}")) for method, path in table(app.ADMIN)}
    assert set(openapi.ADMIN_PATHS) - extra == admin


def test_every_route_is_on_the_page(repo_root: Path) -> None:
    page = (repo_root / "docs" / "api.md").read_text("utf-8")
    named = set(re.findall(r"`(GET|POST) (/[^`]+)`", page))
    ours = table(app.SURFACES) | table(app.PUBLIC)
    assert named == {(method, path.replace("{id:path}", "{id}")) for method, path in ours}


async def test_default_deny(server: Roundhouse) -> None:
    """Every public route but the probes answers 401 without a key."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        for method, path, _ in app.SURFACES:
            assert (await http.request(method, path, json={})).status_code == 401, path
        for method, path, _, public in app.PUBLIC:
            status = (await http.request(method, path.replace("{id:path}", "x"))).status_code
            assert (status == 401) is not public, path


async def test_admin_key(serve: Serve, upstream: ScriptedUpstream) -> None:
    admin_key = "sk-admin-0123456789abcdef0123456789abcdef"
    server = await serve(config_of(upstream, server={"admin_key": admin_key}))
    assert server.admin_url
    async with httpx.AsyncClient(base_url=server.admin_url) as http:
        for method, path, _, public in app.ADMIN:
            if path == "/events":
                continue
            answer = await http.request(method, re.sub(r"\{.*?\}", "x", path))
            assert (answer.status_code == 401) is not public, path
        good = await http.get("/engines", headers={"authorization": f"Bearer {admin_key}"})
        assert good.json() == {"engines": [], "left_out": []}


async def test_metrics_key(serve: Serve, upstream: ScriptedUpstream) -> None:
    """It opens the metrics and nothing else; the admin key opens them as before."""
    admin, metrics = (f"sk-{who}-0123456789abcdef0123456789abcdef" for who in ("adm", "met"))
    server = await serve(config_of(upstream, server={"admin_key": admin, "metrics_key": metrics}))
    headers = {"authorization": f"Bearer {metrics}"}
    async with httpx.AsyncClient(base_url=server.admin_url or "", headers=headers) as http:
        opened = set()
        for method, path, _, public in app.ADMIN:
            answer = await http.request(method, re.sub(r"\{.*?\}", "x", path))
            assert public or answer.status_code in (200, 401), path
            if answer.status_code == 200 and not public:
                opened.add(path)
        assert opened == app.METRICS == {"/metrics", "/metrics/engines"}
        assert (await http.get("/metrics//engines")).status_code == 404
        for path in sorted(app.METRICS):
            for key, status in ((admin, 200), ("wrong", 401)):
                answer = await http.get(path, headers={"authorization": f"Bearer {key}"})
                assert answer.status_code == status
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as http:
        assert (await http.get("/metrics")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("POST", "/api/chat", 404, "use /v1/chat/completions"),
        ("POST", "/api/generate/", 404, "use /v1/completions"),
        ("GET", "/api/tags", 404, "use /v1/models"),
        ("POST", "/v1/v1/chat/completions", 404, "not two"),
        ("GET", "/nowhere", 404, "/docs lists it"),
        ("GET", "/v1/chat/completions", 405, "use POST"),
        ("DELETE", "/v1/models", 405, "use GET"),
        ("POST", "/v1/chat/completions/", 404, "a slash too many"),
        ("GET", "/v1//models", 404, "a slash too many"),
        ("GET", "/engines", 404, "server.admin"),
    ],
)
async def test_what_is_not_there(
    http: httpx.AsyncClient, method: str, path: str, status: int, hint: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert hint in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert ("allow" in answer.headers) is (status == 405)


async def test_the_admin_listener_says_what_it_is(admin: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/nowhere"):
        said = (await admin.get(path)).json()["error"]["message"]
        assert "This is the admin listener" in said


async def test_no_page_of_another_site_reaches_the_admin_api(admin: httpx.AsyncClient) -> None:
    own = f"http://{admin.base_url.netloc.decode()}"
    for origin, status in [("http://evil.example", 403), ("null", 403), (own, 200)]:
        answer = await admin.post("/reload", headers={"origin": origin})
        assert answer.status_code == status, origin


async def test_a_name_that_leads_here_is_another_site_s(
    admin: httpx.AsyncClient, serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A page's own name may be made to lead to loopback; a key it does not have."""
    named = {"host": "evil.example:8001", "origin": "http://evil.example:8001"}
    assert (await admin.post("/reload", headers=named)).status_code == 403
    local = {"host": "localhost:8001", "origin": "http://localhost:8001"}
    assert (await admin.post("/reload", headers=local)).status_code == 200
    # A page's own reads come without an origin.
    read = await admin.get("/engines", headers={"host": "evil.example:8001"})
    assert read.status_code == 403
    assert "set server.admin_key" in read.json()["error"]["message"]
    for host in ("localhost:8001", "127.0.0.1:8001", "127.1:8001", "[::1]", "a.localhost"):
        assert (await admin.get("/engines", headers={"host": host})).status_code == 200, host
    admin_key = "sk-admin-0123456789abcdef0123456789abcdef"
    server = await serve(config_of(upstream, server={"admin_key": admin_key}))
    async with httpx.AsyncClient(base_url=server.admin_url or "") as http:
        keyed = {**named, "authorization": f"Bearer {admin_key}"}
        assert (await http.post("/reload", headers=keyed)).status_code == 200
        keyed.pop("origin")
        assert (await http.get("/engines", headers=keyed)).status_code == 200


async def test_metrics_are_not_public(http: httpx.AsyncClient) -> None:
    assert (await http.get("/metrics")).status_code == 404


async def test_models(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == ["m", "alias-of-m", "org/model-x", "both"]
    one = (await http.get("/models/org/model-x")).json()
    assert one["id"] == "org/model-x"
    assert isinstance(one["created"], int)
    assert (await http.get("/v1/models/org/nope")).status_code == 404


async def test_probes(http: httpx.AsyncClient, server: Roundhouse) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    assert (await http.get("/ready")).status_code == 200
    assert (await http.get("/ready", params={"model": "m"})).status_code == 200
    assert (await http.get("/ready", params={"model": "nope"})).status_code == 404
    server.services.accepting = False
    assert (await http.get("/ready")).status_code == 503
    assert (await http.get("/health")).status_code == 200
    refused = await http.post("/v1/chat/completions", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")


async def test_docs_page(http: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    assert "/engines" in (await admin.get("/openapi.json")).json()["paths"]
