"""Answers written past ASGI's messages."""

from __future__ import annotations

import httpx
import pytest

from server.api.cycle import STATUS
from tests.api.conftest import ASK
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, chat_stream


def test_there_is_a_line_for_every_status() -> None:
    assert STATUS[404] == b"HTTP/1.1 404 Not Found\r\n"
    assert STATUS[520] == b"HTTP/1.1 520 \r\n"
    assert set(STATUS) == set(range(100, 600))


async def test_answers_have_a_date(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.queue(chat_answer("x"), chat_stream(["x"]))
    for stream in (False, True):
        answer = await http.post("/v1/chat/completions", json={**ASK, "stream": stream})
        assert answer.status_code == 200
        assert answer.headers["date"].endswith("GMT")


@pytest.mark.parametrize("status", [420, 498, 520, 524, 599])
async def test_a_status_that_has_no_name(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, status: int
) -> None:
    """Cloudflare's, for one: they are the client's to see, as any other."""
    upstream.default = answer_json(status, {"error": {"message": "no"}})
    answer = await http.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == status
    assert "error" in answer.json()
