"""Requests that an engine may have died of. Pure: deaths and answers in, who may go where out.

A process that dies takes every request with it that it was working on, and one of them may be the
cause. Most often none is: memory ran out, a driver failed, somebody killed it. So after one death
its requests are remembered and nothing else, and all go again at once. Who is in a second death, of
whichever engine, is a suspect, and is held back: it is sent where no other suspect is, so that the
next death tells. Where a death had many suspects, one by one would take too long: an eighth of them
may go together, and who is in a third death goes without others. Who is remembered, and no suspect,
is not sent beside one: it has lost an attempt already, and has not many. All other requests go
beside them as always.

Guilty, and refused for a while, is who was in two deaths and alone in the last of them: as the only
suspect there, or as the only body in flight. Who is answered is none any more, and what a guilty
one explains is held against nobody else.

The bound: a body that kills whatever works on it is refused after four deaths at the most, of all
engines together: two unheld, one among few suspects, one as the only suspect. Where another body
explains the first two, the third is unheld, too, and the fourth is not. Two are enough where it is
alone in the second, three where fewer than twice `SHARE` were in both. What is under way at several
processes at once, before it is held, may bring down each: one death more for each beyond the first.
So M such bodies cause 4 M deaths at the most, and one of them fewer than an engine is given up for
(`backoff.Policy.limit`). Deaths that are further apart than `WHILE` have nothing to do with each
other.

Where one such body is about, no other is ever refused. Where there are more, an innocent one can
be: if it was in two deaths, and is on its own trial when another that nobody knows yet kills. It is
only for a while.

A body is known by its digest, the same for all engines: what has killed one is not tried on all the
others in turn. Each tenant has its own: who can kill an engine at will could else have a body that
others send, too, in the deaths, and have it refused to them. What says nothing of the work is no
part of it: `model`, which says whose turn it is, ids of requests, and how the answer is sent.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from server.protocol.request import Request

#: Seconds for which a death is held against what it coincided with.
WHILE: Final = 600.0
#: Deaths from which on a body is held back, and refused if it was alone in the last of them.
DEATHS: Final = 2
#: From so many on it goes without other suspects, even if what it was in is explained.
PROVEN: Final = 3
#: Of so many suspects of one death one at a time is tried anew.
SHARE: Final = 8
#: Bodies that are remembered; the oldest are forgotten first.
MOST: Final = 4096
_NO_PART: Final = frozenset({"model", "request_id", "stream", "stream_options"})

#: An engine and the number of the start whose process died.
Death = tuple[str, int]


@dataclass(slots=True)
class _Remembered:
    """A body that was in flight at a death."""

    until: float
    #: All that it was in since it was last answered.
    seen: set[Death] = field(default_factory=set)
    #: Those of them that nobody else explains.
    deaths: set[Death] = field(default_factory=set)
    latest: Death | None = None
    #: In that one: nobody else can have caused it.
    alone: bool = False
    #: In that one: bodies that are suspects since then at the latest.
    group: int = 1
    #: Engines that have answered it.
    answered: set[str] = field(default_factory=set)

    @property
    def held(self) -> bool:
        return len(self.deaths) >= DEATHS or len(self.seen) >= PROVEN

    @property
    def limit(self) -> int:
        """So many suspects may be at an engine at one time, this one among them."""
        return 1 if len(self.seen) >= PROVEN else max(1, self.group // SHARE)

    @property
    def guilty(self) -> bool:
        return self.held and self.alone


@dataclass(slots=True)
class _Party:
    """Who was in flight at a death."""

    until: float
    bodies: set[bytes] = field(default_factory=set)
    #: Those of them that were there as suspects.
    suspects: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a death has shown."""

    #: Bodies that are remembered now, and not held back.
    remembered: int = 0
    #: Bodies that are suspects from now on, or again.
    suspects: int = 0
    #: Digests of those that are refused from now on.
    guilty: tuple[bytes, ...] = ()


