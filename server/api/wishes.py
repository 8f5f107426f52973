"""What a client may say of how its request is routed: three headers and a member of the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
#: The member of a body that names fallbacks. No target ever sees it.
MEMBER: Final = "fallbacks"
#: Fallbacks that one request may name; more than two are never tried.
_MOST: Final = 8
#: Longer is no duration.
_LONGEST: Final = 32
#: Characters of a session that count.
_SESSION: Final = 256

_names: Final = msgspec.json.Decoder(list[str])


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
