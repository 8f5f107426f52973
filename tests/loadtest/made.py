"""Samples, tallies and reports for tests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from server.loadtest.drive import Tally
from server.loadtest.goodput import Limits
from server.loadtest.mirror import Strain
from server.loadtest.plan import Load
from server.loadtest.report import Report, report
from server.loadtest.sample import Failure, Sample

CALM = Strain(0.1, 0.001)


def sample(
    *,
    due: float = 0.0,
    sent: float = 0.0,
    first: float | None = 1.0,
    ended: float = 3.0,
    tokens: int | None = 5,
    gaps: Sequence[float] = (0.5, 0.5),
    **more: Any,
) -> Sample:
    more.setdefault("streamed", True)
    more.setdefault("chunks", len(gaps) + (first is not None))
    return Sample(
        0, due, sent, ended, first=first, gaps=array("d", gaps), output_tokens=tokens, **more
    )


def failed(kind: str = "time-out", text: str = "Too late.", **more: Any) -> Sample:
    return sample(failure=Failure(kind, text), **more)


def made(
    samples: Sequence[Sample],
    *,
    load: Load = Load(concurrency=2),  # noqa: B008 - it is frozen
    end: float = 10.0,
    cut: int = 0,
    hopeless: bool = False,
    strain: Strain = CALM,
    limits: Limits | None = None,
) -> Report:
    tally = Tally(0.0, cut=cut, end=end, hopeless=hopeless)
    for one in samples:
        tally.add(one)
    return report(load, tally, strain, limits)
