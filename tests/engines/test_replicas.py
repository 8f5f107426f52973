from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.control import Control
from server.engines.replicas import (
    Check,
    Finding,
    Replica,
    Standing,
    after_check,
    first_model,
    load_of,
)
from tests.engines.replica_house import KEY, METRICS, a_replica
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    bad_utf8,
    close_before_head,
    garbage,
    hang,
    hang_in_head,
    huge_headers,
    models_answer,
    redirect,
    reset_before_head,
    short_body,
)

GOOD, BAD, GONE = Finding(model="m"), Finding("It said 500."), Finding("Nobody.", gone=True)
TOO_LONG = Finding("It cannot be asked: an answer of more than 8 MiB.")
OURS = Finding("No descriptors.", ours=True)


@pytest.mark.parametrize(
    ("findings", "well", "misses"),
    [
        ([], False, 0),
        ([GOOD], True, 0),
        ([BAD], False, 1),  # never seen well: it is not in before it is
        ([GOOD, BAD, BAD], True, 2),
        ([GOOD, BAD, BAD, BAD], False, 3),
        ([GOOD, BAD, BAD, GOOD, BAD, BAD], True, 2),  # only misses in a row count
        ([GOOD, BAD, BAD, BAD, BAD, GOOD], True, 0),
        ([GOOD, GONE], False, 1),
        ([GOOD, OURS, OURS, OURS, OURS], True, 0),
        ([GOOD, BAD, BAD, OURS, BAD], False, 3),
        ([BAD, OURS], False, 1),
    ],
)
def test_standing(findings: list[Finding], well: bool, misses: int) -> None:
    standing = Standing()
    for finding in findings:
        standing = after_check(standing, finding, 3)
    assert (standing.well, standing.misses) == (well, misses)
    assert (standing.error is None) == (well or not findings)
    assert standing.looked is bool(findings)


def test_an_ill_replica_has_no_load() -> None:
    standing = Standing(well=True, looked=True, model="m", load=7.0, load_ours=2)
    assert after_check(standing, BAD, 3).load == 7.0
    lost = after_check(standing, BAD, 1)
    assert (lost.load, lost.load_ours, lost.model) == (None, 0, "m")


def test_a_replica_shows_no_key() -> None:
    replica = Replica("a:1", "http://a:1", "m", {"authorization": f"Bearer {KEY}"})
    assert KEY not in repr(replica)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"data": [{"id": "one"}, {"id": "two"}]}', "one"),
        (b'{"data": [{"id": "a b/\xc3\xa4"}]}', "a b/ä"),
        (b'{"data": []}', None),
        (b'{"data": {}}', None),
        (b'{"data": null}', None),
        (b'{"data": [{"id": 7}]}', None),
        (b'{"data": [{"id": ""}]}', None),
        (b'{"data": [{"id": "a\\nb"}]}', None),
        (b'{"data": [{"id": "' + b"x" * 513 + b'"}]}', None),
        (b'[{"id": "one"}]', None),
        (b"<html>", None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_first_model(body: bytes, name: str | None) -> None:
    assert first_model(body) == name


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (METRICS.format(running=3.0, waiting=2.0), 5.0),
        ("vllm:num_requests_running 2\n", 2.0),
        ("vllm:num_requests_running 2 1700000000\nvllm:num_requests_waiting 1e1", 12.0),
        ("", None),
        ("vllm:num_requests_running_total 3\n# vllm:num_requests_running 3\n", None),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting 1", None),
        ("vllm:num_requests_running +Inf", None),
        ("vllm:num_requests_running -1", None),
        ("vllm:num_requests_running many", None),
        ("vllm:num_requests_running 1e308\n" * 3, None),
    ],
)
def test_load(text: str, load: float | None) -> None:
    assert load_of(text.encode()) == load


@given(st.binary() | st.builds(lambda b: b"vllm:num_requests_running " + b, st.binary()))
def test_no_answer_is_too_odd(body: bytes) -> None:
    first_model(body)
    assert (load := load_of(body)) is None or load >= 0


# --- over a socket


async def look(
    upstream: ScriptedUpstream, timeout: float = 10.0, model: str | None = None
) -> Finding:
    async with Control(None, url=upstream.url) as control:
        return await Check(control).look(timeout, model)


