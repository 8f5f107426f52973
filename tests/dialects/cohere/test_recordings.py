"""Real traffic: our reading, through the OpenAI SDK's strict types, is Cohere's own SDK's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from cohere.core.api_error import ApiError

from server.dialects.base import Asked
from server.dialects.cohere import Cohere
from server.errors import UpstreamError
from server.protocol.envelope import Surface
from tests.dialects.cohere.reading import sdk, streamed, whole
from tests.dialects.cohere.theirs import back, checked
from tests.dialects.replay import (
    ASKED,
    gathered,
    meaning,
    read,
    recorded,
    sent,
    strict,
    strict_chunks,
    strict_embeddings,
    unpacked_embeddings,
)

DIALECT = Cohere()
EMBED = Asked(Surface.EMBEDDINGS, "theirs", "emb-1", 1)


@pytest.fixture(scope="module")
def recordings(recordings_dir: Path) -> list[dict[str, Any]]:
    """The exchanges over the API v2; v1 is another API, and not ours."""
    found = [one for one in recorded(recordings_dir, "cohere") if one["path"].startswith("/v2/")]
    assert len(found) > 30
    return found


def test_every_answer_reads_as_their_sdk_reads_it(recordings: list[dict[str, Any]]) -> None:
    answers = [
        one
        for one in recordings
        if one["path"] == "/v2/chat" and "event-stream" not in one["headers"]["content-type"]
    ]
    assert len(answers) >= 20
    for one in answers:
        ours, facts = DIALECT.answer_in(one["body"].encode(), ASKED)
        assert meaning(strict(ours)) == whole(one)
        assert facts.usage is not None
        assert not facts.usage.partly


def test_every_stream_reads_as_their_sdk_reads_it(recordings: list[dict[str, Any]]) -> None:
    streams = [one for one in recordings if "event-stream" in one["headers"]["content-type"]]
    assert len(streams) >= 4
    ended = []
    for one in streams:
        theirs = streamed(one)
        for seed in range(5):
            reader = DIALECT.reader(ASKED)
            if theirs["finish"] == "error":
                with pytest.raises(UpstreamError) as caught:
                    read(reader, one["body"].encode(), seed)
                assert "INVALID_TOOL_GENERATION" in caught.value.message
                assert not reader.done
                continue
            assert gathered(read(reader, one["body"].encode(), seed)) == theirs
            assert reader.done
        ended.append(theirs["finish"])
    assert {"stop", "tool_calls", "error"} <= set(ended)


def test_embeddings_read_as_their_sdk_reads_them(recordings: list[dict[str, Any]]) -> None:
    found = [one for one in recordings if one["path"] == "/v2/embed" and one["status"] == 200]
    assert found
    for one in found:
        theirs = sdk(one).embed(model="m", input_type="search_query", texts=["a"])
        ours, facts = DIALECT.answer_in(one["body"].encode(), EMBED)
        read_back = strict_embeddings(ours)
        assert [item.embedding for item in read_back.data] == theirs.embeddings.float_
        assert theirs.meta is not None
        assert theirs.meta.billed_units is not None
        assert read_back.usage.prompt_tokens == theirs.meta.billed_units.input_tokens
        assert facts.usage is not None
        packed, _ = DIALECT.answer_in(
            one["body"].encode(), Asked(Surface.EMBEDDINGS, "m", "e", 1, base64=True)
        )
        unpacked = unpacked_embeddings(packed).data[0].embedding
        assert unpacked == pytest.approx(read_back.data[0].embedding, rel=1e-6)


def test_rerank_reads_as_their_sdk_reads_it(recordings: list[dict[str, Any]]) -> None:
    found = [one for one in recordings if one["path"] == "/v2/rerank"]
    assert len(found) == 2
    for one in found:
        model = one["request"]["model"]
        out = sent(DIALECT, one["request"], model=model, surface=Surface.RERANK)
        asked = {name: value for name, value in one["request"].items() if value is not None}
        assert json.loads(out.body) == asked
        ours, _ = DIALECT.answer_in(one["body"].encode(), Asked(Surface.RERANK, "m", "r", 1))
        ask: dict[str, Any] = {"model": "m", "query": "q", "documents": ["d"]}
        theirs = sdk(one).rerank(**ask).results
        assert sdk({**one, "body": ours.decode()}).rerank(**ask).results == theirs


def test_errors_have_their_status_and_words(recordings: list[dict[str, Any]]) -> None:
    found = [one for one in recordings if one["status"] != 200]
    assert found
    for one in found:
        with pytest.raises(ApiError) as theirs:
            sdk(one).embed(model="m", input_type="search_query", texts=["a"])
        ours = DIALECT.error_in(one["status"], one["body"].encode())
        assert ours.upstream_status == theirs.value.status_code
        assert ours.message == theirs.value.body["message"]


def test_no_chunk_is_wrong_by_itself(recordings: list[dict[str, Any]]) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    streams = [
        one
        for one in recordings
        if "event-stream" in one["headers"]["content-type"] and '"ERROR"' not in one["body"]
    ]
    for one in streams:
        made = read(DIALECT.reader(ASKED), one["body"].encode())
        assert len(strict_chunks(made)) >= 3


# --- requests: said in OpenAI's words, they go out as Cohere's clients sent them


def asked(request: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's body for a recorded one."""
    body = {name: value for name, value in request.items() if value is not None}
    if "stop_sequences" in body:
        body["stop"] = body.pop("stop_sequences")
    if "tool_choice" in body:
        body["tool_choice"] = {"REQUIRED": "required", "NONE": "none"}[body["tool_choice"]]
    if schema := body.get("response_format", {}).get("json_schema"):
        named = {"name": "x", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    body["messages"] = back(body["messages"])
    return body


def bare(value: Any) -> Any:
    """Without what stands there and says nothing."""
    if isinstance(value, dict):
        return {name: bare(item) for name, item in value.items() if item not in (None, [])}
    return [bare(item) for item in value] if isinstance(value, list) else value


def test_requests_go_out_as_theirs_did(recordings: list[dict[str, Any]]) -> None:
    chats = [one["request"] for one in recordings if one["path"] == "/v2/chat"]
    assert len(chats) > 20
    members: set[str] = set()
    for request in chats:
        outgoing = sent(DIALECT, asked(request), model=request["model"])
        body = checked(outgoing)
        assert bare(body) == bare(request)
        assert not outgoing.dropped
        assert not outgoing.lowered
        members |= body.keys()
    wanted = {"documents", "response_format", "stop_sequences", "tool_choice", "tools"}
    assert wanted <= members
