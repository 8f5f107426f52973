"""A steady load of streams and whole answers on real engines, with every answer checked.

An engine numbers its tokens (`continuous_usage_stats`) and says which they were
(`return_token_ids`), so that a token that is lost or doubled on the way shows at once, also in a
stream that breaks off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.fakes.client import RawClient
from tests.fakes.http1 import PeerGone

#: How a request may end: whole, or by an error event behind the first token.
OK: Final = "ok"
BROKEN: Final = "broken"
#: Seconds after which a request is given up. No bound of what a server may take, which may have to
#: load an engine on a machine that has other work.
LONGEST: Final = 1200.0


@dataclass(slots=True)
class Ended:
    """One request and its one end. `problem`: what no client may see; empty when there is none.
    `waited`: a stream's head came to say that it waits, so that what it says of targets and
    attempts may not be the last word."""

    stream: bool
    asked: int
    #: `time.monotonic()` when it was sent, when its first event came (streams), when it ended.
    sent: float
    first: float | None = None
    over: float = 0.0
    id: str = ""
    target: str = ""
    attempts: int = 0
    waited: bool = False
    tokens: int = 0
    end: str = ""
    problem: str = ""


class Bad(Exception):
    """Not what may come."""


class Load:
    """Requests to one server. `ended` has every request once, in the order of their ends, `open`
    those that have not ended."""

    def __init__(self, port: int, model: str, *, seed: int = 5) -> None:
        self.port, self.model = port, model
        self.chance = random.Random(seed)
        self.asked = 0
        self.ended: list[Ended] = []
        self.open: dict[int, Ended] = {}

    async def ask(self, tokens: int, *, stream: bool, model: str | None = None) -> Ended:
        """One request to its end; never raises for what the server does."""
        self.asked += 1
        number = self.asked
        self.open[number] = ended = Ended(stream, tokens, time.monotonic())
        try:
            async with asyncio.timeout(LONGEST), RawClient(port=self.port) as client:
                await client.post("/v1/chat/completions", self._body(model, tokens, stream))
                head = await client.read_head()
                ended.id = head.header("x-request-id") or ""
                ended.target = head.header("x-roundhouse-target") or ""
                ended.attempts = int(head.header("x-roundhouse-attempts") or 0)
                if head.status != 200:
                    body = (await client.read_body()).decode("utf-8", "replace")
                    raise Bad(f"status {head.status}: {body[:300]}")
                if stream:
                    await self._read_stream(client, ended)
                else:
                    _judge_whole(json.loads(await client.read_body()), ended)
        except (Bad, PeerGone, OSError, ValueError, LookupError) as error:
            ended.problem = f"{type(error).__name__}: {error}"
        finally:
            ended.over = time.monotonic()
            del self.open[number]
            self.ended.append(ended)
        return ended

    def _body(self, model: str | None, tokens: int, stream: bool) -> dict[str, Any]:
        asks = f"{self.chance.random()} What is Roundhouse?"
        body: dict[str, Any] = {
            "model": model or self.model,
            "messages": [{"role": "user", "content": asks}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        if stream:
            options = {"include_usage": True, "continuous_usage_stats": True}
            body |= {"stream": True, "stream_options": options}
        return body

    async def _read_stream(self, client: RawClient, ended: Ended) -> None:
        finish, done = None, False
        while block := await client.read_event():
            if done or ended.end == BROKEN:
                raise Bad(f"after the end came {block!r}")
            if block.startswith(b":"):
                ended.waited = ended.waited or ended.first is None
                continue
            if block == b"data: [DONE]":
                done = True
                continue
            event = json.loads(block.removeprefix(b"data: "))
            if "error" in event:
                if ended.first is None:
                    raise Bad(f"a stream that begins with an error: {event}")
                ended.end = BROKEN
                continue
            ended.first = ended.first or time.monotonic()
            said = event["usage"]["completion_tokens"]
            for choice in event["choices"]:
                ended.tokens += len(choice.get("token_ids") or ())
                finish = choice.get("finish_reason") or finish
            if said != ended.tokens:
                raise Bad(f"the engine counts {said} tokens, {ended.tokens} have come")
        if ended.end == BROKEN:
            return
        if not done or finish != "length" or ended.tokens != ended.asked:
            raise Bad(f"ended with {ended.tokens} tokens, {finish!r}, done: {done}")
        ended.end = OK

    @contextlib.asynccontextmanager
    async def steady(
        self, rate: float, tokens: int, models: Sequence[str] = ()
    ) -> AsyncIterator[None]:
        """While the context lasts `rate` requests a second come by chance, every second one a
        stream, each for any of `models`. On leaving it all of them have ended."""
        requests: set[asyncio.Task[Ended]] = set()

        async def arrive() -> None:
            due = time.monotonic()
            while True:
                due += self.chance.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                stream = self.chance.random() < 0.5
                model = self.chance.choice(models or [self.model])
                requests.add(asyncio.create_task(self.ask(tokens, stream=stream, model=model)))

        arrivals = asyncio.create_task(arrive())
        try:
            yield
        finally:
            arrivals.cancel()
            await asyncio.gather(arrivals, *requests, return_exceptions=True)

    async def at_most(self, tokens: int, *, at_once: int, seconds: float, model: str) -> float:
        """Requests a second that the model answers when it is asked by so many all the time."""
        end, count = time.monotonic() + seconds, 0

        async def worker() -> None:
            nonlocal count
            while time.monotonic() < end:
                await self.ask(tokens, stream=count % 2 == 0, model=model)
                count += 1

        began = time.monotonic()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return count / (time.monotonic() - began)


def _judge_whole(answer: dict[str, Any], ended: Ended) -> None:
    [choice] = answer["choices"]
    ended.tokens = len(choice["token_ids"])
    counts = (ended.tokens, answer["usage"]["completion_tokens"])
    if counts != (ended.asked, ended.asked) or choice["finish_reason"] != "length":
        raise Bad(f"{counts} tokens, {choice['finish_reason']!r}")
    ended.end = OK
