"""OpenAI's dialect as one that is translated, for what stands upon it: everything passes as it is.

Accounts without such a need have no dialect here; their bytes go by untouched, in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from server.dialects import openai, shapes
from server.dialects.base import Asked, Outgoing, Reader
from server.dialects.openai import Facts, Usage
from server.dialects.passing import no_surface, passed, plain_history
from server.dialects.tidy import is_object
from server.errors import UpstreamAborted, UpstreamStatus
from server.protocol.envelope import emit
from server.protocol.request import Request
from server.protocol.sse import LAST

_USAGE: Final = b'"usage"'
_NONE: Final = (b":null", b": null")


class Plain:
    """See `dialects.base.Dialect`."""

    name = "openai"
    lacks: frozenset[str] = frozenset()
    #: Who it is and what it has, for refusals; and what it would refuse in an assistant's messages.
    who = "This provider"
    has = "chat, completions or embeddings"
    foreign: tuple[str, ...] = ()

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        path = openai.PATHS.get(request.surface)
        if path is None:
            raise no_surface(self.who, request.surface, self.has)
        out, dropped = passed(request, members, model=model, drop=drop)
        if self.foreign and "messages" in out:
            out["messages"], lost = plain_history(out["messages"], self.foreign)
            dropped += lost
        return Outgoing(path, emit(out), dropped=tuple(dropped))

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        return payload, openai.answer_in(payload)

    def reader(self, asked: Asked) -> Reader:
        return PlainReader(asked)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return openai.error_in(status, body)


class PlainReader:
    """One stream (see `dialects.base.Reader`): only the event of a usage that nobody asked for is
    kept back."""

    __slots__ = ("_wants_usage", "done", "usage")

    def __init__(self, asked: Asked) -> None:
        self.usage: Usage | None = None
        self.done = False
        self._wants_usage = asked.wants_usage

    def feed(self, event: str | None, payload: bytes) -> Sequence[bytes]:
        if self.done or not payload:
            return ()
        if payload == LAST:
            self.done = True
            return (payload,)
        if event != "error" and not _is_odd(payload) and is_object(payload):
            return (payload,)
        facts = openai.event_in(payload)
        if facts.error is not None or event == "error":
            raise openai.error_of_event(facts.error or shapes.decoded(payload))
        if facts.aborted:
            raise UpstreamAborted("The upstream gave up on its answer.", detail="finished: abort")
        if facts.usage is not None:
            self.usage = facts.usage
        return () if facts.usage_only and not self._wants_usage else (payload,)


def _is_odd(payload: bytes) -> bool:
    """Does it have a sign of usage, of an error, or of an end that is one?"""
    at = payload.find(_USAGE)
    if at >= 0 and not payload.startswith(_NONE, at + len(_USAGE)):
        return True
    return b'"error"' in payload or b'"abort"' in payload
