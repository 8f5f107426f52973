"""What streams have besides OpenAI's own members: citations, and how an answer ended."""

from __future__ import annotations

from openai.lib.streaming._deltas import accumulate_delta

from tests.dialects.anthropic.test_stream import (
    BEGIN,
    MESSAGE,
    USAGE,
    delta,
    end,
    fed,
    start,
    stop,
    told,
)


def test_what_a_text_cites() -> None:
    """It comes when the text is whole, and OpenAI's SDK puts it together."""
    one = {"type": "char_location", "cited_text": "x", "document_index": 1}
    two = {**one, "document_index": 2}
    events = [
        *told("ab"),
        start(1, "text", text="c", citations=[]),
        delta(1, "citations_delta", citation=one),
        delta(1, "text_delta", text="é"),
        delta(1, "citations_delta", citation=two),
        stop(1),
        start(2, "text", text="", citations=[two]),
        stop(2),
    ]
    expected = [
        {**one, "index": 0, "start": 2, "end": 4},
        {**two, "index": 1, "start": 2, "end": 4},
        {**two, "index": 2, "start": 4, "end": 4},
    ]
    out = [one for chunks in fed(BEGIN, *events)[1:] for one in chunks]
    deltas = [one["choices"][0]["delta"] for one in out]
    assert [d["citations"] for d in deltas if "citations" in d] == [expected[:2], expected[2:]]
    gathered: dict[object, object] = {}
    for one in deltas:
        gathered = accumulate_delta(gathered, one)
    assert gathered["citations"] == expected


def test_the_text_that_ended_it_and_how_it_was_served() -> None:
    begin = {**BEGIN, "message": {**MESSAGE, "usage": {**USAGE, "service_tier": "priority"}}}
    (last,) = fed(begin, *told("a"), end("stop_sequence", stop_sequence='"E"'))[-1]
    assert last["choices"][0]["stop_reason"] == '"E"'
    assert last["service_tier"] == "priority"
    (last,) = fed(BEGIN, *told("a"), end())[-1]
    assert "stop_reason" not in last["choices"][0]
    assert "service_tier" not in last
