"""What a client may say of how its request is routed: headers, and members of the body that no
target ever sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from server.access.keys import KeyInfo
from server.api.services import Services
from server.config.units import seconds
from server.errors import InvalidRequest
from server.routing.chain import Chain, Group

FALLBACKS: Final = b"x-roundhouse-fallbacks"
TIMEOUT: Final = b"x-roundhouse-timeout"
SESSION: Final = b"x-roundhouse-session"
KEEP_ALIVE: Final = b"x-roundhouse-keep-alive"
HEADERS: Final = frozenset({FALLBACKS, TIMEOUT, SESSION, KEEP_ALIVE})
#: The member of a body that names fallbacks.
MEMBER: Final = "fallbacks"
#: How long its engine stays loaded, by the name that Ollama gives it.
STAYS: Final = "keep_alive"
#: Fallbacks that one request may name; more than two are never tried.
_MOST: Final = 8
#: Longer is no duration.
_LONGEST: Final = 32
#: Characters of a session that count.
_SESSION: Final = 256

_names: Final = msgspec.json.Decoder(list[str])
_any: Final = msgspec.json.Decoder()


class Wishes(NamedTuple):
    """`chain` as the client wants it; how many seconds the request may take; what it belongs to;
    how many seconds its engine stays loaded after it, infinity for ever."""

    chain: Chain
    patience: float
    session: str | None = None
    keep_alive: float | None = None


def heard(
    services: Services,
    key: KeyInfo,
    chain: Chain,
    members: dict[str, Raw],
    headers: Mapping[bytes, bytes],
    most: float,
) -> Wishes:
    """All of them. `most`: seconds that any request may take. Takes members of ours out of
    `members`. Raises InvalidRequest, and what `chain_of` raises."""
    stays = members.pop(STAYS, None)
    return Wishes(
        chain_of(services, key, chain, members, headers),
        patience_of(headers, most),
        session_of(headers),
        keep_alive_of(headers.get(KEEP_ALIVE), stays),
    )


def chain_of(
    services: Services,
    key: KeyInfo,
    chain: Chain,
    members: dict[str, Raw],
    headers: Mapping[bytes, bytes],
) -> Chain:
    """The chain as the client wants it. Takes the member `fallbacks` out of `members`. Raises
    InvalidRequest, and for models that the key may not use what `Services.find` raises."""
    named = members.pop(MEMBER, None)
    said = headers.get(FALLBACKS)
    if said is not None:
        word = said.strip().lower()
        if word == b"off":
            return chain.alone()
        if word != b"on":
            raise InvalidRequest(
                "The header x-roundhouse-fallbacks says `off`, or `on` (the default).",
                param="x-roundhouse-fallbacks",
            )
    if named is None or bytes(named) == b"null":
        return chain
    return chain.with_fallbacks(_groups(services, key, chain, named))


def _groups(services: Services, key: KeyInfo, chain: Chain, named: Raw) -> list[Group]:
    try:
        names = _names.decode(named)
    except msgspec.MsgspecError:
        raise InvalidRequest(
            "`fallbacks` should be a list of models' names.", param=MEMBER, code="invalid_type"
        ) from None
    if len(names) > _MOST:
        raise InvalidRequest(
            f"`fallbacks` holds {len(names)} models; {_MOST} are allowed.",
            param=MEMBER,
            code="over_limit",
        )
    groups = {}
    for name in names:
        own = services.find(name, key, param=MEMBER).own
        groups[own.model] = own
    groups.pop(chain.own.model, None)
    return list(groups.values())


def patience_of(headers: Mapping[bytes, bytes], most: float) -> float:
    """Seconds that the request may take, at most `most`. Raises InvalidRequest."""
    said = headers.get(TIMEOUT)
    if said is None:
        return most
    try:
        wanted = float(seconds(said.decode("latin-1"))) if len(said) <= _LONGEST else 0.0
    except ValueError:
        wanted = 0.0
    if wanted <= 0:
        raise InvalidRequest(
            "The header x-roundhouse-timeout should be a duration: 30 (seconds), 500ms, 2m.",
            param="x-roundhouse-timeout",
        )
    return min(wanted, most)


def session_of(headers: Mapping[bytes, bytes]) -> str | None:
    """What the client says belongs together, for the policy `affinity`."""
    said = headers.get(SESSION)
    return None if said is None else said[:_SESSION].decode("latin-1") or None


def keep_alive_of(header: bytes | None, member: Raw | None) -> float | None:
    """Seconds that the engine stays loaded after this request, infinity for ever; None: nothing was
    said. The header comes first. Raises InvalidRequest."""
    if header is not None:
        found = _stay(header.decode("latin-1")) if len(header) <= _LONGEST else None
        if found is None:
            raise _no_stay("The header x-roundhouse-keep-alive", KEEP_ALIVE.decode())
        return found
    if member is None or bytes(member) == b"null":
        return None
    try:
        said = _any.decode(member) if len(memoryview(member)) <= _LONGEST else None
    except msgspec.MsgspecError:  # a number that is none for us
        said = None
    if (found := _stay(said)) is None:
        raise _no_stay("`keep_alive`", STAYS)
    return found


def _stay(said: Any) -> float | None:
    """What is below 0 is for ever, as Ollama has it."""
    if isinstance(said, str):
        said = said.strip().lower()
        if said == "forever":
            return math.inf
        sign, said = (-1, said[1:]) if said.startswith("-") else (1, said)
    else:
        sign, said = (-1, -said) if isinstance(said, int | float) and said < 0 else (1, said)
    try:
        found = float(seconds(said))
    except (ValueError, OverflowError):
        return None
    return math.inf if sign < 0 and found else found


def _no_stay(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} should be a duration (300, 5m, 1h30m), 0, or -1 for ever.", param=param
    )
