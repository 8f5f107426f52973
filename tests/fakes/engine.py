"""A fake engine: a real program on a Unix socket that behaves, or misbehaves, as it is told.

``python -I -S engine.py SOCKET '{"say": [...], "exit": 1, ...}'``; standard library only. A number
instead of a path is a port of loopback. Keys:

- ``say``: lines to print at once; ``exit``: then end with this code, without listening.
- ``gate``: a file; it listens only once that exists (a start that takes as long as the test likes).
- ``deaf``: SIGTERM is ignored. ``children``, ``strays``: processes in its group, and in sessions of
  their own. ``shm``: a file under /dev/shm that it keeps mapped; ``shared``: Python's own shared
  memory, with a resource tracker.
- ``plain``: it is no vLLM: ``/health`` is not there, and ``/v1/models`` is.
- ``sleep``: ``refuses`` (500), ``ignores`` (200, and stays awake) or ``breaks`` (once awake again,
  what it says is given up by its core); ``hangs`` (never asleep), ``sticks`` (never awake again).

Over HTTP: ``/health``, ``/metrics``, ``/pids`` (its own, children's, strays'; the last body that
was sent, and more) and ``/do/<what>``:
``exit0``, ``sick`` (health says 503), ``mute`` (health never answers), ``busy`` (requests run),
``step`` (one more iteration), ``say?line``, ``finish`` (held answers go on).

``/sleep``, ``/wake_up``, ``/is_sleeping`` and ``/v1/completions`` (one token) are as vLLM's.

Any other POST is a chat: a whole answer at once, a stream up to its first event. What holds the
word ``hold``, and every stream, waits there for ``finish``; meanwhile it counts as running. Of the
word ``poison`` it dies: at once, or of ``slow poison`` when it should go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import urllib.parse
from multiprocessing import shared_memory
from pathlib import Path

INHERITED = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="fake"}} {running}.0
# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{engine="0",le="+Inf",model_name="fake"}} {steps}.0
vllm:iteration_tokens_total_count{{engine="0",model_name="fake"}} {steps}.0
vllm:iteration_tokens_total_sum{{engine="0",model_name="fake"}} {steps}.0
"""
EVENT = {"id": "fake", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
ANSWER = {
    "id": "fake",
    "object": "chat.completion",
    "created": 1,
    "model": "fake",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "from the engine"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
HANGS = {("hangs", "/sleep"), ("sticks", "/wake_up")}
SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Fake:
    def __init__(self, script: dict) -> None:
        self.script = script
        self.health = 200
        self.running = self.steps = self.slept = 0
        self.asleep = False
        self.last = "{}"
        self.finish = asyncio.Event()
        self.children = [self.child(stray=False) for _ in range(script.get("children", 0))]
        self.strays = [self.child(stray=True) for _ in range(script.get("strays", 0))]

    def child(self, *, stray: bool) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SLEEPER], start_new_session=stray
        )

    def answer(self, path: str) -> tuple[int, str] | None:
        what, _, query = path.partition("?")
        if what == ("/v1/models" if self.script.get("plain") else "/health"):
            return None if self.health == 0 else (self.health, "")
        if what == "/is_sleeping":
            return 200, json.dumps({"is_sleeping": self.asleep})
        if what == "/metrics":
            return 200, METRICS.format(running=self.running, steps=self.steps)
        if what == "/pids":
            pids = {
                "self": os.getpid(),
                "children": [child.pid for child in self.children],
                "strays": [child.pid for child in self.strays],
                "environ": dict(os.environ),
                "last": self.last,
                "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
                "fds": INHERITED,
                "shared": getattr(self.script.get("mapped"), "name", None),
            }
            return 200, json.dumps(pids)
        if what == "/do/exit0":
            os._exit(0)
        elif what == "/do/sick":
            self.health = 503
        elif what == "/do/mute":
            self.health = 0
        elif what == "/do/busy":
            self.running = 1
        elif what == "/do/step":
            self.steps += 1
        elif what == "/do/finish":
            self.finish.set()
        elif what == "/do/say":
            print(urllib.parse.unquote(query), flush=True)
        else:
            return 404, ""
        return 200, ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until whoever has it goes, in whatever way."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.talk(reader, writer)
        writer.close()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"POST "):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                sent = await reader.readexactly(length)
                self.last = sent.decode()
                path = head.split()[1].decode()
                if (self.script.get("sleep"), path.partition("?")[0]) in HANGS:
                    await asyncio.Event().wait()
                answer = self.told(path)
                if answer is None:
                    await self.chat(sent, reader, writer)
                    continue
            else:
                answer = self.answer(head.split()[1].decode())
            if answer is None:
                await asyncio.Event().wait()
                return
            status, body = answer
            text = f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n{body}"
            writer.write(text.encode())
            await writer.drain()

    def told(self, path: str) -> tuple[int, str] | None:
        what, _, _ = path.partition("?")
        how = self.script.get("sleep")
        if what in ("/sleep", "/wake_up"):
            if how == "refuses":
                return 500, "no"
            self.asleep = what == "/sleep" and how != "ignores"
            self.slept += self.asleep
            return 200, "{}"
        if what == "/v1/completions":
            finish = "abort" if how == "breaks" and self.slept else "length"
            return 200, json.dumps({"choices": [{"text": "1", "finish_reason": finish}]})
        return None

    async def chat(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        stream = json.loads(body).get("stream")
        if b"poison" in body and b"slow poison" not in body:
            os.kill(os.getpid(), signal.SIGKILL)
        if stream:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            writer.write(event({"content": "from the engine"}))
        if stream or b"hold" in body:
            await self.held(reader)
        if b"slow poison" in body:
            os.kill(os.getpid(), signal.SIGKILL)
        if stream:
            data = b"data: [DONE]\n\n"
            writer.write(event({}, "stop") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        else:
            text = json.dumps(ANSWER)
            head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()

    async def held(self, reader: asyncio.StreamReader) -> None:
        """Until told to go on, or until the peer leaves, as vLLM notices."""
        self.running += 1
        waiting = [asyncio.ensure_future(self.finish.wait()), asyncio.ensure_future(reader.read(1))]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting[0] not in done:
                raise ConnectionResetError
        finally:
            self.running -= 1
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def event(delta: dict, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = f"data: {json.dumps({**EVENT, 'choices': [choice]})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def main(socket: str, script: dict) -> None:
    if script.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name := script.get("shm"):
        with open(name, "w+b") as file:
            file.truncate(4096)
            script["mapped"] = mmap.mmap(file.fileno(), 4096)
    if script.get("shared"):
        script["mapped"] = shared_memory.SharedMemory(create=True, size=4096)
    fake = Fake(script)
    for line in script.get("say", ()):
        print(line, flush=True)
    if "exit" in script:
        os._exit(script["exit"])
    while (gate := script.get("gate")) and not os.path.exists(gate):
        await asyncio.sleep(0.005)
    if socket.isdigit():
        server = await asyncio.start_server(fake.serve, "127.0.0.1", int(socket))
    else:
        server = await asyncio.start_unix_server(fake.serve, socket)
    print("INFO:     Application startup complete.", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
