"""Four upstreams that fall ill, one of them every second, and what makes them ill: from a seed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fakes.upstream import (
    Connection,
    Exchange,
    Script,
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    bad_utf8,
    chat_answer,
    chat_events,
    cut_chunk,
    error,
    garbage,
    garbage_event,
    short_body,
    sse,
)
from tests.faults.checked import pieces_for
from tests.faults.process import PROGRAM

#: The server looks up names with this ending in a folder: there, a file of the name means that
#: nobody knows it. It remembers no name, so that each new connection depends on that.
ZONE: Final = ".test"
SERVER: Final = f"""
import pathlib, socket, sys
from server.transport import names

graves = pathlib.Path(sys.argv[1]).with_name("graves")
real = socket.getaddrinfo

def look_up(host, *args, **more):
    if str(host).endswith("{ZONE}"):
        if (graves / host).exists():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = "127.0.0.1"
    return real(host, *args, **more)

socket.getaddrinfo = look_up
names.KEPT = 0.0
{PROGRAM}"""


class Fault(StrEnum):
    """What befalls one upstream for a second or two; `STORM` befalls all of them."""

    DOWN = "down"
    RESET = "reset"
    STALL = "stall"
    CUT = "cut"
    GARBAGE = "garbage"
    ERRORS = "errors"
    STORM = "storm"
    LIMITED = "limited"
    SLOW = "slow"
    DNS = "dns"
    TLS = "tls"
    AUTH = "auth"


#: A refused credential keeps its target out for half a minute and more: seconds between two.
_AUTH: Final = 36
#: By the code of an error, or of the event that broke a stream: what may have caused it.
CAUSES: Final[dict[str, frozenset[Fault]]] = {
    "upstream_unreachable": frozenset({Fault.DOWN, Fault.DNS, Fault.TLS}),
    "upstream_reset": frozenset({Fault.RESET, Fault.DOWN, Fault.DNS, Fault.TLS, Fault.CUT}),
    "upstream_truncated": frozenset({Fault.RESET, Fault.DOWN, Fault.TLS, Fault.CUT}),
    "upstream_timeout": frozenset({Fault.STALL}),
    "upstream_protocol": frozenset({Fault.GARBAGE}),
    "upstream_refused_credentials": frozenset({Fault.AUTH}),
    "upstream_rate_limited": frozenset({Fault.LIMITED}),
    "limited": frozenset({Fault.LIMITED}),
    "upstream_error": frozenset({Fault.ERRORS, Fault.STORM}),
    # Breakers stay open beyond what opened them, and one target has the work of all others.
    "no_target_left": frozenset(Fault),
    "overloaded": frozenset(Fault),
}
#: Seconds for which a fault explains what comes after it. A closed connection is noticed late.
_LATE: Final = {"no_target_left": 60.0, "overloaded": 10.0}

_BROKEN: Final = answer_json(500, error("inside", code="broken"))
_REFUSALS: Final[dict[Fault | None, Script]] = {
    Fault.ERRORS: _BROKEN,
    Fault.STORM: _BROKEN,
    Fault.LIMITED: answer_json(429, error("slow down", code="limited"), {"retry-after": "1"}),
    Fault.AUTH: answer_json(401, error("no such key", code="invalid_api_key")),
}
_GARBAGE: Final = (
    garbage(),
    answer_bytes(200, b"<html>502 of some proxy</html>"),
    answer_bytes(200, b'{"choices": ["\xff\xfe"]}'),
)
#: Seconds between two pieces, and of one that is slow.
_GAP: Final = 0.02
_SLOW: Final = 0.3


class Patient:
    """An upstream. While it is well it answers every question, piece by piece."""

    def __init__(self, name: str, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        # Holds the port while the upstream is down.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        port = self._place.getsockname()[1]
        self.upstream = ScriptedUpstream(self._answer, port=port, ssl=tls)
        self.fault: Fault | None = None
        #: Requests that came in whole.
        self.seen = 0
        self._busy: set[Connection] = set()

    @property
    def base_url(self) -> str:
        scheme = self.upstream.url.partition(":")[0]
        return f"{scheme}://{self.name}{ZONE}:{self.upstream.port}/v1"

    async def start(self) -> None:
        await self.upstream.start()

    async def close(self) -> None:
        await self.upstream.stop()
        self._place.close()
        assert self.upstream.failures == []

    async def restart(self, tls: ssl.SSLContext | None) -> None:
        """With another certificate. What is connected is reset."""
        await self.upstream.stop()
        self.upstream._ssl = tls
        await self.upstream.start()

    def hang_up_idle(self) -> None:
        """Close the connections that wait for a request."""
        for connection in self.upstream.connections:
            if connection not in self._busy and not connection.lost.is_set():
                connection.close()

    # --- answers

    async def _answer(self, exchange: Exchange) -> None:
        self.seen += 1
        self._busy.add(exchange.connection)
        try:
            await self._begin(exchange)
        finally:
            self._busy.discard(exchange.connection)
        if self.fault in (Fault.DNS, Fault.TLS):  # the next one has to connect anew
            await exchange.complete()
            exchange.close()

    async def _begin(self, exchange: Exchange) -> None:
        pieces, stream = pieces_for(exchange, self.name)
        fault = self.fault
        if fault in _REFUSALS:
            await _REFUSALS[fault](exchange)
        elif fault is Fault.GARBAGE:
            await _GARBAGE[exchange.number % len(_GARBAGE)](exchange)
        elif fault is Fault.RESET:
            exchange.reset()
        elif fault is Fault.STALL:
            await exchange.hang()
        elif stream:
            events = chat_events(pieces)
            await sse([item for event in events for item in (self._pass, event)])(exchange)
        elif fault is Fault.CUT:
            await short_body()(exchange)
        else:
            await exchange.wait(asyncio.sleep(_SLOW if fault is Fault.SLOW else _GAP))
            await chat_answer("".join(pieces))(exchange)

    async def _pass(self, exchange: Exchange) -> None:
        """What comes between two events of a stream: some time, or the end."""
        match self.fault:
            case Fault.RESET:
                exchange.reset()
            case Fault.STALL:
                await exchange.hang()
            case Fault.CUT:
                await cut_chunk(exchange)
            case Fault.GARBAGE:
                if exchange.number % 2:
                    await exchange.event(garbage_event)
                else:
                    await exchange.chunk(bad_utf8)
            case Fault.SLOW:
                await exchange.wait(asyncio.sleep(_SLOW))
            case _:
                await exchange.wait(asyncio.sleep(_GAP))


@dataclass(slots=True)
class Blow:
    """A fault of one upstream. Times are those of the loop."""

    fault: Fault
    name: str
    began: float
    ended: float = float("inf")


class Killer:
    """Strikes once a second. `graves`: see ZONE. `stranger`: a certificate that nobody trusts."""

    def __init__(
        self, patients: Sequence[Patient], graves: Path, random: Random, stranger: ssl.SSLContext
    ) -> None:
        self._patients, self._graves, self._random = patients, graves, random
        self._stranger = stranger
        self.blows: list[Blow] = []
        self._deck: list[Fault] = []
        self._start = 0.0

    def since(self, moment: float) -> float:
        """Seconds from the first blow to a moment of the loop's clock."""
        return moment - self._start

    async def run(self, seconds: int) -> None:
        """Until the last one is over."""
        loop = asyncio.get_running_loop()
        self._start = start = loop.time()
        async with asyncio.TaskGroup() as group:
            for second in range(seconds):
                await asyncio.sleep(start + second - loop.time())
                for patient, fault, length in self._next(second):
                    group.create_task(self._strike(patient, fault, length))

    def _next(self, second: int) -> list[tuple[Patient, Fault, float]]:
        """Every fault comes in its turn, in an order of chance, and then in another."""
        random = self._random
        if not self._deck:
            self._deck = random.sample(list(Fault), len(Fault))
            if second % _AUTH >= len(Fault):
                self._deck.remove(Fault.AUTH)
        fault = self._deck.pop()
        well = [patient for patient in self._patients if patient.fault is None]
        if fault is Fault.STORM:
            return [(patient, fault, 1.0) for patient in well]
        if fault is Fault.TLS:
            well = [patient for patient in well if patient.upstream.url.startswith("https")]
        if not well:
            self._deck.insert(0, fault)
            return []
        return [(random.choice(well), fault, random.uniform(0.8, 1.8))]

    def explains(self, code: str, began: float, ended: float) -> bool:
        """Was there something that makes an error of this code a true one, for a request of this
        time?"""
        causes = CAUSES.get(code, frozenset())
        slack = _LATE.get(code, 1.0)
        return any(
            blow.fault in causes and blow.began <= ended and blow.ended >= began - slack
            for blow in self.blows
        )

    async def _strike(self, patient: Patient, fault: Fault, length: float) -> None:
        loop = asyncio.get_running_loop()
        blow = Blow(fault, patient.name, loop.time())
        self.blows.append(blow)
        patient.fault = fault
        await self._begin(patient, fault)
        await asyncio.sleep(length)
        await self._end(patient, fault)
        patient.fault = None
        blow.ended = loop.time()

    async def _begin(self, patient: Patient, fault: Fault) -> None:
        if fault is Fault.DOWN:
            await patient.upstream.stop()
        elif fault is Fault.DNS:
            (self._graves / f"{patient.name}{ZONE}").touch()
            patient.hang_up_idle()
        elif fault is Fault.TLS:
            self._own = patient.upstream._ssl
            await patient.restart(self._stranger)

    async def _end(self, patient: Patient, fault: Fault) -> None:
        if fault is Fault.DOWN:
            await patient.upstream.start()
        elif fault is Fault.DNS:
            (self._graves / f"{patient.name}{ZONE}").unlink()
        elif fault is Fault.TLS:
            await patient.restart(self._own)


