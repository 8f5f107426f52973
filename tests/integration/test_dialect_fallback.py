"""Fallback across dialects: OpenAI, then Anthropic, then a local vLLM, for one request with tools.
Whatever goes wrong before the answer has begun, the client gets one answer, whole and in OpenAI's
words, and its headers say truly where it is from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from tests.dialects.anthropic.helpers import checked
from tests.fakes import messages
from tests.fakes.scripts import Item
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_events, error, reset, sse
from tests.integration.across import (
    CLAUDE,
    FAULTS,
    GPT,
    LOCAL,
    Across,
    Fault,
    across,
    anthropic_calls,
    breaks,
    openai_calls,
)
from tests.integration.second import Second
from tests.integration.test_second_dialects import PARIS, WEATHER, call, full, result

#: An id as others give them, which Anthropic does not take.
_FROM_ELSEWHERE: Final = "functions.get_weather:0"
ASK: Final[dict[str, Any]] = {
    "messages": [
        {"role": "system", "content": "You know the weather."},
        {"role": "user", "content": "Weather in Rome, please"},
        {"role": "assistant", "content": None, "tool_calls": [call(_FROM_ELSEWHERE, "Rome")]},
        result(_FROM_ELSEWHERE, "24 degrees"),
        {"role": "assistant", "content": "24 degrees."},
        PARIS,
    ],
    "tools": [WEATHER],
    "tool_choice": "required",
    "temperature": 0,
}
each_fault = pytest.mark.parametrize(
    ("stream", "fault"),
    [
        pytest.param(stream, fault, id=f"{name}-{'stream' if stream else 'whole'}")
        for name, stream, fault in FAULTS
    ],
)
either_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def three(second: Second, tmp_path: Path) -> AsyncIterator[Across]:
    async with across(second, tmp_path) as three:
        yield three


def truth(headers: Any) -> tuple[str, str, str | None]:
    return (
        headers["x-roundhouse-target"],
        headers["x-roundhouse-attempts"],
        headers.get("x-roundhouse-fallback-from"),
    )


def asked(upstream: ScriptedUpstream) -> list[str]:
    return [exchange.path for exchange in upstream.requests]


@either_way
async def test_the_first_answers_where_nothing_is_wrong(three: Across, stream: bool) -> None:
    three.openai.default = openai_calls("Oslo", stream=stream)
    said, headers = await three.ask({**ASK, "stream": stream})
    assert (said.calls, said.finish) == ((("get_weather", {"city": "Oslo"}),), "tool_calls")
    assert truth(headers) == (GPT, "1", None)
    assert asked(three.anthropic) == []


@each_fault
async def test_anthropic_answers_instead(
    three: Across, stream: bool, fault: tuple[Fault, Fault]
) -> None:
    await breaks(three.openai, fault[0])
    three.anthropic.default = anthropic_calls("Bern", stream=stream)
    said, headers = await three.ask({**ASK, "stream": stream})
    assert (said.text, said.finish) == ("I look.", "tool_calls")
    assert (said.calls, said.ids) == ((("get_weather", {"city": "Bern"}),), ("toolu_1",))
    assert truth(headers) == (CLAUDE, "2", GPT)
    (exchange,) = three.anthropic.requests
    assert (exchange.path, exchange.header("x-api-key")) == ("/v1/messages", "sk-ant")
    body = checked(exchange.json())
    assert body.get("stream", False) is stream
    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]


@each_fault
async def test_vllm_answers_after_both(
    second: Second, three: Across, stream: bool, fault: tuple[Fault, Fault]
) -> None:
    await breaks(three.openai, fault[0])
    await breaks(three.anthropic, fault[1])
    said, headers = await three.ask({**ASK, "stream": stream})
    assert (said.calls, said.finish) == ((("get_weather", {"city": "Paris"}),), "tool_calls")
    assert said == second.says({**ASK, "stream": stream})
    assert truth(headers) == (LOCAL, "3", GPT)
    assert asked(three.openai) == ([] if fault[0] is None else ["/v1/chat/completions"])
    assert asked(three.anthropic) == ([] if fault[1] is None else ["/v1/messages"])


@either_way
async def test_a_parameter_that_anthropic_lacks(three: Across, stream: bool) -> None:
    """It is passed over, unasked, and vLLM gets the parameter; alone it would refuse."""
    three.openai.default = answer_json(500, error("Oh"))
    said, headers = await three.ask({**ASK, "stream": stream, "seed": 7})
    assert said.calls == (("get_weather", {"city": "Paris"}),)
    assert truth(headers) == (LOCAL, "2", GPT)
    assert asked(three.anthropic) == []
    assert "x-roundhouse-dropped" not in headers


@either_way
async def test_a_clients_own_fault_is_final(three: Across, stream: bool) -> None:
    """Nobody else is asked what is wrong with the request itself."""
    three.openai.default = answer_json(503, error("Busy"))
    three.anthropic.default = messages.refusal(400, "invalid_request_error", "tools.0: no such")
    with pytest.raises(openai.BadRequestError) as wrong:
        await three.ask({**ASK, "stream": stream})
    assert "tools.0: no such" in wrong.value.message
    assert truth(wrong.value.response.headers)[:2] == (CLAUDE, "2")


# --- behind the commit point

_TEXT: Final = messages.text_events("So", " it")
_CALL: Final = messages.call_events("toolu_1", "get_weather", '{"ci')
_OVERLOADED: Final = messages.overloaded()


async def events(three: Across, said: asyncio.Event) -> tuple[list[Any], Any]:
    """The payloads of a stream as they come, and the headers. `said` is set with the first one
    that says something."""
    found: list[Any] = []
    more = {"model": "across", "stream": True, **full(ASK)}
    async with three.client.chat.completions.with_streaming_response.create(**more) as answer:
        async for line in answer.iter_lines():
            if not line:
                continue
            found.append(json.loads(line.removeprefix("data: ")))
            if "error" not in found[-1] and _says(found[-1]):
                said.set()
    return found, answer.headers


def _says(chunk: Any) -> bool:
    delta = chunk["choices"][0]["delta"]
    return bool(delta.get("content") or delta.get("tool_calls"))


def is_broken_off(found: list[Any]) -> bool:
    """Something was said, then an error, and no end."""
    *told, last = found
    return last["error"]["type"] == "server_error" and all(
        chunk["choices"][0]["finish_reason"] is None for chunk in told
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_TEXT[:2], [_OVERLOADED]),
        (_CALL[:2], [_OVERLOADED]),
        (_TEXT[:2], [reset]),
        (_TEXT, [messages.event("message_stop")]),
        (_TEXT[:2], ["oops"]),
    ],
    ids=["overloaded", "overloaded in a call", "reset", "given up", "no event"],
)
async def test_no_second_answer_to_one_that_has_begun(
    three: Across, before: list[Item], after: list[Item]
) -> None:
    said = asyncio.Event()
    three.openai.default = answer_json(529, error("Full"))
    three.anthropic.default = sse([messages.start(), *before, said, *after])
    found, headers = await events(three, said)
    assert truth(headers) == (CLAUDE, "2", GPT)
    assert is_broken_off(found)
    assert asked(three.openai) + asked(three.anthropic) == ["/v1/chat/completions", "/v1/messages"]


async def test_nor_where_the_first_one_breaks(three: Across) -> None:
    said = asyncio.Event()
    three.openai.default = sse([*chat_events(("So",))[:2], said, reset])
    found, headers = await events(three, said)
    assert truth(headers) == (GPT, "1", None)
    assert is_broken_off(found)
    assert asked(three.anthropic) == []
