"""Clients that have no patience: each asks once, of an address that the name has just now, and what
goes wrong is lost. They reuse a connection unless they were told that it ends, as every library
does, and hold no request back from one that is still open."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import dns.asyncquery
import dns.message
import dns.rdatatype

from tests.fakes.client import Head, RawClient
from tests.fakes.dns import NameServer

CHAT: Final = "/v1/chat/completions"
#: Between an answer and a client's next question. What a client does meanwhile is not our matter,
#: and two cores are to be left to the servers.
THINKS: Final = 0.05
#: (stream, keeps its connection) of each client.
KINDS: Final = tuple(itertools.product((False, True), repeat=2))


class Load:
    """`lost`: what went wrong, in words. `done`: answers, by (stream, whether it was the last of
    its connection)."""

    def __init__(self, names: NameServer, name: str, port: int, key: str, model: str) -> None:
        self._names, self._name, self._port, self._model = names, name, port, model
        self._headers = [("authorization", f"Bearer {key}")]
        self._turn = itertools.count()
        self._over = asyncio.Event()
        self._coming: set[asyncio.Event] = set()
        self.lost: list[str] = []
        self.done: Counter[tuple[bool, bool]] = Counter()
        self._news = asyncio.Event()

    # --- one request ----------------------------------------------------------------------

    async def where(self) -> str:
        """An address of the name, by turns."""
        question = dns.message.make_query(f"{self._name}.", dns.rdatatype.A)
        answer = await dns.asyncquery.udp(question, "127.0.0.1", port=self._names.port, timeout=30)
        found = [record.address for section in answer.answer for record in section]
        return str(found[next(self._turn) % len(found)])

    async def connect(self, address: str | None = None) -> RawClient:
        arrived = asyncio.Event()
        self._coming.add(arrived)
        try:
            client = RawClient(host=address or await self.where(), port=self._port)
            await client.connect()
        finally:
            self._coming.discard(arrived)
            arrived.set()
        return client

    async def arrived(self) -> None:
        """Until all are connected that are looking for an address, or have one."""
        for one in list(self._coming):
            await one.wait()

    def body(self, *, stream: bool, text: str = "hi") -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {"model": self._model, "messages": messages, "stream": stream}

    async def post(self, client: RawClient, *, stream: bool, text: str = "hi") -> None:
        await client.post(CHAT, self.body(stream=stream, text=text), self._headers)

    async def ask(self, client: RawClient, *, stream: bool) -> Head:
        """A question and its whole answer."""
        await self.post(client, stream=stream)
        head = await client.read_head()
        body = await client.read_body()
        assert head.status == 200, f"{head.status} {body[:200]!r}"
        if stream:
            assert whole(body), body[-200:]
        else:
            (choice,) = json.loads(body)["choices"]
            assert (choice["finish_reason"], bool(choice["message"]["content"])) == ("stop", True)
        return head

    # --- all of them ----------------------------------------------------------------------

    async def _client(self, stream: bool, keeps: bool) -> None:
        client: RawClient | None = None
        while not self._over.is_set():
            try:
                if client is None or client.connection.peer_closed.is_set():
                    await leave(client)
                    client = await self.connect()
                head = await self.ask(client, stream=stream)
            except (OSError, AssertionError, TimeoutError) as error:
                where = "nowhere" if client is None else client.host
                self.lost.append(f"{where}: {type(error).__name__} {error}")
                await leave(client)
                client = None
                continue
            finally:
                self._news.set()
            ends = head.header("connection") == "close"
            self.done[stream, ends] += 1
            if ends or not keeps:
                await leave(client)
                client = None
            await asyncio.sleep(THINKS)
        await leave(client)

    @asynccontextmanager
    async def running(self, each: int = 1) -> AsyncIterator[None]:
        """`each` clients of every kind, meanwhile."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS * each:
                group.create_task(self._client(*kind))
            try:
                yield
            finally:
                self._over.set()

    async def more(self, answers: int) -> None:
        """Until so many more have been answered."""
        wanted = self.done.total() + answers
        while self.done.total() < wanted and not self.lost:
            self._news.clear()
            await self._news.wait()


async def leave(client: RawClient | None) -> None:
    if client is not None:
        if not client.connection.lost.is_set():
            client.close()
        await client.connection.lost.wait()


def whole(body: bytes) -> bool:
    """Did a stream end as it should?"""
    return body.endswith(b"data: [DONE]\n\n") and b'"error"' not in body and b'"stop"' in body


async def rests(clients: Sequence[RawClient]) -> list[bytes]:
    """What is left of these answers; then they leave."""
    left = await asyncio.gather(*(client.read_body() for client in clients))
    for client in clients:
        await leave(client)
    return left
