"""The command in a process of its own, over a stand-in for the running server.

``python -m tests.cli.stand_in FOLDER run …``: the stand-in writes what becomes of it into FOLDER.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import sys
import termios
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from server.cli.command import run
from server.config.load import Loaded
from server.engines.state import EngineState, EngineView

FOLDER = Path(sys.argv[1])


class Roundhouse:
    """Loads in two looks, then answers every chat with an echo; `slow` never ends its answer."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.looks = 0
        self.url = ""
        self.supervisor = SimpleNamespace(views=self.views, error=lambda name: None)

    def views(self) -> tuple[EngineView, ...]:
        self.looks += 1
        (name,) = self.loaded.config.engines
        if "never" in name:
            return (EngineView(name, EngineState.STARTING, stage="loading weights"),)
        if "broken" in name:
            return (
                EngineView(name, EngineState.FAILED, error="No memory.", error_reason="memory"),
            )
        states = [EngineState.STARTING, EngineState.STARTING, EngineState.READY]
        state = states[min(self.looks, 3) - 1]
        return (EngineView(name, state, stage="loading weights", eta=3.0 - self.looks),)

    async def __aenter__(self) -> Roundhouse:
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.open: set[asyncio.StreamWriter] = set()
        (FOLDER / "started").write_text(self.url)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.server.close()
        for writer in self.open:
            writer.close()
        (FOLDER / "stopped").touch()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size))
                await self.stream(writer, head, body["messages"][-1]["content"])

    async def stream(self, writer: asyncio.StreamWriter, head: str, text: str) -> None:
        assert "authorization: bearer sk-rh-" in head
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for word in ("you ", "said: ", text):
            event = {"choices": [{"index": 0, "delta": {"content": word}}]}
            self.chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")
        if text == "slow":
            return
        self.chunk(writer, b"data: [DONE]\n\n")
        self.chunk(writer, b"")
        await writer.drain()

    @staticmethod
    def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def main() -> None:
    if sys.stdin.isatty():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    serving: Any = ModuleType("server.serving")
    serving.Roundhouse = Roundhouse
    sys.modules["server.serving"] = serving
    raise SystemExit(run(sys.argv[2:]))


if __name__ == "__main__":
    main()
