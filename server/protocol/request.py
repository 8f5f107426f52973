"""One client's request after the door: checked, authorised, and not yet anybody's to answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Raw

from server.protocol.envelope import Surface


@dataclass(slots=True)
class Request:
    """What routing needs of a request.

    `id` is ours (never the client's), `model` the name the client wrote, `members` the body's
    members still as JSON. `tenant` separates prefix caches; None without keys. `arrived` and
    `deadline` are `time.monotonic()` seconds. `dropped` collects the names of fields that were
    taken out, `clamped` has those that the last attempt's body has lowered, for the response
    headers that say so.
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
    dropped: list[str] = field(default_factory=list)
    clamped: tuple[str, ...] = ()
