from __future__ import annotations

import re
from typing import Any

import pytest

from server.loadtest.goodput import Limits, parse
from tests.loadtest.made import failed, sample


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("ttft:500ms,tpot:50ms,e2e:10s", Limits(0.5, 0.05, 10.0)),
        (" E2E : 1m30s ", Limits(e2e=90.0)),
        ("tpot:0.05", Limits(tpot=0.05)),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    assert parse(text) == limits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no limit: write it like ttft:500ms,tpot:50ms,e2e:10s"),
        ("ttft", "'ttft' is no limit"),
        ("itl:50ms", "'itl:50ms' is no limit"),
        ("ttft:1s,ttft:2s", "ttft is there twice"),
        ("ttft:fast", "'fast' is no duration: write seconds (30) or 500ms, 30s"),
        ("ttft:0", "the limit of ttft must be above 0"),
    ],
)
def test_what_is_no_limit(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(text)


@pytest.mark.parametrize(
    ("limits", "answer", "met"),
    [
        (Limits(ttft=1.0), {}, True),
        (Limits(ttft=0.9), {}, False),
        (Limits(ttft=1.0), {"due": -0.1}, False),  # it counts from being due, not from being sent
        (Limits(ttft=9.0), {"first": None}, False),
        (Limits(tpot=0.5), {}, True),
        (Limits(tpot=0.4), {}, False),
        (Limits(tpot=0.4), {"tokens": 1}, True),
        (Limits(e2e=3.0), {}, True),
        (Limits(e2e=2.9), {}, False),
        (Limits(e2e=3.0), {"due": -0.1}, False),
        (Limits(), {}, True),
        (Limits(1.0, 0.5, 3.0), {}, True),
        (Limits(1.0, 0.5, 2.9), {}, False),
    ],
)
def test_what_is_good_enough(limits: Limits, answer: dict[str, Any], met: bool) -> None:
    assert limits.met(sample(**answer)) is met


def test_a_fast_failure_is_not_good() -> None:
    assert not Limits(e2e=100.0).met(failed())


def test_json_has_the_units() -> None:
    assert Limits(ttft=0.5, e2e=2.0).as_json() == {"ttft_seconds": 0.5, "e2e_seconds": 2.0}
