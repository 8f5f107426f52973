from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from server.api.docs import ASSETS, PAGE, SWAGGER_UI, docs_endpoints, policy
from server.api.openapi import ADMIN_PATHS, PUBLIC_PATHS, build_admin, build_public
from server.api.openapi_schemas import error_codes

DOCUMENTS = {"public": build_public("1.2.3"), "admin": build_admin("1.2.3")}
both = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return resolve(document, found)


def complaints(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """A judge of examples, for the few keywords that the page uses."""
    schema = resolve(document, schema)
    if "anyOf" in schema:
        found = [complaints(document, option, value) for option in schema["anyOf"]]
        return [] if any(not each for each in found) else [f"{value!r} fits none"]
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return [f"{value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{value!r} is none of {schema['enum']}"]
    if isinstance(value, list):
        return [c for item in value for c in complaints(document, schema["items"], item)]
    if not isinstance(value, dict):
        return []
    missing = [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
    return missing + [
        c
        for name, item in value.items()
        if name in schema.get("properties", {})
        for c in complaints(document, schema["properties"][name], item)
    ]


@both
def test_every_reference_leads_somewhere_and_every_component_is_used(
    document: dict[str, Any],
) -> None:
    used = {node["$ref"] for node in nodes(document) if "$ref" in node}
    for target in used:
        assert resolve(document, {"$ref": target})
    for kind in ("schemas", "responses", "headers"):
        names = {f"#/components/{kind}/{name}" for name in document["components"][kind]}
        # Streams are described by their payload, in words.
        unused = names - used - {"#/components/schemas/ChatChunk"}
        if kind == "headers" and document is DOCUMENTS["admin"]:
            unused = {name for name in unused if "roundhouse" not in name and "id" not in name}
        assert not unused


@both
def test_operations_are_complete(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    operations = [(p, m, op) for p, item in document["paths"].items() for m, op in item.items()]
    ids = [op["operationId"] for _, _, op in operations]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations:
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert any(code.startswith("2") for code in operation["responses"])
        in_path = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        needs_key = operation.get("security") != []
        assert needs_key == ("401" in operation["responses"])
        takes = method == "put" or (
            method == "post"
            and (path.startswith(("/v1/", "/v2/", "/plans/", "/weights")) or path == "/engines")
        )
        assert ("requestBody" in operation) == takes


@both
def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    seen = 0
    for node in nodes(document):
        if "schema" in node and "examples" in node:
            for example in node["examples"].values():
                assert complaints(document, node["schema"], example["value"]) == []
                seen += 1
    assert seen > 10


def test_documented_pairs() -> None:
    for document, pairs in zip(DOCUMENTS.values(), (PUBLIC_PATHS, ADMIN_PATHS), strict=True):
        found = {(m.upper(), p) for p, item in document["paths"].items() for m in item}
        assert found == set(pairs)
    assert ("POST", "/v1/chat/completions") in PUBLIC_PATHS
    assert not set(ADMIN_PATHS) & {("POST", "/v1/chat/completions"), ("GET", "/v1/models")}
    assert not set(PUBLIC_PATHS) & {("POST", "/reload"), ("GET", "/engines")}


def test_documents_are_fresh_and_take_a_server() -> None:
    document = build_public("9", "https://llm.example/base/")
    assert document["servers"] == [{"url": "https://llm.example/base"}]
    assert document["info"]["version"] == "9"
    document["paths"].clear()
    assert build_public("9")["paths"]
    assert "servers" not in build_public("9")
    assert "connect-src 'self' https://llm.example;" in policy(
        build_public("9", "https://llm.example/base")
    )
    assert "connect-src 'self';" in policy(build_public("9", "/base"))


def test_every_code_in_the_source_is_documented(repo_root: Path) -> None:
    of_start_errors = {"bind_failed", "client_error", "pull_failed"}
    in_source = set()
    for file in (repo_root / "server").rglob("*.py"):
        in_source |= set(re.findall(r'\bcode(?:: str)? ?= ?"([a-z_]+)"', file.read_text("utf-8")))
    assert in_source - of_start_errors - {"client_gone"} <= set(error_codes())


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=docs_endpoints(True, DOCUMENTS["public"])))


def test_docs_are_served_with_types_and_etags(client: TestClient) -> None:
    for path, kind in {
        "/docs": "text/html",
        "/openapi.json": "application/json",
        **{f"/docs/{name}": kind for name, kind in ASSETS.items()},
    }.items():
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind.partition(";")[0])
        assert answer.headers["x-content-type-options"] == "nosniff"
        etag = answer.headers["etag"]
        for header in (etag, f'"x", W/{etag}', "*"):
            again = client.get(path, headers={"if-none-match": header})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == etag
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200
        assert client.head(path).status_code == 200
    assert client.get("/openapi.json").json() == DOCUMENTS["public"]
    for path in ("/docs/README.md", "/docs/..%2fdocs.py", "/docs/page.html"):
        assert client.get(path).status_code == 404


def test_the_page_asks_no_other_host(client: TestClient, repo_root: Path) -> None:
    answer = client.get("/docs")
    strict = answer.headers["content-security-policy"]
    assert "default-src 'none'" in strict
    assert "unsafe" not in strict
    assert "http" not in strict
    links = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {link for link in links if link.startswith("docs/")} == {
        *("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"),
    }
    assert set(links) - {"data:,", "openapi.json"} <= {f"docs/{name}" for name in ASSETS}
    assert not re.search(r"<script>|style=|\son\w+=", answer.text)
    folder = repo_root / "server" / "api" / "assets"
    css = (folder / "swagger-ui.css").read_text("utf-8")
    assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", css)
    assert f"{SWAGGER_UI} |" in (folder / "README.md").read_text("utf-8")
    on_disk = {file.name for file in folder.iterdir()}
    assert on_disk == {*ASSETS, PAGE, "README.md", ".gitattributes"}


def test_docs_can_be_switched_off() -> None:
    assert docs_endpoints(False, DOCUMENTS["public"]) == []
