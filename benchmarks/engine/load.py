"""Closed-loop load of streams over TCP or a Unix socket, counted in a window of time.

Each of N clients sends its next request when its last answer is complete. The first answers have
different lengths, and the window begins when all of those have ended: by then the clients are
spread over an answer's length, and the engine batches as it does under steady load. Answers still
open at the window's end are read to theirs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

from benchmarks.engine.answers import Answer, Expected, Raw, read

#: Seconds that the first answers may take before the window, and open ones after it.
PATIENCE_S: Final = 120.0
_WORDS: Final = (
    "river stone window paper garden silver morning letter bridge candle forest harbour pocket "
    "ladder market number orange pepper quiet rabbit saddle thunder velvet winter yellow anchor "
    "basket copper desert engine feather glacier hammer island jacket kettle lantern meadow needle"
).split()


@dataclass(frozen=True, slots=True)
class Door:
    """Where requests go in: a port, or a Unix socket."""

    name: str
    model: str
    port: int = 0
    uds: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What a turn does. `finish`, `counted`, `stagger`: False for a mock that has no tokens."""

    concurrency: int
    tokens: int
    warm_up_s: float
    seconds: float
    words: int = 48
    temperature: float | None = None
    finish: str = "length"
    counted: bool = True
    stagger: bool = True


@dataclass(slots=True)
class Window:
    """What came of a turn. The snapshots are what `look` said at the window's two ends."""

    begin_ns: int = 0
    end_ns: int = 0
    before: Any = None
    after: Any = None
    answers: list[Answer] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


def prompt(turn: int, index: int, words: int) -> str:
    """Prompt `index` of a turn: the same words in every turn, behind digits that no other has.

    The digits stand first, so that no two prompts share as much as one block of the prefix cache;
    each is one token, so that both arms of a pair prefill the same number.
    """
    said = random.Random(index)
    return f"{turn:04d}{index:05d} " + " ".join(said.choice(_WORDS) for _ in range(words))


def body(door: Door, work: Work, text: str, tokens: int) -> bytes:
    """The request's JSON. `ignore_eos` makes every answer exactly `tokens` long."""
    fields: dict[str, Any] = {
        "model": door.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    if work.temperature is not None:
        fields["temperature"] = work.temperature
    return json.dumps(fields, separators=(",", ":")).encode()


def request(door: Door, content: bytes) -> bytes:
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: 127.0.0.1:{door.port}" if door.port else "host: localhost",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    if door.key:
        head.append(f"authorization: Bearer {door.key}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


class _Turn:
    def __init__(self, door: Door, work: Work, number: int) -> None:
        self.door, self.work, self.number = door, work, number
        self.next_index = 0
        self.open = 0
        self.running = True
        self.idle = asyncio.Event()
        self.first_left = work.concurrency
        self.spread = asyncio.Event()
        self.raws: list[tuple[Raw, Expected]] = []
        self.again: set[asyncio.Task[None]] = set()

    def next(self) -> tuple[bytes, Raw, int]:
        work, index = self.work, self.next_index
        self.next_index += 1
        tokens = work.tokens
        if work.stagger and index < work.concurrency:
            tokens = max(1, work.tokens * (index + 1) // work.concurrency)
        text = prompt(self.number, index, work.words)
        data = request(self.door, body(self.door, work, text, tokens))
        raw = Raw(time.monotonic_ns())
        self.raws.append((raw, Expected(tokens, work.finish, work.counted)))
        return data, raw, index

    def end(self, index: int) -> None:
        """Answer `index` is complete, or will not be."""
        if index < self.work.concurrency:
            self.first_left -= 1
            if self.first_left == 0:
                self.spread.set()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self.door.uds:
            await loop.create_unix_connection(lambda: _Client(self), self.door.uds)
        else:
            await loop.create_connection(lambda: _Client(self), "127.0.0.1", self.door.port)

    def reconnect(self) -> None:
        if not self.running:
            return
        task = asyncio.get_running_loop().create_task(self.connect())
        self.again.add(task)
        task.add_done_callback(self._reconnected)

    def _reconnected(self, task: asyncio.Task[None]) -> None:
        self.again.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            lost = Raw(time.monotonic_ns(), broken=f"no connection: {error}")
            self.raws.append((lost, Expected(self.work.tokens)))


class _Client(asyncio.Protocol):
    def __init__(self, turn: _Turn) -> None:
        self.turn = turn
        self.raw: Raw | None = None
        self.index = 0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.turn.open += 1
        self._next()

    def _next(self) -> None:
        if not self.turn.running:
            self.transport.close()
            return
        data, self.raw, self.index = self.turn.next()
        self.tail = b""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        raw = self.raw
        if raw is None:
            return
        raw.add(time.monotonic_ns(), data)
        self.tail = (self.tail + data)[-7:]
        if self.tail == b"\r\n0\r\n\r\n":
            self._ended()
            self._next()
        elif len(raw.reads) == 1 and not data.startswith(b"HTTP/1.1 200 "):
            raw.broken = f"refused: {data[:300]!r}"
            self._ended()
            self.transport.close()

    def _ended(self) -> None:
        self.raw = None
        self.turn.end(self.index)

    def connection_lost(self, exc: Exception | None) -> None:
        turn = self.turn
        turn.open -= 1
        if self.raw is not None:
            self.raw.broken = self.raw.broken or f"connection lost in mid-answer: {exc}"
            self._ended()
        if turn.running:
            # Not at once: a server that refuses everything would be asked in a tight loop.
            asyncio.get_running_loop().call_later(0.05, turn.reconnect)
        elif turn.open == 0:
            turn.idle.set()


async def run(
    door: Door, work: Work, *, number: int, look: Callable[[], Any] = lambda: None
) -> Window:
    """One turn. `number` makes its prompts its own."""
    turn, window = _Turn(door, work, number), Window()
    gc.collect()
    gc.disable()  # a collection in mid-turn would come as a pause of every stream
    try:
        for _ in range(work.concurrency):
            await turn.connect()
        await asyncio.sleep(work.warm_up_s)
        with suppress(TimeoutError):  # the answers will tell why
            await asyncio.wait_for(turn.spread.wait(), PATIENCE_S)
        window.begin_ns, window.before = time.monotonic_ns(), look()
        await asyncio.sleep(work.seconds)
        window.end_ns, window.after = time.monotonic_ns(), look()
        turn.running = False
        await _drain(turn)
    finally:
        gc.enable()
    window.answers = [read(raw, expected) for raw, expected in turn.raws]
    return window


async def _drain(turn: _Turn) -> None:
    """Until every open answer has ended."""
    for task in turn.again:
        task.cancel()
    try:
        async with asyncio.timeout(PATIENCE_S):
            if turn.open:
                await turn.idle.wait()
    except TimeoutError:
        for raw, _ in turn.raws:
            if raw.parts and not raw.parts[-1].endswith(b"0\r\n\r\n"):
                raw.broken = raw.broken or f"not complete {PATIENCE_S:g} s after the window"
