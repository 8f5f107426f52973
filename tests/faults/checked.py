"""Requests whose answers are checked to the last piece.

Each question has a number, and its answer is numbered text: `17.two-5.0; 17.two-5.1; …`, the
question, the answer that the upstream gave, the piece. So a piece that is lost, that comes twice,
or that is of another answer is seen.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tests.fakes.client import Head, RawClient
from tests.fakes.exchange import Exchange
from tests.fakes.http1 import PeerGone
from tests.faults.conftest import CHAT

_PIECE: Final = re.compile(r"(\d+)\.([\w-]+)\.(\d+); ")
_ASKED: Final = re.compile(rb"question (\d+) in (\d+) pieces")
#: Seconds after which an answer will not end any more: far above every time-out of the servers.
_NEVER: Final = 45.0


@dataclass(frozen=True, slots=True)
class Question:
    """`leaves`: the client goes after the head of the answer."""

    number: int
    model: str
    pieces: int = 8
    stream: bool = True
    leaves: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        text = f"question {self.number} in {self.pieces} pieces"
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "stream": self.stream, **self.more}


def pieces_for(exchange: Exchange, who: str) -> tuple[list[str], bool]:
    """The right answer to what came in, and whether it is to be a stream. `who`: the upstream."""
    found = _ASKED.search(exchange.body)
    assert found is not None
    number, count = int(found[1]), int(found[2])
    texts = [f"{number}.{who}-{exchange.number}.{at}; " for at in range(count)]
    return texts, bool(exchange.json().get("stream"))


class End(StrEnum):
    """How a request ended for its client. All but the last are as it should be."""

    ANSWERED = "answered"
    ERROR = "error"
    BROKEN = "error event"
    LEFT = "left"
    WRONG = "wrong"


@dataclass(slots=True)
class Outcome:
    """What came of a question. Times are those of the loop."""

    question: Question
    began: float
    ended: float
    end: End
    status: int = 0
    #: The code of the error, or why it is wrong.
    word: str = ""
    head: Head | None = None

    def __str__(self) -> str:
        return f"{self.question}: {self.end}, {self.status} {self.word}"


class _Wrong(Exception):
    """What no right server does."""


async def ask(client: RawClient, question: Question) -> Outcome:
    """One request, to its end."""
    loop = asyncio.get_running_loop()
    outcome = Outcome(question, loop.time(), 0.0, End.WRONG)
    try:
        async with asyncio.timeout(_NEVER):
            await client.post(CHAT, question.body())
            outcome.head = head = await client.read_head()
            outcome.status = head.status
            if question.leaves:
                client.abort()
                outcome.end = End.LEFT
            elif head.status != 200:
                outcome.word = _error(head, await client.read_body())
                outcome.end = End.ERROR
            elif question.stream:
                events = [event async for event in _events(client)]
                outcome.word = _stream(question, head, events)
                outcome.end = End.BROKEN if outcome.word else End.ANSWERED
            else:
                _whole(question, head, await client.read_body())
                outcome.end = End.ANSWERED
    except _Wrong as wrong:
        outcome.word = str(wrong)
    except (PeerGone, ConnectionError, ValueError, KeyError, IndexError, TimeoutError) as error:
        outcome.word = f"{type(error).__name__}: {error}"
    outcome.ended = loop.time()
    return outcome


async def _events(client: RawClient) -> AsyncIterator[bytes]:
    while event := await client.read_event():
        yield event


def _error(head: Head, body: bytes) -> str:
    """The code of a true error before any stream."""
    if head.header("content-type") != "application/json":
        raise _Wrong(f"an error as {head.header('content-type')}")
    error = json.loads(body)["error"]
    if not {"message", "type", "param", "code"} <= error.keys():
        raise _Wrong(f"an error that is none: {body!r}")
    if head.status < 429:
        raise _Wrong(f"the client is told that the fault is its own: {body!r}")
    return str(error["code"])


def _stream(question: Question, head: Head, events: list[bytes]) -> str:
    """The code of the error that a stream ended with; empty: it is whole and right."""
    if not (head.header("content-type") or "").startswith("text/event-stream"):
        raise _Wrong("a stream of another type")
    datas = [event.removeprefix(b"data: ") for event in events if not event.startswith(b":")]
    if not datas:
        raise _Wrong("an empty stream")
    last = datas.pop()
    if b"[DONE]" in datas:
        raise _Wrong("something behind [DONE]")
    chunks = [json.loads(data) for data in datas]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    if last == b"[DONE]":
        _check(question, text, whole=True)
        return ""
    error = json.loads(last).get("error")
    if error is None:
        raise _Wrong("a stream without an end")
    _check(question, text, whole=False)
    return str(error["code"])


def _whole(question: Question, head: Head, body: bytes) -> None:
    if head.header("content-type") != "application/json":
        raise _Wrong(f"an answer as {head.header('content-type')}")
    _check(question, json.loads(body)["choices"][0]["message"]["content"], whole=True)


def _check(question: Question, text: str, *, whole: bool) -> None:
    """Is it this question's text, of one answer, piece by piece from the first?"""
    found = _PIECE.findall(text)
    if "".join(f"{number}.{answer}.{at}; " for number, answer, at in found) != text:
        raise _Wrong(f"not our text: {text!r}")
    if {number for number, _, _ in found} - {str(question.number)}:
        raise _Wrong(f"another question's answer: {text!r}")
    if len({answer for _, answer, _ in found}) > 1:
        raise _Wrong(f"two answers in one: {text!r}")
    if [int(at) for _, _, at in found] != list(range(len(found))):
        raise _Wrong(f"lost or doubled: {text!r}")
    if whole and len(found) != question.pieces:
        raise _Wrong(f"{len(found)} of {question.pieces} pieces, as if whole")