async def test_a_replica_that_is_well() -> None:
    async with a_replica("org/Model-8B") as upstream:
        assert await look(upstream) == Finding(model="org/Model-8B")
        assert await look(upstream, model="other") == Finding(model="other")
        assert [e.path for e in upstream.requests] == ["/health", "/v1/models", "/health"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (answer_bytes(503, b""), "Its /health says 503."),
        (redirect("/login"), "Its /health says 307."),
        (answer_json(401), "It refuses our key: /health says 401."),
        (hang, "It did not answer /health within 0.05 s."),
        (hang_in_head(), "It did not answer /health within 0.05 s."),
        (garbage(), "It cannot be asked: RemoteProtocolError."),
        (reset_before_head(), "It cannot be asked: ReadError."),
        (close_before_head(), "It cannot be asked: RemoteProtocolError."),
        (short_body(), "It cannot be asked: RemoteProtocolError."),
        (huge_headers(2**20), "It cannot be asked: RemoteProtocolError."),
    ],
)
async def test_a_replica_that_is_not(script: Any, told: str) -> None:
    async with a_replica() as upstream:
        upstream.routes["/health"] = script
        timeout = 0.05 if "within" in told else 10.0
        assert await look(upstream, timeout, model="m") == Finding(told)


async def test_nobody_listens() -> None:
    async with a_replica() as upstream:
        pass
    assert await look(upstream) == Finding("Nobody listens there.", gone=True)


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        (models_answer("llama"), Finding(model="llama")),
        (answer_json(200, {"data": []}), Finding("It lists no model.")),
        (answer_bytes(200, bad_utf8), Finding("It lists no model.")),
        (answer_bytes(200, b"x" * 9 * 2**20), TOO_LONG),
        (answer_json(404), Finding("Its /v1/models says 404.")),
        (answer_json(403), Finding("It refuses our key: /v1/models says 403.")),
    ],
)
@pytest.mark.parametrize("health", [200, 404])
async def test_the_name_of_the_model(script: Any, finding: Finding, health: int) -> None:
    async with a_replica() as upstream:
        upstream.routes["/health"] = answer_bytes(health, b"")
        upstream.routes["/v1/models"] = script
        assert await look(upstream) == finding


async def test_without_health_the_list_of_models_tells() -> None:
    async with a_replica() as upstream, Control(None, url=upstream.url) as control:
        upstream.routes["/health"] = answer_json(404)
        check = Check(control)
        assert await check.look(10, "mine") == Finding(model="mine")
        assert await check.look(10, None) == Finding(model="m")
        paths = [exchange.path for exchange in upstream.requests]
        assert paths == ["/health", "/v1/models", "/v1/models"]  # not asked again
        upstream.routes["/v1/models"] = answer_json(500)
        assert await check.look(10, None) == Finding("Its /v1/models says 500.")
        upstream.routes["/health"] = answer_bytes(200, b"")  # another server took its place
        assert await check.look(10, "mine") == Finding(model="mine")
        assert [exchange.path for exchange in upstream.requests[-2:]] == ["/v1/models", "/health"]


async def test_a_path_before_health_is_kept() -> None:
    async with (
        ScriptedUpstream(routes={"/one/health": answer_bytes(200, b"")}) as upstream,
        Control(None, url=f"{upstream.url}/one") as control,
    ):
        assert await Check(control).look(10, "m") == Finding(model="m")


async def test_load_over_a_socket() -> None:
    async with a_replica() as upstream, Control(None, url=upstream.url) as control:
        check = Check(control)
        text = METRICS.format(running=3.0, waiting=2.0).encode()
        upstream.routes["/metrics"] = answer_bytes(200, text)
        assert await check.load(10, lambda: 4) == (5.0, 4)
        (exchange,) = upstream.requests
        assert exchange.header("accept-encoding") == "identity"
        for script in (answer_json(404), answer_bytes(200, b"# nothing"), garbage()):
            upstream.routes["/metrics"] = script
            assert await check.load(10, lambda: 4) == (None, 0)
        upstream.routes["/metrics"] = hang
        assert await check.load(0.05, lambda: 4) == (None, 0)
