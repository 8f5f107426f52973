"""The words of the table of rows, and what providers' answers are made of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fakes.exchange import Headers, Script
from tests.fakes.scripts import Item, answer_bytes, answer_json, done, sse

#: The account's, and what providers tell of it: no client of ours ever reads any of these.
SECRET: Final = "sk-proj-4f9aXb7Qp2Lm8Rt6Zk3L"
OURS: Final = ("org_01hv9Zk3LmQ8vBn2Xc7T", "org-9Zk3LmQ8vBn2Xc7T", "acct-of-the-house")
#: With every answer: of the account, of their house, and of this one connection.
TELLING: Final = {
    "openai-organization": OURS[1],
    "x-account": OURS[2],
    "set-cookie": "session=of-the-house",
    "x-request-id": "req_theirs",
    "strict-transport-security": "max-age=1",
    "server": "theirs",
}


@dataclass(frozen=True)
class Reads:
    """What the SDK reads. `calls`: names and arguments; `usage`: prompt and completion."""

    text: str = "Hello"
    thoughts: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    usage: tuple[int, int] | None = (7, 2)


@dataclass(frozen=True)
class Quirk:
    """An answer of theirs, and what the client makes of it."""

    script: Script
    reads: Reads = Reads()
    stream: bool = True


@dataclass(frozen=True)
class Trouble:
    """An error of theirs, and what the client hears. `words` stand in the message."""

    script: Script
    status: int
    code: str | None
    words: str
    retry_after: str | None = None
    param: str | None = None
    stream: bool = False


@dataclass(frozen=True)
class Row:
    """`auth`: the header with the key, and what stands before it; None: it has no key. `said`: more
    of the account in the config; `sent`: headers that arrive because of it."""

    url: str
    quirks: tuple[Quirk, ...]
    troubles: tuple[Trouble, ...]
    auth: tuple[str, str] | None = ("authorization", "Bearer ")
    said: Mapping[str, Any] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)


REFUSED: Final = "upstream_refused_credentials"
ACCOUNT: Final = "refused this server's credentials or account"


def stream(*items: Item, ends: bool = True) -> Script:
    """Cut at random places, the same in every run."""
    events = [*items, done] if ends else [*items]
    return sse(events, headers=TELLING, splits=random.Random(len(events)))


def answer(status: int, obj: Any, headers: Headers = ()) -> Script:
    more = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    return answer_json(status, obj, [*TELLING.items(), *more])


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> Any:
    """One of OpenAI's; None for `delta`: without any choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1795219200,
        "model": "theirs",
        "choices": choices,
        **more,
    }


def usage(**more: Any) -> dict[str, Any]:
    return {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, **more}


OPEN: Final = chunk({"role": "assistant", "content": ""})
HEL: Final = chunk({"content": "Hel"})
LO: Final = chunk({"content": "lo"})
STOP: Final = chunk({}, "stop")
USAGE: Final = chunk(usage=usage())


def whole(finish: str = "stop", message: dict[str, Any] | None = None, **more: Any) -> Any:
    said = {"role": "assistant", "content": "Hello", **(message or {})}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1795219200,
        "model": "theirs",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": usage(),
        **more,
    }


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def loose(payload: bytes, headers: Headers = ()) -> Script:
    return answer_bytes(200, payload, [*TELLING.items(), *dict(headers).items()])
