"""Reading an answer as it comes in, and judging it by its plan."""

from __future__ import annotations

import json

import pytest

from benchmarks.soak.answers import Answer, End, judge
from benchmarks.soak.plans import PAIRED, SINGLE, Fault, Kind, Leave, Plan
from benchmarks.upstream import event, framed

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
FIRST = event('{"role":"assistant","content":""}')
LAST = event("{}", '"stop"')
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"m","type":"t","param":null,"code":"upstream_truncated"}}\n\n'
STREAM = Plan(7, Kind.STREAM, SINGLE, chunks=3, rate=10)


def chunk(number: int, plan: int = 7) -> bytes:
    return event(f'{{"content":"{plan}.{number}"}}')


def raw(*events: bytes) -> bytes:
    return HEAD + b"".join(framed(one) for one in events) + b"0\r\n\r\n"


def plain(status: int, body: object) -> bytes:
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(said), said)


def error(status: int, code: str) -> bytes:
    return plain(status, {"error": {"message": "m", "code": code}})


def read(plan: Plan, data: bytes, step: int = 10_000) -> Answer:
    answer = Answer(plan)
    for at in range(0, len(data), step):
        answer.feed(data[at : at + step])
    return answer


WHOLE = raw(FIRST, chunk(0), chunk(1), chunk(2), LAST, DONE)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_any_cutting_reads_the_same(step: int) -> None:
    answer = read(STREAM, WHOLE, step)
    assert answer.complete
    assert judge(STREAM, answer, End.COMPLETE).problem is None
    assert (answer.chunks, answer.done, answer.finished) == (3, True, True)
    plan = Plan(7, Kind.WHOLE)
    whole = read(plan, plain(200, {"choices": [{"message": {"content": "7.whole"}}]}), step)
    assert whole.complete
    assert whole.code.startswith("no error object")


def broken(*events: bytes, fault: Fault = Fault.CUT, at: int = 2, model: str = SINGLE) -> str:
    plan = Plan(7, Kind.STREAM, model, 3, 10, fault, at=at)
    outcome = judge(plan, read(plan, raw(*events)), End.COMPLETE)
    return outcome.problem or outcome.kind


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((FIRST, chunk(0), chunk(1), ERROR), "broken as ordered"),
        ((FIRST, chunk(0), ERROR), "not 2 chunks"),
        ((FIRST, chunk(0), chunk(1), ERROR, DONE), "an event behind the last"),
        ((FIRST, chunk(0), chunk(1), DONE, ERROR), "an event behind the last"),
        ((FIRST, chunk(0), chunk(1), DONE), "the fault does not show"),
        ((FIRST, chunk(0), chunk(1), ERROR.replace(b"truncated", b"timeout")), "not upstream_"),
    ],
)
def test_a_stream_that_was_to_break(events: tuple[bytes, ...], said: str) -> None:
    assert broken(*events).startswith(said)


def test_a_reset_may_take_chunks_with_it() -> None:
    assert broken(FIRST, chunk(0), ERROR, fault=Fault.RESET) == "broken as ordered"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((FIRST, chunk(0), chunk(2), LAST, DONE), "1 chunks lost, 0 doubled"),
        ((FIRST, chunk(0), chunk(1), chunk(1), chunk(2), LAST, DONE), "0 chunks lost, 1 doubled"),
        ((FIRST, chunk(0), chunk(1), LAST, DONE), "not 3 chunks"),
        ((FIRST, chunk(0), chunk(1), chunk(2), DONE), "no finish_reason"),
        ((FIRST, chunk(0), chunk(1), chunk(2), LAST), "no finish_reason or no [DONE]"),
        ((FIRST, chunk(0), chunk(1, plan=8), chunk(2), LAST, DONE), "a chunk of request #8"),
        ((FIRST, chunk(0), b"data: {nonsense\n\n", chunk(1), chunk(2), LAST, DONE), "no chunk"),
        ((FIRST, chunk(0), b"nonsense\n\n", chunk(1), chunk(2), LAST, DONE), "no event"),
        ((FIRST, chunk(0), chunk(1), chunk(2), LAST, DONE, chunk(3)), "an event behind"),
        ((FIRST, chunk(0), chunk(1), chunk(2), ERROR), "an error event that nobody ordered"),
        (
            (FIRST, chunk(0), chunk(1), chunk(2), LAST, b'data: {"choices":[]}\n\n', DONE),
            "the usage that nobody asked for",
        ),
    ],
)
def test_a_whole_stream_that_is_not(events: tuple[bytes, ...], said: str) -> None:
    problem = judge(STREAM, read(STREAM, raw(*events)), End.COMPLETE).problem
    assert problem is not None
    assert problem.startswith(said)


