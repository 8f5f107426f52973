"""The official OpenAI SDK, unchanged and strict, against real vLLM through the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import cohere
import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.conftest import KEY
from tests.integration.stack import ServerProcess

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK: Any = [{"role": "user", "content": "What is Roundhouse?"}]


@pytest.fixture
def client(stack: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{stack.url}/v1", api_key=KEY, _strict_response_validation=True, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def lenient(stack: ServerProcess) -> Iterator[OpenAI]:
    """The SDK as people use it, for the two places where its strict mode cannot be had."""
    with OpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def aclient(stack: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=KEY, _strict_response_validation=True, max_retries=0
    ) as client:
        yield client


def test_chat(client: OpenAI) -> None:
    # As the README asks it: without a temperature, for which the guide's own default is 0.
    answer = client.chat.completions.create(model="guide", messages=ASK)
    assert answer.choices[0].finish_reason == "stop"
    assert "OpenAI" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_is_the_same_text(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="guide", messages=ASK, temperature=0)
    chunks = list(
        client.chat.completions.create(model="guide", messages=ASK, temperature=0, stream=True)
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert {c.id for c in chunks} == {chunks[0].id}
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    # Asked for upstream for our books, and withheld from a client that did not ask.
    assert all(c.usage is None and c.choices for c in chunks)


def test_stream_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="guide", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [bool(c.usage) for c in chunks].count(True) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_async_stream(aclient: AsyncOpenAI) -> None:
    stream = await aclient.chat.completions.create(
        model="org/guide-with-slash", messages=ASK, stream=True
    )
    text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert text


def test_tools_auto(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="guide",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="auto",
        temperature=0,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_tools_forced(client: OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(
        model="guide",
        messages=[{"role": "user", "content": "Weather in Rome, please"}],
        tools=[WEATHER],
        tool_choice=choice,
        temperature=0,
        max_tokens=200,
    )
    (call, *_) = answer.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)


def test_tools_in_a_stream(client: OpenAI) -> None:
    name, arguments = "", ""
    finish = None
    for chunk in client.chat.completions.create(
        model="guide",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        temperature=0,
        stream=True,
    ):
        choice = chunk.choices[0]
        finish = choice.finish_reason or finish
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            assert call.function is not None
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert isinstance(json.loads(arguments), dict)
    assert finish == "tool_calls"


def test_tool_result_turn(client: OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    answer = client.chat.completions.create(
        model="guide",
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees, sunny"},
        ],
        tools=[WEATHER],
        temperature=0,
        max_tokens=100,
    )
    assert answer.choices[0].message.content


def test_legacy_functions_are_answered_in_kind(client: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    functions: Any = [WEATHER["function"]]
    named: Any = {"name": "get_weather"}
    answer = client.chat.completions.create(
        model="guide", messages=question, functions=functions, function_call=named, temperature=0
    )
    message = answer.choices[0].message
    assert message.function_call is not None
    assert message.function_call.name == "get_weather"
    assert message.tool_calls is None
    stream = client.chat.completions.create(
        model="guide",
        messages=question,
        functions=functions,
        function_call=named,
        temperature=0,
        stream=True,
    )
    arguments = ""
    for chunk in stream:
        delta = chunk.choices[0].delta
        assert delta.tool_calls is None
        if delta.function_call:
            arguments += delta.function_call.arguments or ""
    assert "city" in json.loads(arguments)


def test_json_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 40}, "port": {"type": "integer"}},
        "required": ["name", "port"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="guide",
        messages=[{"role": "user", "content": "Roundhouse's name and port as JSON"}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "server", "schema": schema, "strict": True},
        },
        temperature=0,
        max_tokens=200,
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) == {"name", "port"}
    assert isinstance(found["port"], int)


def test_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="guide", messages=ASK, logprobs=True, top_logprobs=2, max_tokens=4
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(len(token.top_logprobs) >= 2 and token.logprob <= 0 for token in logprobs.content)


def test_two_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="guide", messages=ASK, n=2, temperature=1.0, max_tokens=8
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    streamed = client.chat.completions.create(
        model="guide", messages=ASK, n=2, temperature=1.0, max_tokens=8, stream=True
    )
    assert {c.choices[0].index for c in streamed} == {0, 1}


def test_stop_sequence(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="guide", messages=ASK, temperature=0)
    text = whole.choices[0].message.content or ""
    word = text.split()[2]
    cut = client.chat.completions.create(model="guide", messages=ASK, temperature=0, stop=[word])
    assert cut.choices[0].message.content == text[: text.index(word)]
    assert cut.choices[0].finish_reason == "stop"


def test_seed(client: OpenAI) -> None:
    def sample(seed: int) -> str | None:
        return (
            client.chat.completions.create(
                model="guide", messages=ASK, seed=seed, temperature=1.5, max_tokens=24
            )
            .choices[0]
            .message.content
        )

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_max_tokens_ends_with_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="guide", messages=ASK, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_completions(client: OpenAI, lenient: OpenAI) -> None:
    answer = client.completions.create(model="guide", prompt="Roundhouse is", max_tokens=8)
    assert answer.choices[0].text
    # Not strict: the SDK's own type allows no null finish_reason, which every stream has (OpenAI's
    # too).
    streamed = lenient.completions.create(
        model="guide", prompt="Roundhouse is", max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed)


def test_embeddings(client: OpenAI, lenient: OpenAI) -> None:
    # The SDK asks for base64 by default and decodes it, but validates before that, so not strictly.
    answer = lenient.embeddings.create(
        model="minilm", input=["a cat sits on a mat", "a kitten on a rug", "tax law of 1911"]
    )
    cat, kitten, law = (item.embedding for item in answer.data)
    assert len(cat) == 384

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(cat, kitten) > dot(cat, law) + 0.2
    floats = client.embeddings.create(
        model="minilm", input="a cat sits on a mat", encoding_format="float"
    )
    assert floats.data[0].embedding == pytest.approx(cat, abs=1e-3)


def test_rerank(stack: ServerProcess) -> None:
    """Cohere's SDK, as there is none of OpenAI's for it; the model is one for embeddings."""
    documents = ["tax law of 1911", "a kitten on a rug", "a dog in the garden"]
    query, before = "a cat sits on a mat", _prompt_tokens(stack)
    with cohere.ClientV2(api_key=KEY, base_url=stack.url) as ours:
        best = ours.rerank(model="minilm", query=query, documents=documents, top_n=2)
    assert best.id
    assert [one.index for one in best.results] == [1, 2]
    assert 1 >= best.results[0].relevance_score > best.results[1].relevance_score
    with httpx.Client(base_url=stack.url, headers={"authorization": f"Bearer {KEY}"}) as http:
        wrapped = [{"text": text} for text in documents]
        body = {"model": "minilm", "query": query, "documents": wrapped}
        answer = http.post("/v1/rerank", json=body).json()
        refused = http.post("/v1/rerank", json={**body, "model": "guide"})
    assert answer["model"] == "minilm"
    assert [one["index"] for one in answer["results"]] == [1, 2, 0]
    assert answer["results"][0]["document"]["text"] == documents[1]
    assert _prompt_tokens(stack) == before + 2 * answer["usage"]["prompt_tokens"]
    assert 400 <= refused.status_code < 500
    assert refused.json()["error"]["type"] == "invalid_request_error"


def _prompt_tokens(stack: ServerProcess) -> float:
    return stack.metric("roundhouse_tokens_total", model="minilm", kind="prompt")


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "guide",
        "minilm",
        "org/guide-with-slash",
    ]
    assert client.models.retrieve("org/guide-with-slash").id == "org/guide-with-slash"


def test_errors(client: OpenAI, stack: ServerProcess) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean `guide`") as unknown:
        client.chat.completions.create(model="guid", messages=ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="guide", messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model="guide", messages=[{"role": "user", "content": "word " * 9000}]
        )
    assert "4096" in str(long.value)
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{stack.url}/v1", api_key="sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing/like-it")


def test_tokenize_and_back(stack: ServerProcess) -> None:
    with httpx.Client(base_url=stack.url, headers={"authorization": f"Bearer {KEY}"}) as http:
        tokens = http.post("/tokenize", json={"model": "guide", "prompt": "hello"}).json()["tokens"]
        back = http.post("/v1/detokenize", json={"model": "guide", "tokens": tokens}).json()
    assert back["prompt"] == "hello"
