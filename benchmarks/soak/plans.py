"""What is to happen to one request, decided before it is sent.

The client writes the plan into the prompt and the mock upstream obeys it, so that whoever reads the
answer knows exactly what it must be: a fault is expected where it was ordered, and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final


class Kind(StrEnum):
    STREAM = "stream"
    WHOLE = "whole"
    BIG = "1-MiB prompt"
    UNKNOWN = "unknown model"
    WRONG_KEY = "wrong key"
    HEALTH = "health"


class Fault(StrEnum):
    """What the mock does wrong. The values travel in the prompt."""

    NONE = "none"
    # before the answer's head
    STATUS_500 = "500"
    STATUS_429 = "429"
    RESET_BEFORE = "reset-before"
    GARBAGE_BEFORE = "garbage-before"
    SLOW_FIRST = "slow-first"
    # in the middle of it
    PAUSE = "pause"
    STALL = "stall"
    CUT = "cut"
    RESET = "reset"
    TEXT = "garbage-text"
    UTF8 = "garbage-utf8"
    FRAMING = "garbage-framing"


#: The answer is late and whole.
HARMLESS: Final = frozenset({Fault.NONE, Fault.SLOW_FIRST, Fault.PAUSE})
BEFORE: Final = frozenset(
    {Fault.STATUS_500, Fault.STATUS_429, Fault.RESET_BEFORE, Fault.GARBAGE_BEFORE}
)
#: Fault → the codes that may stand in the error. A status of the upstream's brings its own.
CODES: Final[Mapping[Fault, frozenset[str]]] = {
    Fault.RESET_BEFORE: frozenset({"upstream_reset"}),
    Fault.GARBAGE_BEFORE: frozenset({"upstream_protocol"}),
    Fault.STALL: frozenset({"upstream_timeout"}),
    # Which of the two a broken connection is depends on what the kernel tells first.
    Fault.CUT: frozenset({"upstream_truncated", "upstream_reset"}),
    Fault.RESET: frozenset({"upstream_truncated", "upstream_reset"}),
    Fault.TEXT: frozenset({"upstream_protocol"}),
    Fault.UTF8: frozenset({"upstream_protocol"}),
    Fault.FRAMING: frozenset({"upstream_protocol"}),
}
STATUS: Final[Mapping[Fault, int]] = {
    Fault.STATUS_500: 500,
    Fault.STATUS_429: 429,
    Fault.STALL: 504,
}


class Leave(StrEnum):
    """Where the client goes away."""

    NEVER = "never"
    IN_BODY = "in mid-body"
    BEFORE_FIRST = "before the first byte"
    IN_STREAM = "in mid-stream"


#: Two models: one with a single target, one with a sound target behind the faulty one.
SINGLE: Final = "single"
PAIRED: Final = "paired"

KEY: Final = "sk-soak-0123456789abcdef0123456789abcdef"
_WRONG: Final = "sk-soak-ffffffffffffffffffffffffffffffff"
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """One request. `rate` 0: all chunks at once. `at`: the chunk at which the fault strikes or the
    client leaves."""

    number: int
    kind: Kind
    model: str = SINGLE
    chunks: int = 0
    rate: int = 0
    fault: Fault = Fault.NONE
    leave: Leave = Leave.NEVER
    at: int = 0

    @property
    def paired(self) -> bool:
        return self.model == PAIRED

    @property
    def longest(self) -> float:
        """Seconds in which it must be over, whatever goes wrong on the way."""
        return 60 + (1.5 * self.chunks / self.rate if self.rate else 0)

    def __str__(self) -> str:
        said = [f"#{self.number}", self.kind.value]
        if self.chunks:
            said.append(f"{self.model}, {self.chunks} chunks")
        if self.fault is not Fault.NONE:
            said.append(f"fault {self.fault.value} at {self.at}")
        if self.leave is not Leave.NEVER:
            said.append(f"client leaves {self.leave.value} at {self.at}")
        return ", ".join(said)


_ORDER: Final = re.compile(rb"soak:(\d+):([a-z0-9-]+):(\d+):(\d+):(\d+);")


def order(plan: Plan) -> str:
    """The plan as it stands in the prompt."""
    return f"soak:{plan.number}:{plan.fault.value}:{plan.at}:{plan.chunks}:{plan.rate};"


@dataclass(frozen=True, slots=True)
class Order:
    """What the mock reads out of a prompt."""

    number: int
    fault: Fault
    at: int
    chunks: int
    rate: int


def read_order(body: bytes) -> Order | None:
    """The order in a request's body."""
    found = _ORDER.search(body)
    if found is None:
        return None
    number, fault, at, chunks, rate = found.groups()
    return Order(int(number), Fault(fault.decode()), int(at), int(chunks), int(rate))


