"""One request over the transport, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from server.errors import ConnectFailed, UpstreamError, UpstreamTimeout, UpstreamTruncated
from server.loadtest.answer import Reading, shown, status_failure
from server.loadtest.sample import Failure, Sample
from server.transport import AttemptTimeouts, Endpoint, Response, Transport

PATH: Final = "/v1/chat/completions"
#: Seconds that a connection may take; the whole request's time-out where that is shorter.
CONNECT: Final = 10.0
#: Seconds for the end of a body after `[DONE]`, so that the connection can be used again.
TAIL: Final = 1.0
_LARGEST: Final = 64 * 2**20
_LARGEST_ERROR: Final = 2**20


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests. `body_of` makes the body of the request with that number; `timeout` is the
    seconds that a request may take, from being sent to its end; `clock` gives seconds."""

    transport: Transport
    url: str
    headers: Mapping[str, str]
    body_of: Callable[[int], bytes]
    streamed: bool
    timeout: float
    clock: Callable[[], float]

    async def __call__(self, index: int, due: float | None = None) -> Sample:
        """Send a request; `due` is when it should have been sent, now if None. Never raises but
        for a fault of our own, and CancelledError, which closes the connection."""
        body = self.body_of(index)
        sent = self.clock()
        sample = Sample(index, sent if due is None else due, sent, sent, self.streamed)
        reading = Reading()
        try:
            async with asyncio.timeout(self.timeout):
                sample.failure = await self._exchange(body, reading, sample)
        except TimeoutError:
            # While the connection was put in order the answer may have been whole already.
            late = Failure("time-out", f"No whole answer within {self.timeout:g} s.")
            sample.failure = reading.failure() if reading.over else late
        except UpstreamError as error:
            sample.failure = _of(error)
        if sample.failure is not None:
            sample.ended = self.clock()
        sample.first, sample.gaps, sample.chunks = reading.first, reading.gaps, reading.chunks
        sample.output_tokens, sample.prompt_tokens = reading.output_tokens, reading.prompt_tokens
        sample.cached_tokens, sample.finish = reading.cached_tokens, reading.finish
        return sample

    async def _exchange(self, body: bytes, reading: Reading, sample: Sample) -> Failure | None:
        """`sample.ended` is set at the answer's end, before its connection is put in order."""
        response = await self.transport.send(
            Endpoint(self.url),
            "POST",
            PATH,
            headers=self.headers,
            body=body,
            timeouts=AttemptTimeouts(min(CONNECT, self.timeout), self.timeout, self.timeout),
        )
        try:
            if response.status != 200:
                return status_failure(response.status, await response.read_all(_LARGEST_ERROR))
            if not self.streamed:
                whole = await response.read_all(_LARGEST)
                sample.ended = self.clock()
                reading.whole(whole)
                return reading.failure()
            if "event-stream" not in response.headers.get("content-type", "event-stream"):
                said = shown(await response.read())
                return Failure("no chat stream", f"The server answered without a stream: {said}")
            return await self._stream(response, reading, sample)
        finally:
            response.close()

    async def _stream(self, response: Response, reading: Reading, sample: Sample) -> Failure | None:
        while data := await response.read():
            reading.feed(data, self.clock())
            if reading.over:
                break
        sample.ended = self.clock()
        if reading.done:
            with contextlib.suppress(TimeoutError, UpstreamError):
                async with asyncio.timeout(TAIL):
                    while await response.read():
                        pass
        return reading.failure()


def _of(error: UpstreamError) -> Failure:
    text = f"{error.message} ({error.detail})" if error.detail else error.message
    match error:
        case ConnectFailed():
            kind = f"connect {error.outcome}"
        case UpstreamTimeout():
            kind = "time-out"
        case UpstreamTruncated():
            kind = "truncated"
        case _:
            kind = error.outcome
    return Failure(kind, shown(text.encode("utf-8", "replace")))
