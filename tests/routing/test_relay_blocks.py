"""What passes in blocks is what passes event by event: the relay against a slow one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.dialects import openai
from server.errors import RoundhouseError, UpstreamAborted, UpstreamProtocol
from server.protocol import sse
from server.routing.record import Record
from server.routing.relay import StreamRelay
from tests.routing.client import MemorySink
from tests.routing.conftest import TIMES, request_of

Found = tuple[bytes, str | None, bool, openai.Usage | None, bool]


def slow(data: bytes, *, wants_usage: bool) -> Found:
    """(bytes for the client, what broke it, is it done, usage, did the client get a `data:`)"""
    out, usage, data_seen = b"", None, False
    for event in sse.events(data):
        payload = sse.data_of(event)
        if payload is None:
            out += event if data_seen else b""
            continue
        try:
            if payload.strip() == b"[DONE]":
                if not data_seen:
                    raise UpstreamProtocol("nothing before it")
                return out + event, None, True, usage, True
            facts = openai.event_in(payload)
            if facts.error is not None:
                raise openai.error_of_event(facts.error)
            if facts.aborted:
                raise UpstreamAborted("gave up")
        except RoundhouseError as error:
            return out, error.code, False, usage, data_seen
        usage = facts.usage or usage
        if facts.usage_only and not wants_usage:
            continue
        data_seen = True
        out += event
    return out, None, False, usage, data_seen


def relayed(reads: Sequence[bytes], *, wants_usage: bool) -> Found:
    more: dict[str, Any] = {"stream_options": {"include_usage": wants_usage}}
    request, record, sink = request_of(**more), Record(), MemorySink()
    request.wants_usage = wants_usage
    relay = StreamRelay(
        cast(Any, None),
        request,
        sink,
        record,
        timeouts=TIMES,
        write_timeout=1,
        event_limit=1 << 20,
        observe_gap=lambda gap: None,
        committing=lambda: None,
    )
    broken = None
    try:
        for read in reads:
            relay._take(read)
            if relay._done:
                break
    except RoundhouseError as error:
        broken = error.code
    pending = relay.pending if broken else b""
    return sink.data + pending, broken, relay._done, record.usage, sink.committed


def told(**more: Any) -> str:
    return json.dumps({"choices": [{"delta": {"content": "x"}}], **more}, separators=(",", ":"))


USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
PAYLOADS = (
    told(),
    told(usage=None),
    told(usage=USAGE),
    told(choices=[], usage=USAGE),
    told(choices=[], usage=None),
    told(choices=[], usage=None).replace("null", " null"),
    told(error={"message": "no", "code": 500}),
    told(error=None),
    told(choices=[{"finish_reason": "abort"}]),
    told(choices=[{"finish_reason": "error"}]),
    told(choices=[{"delta": {"content": '"usage" "error" "abort" [DONE] \n\n data: {'}}]),
    told(choices=[{"delta": {"content": '"usage":null'}}], usage=USAGE),
    told(choices=[{"delta": {"content": "é🚂"}}]),
    "[DONE]",
    " [DONE] ",
)
FORMS = (
    "data: {0}{1}{1}",
    "data:{0}{1}{1}",
    "event: x{1}data: {0}{1}id: 7{1}{1}",
    ": ping{1}data: {0}{1}{1}",
    ": ping{1}{1}",
    "retry: 5{1}{1}",
    "{1}",
)
EVENTS = st.builds(
    lambda form, payload, end: form.format(payload, end),
    st.sampled_from((FORMS[0], FORMS[0], FORMS[0], *FORMS)),
    st.sampled_from((PAYLOADS[0], PAYLOADS[0], *PAYLOADS)),
    st.sampled_from(("\n", "\n", "\n", "\r\n", "\r")),
)


@given(st.lists(EVENTS, max_size=8), st.lists(st.integers(0, 900), max_size=8), st.booleans())
@example([f": ping\n\ndata: {PAYLOADS[3]}\n\n", "data: [DONE]\n\n"], [], False)
@example([": ping\n\n", f"data: {PAYLOADS[3]}\n\n", "data: [DONE]\n\n"], [], False)
def test_blocks_agree_with_events(events: list[str], cuts: list[int], wants_usage: bool) -> None:
    data = "".join(events).encode()
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reads = [data[a:b] for a, b in itertools.pairwise(at)]
    whole = slow(data, wants_usage=wants_usage)
    passed = relayed(reads, wants_usage=wants_usage)
    # The end of a broken line of comments before the first `data:` is nobody's loss, and how much
    # of it is sent depends on the reads.
    assert without_comments(passed[0]) == without_comments(whole[0])
    # Before the commit point what broke in one read with good events leaves nothing committed.
    committed = passed[4] or (passed[1] is not None and whole[4])
    assert (passed[1:4], committed) == (whole[1:4], whole[4])


def without_comments(data: bytes) -> list[bytes]:
    """Which event an empty line more belongs to depends on the reads; it says nothing."""
    return [event.strip(b"\r\n") for event in sse.events(data) if sse.data_of(event) is not None]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_cut_at_every_byte(payload: str, end: str) -> None:
    events = [PAYLOADS[0], PAYLOADS[0], payload, PAYLOADS[1], "[DONE]"]
    data = "".join(FORMS[0].format(event, end) for event in events).encode()
    for wants_usage in (True, False):
        whole = slow(data, wants_usage=wants_usage)
        assert whole[4]
        for cut in range(len(data)):
            first = data.index(PAYLOADS[0].encode()) + len(PAYLOADS[0]) + 2 * len(end)
            reads = [data[:first], data[first:cut], data[cut:]] if cut > first else [data]
            passed = relayed(reads, wants_usage=wants_usage)
            assert passed[:4] == whole[:4]


def test_an_end_within_an_event_is_none() -> None:
    """`[DONE]` as the second line of an event's data: that event is no JSON."""
    data = f"data: {PAYLOADS[0]}\n\ndata: {PAYLOADS[0]}\ndata: [DONE]\n\n".encode()
    found = relayed([data], wants_usage=False)
    assert found[1:3] == ("upstream_protocol", False)
    assert found[0] == f"data: {PAYLOADS[0]}\n\n".encode()
