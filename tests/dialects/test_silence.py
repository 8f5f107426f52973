"""Nothing is lost in silence, and nothing that comes in can make a dialect stumble."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import EmbeddingCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from server.dialects import table
from server.dialects.base import Asked, Dialect, Outgoing, Reader
from server.dialects.cohere import Cohere
from server.dialects.cohere.rerank import rerank_in, rerank_out
from server.dialects.mistral import Mistral
from server.dialects.plain import Plain
from server.dialects.thoughts import Thinking
from server.errors import InvalidRequest, UpstreamError, UpstreamStatus
from server.protocol import envelope
from server.protocol.envelope import Surface
from tests.dialects.replay import ASKED, HELLO, request_of, sent

DIALECTS: list[Dialect] = [Cohere(), Mistral()]
#: Those that refuse what they do not know, and those that pass it on.
ALL = [*table.DIALECTS.values(), Plain()]
#: And where thoughts are told apart.
TAGS = [Thinking(dialect, begun=begun) for dialect in ALL[3:] for begun in (False, True)]
NAMES = ["cohere", "mistral"]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
#: Of each of OpenAI's parameters one value that asks for something.
ASKING: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": 0.5,
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "logit_bias": {"1": 5},
    "logprobs": True,
    "max_completion_tokens": 7,
    "max_tokens": 7,
    "metadata": {"a": "b"},
    "modalities": ["audio"],
    "moderation": {"model": "m"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "a"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "flex",
    "stop": ["a"],
    "store": True,
    "temperature": 0.5,
    "tool_choice": "required",
    "tools": TOOLS,
    "top_logprobs": 2,
    "top_p": 0.5,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
#: These stand in every request, or are told by the request's other half.
AROUND = {"messages", "model", "stream", "stream_options"}
NEEDS = {"tool_choice": {"tools": TOOLS}, "parallel_tool_calls": {"tools": TOOLS}}


def refused(make: Callable[[], Outgoing]) -> tuple[Outgoing | None, str | None]:
    """What goes out, or the name of what is refused."""
    try:
        return make(), None
    except InvalidRequest as error:
        return None, error.param


def test_every_parameter_of_openai_is_here() -> None:
    known = typing.get_type_hints(CompletionCreateParamsBase).keys()
    assert known - AROUND == ASKING.keys()


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
@pytest.mark.parametrize("name", ASKING)
def test_no_parameter_is_lost_in_silence(dialect: Dialect, name: str) -> None:
    """It is sent, refused by its name, or named as let go; and dropping it is never refused."""
    more = NEEDS.get(name, {})
    body = {**more, name: ASKING[name]}
    without = json.loads(sent(dialect, more).body)
    outgoing, param = refused(lambda: sent(dialect, body))
    if outgoing is None:
        assert param == name
    else:
        assert (json.loads(outgoing.body) != without) is (outgoing.dropped == ())
        assert outgoing.dropped in ((), (name,))
    if name != "tools":
        spared = sent(dialect, body, drop=[name])
        assert (json.loads(spared.body), spared.dropped) == (without, (name,))


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_no_parameter_of_embeddings_is_lost_in_silence(dialect: Dialect) -> None:
    asking = {"dimensions": 7, "user": "u", "encoding_format": "hex"}
    known = typing.get_type_hints(EmbeddingCreateParams).keys() - {"input", "model"}
    assert known == asking.keys()
    without = json.loads(sent(dialect, {"input": "a"}, surface=Surface.EMBEDDINGS).body)
    for name, value in asking.items():
        body = {"input": "a", name: value}
        outgoing, param = refused(partial(sent, dialect, body, surface=Surface.EMBEDDINGS))
        if outgoing is None:
            assert param == name
        else:
            assert (json.loads(outgoing.body) != without) is (outgoing.dropped == ())


# --- anything may come in

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
#: Words of both sides, so that what comes in looks like something for a while.
WORDS = (
    "arguments choices citations code content delta detail embeddings error estimated_time "
    "finish_reason float function id image_url index loc logprobs message meta msg name p results "
    "role text thinking tokens tool_call_id tool_calls tool_plan type usage url input_tokens "
    "prompt_tokens completion_tokens relevance_score refusal file file_data input_audio"
).split()
#: And values that mean something.
MEANT = st.sampled_from(
    "assistant content-delta content-start error function image_url message-end message-start text "
    "thinking tool tool-call-delta tool-call-end tool-call-start tool-plan-delta user".split()
)
things = st.recursive(
    values | MEANT,
    lambda inner: (
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=5) | st.lists(inner, max_size=3)
    ),
    max_leaves=15,
)
objects = st.dictionaries(st.sampled_from(WORDS), things, max_size=6)


def shape(**inside: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these members, or some of them, or anything in their places."""
    return st.fixed_dictionaries({}, optional={k: v | things for k, v in inside.items()})


