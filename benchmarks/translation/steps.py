"""The mock and its clients, in step: a stream's next piece is sent when the one before has come
out at the client.

So each piece is a read of its own for the gateway, however fast it is, and no clock paces anything.
Both sides share one process. A client's number is in its prompt, by which the mock knows whose
stream it writes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, cast

from benchmarks.load import wire
from benchmarks.load.closed import size_of_answer
from benchmarks.translation.spoken import MARK, SPOKEN, words
from benchmarks.upstream import framed

#: Stands before a client's number, of four digits.
WHO: Final = "client "
_JSON: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """What a turn asks for: answers of `pieces` pieces, as streams whose pieces come `block` to a
    read, or whole where `block` is 0."""

    dialect: str
    pieces: int
    block: int

    @property
    def text(self) -> str:
        return "".join(words(self.pieces))

    def writes(self) -> list[bytes]:
        """What the mock writes, one after another."""
        spoken = SPOKEN[self.dialect]
        if not self.block:
            body = spoken.whole(self.text)
            return [_JSON % len(body) + body]
        *events, end = spoken.stream(words(self.pieces))
        blocks = [
            b"".join(framed(event) for event in events[at : at + self.block])
            for at in range(0, len(events), self.block)
        ]
        return [_STREAM + blocks[0], *blocks[1:], framed(end) + _END]


class Mock:
    """Every provider at once. `part` is what it answers with, in the words of its dialect."""

    def __init__(self) -> None:
        self._writes: list[bytes] = []
        self._streams: dict[int, _Peer] = {}
        self.peers: set[_Peer] = set()
        self.take(Part("openai", 1, 0))

    def take(self, part: Part) -> None:
        self._writes = part.writes()

    async def listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0)

    def asked(self, peer: _Peer, body: bytes) -> None:
        peer.left = iter(self._writes)
        at = body.find(WHO.encode())
        if at >= 0:
            self._streams[int(body[at + len(WHO) : at + len(WHO) + 4])] = peer
        peer.go_on()

    def go_on(self, number: int) -> None:
        """The client with this number has all that was written to it."""
        self._streams[number].go_on()

    def leave(self) -> None:
        for peer in list(self.peers):
            peer.transport.abort()


class _Peer(asyncio.Protocol):
    """A connection of the gateway's. Its requests have a length."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock
        self._held = b""
        self.left = iter([b""])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._mock.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._mock.peers.discard(self)

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or len(self._held) < size_of_answer(self._held[:end].lower(), end + 4):
            return
        body, self._held = self._held[end + 4 :], b""
        self._mock.asked(self, body)

    def go_on(self) -> None:
        self.transport.write(next(self.left))


class WrongAnswer(Exception):
    """An answer is not what the mock said; nothing that was measured counts."""


class Client(asyncio.Protocol):
    """One connection, which asks again and again and checks each answer."""

    def __init__(self, place: wire.Place, mock: Mock, number: int) -> None:
        self._place, self._mock, self._number = place, mock, number
        self._answered = asyncio.Event()
        self._error: str | None = None
        self._part: Part | None = None
        self._begin()

    @classmethod
    async def connected(cls, place: wire.Place, mock: Mock, number: int) -> Client:
        one = cls(place, mock, number)
        await asyncio.get_running_loop().create_connection(lambda: one, place.host, place.port)
        return one

    def _begin(self) -> None:
        self._got: list[bytes] = []
        self._tail = b""
        self._seen = self._due = 0
        self._steps = False
        self._answered.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def leave(self) -> None:
        self.transport.abort()

    async def ask(self, part: Part, times: int) -> None:
        """Raises WrongAnswer."""
        self._part, wanted = part, part.text
        place = wire.Place(self._place.host, self._place.port, self._place.headers, part.dialect)
        opening = f"{WHO}{self._number:04d} "
        request = wire.request(place, stream=part.block > 0, prompt=300, opening=opening)
        for _ in range(times):
            self._begin()
            self.transport.write(request)
            await self._answered.wait()
            if self._error is not None:
                raise WrongAnswer(self._error)
            check(b"".join(self._got), wanted, stream=part.block > 0)

    def data_received(self, data: bytes) -> None:
        part = self._part
        assert part is not None
        if not self._got:  # an error is no stream
            self._steps = part.block > 0 and data.startswith(b"HTTP/1.1 200 ")
            self._due = min(part.block, part.pieces)
        self._got.append(data)
        if self._steps:
            self._step(self._tail + data, part)
        else:
            self._whole()

    def _step(self, data: bytes, part: Part) -> None:
        self._seen += data.count(MARK)
        self._tail = data[1 - len(MARK) :]
        if data.endswith(_END):
            self._answered.set()
        elif self._seen == self._due:
            # Behind the last piece comes the end, and there nothing is to be waited for.
            more = self._seen < part.pieces
            self._due = min(self._seen + part.block, part.pieces) if more else 0
            self._mock.go_on(self._number)

    def _whole(self) -> None:
        raw = b"".join(self._got)
        end = raw.find(b"\r\n\r\n")
        if end >= 0 and len(raw) >= size_of_answer(raw[:end].lower(), end + 4):
            self._answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = f"connection lost: {exc or 'closed'}"
        self._answered.set()


def check(raw: bytes, wanted: str, *, stream: bool) -> None:
    """Raises WrongAnswer unless this whole answer has the text."""
    try:
        status, body = wire.split(raw)
        said = wire.streamed_text(body) if stream else wire.whole_text(body)
    except (wire.BadAnswer, ValueError) as error:
        raise WrongAnswer(f"{error}: {raw[:300]!r}") from None
    if status != 200 or said != wanted:
        raise WrongAnswer(f"not what was said: {raw[:600]!r}")
