"""Requests that an engine may have died of. Pure: deaths and answers in, who may go where out.

A process that dies takes every request with it that it was working on, and one of them may be the
cause. All are suspects then. A suspect is sent alone, that is, not beside other suspects of that
engine, so that the next death tells: who was alone in it is held to have caused it, and is refused
for a while. Who is answered is none any more, and what a culprit explains is held against nobody
else.

Where a death had many suspects, one by one would take too long: an eighth of them may go together,
and who dies among them goes with an eighth of those.

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
#: Different deaths from which on a body is refused, if it was alone in the last of them.
DEATHS: Final = 2
#: Of so many suspects of one death one at a time is tried anew.
SHARE: Final = 8
#: Bodies that are remembered; the oldest are forgotten first.
MOST: Final = 1024
_NO_PART: Final = frozenset({"model", "request_id", "stream", "stream_options"})

#: An engine and the number of the start whose process died.
Death = tuple[str, int]


@dataclass(slots=True)
class _Suspect:
    deaths: set[Death]
    until: float
    #: How many could have caused the last of them, itself among them.
    group: int = 1
    #: Engines that have answered it.
    answered: set[str] = field(default_factory=set)

    @property
    def limit(self) -> int:
        """So many suspects may be at an engine at one time, this one among them."""
        return max(1, self.group // SHARE)

    @property
    def guilty(self) -> bool:
        return self.group == 1 and len(self.deaths) >= DEATHS


@dataclass(frozen=True, slots=True)
class Judged:
    """What a death has shown."""

    #: Bodies that are suspects from now on, or again.
    suspects: int = 0
    #: Digests of those that are refused from now on.
    guilty: tuple[bytes, ...] = ()


class Suspects:
    """All of them, over all engines and all reloads. Times are monotonic seconds."""

    __slots__ = ("_accused", "_clock", "_inside", "_known", "_salt", "any")

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, salt: bytes | None = None
    ) -> None:
        self._clock = clock
        self._salt = salt or secrets.token_bytes(16)
        self._known: dict[bytes, _Suspect] = {}
        #: By a failure that may have been a death.
        self._accused: dict[Death, set[bytes]] = {}
        #: Suspects under way, by engine.
        self._inside: dict[str, Counter[bytes]] = {}
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
        self._accused.setdefault(death, set()).add(digest)
        self.any = True
        return first

    def lived(self, engine: str, generation: int) -> None:
        """That process is well, or was asked to end: nobody is to blame."""
        self._accused.pop((engine, generation), None)
        self._look()

    def died(self, engine: str, generation: int) -> Judged:
        """That process is dead."""
        death, now = (engine, generation), self._clock()
        accused = self._accused.pop(death, set())
        self._forget(now)
        again = {digest for digest in accused if self._is_suspect(engine, digest)}
        guilty = []
        for digest in accused:
            one = self._known.pop(digest, None) or _Suspect(set(), now)
            one.deaths.add(death)
            one.answered.discard(engine)
            one.until, one.group = now + WHILE, len(again if digest in again else accused)
            self._known[digest] = one
            if one.guilty:
                guilty.append(digest)
        for digest in guilty:
            self._explain(digest)
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        self._look()
        return Judged(len(accused), tuple(guilty))

    def _explain(self, digest: bytes) -> None:
        """What this one has caused is held against nobody else."""
        caused = self._known[digest].deaths
        for other, one in list(self._known.items()):
            if other != digest and not one.guilty:
                one.deaths -= caused
                if not one.deaths:
                    del self._known[other]

    def answered(self, engine: str, digest: bytes) -> bool:
        """That engine has answered it, whatever the answer. Was it a suspect there?"""
        one = self._known.get(digest)
        if one is None:
            return False
        was = self._is_suspect(engine, digest)
        one.deaths = {death for death in one.deaths if death[0] != engine}
        one.answered.add(engine)
        if not one.deaths:
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
        death; nor beside other suspects, if it is one."""
        self._forget(self._clock())
        if any(digest in accused for accused in self._accused.values()):
            return False
        if not self._is_suspect(engine, digest):
            return True
        others = [other for other in self._inside.get(engine, ()) if other != digest]
        limits = [one.limit for other in others if (one := self._known.get(other)) is not None]
        return len(others) < min([self._known[digest].limit, *limits]) or not others

    def enter(self, engine: str, digest: bytes) -> bool:
        """An attempt with it begins there. Is it a suspect? Then `leave` has to follow."""
        if not self._is_suspect(engine, digest):
            return False
        self._inside.setdefault(engine, Counter())[digest] += 1
        return True

    def leave(self, engine: str, digest: bytes) -> None:
        """That attempt is over."""
        inside = self._inside[engine]
        inside[digest] -= 1
        if not inside[digest]:
            del inside[digest]
        if not inside:
            del self._inside[engine]

    def _is_suspect(self, engine: str, digest: bytes) -> bool:
        one = self._known.get(digest)
        return one is not None and engine not in one.answered

    def _forget(self, now: float) -> None:
        """Those whose time is over: the first ones, since each death puts its own at the end."""
        while self._known:
            digest = next(iter(self._known))
            if self._known[digest].until > now:
                break
            del self._known[digest]
        self._look()

    def _look(self) -> None:
        self.any = bool(self._known or self._accused)
