"""What is measured: the cases, how long a turn of each lasts, and what the whole run will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["throughput", "paced", "latency"]
GROUPS: Final[tuple[Group, ...]] = ("throughput", "paced", "latency")

KIB: Final = 1024
_CONNECTIONS: Final = (1, 32, 256)
_PROMPTS: Final = (4 * KIB, 200 * KIB)
#: What a turn costs besides its load: connecting, leaving, waiting until the gateway is quiet.
_BETWEEN: Final = 0.5
#: Starting the gateways and looking whether they idle, each.
_START: Final = 4.0


@dataclass(frozen=True, slots=True)
class Case:
    """`connections` are streams where `rate` (chunks a second of each) is set."""

    name: str
    group: Group
    stream: bool
    connections: int
    prompt: int
    rate: float = 0.0

    @property
    def title(self) -> str:
        if self.rate:
            return f"{self.connections:,} streams × {self.rate:g} chunks/s"
        what = "streams" if self.stream else "requests"
        if self.group == "throughput":
            return f"{what}, {self.connections} connections"
        return f"{what}, {self.connections} connections, {self.prompt // KIB} KiB"


def _latency(stream: bool, connections: int, prompt: int) -> Case:
    what = "stream" if stream else "request"
    name = f"{what}-{connections}x{prompt // KIB}k"
    return Case(name, "latency", stream, connections, prompt)


REQUESTS: Final = Case("requests", "throughput", False, 32, 100)
STREAMS: Final = Case("streams", "throughput", True, 32, 100)
PACED_200: Final = Case("paced-200x50", "paced", True, 200, 100, 50)
PACED_1000: Final = Case("paced-1000x10", "paced", True, 1000, 100, 10)
LATENCY: Final = tuple(
    _latency(stream, connections, prompt)
    for stream in (False, True)
    for prompt in _PROMPTS
    for connections in _CONNECTIONS
)
ONE_CONNECTION: Final = LATENCY[0]
ALL: Final = (REQUESTS, STREAMS, PACED_200, PACED_1000, *LATENCY)
#: A quick run leaves out the largest: many connections, and large prompts on more than one.
QUICK: Final = tuple(
    case
    for case in ALL
    if case.group != "latency"
    or (case.connections == 1 or (case.connections == 32 and case.prompt == 4 * KIB))
)


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` is what a turn of throughput or of paced streams counts; one of latency needs less
    of them, for it counts no CPU."""

    cases: tuple[Case, ...]
    rounds: int
    seconds: float

    def counted(self, case: Case) -> float:
        return self.seconds / 4 if case.group == "latency" else self.seconds

    def warm_up(self, case: Case) -> float:
        if case.group == "latency":
            return min(0.3, self.seconds / 8)
        return min(1.0, self.seconds / 4)

    @property
    def begin_within(self) -> float:
        """How long all of a turn's paced streams may take to begin."""
        return max(5.0, 4 * self.seconds)

    @property
    def longest(self) -> float:
        """How long a slow gateway may take for the answers that a turn wants at least."""
        return max(3.0, self.seconds)

    def estimate(self, contenders: int, starts: int) -> float:
        """Seconds of the whole run. Slow gateways take longer in some turns; nothing knows before
        how much."""
        turns = sum(
            self.warm_up(case) + self.counted(case) + _BETWEEN + (1.2 if case.rate else 0.0)
            for case in self.cases
        )
        return turns * self.rounds * contenders + starts * _START


def chosen(groups: Sequence[str], *, quick: bool) -> tuple[Case, ...]:
    """The cases of these groups."""
    return tuple(case for case in (QUICK if quick else ALL) if case.group in groups)


def order(names: Sequence[str], round_number: int) -> list[str]:
    """Who goes after whom in this round: forwards, backwards, forwards …, so that a drift of the
    machine falls on nobody in particular."""
    return list(names) if round_number % 2 == 0 else list(reversed(names))
