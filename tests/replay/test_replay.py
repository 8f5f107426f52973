"""Every recorded exchange, sent through a server as a client would send it.

The upstream answers with the recorded bytes. What OpenAI's SDK reads of what the server makes of
them, in its strict mode, must be what the provider's own SDK reads in them; and what arrived at the
upstream must be what was recorded, as far as OpenAI's API can say it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from server.protocol.envelope import Surface
from tests.dialects.cohere import reading as cohere_reading
from tests.replay.asking import asking, formed
from tests.replay.exchanges import Exchange, exchanges, in_scope
from tests.replay.reading import Meaning, as_openai_reads, of_answer, of_chunks, raised, theirs
from tests.replay.world import World, key_of, name_of, spoken, world_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What cannot be as it should, by the provider's or its SDK's own fault.
EXCEPTIONS = {
    "pydantic-ai:tests/cassettes/test_embeddings/TestOpenAI.test_instrumentation.yaml": (
        "OpenAI's SDK asks for base64, and its strict mode refuses it; compared without that mode"
    ),
}
#: Of all exchanges.
MOST_EXCEPTIONS = 0.02
#: Whose answers are ours from the first word to the last.
TRANSLATED = ("anthropic", "cohere")
#: How often a stream is cut, each time elsewhere.
CUTS = 3

ALL = [one for one in exchanges() if in_scope(one)]
ASKED = {one.place: asking(one.provider, one.path, one.request) for one in ALL}


def _each(surface: Surface | None) -> pytest.MarkDecorator:
    """The exchanges of one kind, for a test's parameter; None: those that failed."""
    found = [
        one
        for one in ALL
        if (surface is None) is (one.status != 200) and surface in (None, ASKED[one.place].surface)
    ]
    return pytest.mark.parametrize("one", found, ids=[one.place for one in found])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world_of(tmp_path_factory.mktemp("replay"), ALL) as world:
        yield world


@_each(Surface.CHAT)
async def test_chat(one: Exchange, world: World) -> None:
    expected = _same(one, theirs(one))
    for cuts in range(CUTS if one.streamed else 1):
        world.answer(one, cuts)
        answer: Any = await _ask(one, world.strict)
        if one.streamed and expected["finish"] == "error":
            with pytest.raises(openai.APIError):
                [chunk async for chunk in answer]
        else:
            found: Any = [chunk async for chunk in answer] if one.streamed else answer
            meaning = of_chunks(found) if one.streamed else of_answer(found)
            assert _same(one, meaning) == expected
            if one.provider in TRANSLATED:
                assert (found[0] if one.streamed else found).model == name_of(one)
            if one.provider == "openai":
                assert _members(found) == _members(as_openai_reads(one))
        _arrived(one, world)


def _same(one: Exchange, meaning: Meaning) -> Meaning:
    """Of Anthropic, whose arguments are objects, in any spelling."""
    if one.provider != "anthropic":
        return meaning
    calls = [[identity, name, json.loads(said)] for identity, name, said in meaning["calls"]]
    return {**meaning, "calls": calls}


def _members(found: Any) -> Any:
    """Every member of an answer, or of each chunk."""
    return [one.to_dict() for one in found] if isinstance(found, list) else found.to_dict()


def _arrived(one: Exchange, world: World) -> None:
    """The upstream got what was recorded, where it was, with the account's key."""
    request = world.asked()
    assert request.path == one.path
    if one.provider == "anthropic":
        assert request.header("x-api-key") == key_of(one)
        assert request.header("anthropic-version") == "2023-06-01"
    else:
        assert request.header("authorization") == f"Bearer {key_of(one)}"
    assert formed(one.provider, request.json()) == formed(one.provider, ASKED[one.place].arrives)
    (head,) = world.heads
    assert not head.keys() & {"x-roundhouse-dropped", "x-roundhouse-clamped"}


async def _ask(one: Exchange, client: openai.AsyncOpenAI) -> Any:
    """Ask what was asked, by the SDK's own method for it."""
    ask = ASKED[one.place]
    body = {"model": name_of(one), **ask.body}
    if ask.surface is Surface.RERANK:  # OpenAI has none
        return await client.post("/rerank", cast_to=object, body=body)
    embeds = ask.surface is Surface.EMBEDDINGS
    create: Any = client.embeddings.create if embeds else client.chat.completions.create
    return await create(**spoken(create, body))


@_each(Surface.EMBEDDINGS)
async def test_embeddings(one: Exchange, world: World) -> None:
    world.answer(one)
    client = world.strict
    if one.source in EXCEPTIONS:
        with pytest.raises(openai.APIResponseValidationError):
            await _ask(one, client)
        world.answer(one)
        client = world.lenient
    found = await _ask(one, client)
    if one.provider == "cohere":
        said = cohere_reading.sdk(one.data).embed(model="m", input_type="search_query", texts=["a"])
        assert [item.embedding for item in found.data] == said.embeddings.float_
        assert said.meta is not None
        assert said.meta.billed_units is not None
        assert found.usage.prompt_tokens == said.meta.billed_units.input_tokens
    else:
        said = as_openai_reads(one)
        assert [item.embedding for item in found.data] == [item.embedding for item in said.data]
        assert found.usage == said.usage
    _arrived(one, world)


@_each(Surface.RERANK)
async def test_rerank(one: Exchange, world: World) -> None:
    """There is none of OpenAI's: Cohere's SDK reads both."""
    world.answer(one)
    made = await _ask(one, world.strict)
    ask: dict[str, Any] = {"model": "m", "query": "q", "documents": ["d"]}
    said = cohere_reading.sdk(one.data).rerank(**ask).results
    assert cohere_reading.sdk({**one.data, "body": json.dumps(made)}).rerank(**ask).results == said
    _arrived(one, world)


@_each(None)
async def test_errors(one: Exchange, world: World) -> None:
    """The class, the status and the words that the provider's own SDK raises."""
    world.answer(one)
    with pytest.raises(openai.APIStatusError) as told:
        await _ask(one, world.strict)
    expected = raised(one)
    assert type(told.value).__name__ == expected.kind
    assert told.value.status_code == expected.status
    if told.value.code == "unsupported_ability":
        assert not world.upstream.requests  # its card knows what the model cannot do
        return
    assert told.value.body["message"] == expected.words  # type: ignore[index]
    _arrived(one, world)


async def test_exceptions_are_few() -> None:
    assert len(EXCEPTIONS) <= MOST_EXCEPTIONS * len(ALL)
    assert EXCEPTIONS.keys() <= {one.source for one in ALL}
