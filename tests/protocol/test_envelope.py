"""Bodies: what is read of them, and what a rewrite leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.protocol import envelope
from server.protocol.envelope import Surface

TEXT = st.text(st.one_of(st.sampled_from('[]{}"\\/u\n'), st.characters(codec="utf-8")), max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=25,
)


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user"}], **more}).encode()


def refused(surface: Surface, body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        envelope.decode(surface, body)
    return caught.value


# --- members and rewrites


@given(st.dictionaries(TEXT, VALUES, max_size=6), VALUES)
def test_a_rewrite_changes_what_it_changes(fields: dict[str, Any], new: Any) -> None:
    body = json.dumps(fields, indent=1).encode()
    members = envelope.members(body)
    members["model"] = envelope.raw(new)
    assert json.loads(envelope.emit(members)) == {**fields, "model": new}


def test_values_pass_as_they_were_written() -> None:
    body = b'{"a": 1.0e+2, "b" :[ 1,2 ], "c":"\\u00e9", "d":123456789012345678901234567890}'
    out = envelope.emit(envelope.members(body))
    for value in (b"1.0e+2", b"[ 1,2 ]", b'"\\u00e9"', b"123456789012345678901234567890"):
        assert value in out


def test_duplicate_keys_mean_one_thing() -> None:
    body = b'{"model":"a","mod\\u0065l":"b","messages":[]}'
    assert bytes(envelope.members(body)["model"]) == b'"b"'
    assert envelope.decode(Surface.CHAT, body).model == "b"
    assert envelope.emit(envelope.members(body)).count(b"model") == 1


@pytest.mark.parametrize("body", [b"[]", b"1", b"", b"{", b"nonsense"])
def test_members_of_what_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        envelope.members(body)


# --- the typed fields


def test_chat() -> None:
    body = chat(
        stream=True,
        stream_options={"include_usage": True, "more": 1},
        n=2,
        stop=["a"],
        tools=[{"type": "function"}],
        unknown={"x": 1},
        max_tokens=None,
    )
    fields = envelope.decode(Surface.CHAT, body)
    assert (fields.model, fields.stream, fields.n, fields.stop) == ("m", True, 2, ["a"])
    assert fields.stream_options.include_usage is True
    assert [bytes(tool) for tool in fields.tools] == [b'{"type": "function"}']
    assert len(fields.messages) == 1


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        (Surface.COMPLETIONS, {"model": "m", "prompt": [1, 2]}),
        (Surface.EMBEDDINGS, {"model": "m", "input": ["a"]}),
        (Surface.RERANK, {"model": "m", "query": "a", "documents": ["a", {"text": "b"}]}),
        (Surface.TOKENIZE, {"model": "m", "prompt": "a"}),
        (Surface.DETOKENIZE, {"model": "m", "tokens": [1]}),
    ],
)
def test_other_surfaces(surface: Surface, body: dict[str, Any]) -> None:
    assert envelope.decode(surface, json.dumps(body).encode()).model == "m"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (chat(messages=[{}]), "messages[0].role", "missing_required_parameter"),
        (chat(n="two"), "n", "invalid_type"),
        (chat(stream=1), "stream", "invalid_type"),
        (chat(stream_options={"include_usage": 1}), "stream_options.include_usage", "invalid_type"),
        (chat(logit_bias={"1": "a"}), "logit_bias[...]", "invalid_type"),
        (chat(messages={}), "messages", "invalid_type"),
        (b"[1]", None, "invalid_type"),
        (b"", None, "invalid_json"),
        (b'{"model":', None, "invalid_json"),
        (chat() + b" x", None, "invalid_json"),
        (chat()[:-1] + b',"x":' + b"[" * 100_000, None, "nested_too_deeply"),
    ],
)
def test_refusals_name_the_field(body: bytes, param: str | None, code: str) -> None:
    error = refused(Surface.CHAT, body)
    assert (error.param, error.code) == (param, code)
    assert "$" not in error.message


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"query": 1}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"top_n": "1"}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"max_tokens_per_doc": "1"}, "max_tokens_per_doc"),
        ({"return_documents": "no"}, "return_documents"),
    ],
)
def test_refusals_of_a_rerank_name_the_field(said: dict[str, Any], param: str) -> None:
    body = {"model": "m", "query": "a", "documents": ["a"], **said}
    error = refused(Surface.RERANK, json.dumps(body).encode())
    assert (error.param, error.code) == (param, "invalid_type")


def test_every_surface_has_a_decoder_that_needs_no_model() -> None:
    for surface in Surface:
        if surface is not Surface.TOKENIZE:  # which takes either of two
            assert refused(surface, b"{}").code == "missing_required_parameter"
        body = {"messages": [], "prompt": "a", "input": "a", "tokens": [1]}
        body |= {"query": "a", "documents": []}
        assert envelope.decode(surface, json.dumps(body).encode()).model is None
