"""How long a large prompt takes through Roundhouse: from its last byte in to its last byte out.

    python -m benchmarks.prompt                  # 4 MiB, plain and mixed text
    python -m benchmarks.prompt --mebibytes 16

One request at a time over one connection. All of a body but its last 100 bytes is sent ahead, and
has arrived when those are sent; the mock upstream notes when it has the whole. The clock runs in
one process that has a core of its own, the server has the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final, cast

import uvloop

from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Running

_TAIL: Final = 100
_ANSWER: Final = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
#: Words of a prompt: such as pass without a second look, and such as need one.
WORDS: Final = {
    "plain": ["lorem", "ipsum", "dolor", "sit", "amet"],
    "mixed": ["lorem", 'a "quoted" word', "two\nlines", "grüße", "日本語", "f([{1: 2}])"],
}


class _Upstream(asyncio.Protocol):
    """Notes when it has a whole request."""

    last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.got, self.size = 0, 0

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if not self.size:
            end = data.find(b"\r\n\r\n")
            head = data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            self.size = end + 4 + length
        if self.got >= self.size:
            _Upstream.last = time.perf_counter()
            self.got = self.size = 0
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self.transport.write(head % len(_ANSWER) + _ANSWER)


def body_of(words: list[str], size: int) -> bytes:
    """A chat request whose prompt has about `size` bytes of JSON."""
    chosen = random.Random(1).choices(words, k=1000)
    once = " ".join(chosen)
    text = (once + " ") * (size // len(json.dumps(once, ensure_ascii=False).encode()) + 1)
    fields = {"model": "mock", "messages": [{"role": "user", "content": text}]}
    return json.dumps(fields, ensure_ascii=False).encode()


async def measure(place: Running, body: bytes, times: int) -> list[float]:
    """Seconds from the last byte in to the last byte out, `times` of them."""
    host, _, port = place.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {host}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in place.headers.items()),
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    found = []
    for number in range(times + 3):
        writer.write(head + body[:-_TAIL])
        await writer.drain()
        await asyncio.sleep(0.15 * max(1, len(body) >> 22))  # until the server has all that
        sent = time.perf_counter()
        writer.write(body[-_TAIL:])
        answer = await reader.readuntil(_ANSWER[-40:])
        if b" 200 " not in answer[:20]:
            raise SystemExit(f"no good answer: {answer[:300]!r}")
        if number >= 3:
            found.append(_Upstream.last - sent)
    writer.close()
    return found


async def run(size: int, times: int) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Upstream, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        starting = CONTENDERS["roundhouse"].run(url, core=0, folder=Path(folder))
        place = await asyncio.to_thread(starting.__enter__)
        try:
            print("| prompt | bytes | median ms | least | most |\n|---|--:|--:|--:|--:|")
            for kind, words in WORDS.items():
                body = body_of(words, size)
                found = [1000 * each for each in await measure(place, body, times)]
                spread = (statistics.median(found), min(found), max(found))
                print(
                    f"| {kind} | {len(body):,} | " + " | ".join(f"{x:.1f}" for x in spread) + " |"
                )
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mebibytes", type=float, default=4.0)
    parser.add_argument("--times", type=int, default=30)
    options = parser.parse_args()
    uvloop.run(run(int(options.mebibytes * 2**20), options.times))


if __name__ == "__main__":
    main()