class Suspects:
    """All of them, over all engines and all reloads. Times are monotonic seconds."""

    __slots__ = ("_accused", "_clock", "_inside", "_joined", "_known", "_parties", "_salt", "any")

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, salt: bytes | None = None
    ) -> None:
        self._clock = clock
        self._salt = salt or secrets.token_bytes(16)
        self._known: dict[bytes, _Remembered] = {}
        #: By a failure that may have been a death.
        self._accused: dict[Death, _Party] = {}
        #: Deaths of the last while.
        self._parties: dict[Death, _Party] = {}
        #: Suspects under way, by engine; and those who are remembered, and no suspects.
        self._inside: dict[str, Counter[bytes]] = {}
        self._joined: dict[str, Counter[bytes]] = {}
        #: Is there anybody to heed? Nothing costs anything while there is not.
        self.any = False

    def digest_of(self, request: Request) -> bytes:
        """What stands for the request's body; found out once."""
        if request.digest is None:
            request.digest = self.digest(request.surface, request.members, request.tenant)
        return request.digest

    def digest(
        self, surface: str, members: Mapping[str, object], tenant: str | None = None
    ) -> bytes:
        """Of a body's members, in any order."""
        whose = f"{surface}\0{tenant or ''}"
        found = hashlib.blake2b(whose.encode(), digest_size=16, key=self._salt)
        for name in sorted(members):
            if name in _NO_PART:
                continue
            value = memoryview(members[name])  # type: ignore[arg-type]
            found.update(f"\0{len(name)}\0{name}\0{value.nbytes}\0".encode())
            found.update(value)
        return found.digest()

    # --- deaths -------------------------------------------------------------------------------

    def accuse(self, engine: str, generation: int, digest: bytes) -> bool:
        """An attempt with this body broke off there, and it may show that the process has died. Is
        it the first of that process? Then `died` or `lived` has to follow."""
        death = engine, generation
        first = death not in self._accused
        party = self._accused.setdefault(death, _Party(self._clock() + WHILE))
        party.bodies.add(digest)
        if digest in self._inside.get(engine, ()) and self._is_suspect(engine, digest):
            party.suspects.add(digest)
        self.any = True
        return first

    def lived(self, engine: str, generation: int) -> None:
        """That process is well, or was asked to end: nobody is to blame."""
        self._accused.pop((engine, generation), None)
        self._look()

    def died(self, engine: str, generation: int) -> Judged:
        """That process is dead. Who is found later to have been in that death, too, is judged with
        the others, and they anew."""
        death, now = (engine, generation), self._clock()
        self._forget(now)
        accused = self._accused.pop(death, None) or _Party(now)
        party = self._parties.setdefault(death, _Party(now + WHILE))
        before = self._guilty_of(death)
        for digest in accused.bodies - party.bodies:
            found = self._known.pop(digest, None) or _Remembered(now)
            found.seen.add(death)
            found.deaths.add(death)
            found.answered.discard(engine)
            found.until, found.latest = now + WHILE, death
            self._known[digest] = found
        party.bodies |= accused.bodies
        party.suspects |= accused.suspects
        here = {d: one for d in party.bodies if (one := self._last_in(death, d)) is not None}
        held = [digest for digest, one in here.items() if one.held]
        for digest, one in here.items():
            beside = party.suspects if digest in party.suspects else party.bodies
            one.alone, one.group = len(beside) == 1, len(held)
        guilty = self._guilty_of(death)
        for digest in guilty:
            self._explain(digest)
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        self._look()
        suspects = len(accused.bodies.intersection(held))
        return Judged(len(accused.bodies) - suspects, suspects, tuple(guilty - before))

    def _last_in(self, death: Death, digest: bytes) -> _Remembered | None:
        one = self._known.get(digest)
        return one if one is not None and one.latest == death else None

    def _guilty_of(self, death: Death) -> set[bytes]:
        """Who is guilty of it, as things are known now."""
        bodies = self._parties[death].bodies
        return {d for d in bodies if (one := self._last_in(death, d)) is not None and one.guilty}

    def _explain(self, digest: bytes) -> None:
        """What this one has caused is held against nobody else."""
        caused = self._known[digest].deaths
        for other, one in self._known.items():
            if other != digest and not one.guilty:
                one.deaths -= caused

    def answered(self, engine: str, digest: bytes) -> bool:
        """That engine has answered it, whatever the answer. Was it remembered there?"""
        one = self._known.get(digest)
        if one is None:
            return False
        was = engine not in one.answered
        one.seen = {death for death in one.seen if death[0] != engine}
        one.deaths &= one.seen
        one.answered.add(engine)
        if not one.seen:
            del self._known[digest]
        self._look()
        return was

    # --- who may go where ---------------------------------------------------------------------

    def refused(self, engine: str, digest: bytes) -> float | None:
        """Seconds for which this engine does not get it; None: it may have it."""
        now = self._clock()
        self._forget(now)
        one = self._known.get(digest)
        if one is None or not one.guilty or engine in one.answered:
            return None
        return one.until - now

    def may_go(self, engine: str, digest: bytes) -> bool:
        """May an attempt with it begin there now? Not while nobody knows yet whether it was in a
        death; nor a suspect beside others, or where itself is under way; nor one that has lost an
        attempt already beside a suspect."""
        self._forget(self._clock())
        if self.accused(digest):
            return False
        if not self._is_remembered(engine, digest):
            return True
        if not self._is_suspect(engine, digest):
            return engine not in self._inside
        if any(other != digest for other in self._joined.get(engine, ())):
            return False
        if any(digest in inside for inside in self._inside.values()):
            return False
        others = self._inside.get(engine, ())
        limits = [one.limit for other in others if (one := self._known.get(other)) is not None]
        return not others or len(others) < min([self._known[digest].limit, *limits])

    def accused(self, digest: bytes) -> bool:
        """Was it where something broke off, and nobody knows yet whether that was a death?"""
        return any(digest in party.bodies for party in self._accused.values())

    def enter(self, engine: str, digest: bytes) -> bool:
        """An attempt with it begins there. Is it a suspect? Then `leave` has to follow."""
        if not self._is_suspect(engine, digest):
            return False
        self._inside.setdefault(engine, Counter())[digest] += 1
        return True

    def leave(self, engine: str, digest: bytes) -> None:
        """That attempt is over."""
        _leave(self._inside, engine, digest)

    def join(self, engine: str, digest: bytes) -> bool:
        """As `enter`: is it one that is remembered, and no suspect? Then `part` has to follow."""
        if not self._is_remembered(engine, digest):
            return False
        self._joined.setdefault(engine, Counter())[digest] += 1
        return True

    def part(self, engine: str, digest: bytes) -> None:
        _leave(self._joined, engine, digest)

    def _is_remembered(self, engine: str, digest: bytes) -> bool:
        one = self._known.get(digest)
        return one is not None and engine not in one.answered

    def _is_suspect(self, engine: str, digest: bytes) -> bool:
        return self._is_remembered(engine, digest) and self._known[digest].held

    def _forget(self, now: float) -> None:
        """Those whose time is over: the first ones, since each death puts its own at the end."""
        while self._known:
            digest = next(iter(self._known))
            if self._known[digest].until > now:
                break
            del self._known[digest]
        while self._parties:
            death = next(iter(self._parties))
            if self._parties[death].until > now:
                break
            del self._parties[death]
        self._look()

    def _look(self) -> None:
        self.any = bool(self._known or self._accused)


def _leave(where: dict[str, Counter[bytes]], engine: str, digest: bytes) -> None:
    inside = where[engine]
    inside[digest] -= 1
    if not inside[digest]:
        del inside[digest]
    if not inside:
        del where[engine]
