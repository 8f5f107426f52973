"""The way in: the limits of the key, then a place of the model, then a place of the server.

The narrow door stands before the wide one: who waits for a busy model holds no place of the server
meanwhile, so that one slow model cannot keep the others' requests out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from server.access.keys import KeyInfo
from server.access.limits import UNLIMITED, Lease, Limiter, Reason, Refusal, duration
from server.access.queue import Ticket
from server.access.rooms import Rooms
from server.errors import RateLimited, RoundhouseError
from server.protocol.envelope import Surface
from server.protocol.parameters import number
from server.telemetry.metrics import Metrics

#: The server's room needs a name for its gauge.
_SERVER: Final = "server"
#: Bytes of a body for one token of its prompt.
_BYTES: Final = 4
#: Tokens of an answer whose length nobody has said.
_ANSWER: Final = 256
#: Bytes of a body that may hold more than text.
_LARGE: Final = 4096
#: What ends the head of a picture's data URL, and the bytes in which it must.
_BASE64: Final = b";base64,"
_HEAD: Final = 128
#: The member that a sound is (`input_audio`). In a text, its quotes would be escaped.
_SOUND: Final = b'"data"'
_SPACE: Final = b" \t\r\n"
#: Tokens of such a piece: about a picture's of a megapixel.
_PIECE: Final = 1024
#: More tokens than any model writes.
_MOST: Final = 10**9
#: And more digits than a number of tokens has: what is longer is not even read.
_DIGITS: Final = 64
_NOTHING: Final = Raw(b"")
_list: Final = msgspec.json.Decoder(list[Raw])
_UNREAD: Final = frozenset({Surface.TOKENIZE, Surface.DETOKENIZE})
#: Seconds after which a key with too many requests under way is told to come back. A guess: one of
#: them has to end first.
_SOON: Final = 1.0
_REASONS: Final = {
    Reason.REQUESTS: "key_requests",
    Reason.TOKENS: "key_tokens",
    Reason.TOO_LARGE: "key_tokens",
    Reason.IN_FLIGHT: "key_in_flight",
}


class Admitted:
    """A request that was let in. `leave` it, whatever comes; `settle` it before, if it was
    answered."""

    __slots__ = ("_clock", "_lease", "_tickets", "waited")

    def __init__(self, clock: Callable[[], float], lease: Lease | None) -> None:
        self._clock, self._lease = clock, lease
        self._tickets: list[Ticket] = []
        #: Seconds that it waited for places.
        self.waited = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*`, as the key stood when this request was let in."""
        return {} if self._lease is None else self._lease.standings.headers()

    def settle(self, used: int | None) -> None:
        """It was answered, with so many tokens; None, where the target did not count them: what
        was reserved counts."""
        if self._lease is not None:
            self._lease.settle(self._clock(), used)

    def leave(self, *, uncount: bool = False) -> None:
        """Give its places back, and its tokens, unless settled. `uncount`: this server turned it
        away, so it is no request of the key's minute. More than once is once."""
        now = self._clock()
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            ticket.leave(now)
        if self._lease is not None:
            self._lease.release(now, uncount=uncount)


