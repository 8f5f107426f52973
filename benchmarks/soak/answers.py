"""An answer as it comes in, byte by byte, and whether it is what its plan says it must be."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from benchmarks.soak.plans import BEFORE, CODES, HARMLESS, STATUS, Kind, Leave, Plan

_CHUNK: Final = re.compile(rb'"content":"(\d+)\.(\d+)"')


#: The kind of what was still under way when the run ended.
CUT: Final = "under way at the end"


class End(StrEnum):
    """How the connection stood when the answer was judged."""

    COMPLETE = "complete"
    LEFT = "left"  # by us, on purpose
    LOST = "lost"  # closed by the server before the answer's end
    LATE = "late"  # not over in time


class Answer:
    """Reads one HTTP answer, in any cutting of it. `complete` once its last byte is in."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.status = 0
        self.complete = False
        self.keep_alive = True
        self.chunks = 0
        self.lost = 0
        self.doubled = 0
        self.finished = False
        self.done = False
        self.error: str | None = None
        #: The first thing that no good answer has in it.
        self.fault: str | None = None
        self.body = b""
        self._held = b""
        self._missing = -1  # of a body with a length, or of the chunk with its line end
        self._chunked = False
        self._events = False
        self._text = b""

    def feed(self, data: bytes) -> None:
        """Raises ValueError on bytes that are no HTTP."""
        if self.complete:
            self._wrong(f"bytes behind the end: {data[:60]!r}")
            return
        data = self._held + data
        self._held = b""
        if self.status == 0:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._held = data
                return
            self._head(data[:end])
            data = data[end + 4 :]
        if self._chunked:
            self._unchunk(data)
        else:
            self._missing -= len(data)
            self._take(data)
            self.complete = self._missing <= 0
            if self._missing < 0:
                self._wrong("bytes behind the end")

    def _head(self, head: bytes) -> None:
        lines = head.lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 "):
            raise ValueError(f"no HTTP: {head[:60]!r}")
        self.status = int(lines[0][9:12])
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        self.keep_alive = headers.get(b"connection") != b"close"
        self._chunked = headers.get(b"transfer-encoding") == b"chunked"
        self._events = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        self._missing = 0 if self._chunked else int(headers.get(b"content-length", b"0"))

    def _unchunk(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._missing == 0:
                line = data.find(b"\r\n", at)
                if line < 0:
                    break
                size = int(data[at:line], 16)
                if size == 0:
                    if data[line + 2 :] == b"\r\n":
                        self.complete = True
                        return
                    if len(data) - line - 2 >= 2:
                        self._wrong(f"bytes behind the end: {data[line:][:60]!r}")
                        self.complete = True
                        return
                    break
                at, self._missing = line + 2, size + 2
            piece = data[at : at + self._missing]
            at += len(piece)
            self._missing -= len(piece)
            # The last two bytes of what was missing are the chunk's line end, not content.
            end = len(piece) - max(0, 2 - self._missing)
            self._take(piece[: max(0, end)])
        self._held = data[at:]

    def _take(self, data: bytes) -> None:
        if not self._events:
            self.body += data
            return
        *events, self._text = (self._text + data).split(b"\n\n")
        for event in events:
            self._event(event)

    def _event(self, event: bytes) -> None:
        if self.done or self.error is not None:
            self._wrong(f"an event behind the last: {event[:100]!r}")
        found = _CHUNK.search(event)
        if found is not None:
            if int(found[1]) != self.plan.number:
                self._wrong(f"a chunk of request #{int(found[1])}")
                return
            number = int(found[2])
            if number > self.chunks:
                self.lost += number - self.chunks
            elif number < self.chunks:
                self.doubled += 1
            self.chunks = max(self.chunks, number + 1)
        elif event == b"data: [DONE]":
            self.done = True
        elif event.startswith(b"data: {"):
            self._rare(event[6:])
        elif not event.startswith(b":"):
            self._wrong(f"no event: {event[:100]!r}")

    def _rare(self, payload: bytes) -> None:
        try:
            said: Any = json.loads(payload)
            if "error" in said:
                self.error = str(said["error"]["code"])
            elif not said["choices"]:
                self._wrong("the usage that nobody asked for")
            elif said["choices"][0]["finish_reason"] is not None:
                self.finished = True
        except (ValueError, KeyError, IndexError, TypeError):
            self._wrong(f"no chunk: {payload[:100]!r}")

    def _wrong(self, text: str) -> None:
        self.fault = self.fault or text

    @property
    def trouble(self) -> str | None:
        """What is wrong with it whatever was planned."""
        if self.fault is None and (self.lost or self.doubled):
            return f"{self.lost} chunks lost, {self.doubled} doubled"
        return self.fault

    @property
    def code(self) -> str:
        """The code in an error's body."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return f"no error object: {self.body[:100]!r}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`kind` for the table of counts; `problem` None when it is what was to come."""

    kind: str
    problem: str | None = None


def judge(plan: Plan, answer: Answer, end: End, detail: str = "") -> Outcome:
    """Was it what the plan orders? `detail` is what the transport said at the end."""
    if answer.trouble is not None:
        return Outcome("unexpected", answer.trouble)
    return _judge(plan, answer, end, detail)


def _judge(plan: Plan, answer: Answer, end: End, detail: str) -> Outcome:
    if end is End.LEFT:
        return Outcome(f"left {plan.leave.value}")
    if end is not End.COMPLETE:
        return Outcome(
            "unexpected",
            f"{end.value} after status {answer.status}, {answer.chunks} chunks"
            + (f": {detail}" if detail else ""),
        )
    if plan.leave is Leave.IN_STREAM:  # the rest came in one read with the chunk to leave at
        return _whole(plan, answer)
    if plan.leave is not Leave.NEVER:
        return _bad(answer, "it was to be left before its end")
    if plan.kind is Kind.UNKNOWN:
        return _refused(answer, 404, {"model_not_found"}, "unknown model")
    if plan.kind is Kind.WRONG_KEY:
        return _refused(answer, 401, {"invalid_api_key"}, "wrong key")
    if plan.kind is Kind.HEALTH:
        return Outcome("health") if answer.status == 200 else _bad(answer, "no 200")
    if plan.fault in HARMLESS:
        return _whole(plan, answer)
    return _faulted(plan, answer)


def _faulted(plan: Plan, answer: Answer) -> Outcome:
    stream = plan.kind is Kind.STREAM
    before = plan.fault in BEFORE or not stream
    # Chunks that come all at once stand in one read with the fault: it may then strike before or
    # after the commit point.
    either = stream and plan.rate == 0 and not before
    if answer.status == 200:
        if stream and answer.error is not None and not before:
            return _broken(plan, answer)
        if plan.paired and (before or either):
            return _whole(plan, answer, "answered by the second target")
        return _bad(answer, "the fault does not show")
    if (before and not plan.paired) or either:
        status = STATUS.get(plan.fault, 502)
        return _refused(answer, status, CODES.get(plan.fault), "refused as ordered")
    return _bad(answer, "a status where an answer was to come")


def _refused(
    answer: Answer, status: int, codes: set[str] | frozenset[str] | None, kind: str
) -> Outcome:
    if answer.status != status:
        return _bad(answer, f"not {status}")
    if codes is not None and answer.code not in codes:
        return _bad(answer, f"not {' or '.join(sorted(codes))}")
    return Outcome(kind)


def _whole(plan: Plan, answer: Answer, kind: str = "whole") -> Outcome:
    if answer.status != 200:
        return _bad(answer, "no 200")
    if plan.kind is not Kind.STREAM:
        if f'"content":"{plan.number}.whole"'.encode() not in answer.body:
            return _bad(answer, "not the answer to this request")
        return Outcome(kind)
    if answer.error is not None:
        return _bad(answer, "an error event that nobody ordered")
    if answer.chunks != plan.chunks:
        return _bad(answer, f"not {plan.chunks} chunks")
    if not (answer.finished and answer.done):
        return _bad(answer, "no finish_reason or no [DONE]")
    return Outcome(kind)


def _broken(plan: Plan, answer: Answer) -> Outcome:
    if answer.error not in CODES[plan.fault]:
        return _bad(answer, f"not {' or '.join(sorted(CODES[plan.fault]))}")
    # A reset may take with it what the gateway had not read yet.
    short = answer.chunks < plan.at and "reset" not in plan.fault.value
    if short or answer.chunks > plan.at:
        return _bad(answer, f"not {plan.at} chunks")
    return Outcome("broken as ordered")


def _bad(answer: Answer, why: str) -> Outcome:
    said = f"status {answer.status}, {answer.chunks} chunks"
    if answer.error is not None:
        said += f", error event {answer.error}"
    elif answer.status != 200:
        said += f", {answer.code}"
    elif answer.done:
        said += ", [DONE]"
    return Outcome("unexpected", f"{why} ({said})")
