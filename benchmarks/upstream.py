"""A fast mock of an OpenAI-compatible upstream, for benchmarks and tests of the benchmarks.

It answers `POST …/chat/completions` at once from prepared bytes, or streams paced chunks that carry
the time at which they were due, so that whoever reads them can say how late they came. Anything
else that is asked for gets 200 and a small JSON object, which is what gateways' health checks want.

    python -m benchmarks.upstream --port 9000
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final, cast

import uvloop

MODEL: Final = "mock"
TOKENS: Final = 32
_WORDS: Final = [f"token{i:02d} " for i in range(TOKENS)]
#: What the model of the mock says, streamed or not.
TEXT: Final = "".join(_WORDS)
_ABOUT: Final = '"id":"chatcmpl-mock","created":1700000000,"model":"mock"'
_USAGE: Final = '{"prompt_tokens":9,"completion_tokens":32,"total_tokens":41}'

_BODY: Final = (
    f'{{{_ABOUT},"object":"chat.completion","choices":[{{"index":0,"message":'
    f'{{"role":"assistant","content":"{TEXT}"}},"logprobs":null,"finish_reason":"stop"}}],'
    f'"usage":{_USAGE}}}'
).encode()
_JSON_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
_WHOLE: Final = _JSON_HEAD % len(_BODY) + _BODY
_MODELS: Final = b'{"object":"list","data":[{"id":"mock","object":"model","owned_by":"mock"}]}'
_ANYTHING: Final = _JSON_HEAD % len(_MODELS) + _MODELS
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def event(delta: str, finish: str = "null") -> bytes:
    """One `data:` event of a chat stream; `delta` and `finish` are JSON."""
    return (
        f'data: {{{_ABOUT},"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta},'
        f'"logprobs":null,"finish_reason":{finish}}}]}}\n\n'
    ).encode()


def framed(data: bytes) -> bytes:
    """A chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_FIRST: Final = event('{"role":"assistant","content":""}')
_LAST: Final = event("{}", '"stop"')
_DONE: Final = b"data: [DONE]\n\n"
_EVENTS: Final = [_FIRST, *(event(f'{{"content":"{word}"}}') for word in _WORDS), _LAST, _DONE]
#: The bytes of the whole event stream: 35 events, of which 32 carry text.
STREAM: Final = b"".join(_EVENTS)
BODY: Final = _BODY
_STREAMED: Final = _STREAM_HEAD + b"".join(framed(e) for e in _EVENTS) + b"0\r\n\r\n"


@dataclass
class Pace:
    """Streams send `chunks` chunks at `rate` a second; each content is `number.due.sent`, where
    both times are CLOCK_MONOTONIC nanoseconds."""

    rate: float
    chunks: int


class Upstream:
    """The mock's settings and counts. `pace` None: streams come at once."""

    def __init__(self) -> None:
        self.pace: Pace | None = None
        self.requests = 0
        self.chunks_sent = 0
        self.open_streams = 0
        self.peers: set[_Peer] = set()
        self._random = random.Random(7)

    async def listen(self, port: int = 0, host: str = "127.0.0.1") -> asyncio.Server:
        """Accept connections; `server.sockets[0].getsockname()` has the port."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Peer(self), host, port, backlog=2048)

    def hang_up(self) -> int:
        """End the paced streams that are still open, and say how many: a gateway whose clients have
        left and that reads on would have the mock write for ever."""
        left = [peer for peer in self.peers if peer.streaming]
        for peer in left:
            peer.transport.abort()
        return len(left)

    def leave(self) -> None:
        """End every connection."""
        for peer in list(self.peers):
            peer.transport.abort()


class _Peer(asyncio.Protocol):
    def __init__(self, owner: Upstream) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.held = b""
        self.parts: list[bytes] = []
        self.missing = 0
        self.head = b""
        self.timer: asyncio.TimerHandle | None = None
        self.streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.owner.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.peers.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        if self.streaming:
            self._streamed()

    def data_received(self, data: bytes) -> None:
        if self.missing > 0:
            rest = data[self.missing :]
            self.parts.append(data[: self.missing] if rest else data)
            self.missing -= len(data)
            if self.missing <= 0:
                whole = b"".join(self.parts)
                self.parts = []
                self.missing = 0
                self._answer(self.head, whole)
                if rest:
                    self.data_received(rest)
            return
        if self.held:
            data = self.held + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.held = data
            return
        head = data[:end].lower()
        body = data[end + 4 :]
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            length = int(head[at + 17 : stop if stop > 0 else None])
            if len(body) < length:
                self.head, self.parts, self.missing = head, [body], length - len(body)
                self.held = b""
                return
            rest = body[length:]
            if rest:  # the next request, sent without waiting for this one's answer
                self.held = b""
                self._answer(head, body[:length])
                self.data_received(rest)
                return
        elif b"\r\ntransfer-encoding: chunked" in head and not body.endswith(b"0\r\n\r\n"):
            self.held = data
            return
        self.held = b""
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        owner = self.owner
        if b"/chat/completions" not in head[:100] or not head.startswith(b"post"):
            self.transport.write(_ANYTHING)
            return
        owner.requests += 1
        # Gateways that decode a body put their own fields behind; so the whole is searched.
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self.transport.write(_WHOLE)
        elif owner.pace is None:
            self.transport.write(_STREAMED)
        else:
            owner.open_streams += 1
            self.streaming = True
            self._pace(owner.pace)

    def _streamed(self) -> None:
        self.streaming = False
        self.owner.open_streams -= 1

    def _pace(self, pace: Pace) -> None:
        self.transport.write(_STREAM_HEAD + framed(_FIRST))
        every = 1e9 / pace.rate
        # Streams of real engines do not tick together over many requests' beginnings.
        start = time.monotonic_ns() + self.owner._random.random() * every
        self._tick(start, every, 0, pace.chunks)

    def _tick(self, start: float, every: float, number: int, chunks: int) -> None:
        now = time.monotonic_ns()
        due = start + number * every
        if now < due:
            self.timer = self.loop.call_later(
                (due - now) / 1e9, self._tick, start, every, number, chunks
            )
            return
        if number == chunks:
            self.transport.write(framed(_LAST) + framed(_DONE) + b"0\r\n\r\n")
            self._streamed()
            return
        self.transport.write(
            framed(event(f'{{"content":"{number:05d}.{int(due):016d}.{now:016d}"}}'))
        )
        self.owner.chunks_sent += 1
        self.timer = self.loop.call_later(
            max(0.0, (due + every - now) / 1e9), self._tick, start, every, number + 1, chunks
        )


async def _main(port: int, pace: Pace | None) -> None:
    upstream = Upstream()
    upstream.pace = pace
    server = await upstream.listen(port)
    print(f"mock upstream on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--rate", type=float, help="chunks a second of a stream (default: at once)")
    parser.add_argument("--chunks", type=int, default=100, help="chunks of a paced stream")
    options = parser.parse_args()
    pace = Pace(options.rate, options.chunks) if options.rate else None
    uvloop.run(_main(options.port, pace))


if __name__ == "__main__":
    main()