@dataclass
class Load:
    """Asks over kept connections, and keeps every outcome."""

    port: int
    outcomes: list[Outcome] = field(default_factory=list)
    _free: list[RawClient] = field(default_factory=list)

    async def run(
        self, seconds: float, rate: float, draw: Callable[[int], Question], first: int = 1
    ) -> int:
        """At a steady rate for so long, however the answers come; then until the last one has
        ended. The next free number."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        last = first + int(seconds * rate)
        async with asyncio.TaskGroup() as group:
            for number in range(first, last):
                await asyncio.sleep(start + (number - first) / rate - loop.time())
                group.create_task(self.ask(draw(number)))
        return last

    async def ask(self, question: Question) -> Outcome:
        """One question, and its outcome into the book."""
        client = await self._client()
        outcome = await ask(client, question)
        self.outcomes.append(outcome)
        head = outcome.head
        over = outcome.end in (End.LEFT, End.WRONG) or head is None
        if over or (head is not None and head.header("connection") == "close"):
            await _gone(client)
        else:
            self._free.append(client)
        return outcome

    async def _client(self) -> RawClient:
        while self._free:
            client = self._free.pop()
            if not client.connection.peer_closed.is_set():
                return client
            await _gone(client)
        client = RawClient(port=self.port)
        await client.connect()
        return client

    async def close(self) -> None:
        """Every kept connection."""
        while self._free:
            await _gone(self._free.pop())


async def _gone(client: RawClient) -> None:
    if not client.connection.lost.is_set():
        client.abort()
        await client.connection.lost.wait()


def counts(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How they ended; errors by status and code."""
    found: Counter[str] = Counter()
    for each in outcomes:
        found[each.end if not each.word else f"{each.end}: {each.status} {each.word}"] += 1
    return found


@asynccontextmanager
async def loading(port: int) -> AsyncIterator[Load]:
    """A load, whose connections are closed afterwards."""
    load = Load(port)
    try:
        yield load
    finally:
        await load.close()