def request(plan: Plan, host: str) -> bytes:
    """The whole request as bytes."""
    if plan.kind is Kind.HEALTH:
        return f"GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    text = order(plan)
    if plan.kind is Kind.BIG:
        text += "x" * _MIB
    model = "nobody-has-this" if plan.kind is Kind.UNKNOWN else plan.model
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "stream": plan.kind is Kind.STREAM,
        }
    ).encode()
    key = _WRONG if plan.kind is Kind.WRONG_KEY else KEY
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Mix:
    """The proportions that plans are drawn in; shares of all streams, seconds, chunks a second."""

    shortest: float = 5
    longest: float = 60
    rate: int = 10
    faults: float = 0.01
    leave_in_stream: float = 0.20
    leave_in_body: float = 0.01
    leave_before_first: float = 0.01
    #: Without 429, which rests a target: it would be the other requests' fault, too.
    stream_faults: tuple[Fault, ...] = tuple(
        f for f in Fault if f not in (Fault.NONE, Fault.STATUS_429)
    )
    whole_faults: tuple[Fault, ...] = tuple(
        f for f in stream_faults if f not in (Fault.PAUSE, Fault.FRAMING)
    )
    #: Where `rate` is 0: the chunks of a stream, and their pace where the client leaves in between.
    at_once: int = 20
    leave_rate: int = 500


@dataclass
class Draw:
    """Draws plans. The same seed draws the same plans in the same order."""

    mix: Mix
    random: Random
    number: int = field(default=0)

    def stream(self) -> Plan:
        mix, chance = self.mix, self.random
        chunks = mix.at_once
        if mix.rate:
            chunks = max(8, int(chance.uniform(mix.shortest, mix.longest) * mix.rate))
        fault, leave, at = Fault.NONE, Leave.NEVER, 0
        dice = chance.random()
        # Not among the first chunks: one read of the gateway's could hold them with the fault, and
        # then nothing is committed yet when it strikes.
        middle = chance.randint(5, max(5, chunks - 2))
        if dice < mix.faults:
            fault, at = chance.choice(mix.stream_faults), middle
        elif (dice := dice - mix.faults) < mix.leave_in_stream:
            leave, at = Leave.IN_STREAM, middle
        elif (dice := dice - mix.leave_in_stream) < mix.leave_in_body:
            leave = Leave.IN_BODY
        elif dice - mix.leave_in_body < mix.leave_before_first:
            # The upstream is slow, so that there is a time before the first byte to leave in.
            leave, fault = Leave.BEFORE_FIRST, Fault.SLOW_FIRST
        rate = mix.rate or (mix.leave_rate if leave is Leave.IN_STREAM else 0)
        return Plan(self._next(), Kind.STREAM, self._model(), chunks, rate, fault, leave, at)

    def whole(self) -> Plan:
        fault = Fault.NONE
        if self.random.random() < self.mix.faults:
            fault = self.random.choice(self.mix.whole_faults)
        return Plan(self._next(), Kind.WHOLE, self._model(), 1, 0, fault)

    def other(self, kind: Kind) -> Plan:
        return Plan(self._next(), kind, chunks=int(kind is Kind.BIG))

    def _model(self) -> str:
        return self.random.choice((SINGLE, PAIRED))

    def _next(self) -> int:
        self.number += 1
        return self.number
