"""What every dialect is: pure functions between OpenAI's shapes, which clients speak, and a
provider's own.

A dialect is told what the client asked (`Asked`) and never keeps anything between two requests;
what one stream needs is in its `Reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec import Raw

from server.dialects.openai import Facts, Usage
from server.errors import UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.request import Request

_BASE64: Final = Raw(b'"base64"')


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request in a provider's own words.

    `path` stands under the account's base URL. `dropped` names the members of the client's body
    that this dialect has no place for and the target's `drop` allowed to lose, and what merely
    advises and is let go without leave (`messages.name`: fit for a header); `lowered` those whose
    value had to be brought into the provider's range.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    lowered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the request an answer needs: the model as the client named it, whether a stream shall
    end with an event of its usage, whether embeddings are wanted in base64, and what OpenAI's
    answers carry besides (`id`, `created` in seconds since 1970)."""

    surface: Surface
    model: str
    id: str
    created: int
    wants_usage: bool = False
    base64: bool = False


#: What the ids of OpenAI's answers begin with.
_IDS: Final = {
    Surface.CHAT: "chatcmpl-",
    Surface.COMPLETIONS: "cmpl-",
    Surface.EMBEDDINGS: "embd-",
}


def asked(request: Request, created: int) -> Asked:
    """Of this request; its id is in the answer's, so that logs and answers meet. `created` is in
    seconds since 1970."""
    surface = request.surface
    return Asked(
        surface=surface,
        model=request.model,
        id=_IDS.get(surface, f"{surface.value}-") + request.id.removeprefix("req_"),
        created=created,
        wants_usage=request.wants_usage,
        base64=request.members.get("encoding_format") == _BASE64,
    )


class Reader(Protocol):
    """One stream, event by event."""

    #: What was counted until now; providers revise it, and the last word counts.
    usage: Usage | None
    #: The provider said that the answer is complete.
    done: bool

    def feed(self, event: str | None, payload: bytes) -> Sequence[bytes]:
        """The payloads of OpenAI's chunks that this event comes to, without `data:`; with the last
        ones `b"[DONE]"`. Unknown events come to nothing. Raises UpstreamError: an `error` event, an
        end that is an error, or bytes that are no event of this dialect."""


class Dialect(Protocol):
    """A provider's wire format. `name` is the word of the config; `lacks` names the abilities
    (of `routing.abilities.PARAMETERS`) that no model behind it has, so that a request which needs
    one is not sent there: `request_out` would refuse it."""

    name: str
    lacks: frozenset[str]

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        """The request for this provider. `members` are those of the body as they are to be sent
        (defaults filled in), still as JSON; `settings` are the account's for this dialect.

        Raises InvalidRequest, with `param`, for what the provider has no word for and `drop` does
        not name: nothing is lost in silence."""

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        """A whole answer as OpenAI's JSON, and what the relay must know of it. Raises
        UpstreamError where it is an error in an answer's clothes, or none of this dialect."""

    def reader(self, asked: Asked) -> Reader:
        """For one stream."""

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        """The error that an answer with this status stands for."""
