"""Any stream reads as the official SDK reads it, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.anthropic.helpers import gathered, read, stream_of, strict_chunks, theirs
from tests.dialects.anthropic.test_stream import BEGIN, LAST, Event, delta, end, start, stop, told

_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_blocks = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.lists(_words, max_size=3)),
        st.tuples(st.just("thinking"), st.lists(_words, max_size=3)),
        st.tuples(st.just("tool_use"), st.dictionaries(_words, _words, max_size=3)),
    ),
    max_size=5,
)


@pytest.mark.no_cover
@given(_blocks, st.sampled_from(["end_turn", "tool_use"]), st.integers(0, 99))
def test_any_stream_reads_as_the_official_sdk_reads_it(
    blocks: list[tuple[str, Any]], reason: str, seed: int
) -> None:
    events: list[Event] = [BEGIN]
    for index, (kind, said) in enumerate(blocks):
        if kind == "text":
            events += told(*said, index=index)
        elif kind == "thinking":
            events.append(start(index, kind, thinking="", signature=""))
            events += (delta(index, "thinking_delta", thinking=word) for word in said)
            events += [delta(index, "signature_delta", signature="c2ln"), stop(index)]
        else:
            written = json.dumps(said, ensure_ascii=False)
            events.append(start(index, kind, id=f"t{index}", name="f", input={}))
            for place in range(0, len(written), 5):
                part = written[place : place + 5]
                events.append(delta(index, "input_json_delta", partial_json=part))
            events.append(stop(index))
    stream = stream_of(*events, end(reason), LAST)
    expected = theirs(stream, stream=True)
    made, _ = read(stream, seed=seed)
    message: Any = gathered(made).choices[0].message
    assert (message.content or "") == "".join(b.text for b in expected.content if b.type == "text")
    assert [(c.id, json.loads(c.function.arguments)) for c in message.tool_calls or []] == [
        (b.id, b.input) for b in expected.content if b.type == "tool_use"
    ]
    assert [d["thinking"] for d in getattr(message, "reasoning_details", None) or []] == [
        b.thinking for b in expected.content if b.type == "thinking"
    ]
    assert strict_chunks(made)
