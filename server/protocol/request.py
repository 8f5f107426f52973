"""One client's request after the door: checked, authorised, and not yet anybody's to answer."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Raw

from server.protocol.envelope import Surface


@dataclass(slots=True)
class Request:
    """What routing needs of a request.

    `id` is ours (never the client's), `model` the name the client wrote, `members` the body's
    members still as JSON. `tenant` separates prefix caches; None without keys. `arrived` and
    `deadline` are `time.monotonic()` seconds. `key` names the client's key, for fair turns;
    `session` is the client's word for what belongs together. `dropped` has the names of fields
    that the last attempt's body went without, `clamped` of those that it has lowered, for the
    response headers that say so. `keep_alive` is how many seconds after it the client wishes the
    model's engine to stay loaded. `digest` stands for the body, where somebody has asked for that.
    """

    id: str
    surface: Surface
    model: str
    members: dict[str, Raw]
    stream: bool
    wants_usage: bool
    legacy_functions: bool
    tenant: str | None
    arrived: float
    deadline: float
    key: str = ""
    session: str | None = None
    keep_alive: float | None = None
    dropped: tuple[str, ...] = ()
    clamped: tuple[str, ...] = ()
    digest: bytes | None = None
