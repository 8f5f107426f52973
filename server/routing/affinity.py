"""Affinity: the same conversation goes to the same target, where its prefix is cached. Pure.

Rendezvous hashing: each target draws a number from (key, its label), and the highest wins. A target
that goes away moves only its own keys, a new one takes only the keys that it wins. A target with
too much to do is passed over for the next in the key's own order, so that a popular key spreads to
the same few targets each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import inf, log
from typing import Final

import msgspec
from msgspec import Raw

#: A target may have so much more to do than its share before it is passed over: 1 + SPREAD.
SPREAD: Final = 0.25
#: A target with no more than this under way is never passed over. An engine answers a few requests
#: together about as fast as one; without the floor two requests at an idle site would part.
FLOOR: Final = 4
#: Bytes of a text that count.
_LOOKED_AT: Final = 4096

#: Keys fall into so many slots, and the order of targets is found once for each: hashing anew for
#: every request would cost more than all the rest of the decision.
_SLOTS: Final = 4096
#: 53 bits as a float in (0, 1): half a step keeps it off 0.
_UNIT: Final = 2.0**-53
_HALF: Final = 2.0**-54


class _Message(msgspec.Struct):
    role: str = ""
    content: Raw = Raw()


_messages: Final = msgspec.json.Decoder(list[_Message])
_SYSTEM: Final = frozenset({"system", "developer"})


def affinity_key(
    tenant: str | None,
    session: str | None = None,
    prompt_cache_key: str | None = None,
    first_system: bytes | None = None,
    first_user: bytes | None = None,
) -> bytes:
    """16 bytes for: tenant and session; else tenant and `prompt_cache_key`; else tenant and the
    first system and user messages. Empty when there is none of these: no target is better then.

    The tenant is always part of it, since engines' caches are salted per tenant: nothing is shared
    between two. Texts count by their first 4 KiB, as they stand in the body.
    """
    if session:
        parts = [b"session", _text(session)]
    elif prompt_cache_key:
        parts = [b"cache", _text(prompt_cache_key)]
    elif first_system or first_user:
        parts = [b"text", (first_system or b"")[:_LOOKED_AT], (first_user or b"")[:_LOOKED_AT]]
    else:
        return b""
    digest = hashlib.blake2b(digest_size=16)
    for part in (_text(tenant or ""), *parts):
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def first_texts(members: Mapping[str, Raw]) -> tuple[bytes | None, bytes | None]:
    """The contents of the first system and the first user message, as JSON; a completion's prompt
    as the user's. Nothing is built but roles; what is no list of messages has none."""
    if "messages" not in members:
        prompt = members.get("prompt")
        return None, None if prompt is None else _start(prompt)
    system = user = None
    try:
        messages = _messages.decode(members["messages"])
    except (msgspec.MsgspecError, RecursionError):
        return None, None
    for message in messages:
        if message.role == "user":
            user = _start(message.content)
            break
        if system is None and message.role in _SYSTEM:
            system = _start(message.content)
    return system, user


def hash_order(key: bytes, labels: tuple[str, ...], weights: tuple[float, ...]) -> tuple[int, ...]:
    """Positions in `labels`, best first. Over many keys each is first in proportion to its weight;
    weight 0 comes last. The same label twice stands by order."""
    return _slot_order(int.from_bytes(key[:8], "big") % _SLOTS, labels, weights)


def most_per_weight(
    loads: Sequence[float], weights: Sequence[float], *, spread: float = SPREAD
) -> float:
    """(1 + spread) × the share of one unit of weight in all that is under way; with equal weights
    of 1 that is (1 + spread) × the mean. Not all can be over it: one target is always left."""
    weight = sum(weights)
    return (1 + spread) * sum(loads) / weight if weight > 0 else inf


@lru_cache(maxsize=4 * _SLOTS)
def _slot_order(slot: int, labels: tuple[str, ...], weights: tuple[float, ...]) -> tuple[int, ...]:
    ranked = [
        (_score(slot, label, weight), position)
        for position, (label, weight) in enumerate(zip(labels, weights, strict=True))
    ]
    return tuple(position for _, position in sorted(ranked))


def _score(slot: int, label: str, weight: float) -> float:
    """Lower is better: an exponential draw of rate `weight`, whose least is a weighted choice. Not
    from `hash()`, which differs from process to process: servers side by side agree."""
    if weight <= 0:
        return inf
    digest = hashlib.blake2b(label.encode(), digest_size=8, key=slot.to_bytes(2, "big")).digest()
    return -log((int.from_bytes(digest, "big") >> 11) * _UNIT + _HALF) / weight


def _text(value: str) -> bytes:
    return value[:_LOOKED_AT].encode("utf-8", "surrogatepass")[:_LOOKED_AT]


def _start(value: Raw) -> bytes:
    return bytes(memoryview(value)[:_LOOKED_AT])