class Admission:
    """Who comes in, when. `rooms` has those of targets, too."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self.limiter = Limiter()
        self.rooms = Rooms(metrics, clock)

    @staticmethod
    def open(key: KeyInfo, max_in_flight: int | None, server_slots: int | None) -> bool:
        """Has nothing to be asked, so that `enter` is not needed?"""
        return key.limits is UNLIMITED and max_in_flight is None and server_slots is None

    async def enter(
        self,
        key: KeyInfo,
        model: str,
        max_in_flight: int | None,
        max_waiting: int,
        tokens: int,
        *,
        server_slots: int | None,
        server_waiting: int,
        deadline: float,
    ) -> Admitted:
        """Let in, after waiting until `deadline` at most. Does not await where places are free.

        Raises RateLimited for the key's limits, Overloaded where a room is full or the deadline
        passes. Who is not let in holds nothing, and counts as a request of its key only if it went
        by itself, by a cancellation.
        """
        admitted = Admitted(self._clock, self._lease(key, tokens))
        # Both before any waiting, so that a reload meanwhile counts for both.
        room, ways = self.rooms.room, []
        if max_in_flight is not None:
            ways.append(room("model", model, max_in_flight, max_waiting))
        if server_slots is not None:
            ways.append(room("server", _SERVER, server_slots, server_waiting))
        try:
            for way in ways:
                _, ticket = await self.rooms.first((way,), key.name, deadline)
                admitted._tickets.append(ticket)
                admitted.waited += ticket.waited or 0.0
        except RoundhouseError:
            admitted.leave(uncount=True)
            raise
        except BaseException:
            admitted.leave()
            raise
        return admitted

    def apply(
        self,
        keys: Collection[str],
        *,
        server: tuple[int, int] | None,
        models: Mapping[str, tuple[int, int]],
        targets: Mapping[str, tuple[int, int]],
        providers: Mapping[str, tuple[int, int]],
    ) -> None:
        """After a reload: the keys that there are, and (slots, bound) of what has a limit.

        It counts at once for who waits; who waits where no limit is any more is let in.
        """
        self.limiter.retain(keys)
        self.rooms.apply("server", {} if server is None else {_SERVER: server})
        self.rooms.apply("model", models)
        self.rooms.apply("target", targets)
        self.rooms.apply("provider", providers)

    def collect(self) -> None:
        """Bring the gauges up to now: before each scrape."""
        self.rooms.collect()

    def _lease(self, key: KeyInfo, tokens: int) -> Lease | None:
        if key.limits is UNLIMITED:
            return None
        found = self.limiter.admit(key.name, key.limits, tokens, self._clock())
        if isinstance(found, Refusal):
            self._metrics.shed.labels(_REASONS[found.reason]).inc()
            raise limited(found)
        return found


def limited(refusal: Refusal) -> RateLimited:
    """The error that tells a client of it."""
    limit, after = refusal.limit, refusal.retry_after
    again = "" if after is None else f" Try again in {duration(after)}."
    code = None
    match refusal.reason:
        case Reason.REQUESTS:
            text = f"This key may send {limit} requests per minute, and has.{again}"
        case Reason.TOKENS:
            text = (
                f"This key may use {limit} tokens per minute; this request may need "
                f"{refusal.asked}, estimated, and so many are not left.{again}"
            )
        case Reason.IN_FLIGHT:
            text = f"This key may have {limit} requests in flight, and has."
            after = _SOON
        case _:
            text = (
                f"This request may need {refusal.asked} tokens, estimated, and this key may use "
                f"only {limit} per minute."
            )
            code = "request_too_large"
    return RateLimited(text, standings=refusal.standings.headers(), code=code, retry_after=after)


def estimate(
    members: Mapping[str, Raw],
    surface: Surface,
    body_size: int,
    default_max: int | None,
    tpm: int | None,
) -> int:
    """Tokens to reserve: the prompt's, and those of the longest answers it asks for.

    Never more than `tpm`, unless the prompt alone is: a ceiling of answers that nobody will write
    refuses nobody. 0 without a `tpm`, and for what no model reads.
    """
    if tpm is None or surface in _UNREAD:
        return 0
    prompt = _prompt(members, body_size)
    if surface is Surface.EMBEDDINGS:
        return prompt
    if surface is Surface.RERANK:
        return prompt + _again(members)
    longest = _number(members, "max_completion_tokens") or _number(members, "max_tokens")
    answers = (_number(members, "n") or 1) * (longest or default_max or _ANSWER)
    return max(prompt, min(prompt + answers, tpm))


def _prompt(members: Mapping[str, Raw], body_size: int) -> int:
    """By the body's size. Pictures and sounds in it are not read as text."""
    if body_size < _LARGE or "messages" not in members:
        return body_size // _BYTES + 1
    inline, pieces = _inline(bytes(members["messages"]))
    return (body_size - inline) // _BYTES + 1 + pieces * _PIECE


def _again(members: Mapping[str, Raw]) -> int:
    """A reranker reads the query once more with each document after the first."""
    try:
        documents = len(_list.decode(members["documents"]))
    except (KeyError, msgspec.MsgspecError):
        return 0
    query = len(memoryview(members.get("query", _NOTHING)))
    return max(0, documents - 1) * query // _BYTES


def _inline(text: bytes) -> tuple[int, int]:
    """Bytes of the pictures and sounds in it, and how many there are, leaving out small ones.

    Between two quotes that are so far apart lies a multiple of _LARGE. So only there is looked, and
    the work is the same whatever a client has written elsewhere.
    """
    inline = pieces = end = 0
    for at in range(_LARGE, len(text), _LARGE):
        if at < end:
            continue
        start = text.rfind(b'"', end, at + 1) + 1
        end = text.find(b'"', at + 1)
        if end < 0:
            break
        found = _piece(text, start) if start and end - start >= _LARGE else None
        if found is not None and end - found >= _LARGE:
            inline += end - found
            pieces += 1
    return inline, pieces


def _piece(text: bytes, start: int) -> int | None:
    """Where in the string that begins here a picture or sound begins; None: it is a text."""
    if text.startswith(b"data:", start):
        head = text.find(_BASE64, start, start + _HEAD)
        return None if head < 0 else head + len(_BASE64)
    before = text[max(0, start - _HEAD) : start - 1].rstrip(_SPACE)
    if before.endswith(b":") and before[:-1].rstrip(_SPACE).endswith(_SOUND):
        return start
    return None


def _number(members: Mapping[str, Raw], name: str) -> int | None:
    """None for what is none, and for what is no number of tokens."""
    raw = members.get(name)
    value = None if raw is None or len(memoryview(raw)) > _DIGITS else number(raw)
    return int(value) if value is not None and 1 <= value <= _MOST else None
