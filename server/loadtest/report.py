"""What a step comes to: figures from its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.loadtest.drive import Tally
from server.loadtest.figures import Spread, spread
from server.loadtest.goodput import Limits
from server.loadtest.mirror import Strain
from server.loadtest.plan import Load
from server.loadtest.sample import Sample

#: Share of the median TTFT (E2E without one) by which requests may be sent late, before both ways
#: of counting are shown. A timer alone makes a request of an open loop a millisecond late.
LATE: Final = 0.02
#: Key of a report → attribute of a sample.
_MEASURES: Final = {
    "ttft_seconds": "ttft",
    "ttft_service_seconds": "ttft_service",
    "tpot_seconds": "tpot",
    "e2e_seconds": "e2e",
    "e2e_service_seconds": "e2e_service",
    "send_delay_seconds": "late",
    "output_tokens_per_second": "speed",
}


@dataclass(frozen=True, slots=True)
class Report:
    """One step. Latencies and rates are of whole answers; see `server.loadtest` for each."""

    load: Load
    start: float
    wall_seconds: float
    samples: Sequence[Sample]
    spreads: dict[str, Spread | None]
    failures: Counter[str]
    #: What the first failure of each kind said.
    failure_texts: dict[str, str]
    cut: int
    hopeless: bool
    strain: Strain
    limits: Limits | None
    good: int

    @property
    def ok(self) -> int:
        return len(self.samples) - self.failures.total()

    @property
    def failed_share(self) -> float:
        """Of the requests that ended; 0 when none did."""
        return self.failures.total() / len(self.samples) if self.samples else 0.0

    def per_second(self, number: float) -> float:
        """A number of things as a rate over the step."""
        return number / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def whole(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.failure is None]

    @property
    def output_tokens(self) -> int | None:
        """Of whole answers; None when no answer had a count."""
        return _total(sample.tokens for sample in self.whole)

    @property
    def prompt_tokens(self) -> int | None:
        return _total(sample.prompt_tokens for sample in self.whole)

    @property
    def cached_tokens(self) -> int | None:
        return _total(sample.cached_tokens for sample in self.whole)

    @property
    def tokens_are_chunks(self) -> int:
        """How many answers came without usage."""
        return sum(sample.tokens_are_chunks for sample in self.whole)

    @property
    def in_flight(self) -> float:
        """The mean number of requests that were out at a time."""
        return self.per_second(sum(sample.e2e_service for sample in self.samples))

    @property
    def sent_late(self) -> bool:
        """Were requests sent so late that it makes a difference whence one counts?"""
        late = self.spreads["send_delay_seconds"]
        beside = self.spreads["ttft_seconds"] or self.spreads["e2e_seconds"]
        return late is not None and beside is not None and late.p99 > LATE * beside.p50

    def as_json(self, *, raw: bool = False) -> dict[str, Any]:
        """Units stand in the names; `raw` adds every request."""
        tokens = self.output_tokens
        found: dict[str, Any] = {
            "load": {"requests_per_second": self.load.rate, "concurrency": self.load.concurrency},
            "wall_seconds": self.wall_seconds,
            "requests": len(self.samples),
            "requests_ok": self.ok,
            "requests_failed": self.failures.total(),
            "requests_cut": self.cut,
            "errors": [
                {"kind": kind, "count": count, "first": self.failure_texts[kind]}
                for kind, count in self.failures.most_common()
            ],
            "requests_ok_per_second": self.per_second(self.ok),
            "mean_in_flight": self.in_flight,
            "output_tokens": tokens,
            "output_tokens_per_second_total": None if tokens is None else self.per_second(tokens),
            "answers_counted_in_chunks": self.tokens_are_chunks,
            "prompt_tokens": self.prompt_tokens,
            "cached_prompt_tokens": self.cached_tokens,
            **{key: value and value.as_json() for key, value in self.spreads.items()},
            "goodput": None,
            "client": self.strain.as_json(),
        }
        if self.limits is not None:
            found["goodput"] = {
                "limits": self.limits.as_json(),
                "requests_good": self.good,
                "requests_good_per_second": self.per_second(self.good),
                "share": self.good / len(self.samples) if self.samples else 0.0,
            }
        if raw:
            found["samples"] = [sample.as_json(self.start) for sample in self.samples]
        return found


def report(load: Load, tally: Tally, strain: Strain, limits: Limits | None) -> Report:
    """The figures of a step that is over."""
    whole = [sample for sample in tally.samples if sample.failure is None]
    spreads = {
        key: spread(getattr(sample, attribute) for sample in whole)
        for key, attribute in _MEASURES.items()
    }
    spreads["inter_chunk_seconds"] = spread(gap for sample in whole for gap in sample.gaps)
    texts: dict[str, str] = {}
    failures: Counter[str] = Counter()
    for sample in tally.samples:
        if sample.failure is not None:
            failures[sample.failure.kind] += 1
            texts.setdefault(sample.failure.kind, sample.failure.text)
    # A connection may have been put in order for a while after the last answer.
    end = tally.end if tally.cut or not whole else max(sample.ended for sample in tally.samples)
    return Report(
        load=load,
        start=tally.start,
        wall_seconds=end - tally.start,
        samples=tally.samples,
        spreads=spreads,
        failures=failures,
        failure_texts=texts,
        cut=tally.cut,
        hopeless=tally.hopeless,
        strain=strain,
        limits=limits,
        good=0 if limits is None else sum(limits.met(sample) for sample in tally.samples),
    )


def _total(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