#: Nearly an answer or an event of each dialect, and nearly a message.
functions = shape(name=MEANT, arguments=st.just("{}") | st.dictionaries(MEANT, values))
calls = shape(id=MEANT, index=st.integers(-1, 2), type=MEANT, function=functions)
parts = shape(type=MEANT, text=MEANT, thinking=MEANT | st.lists(shape(text=MEANT)))
messages = shape(role=MEANT, content=st.lists(parts, max_size=2), tool_calls=st.lists(calls))
choices = shape(index=st.integers(0, 1), finish_reason=MEANT, delta=messages, message=messages)
openais = shape(choices=st.lists(choices, max_size=2), usage=shape(prompt_tokens=values))
deltas = shape(message=shape(content=parts, tool_calls=calls, citations=values), usage=objects)
coheres = shape(type=MEANT, index=st.integers(0, 1), delta=deltas, message=messages)
EMBED = Asked(Surface.EMBEDDINGS, "m", "e", 1, base64=True)


@pytest.mark.no_cover
@settings(max_examples=400)
@given(objects | things | openais | coheres)
def test_no_answer_makes_us_stumble(thing: Any) -> None:
    payload = msgspec.json.encode(thing)
    for dialect in (*ALL, *TAGS):
        for asked in (ASKED, EMBED):
            with suppress(UpstreamError):
                dialect.answer_in(payload, asked)
    with suppress(UpstreamError):
        rerank_in(payload, EMBED)


def readers() -> list[Reader]:
    return [dialect.reader(ASKED) for dialect in (*ALL, *TAGS)]


@pytest.mark.no_cover
@settings(max_examples=300)
@given(st.lists(st.tuples(st.none() | MEANT, objects | openais | coheres), max_size=3))
def test_no_event_makes_us_stumble(events: list[tuple[str | None, Any]]) -> None:
    for reader in readers():
        for name, thing in events:
            try:
                chunks = reader.feed(name, msgspec.json.encode(thing))
            except UpstreamError:
                break
            for chunk in chunks:
                assert chunk == b"[DONE]" or isinstance(json.loads(chunk), dict)


@pytest.mark.no_cover
@settings(max_examples=300)
@given(st.sampled_from([400, 401, 403, 404, 422, 429, 498, 499, 500, 503, 529]), things)
def test_no_error_makes_us_stumble(status: int, thing: Any) -> None:
    payload = msgspec.json.encode(thing)
    for dialect in ALL:
        error = dialect.error_in(status, payload)
        assert isinstance(error, UpstreamStatus)
        assert 400 <= error.status < 600
        assert isinstance(error.message, str)


parameters = st.dictionaries(
    st.sampled_from([*ASKING, "thinking", "documents", "top_k"]), things, max_size=3
)


@pytest.mark.no_cover
@settings(max_examples=200)
@given(parameters, st.just(HELLO) | st.lists(objects | messages, max_size=3) | things)
def test_no_request_makes_us_stumble(body: dict[str, Any], said: Any) -> None:
    request = request_of({"model": "m", **body, "messages": said})
    for dialect in ALL:
        out = partial(dialect.request_out, request, model="m", members=request.members)
        outgoing, param = refused(partial(out, drop=frozenset(), settings={}))
        assert outgoing or param


@pytest.mark.no_cover
@settings(max_examples=200)
@given(things, things, things)
def test_no_other_request_makes_us_stumble(one: Any, two: Any, three: Any) -> None:
    for dialect in ALL:
        body = {"input": one, "dimensions": two}
        outgoing, param = refused(partial(sent, dialect, body, surface=Surface.EMBEDDINGS))
        assert outgoing or param
    body = {"model": "m", "query": one, "documents": two, "top_n": three}
    members = envelope.members(json.dumps(body).encode())
    outgoing, param = refused(lambda: rerank_out(members, model="m", drop=frozenset()))
    assert outgoing or param