def config_for(patients: Sequence[Patient], random: Random) -> dict[str, Any]:
    """Two models with two targets each; the first falls back on the second. Times are short, so
    that much happens in a minute."""
    policies = random.sample(["ordered", "weighted", "least_busy", "lowest_latency", "affinity"], 2)
    times = {"connect": "2s", "first_byte": "3s", "inter_chunk": "3s"}
    providers = {
        patient.name: {
            "dialect": "openai",
            "base_url": patient.base_url,
            "api_key": f"sk-{patient.name}",
            "retry_ambiguous": at % 2 == 0,
            "timeouts": times,
        }
        for at, patient in enumerate(patients)
    }
    targets: list[dict[str, Any]] = [
        {"provider": patient.name, "model": "numbers"} for patient in patients
    ]
    targets[0] |= {"max_in_flight": 16, "max_waiting": 32}
    return {
        "version": 1,
        "server": {
            "port": 0,
            "admin": "127.0.0.1:0",
            "timeouts": {"total": "10s", "queue": "5s", "drain": "5s"},
        },
        "routing": {"breaker": {"open_first": "1s", "open_cap": "3s"}},
        "providers": providers,
        "models": {
            "alpha": {"balance": policies[0], "targets": targets[:2], "fallbacks": ["beta"]},
            "beta": {"balance": policies[1], "targets": targets[2:]},
        },
    }
