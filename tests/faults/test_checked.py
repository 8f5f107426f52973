"""The checks of answers see what they are there for."""

from __future__ import annotations

import json

import pytest

from tests.fakes.client import RawClient
from tests.fakes.upstream import (
    Exchange,
    Script,
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_events,
    error,
    error_event,
    reset,
    sse,
)
from tests.faults.checked import End, Question, ask, loading, pieces_for

STREAM = Question(7, "m", pieces=3)
WHOLE = Question(7, "m", pieces=3, stream=False)


def texts(*pieces: int, number: int = 7, answer: str = "one-1") -> list[str]:
    return [f"{number}.{answer}.{at}; " for at in pieces]


RIGHT = texts(0, 1, 2)
OTHER = texts(2, answer="two-9")
BEGUN = chat_events(RIGHT[:2], finish=None, ends=False)
CASES: list[tuple[Question, Script, End, str]] = [
    (STREAM, sse(chat_events(RIGHT)), End.ANSWERED, ""),
    (STREAM, sse([*BEGUN, error_event(code="broke")]), End.BROKEN, "broke"),
    (STREAM, answer_json(502, error("no", code="none_left")), End.ERROR, "none_left"),
    (STREAM, answer_json(400, error("no")), End.WRONG, "its own"),
    (STREAM, sse(chat_events(texts(0, 2))), End.WRONG, "lost or doubled"),
    (STREAM, sse(chat_events(texts(0, 1, 1, 2))), End.WRONG, "lost or doubled"),
    (STREAM, sse([*BEGUN[:1], *BEGUN, error_event()]), End.BROKEN, "500"),
    (STREAM, sse([*BEGUN, BEGUN[-1], error_event()]), End.WRONG, "lost or doubled"),
    (STREAM, sse(chat_events([*RIGHT[:2], *OTHER])), End.WRONG, "two answers"),
    (STREAM, sse(chat_events(texts(0, 1, 2, number=8))), End.WRONG, "another question"),
    (STREAM, sse(chat_events(RIGHT[:2])), End.WRONG, "2 of 3"),
    (STREAM, sse([*BEGUN, error_event(), "[DONE]"]), End.WRONG, "KeyError"),
    (STREAM, sse([*chat_events(RIGHT), error_event()]), End.WRONG, "behind [DONE]"),
    (STREAM, sse(BEGUN), End.WRONG, "without an end"),
    (STREAM, sse([*BEGUN, reset]), End.WRONG, "PeerGone"),
    (WHOLE, chat_answer("".join(RIGHT)), End.ANSWERED, ""),
    (WHOLE, chat_answer("".join(RIGHT[:2])), End.WRONG, "2 of 3"),
    (WHOLE, chat_answer("".join(RIGHT) + "?"), End.WRONG, "not our text"),
    (WHOLE, answer_json(200, error("no")), End.WRONG, "KeyError"),
]


@pytest.mark.parametrize(("question", "script", "end", "word"), CASES)
async def test_what_is_seen(question: Question, script: Script, end: End, word: str) -> None:
    async with ScriptedUpstream(script) as upstream, RawClient(port=upstream.port) as client:
        outcome = await ask(client, question)
    assert outcome.end is end, outcome
    assert word in outcome.word


async def test_the_right_answer_is_right() -> None:
    async def answer(exchange: Exchange) -> None:
        pieces, stream = pieces_for(exchange, "one")
        assert json.loads(exchange.body)["stream"] is stream
        await (sse(chat_events(pieces)) if stream else chat_answer("".join(pieces)))(exchange)

    async with ScriptedUpstream(answer) as upstream, loading(upstream.port) as load:
        await load.run(0.5, 100, lambda number: Question(number, "m", stream=number % 2 == 0))
    assert len(load.outcomes) == 50
    assert {outcome.end for outcome in load.outcomes} == {End.ANSWERED}
    assert len(upstream.connections) < 50