def refusal(plan: Plan, data: bytes) -> str:
    outcome = judge(plan, read(plan, data), End.COMPLETE)
    return outcome.problem or outcome.kind


@pytest.mark.parametrize(
    ("plan", "data", "said"),
    [
        (Plan(7, Kind.UNKNOWN), error(404, "model_not_found"), "unknown model"),
        (Plan(7, Kind.UNKNOWN), error(404, "unknown_url"), "not model_not_found"),
        (Plan(7, Kind.WRONG_KEY), error(401, "invalid_api_key"), "wrong key"),
        (Plan(7, Kind.WRONG_KEY), plain(200, {}), "not 401"),
        (Plan(7, Kind.HEALTH), plain(200, {}), "health"),
        (Plan(7, Kind.HEALTH), plain(503, {}), "no 200"),
        (Plan(7, Kind.WHOLE), plain(200, {"content": "8.whole"}), "not the answer to this"),
        (
            Plan(7, Kind.WHOLE, fault=Fault.RESET_BEFORE),
            error(502, "upstream_reset"),
            "refused as ordered",
        ),
        (Plan(7, Kind.WHOLE, fault=Fault.STATUS_429), error(429, "x"), "refused as ordered"),
        (
            Plan(7, Kind.WHOLE, PAIRED, fault=Fault.CUT),
            plain(200, b'{"content":"7.whole"}'),
            "answered by the second target",
        ),
        (
            Plan(7, Kind.WHOLE, PAIRED, fault=Fault.CUT),
            error(502, "upstream_truncated"),
            "a status where an answer was to come",
        ),
        (Plan(7, Kind.WHOLE), error(500, "internal_error"), "no 200 (status 500, 0 chunks, int"),
    ],
)
def test_other_answers(plan: Plan, data: bytes, said: str) -> None:
    assert refusal(plan, data).startswith(said)


def test_what_comes_at_once_may_break_before_or_after_the_commit_point() -> None:
    plan = Plan(7, Kind.STREAM, SINGLE, 3, 0, Fault.TEXT, at=2)
    bad = ERROR.replace(b"truncated", b"protocol")
    for data in (error(502, "upstream_protocol"), raw(FIRST, chunk(0), chunk(1), bad)):
        assert judge(plan, read(plan, data), End.COMPLETE).problem is None


def test_ends_that_are_no_end() -> None:
    answer = read(STREAM, WHOLE[:-5])
    lost = judge(STREAM, answer, End.LOST, "connection reset")
    assert lost.problem == "lost after status 200, 3 chunks: connection reset"
    assert judge(STREAM, answer, End.LEFT).kind == "left never"
    plan = Plan(7, Kind.STREAM, SINGLE, 3, 10, Fault.SLOW_FIRST, Leave.BEFORE_FIRST)
    assert judge(plan, read(plan, WHOLE), End.COMPLETE).problem is not None
    quick = Plan(7, Kind.STREAM, SINGLE, 3, 10, leave=Leave.IN_STREAM, at=2)
    assert judge(quick, read(quick, WHOLE), End.COMPLETE).problem is None


def test_bytes_behind_the_end_and_no_http() -> None:
    assert read(STREAM, WHOLE + b"HTTP").trouble is not None
    late = read(STREAM, WHOLE)
    late.feed(b"more")
    assert late.trouble == "bytes behind the end: b'more'"
    with pytest.raises(ValueError, match="no HTTP"):
        read(STREAM, b"SSH-2.0\r\n\r\n")
