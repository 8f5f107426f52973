from __future__ import annotations

import pytest

from server.loadtest import table
from server.loadtest.goodput import Limits
from server.loadtest.mirror import Strain
from server.loadtest.plan import Load
from tests.loadtest.made import failed, made, sample


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0000025, "2.50 µs"),
        (0.0001, "0.10 ms"),
        (0.00421, "4.21 ms"),
        (0.0421, "42.1 ms"),
        (0.4212, "421 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.234, "1.23 s"),
        (123.4, "123 s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert table.duration(seconds) == text


def test_one_step() -> None:
    found = made(
        [sample(prompt_tokens=10, cached_tokens=5), sample(ended=5.0), failed(ended=4.0)],
        limits=Limits(ttft=0.5, e2e=4.0),
    )
    tokens = "10 out, 2.00/s (1.00/s for each request, median); 10 in, 50% from the server's cache"
    assert table.one(found) == [
        "  requests    2 answered in 5.00 s, 0.40/s; 1 failed; 2.40 in flight on average",
        f"  tokens      {tokens}",
        "  goodput     0.00/s, 0.0% of the requests within ttft 500 ms, e2e 4.00 s",
        "  client      10% of a core; event loop late by 1.00 ms (p99)",
        "",
        "                              P50    P90*    P99*    MEAN",
        "  first token (TTFT)       1.00 s  1.00 s  1.00 s  1.00 s",
        "  between chunks           500 ms  500 ms  500 ms  500 ms",
        "  per output token (TPOT)  500 ms  1.00 s  1.00 s  750 ms",
        "  end to end (E2E)         3.00 s  5.00 s  5.00 s  4.00 s",
        "",
        "  * the largest measured: there are too few for this percentile",
        "",
        "  1 × time-out: Too late.",
    ]


def test_what_was_sent_late_is_shown_both_ways() -> None:
    found = "\n".join(table.one(made([sample(due=-1.0)] * 100, load=Load(rate=2.0))))
    assert "first token (TTFT)       2.00 s" in found
    assert found.count("from being sent") == 2
    assert "*" not in found


def test_everything_failed() -> None:
    found = made([failed("HTTP 500", "boom")] * 20, hopeless=True, cut=3)
    assert table.one(found)[2:] == [
        "",
        "  20 × HTTP 500: boom",
        "",
        "  Stopped: the first 20 requests have all failed.",
        "",
        "  Requests in flight at the stop, counted nowhere: 3.",
    ]


def test_notes() -> None:
    found = made([sample(tokens=None), sample(first=None, gaps=[])], strain=Strain(0.97, 0.02))
    text = "\n".join(table.one(found))
    assert "Tokens are chunks: 1 of 2 answers came without usage." in text
    assert "Answers without any content, and so without TTFT: 1." in text
    assert "Warning: This client was a bottleneck: it used 97% of a core and" in text


def test_a_sweep_is_a_row_for_each_step() -> None:
    first = made([sample()] * 100, load=Load(concurrency=1), limits=Limits(e2e=5.0))
    second = made(
        [sample(tokens=None, streamed=False, first=None), failed()],
        load=Load(concurrency=8),
        limits=Limits(e2e=5.0),
    )
    lines = table.sweep([first, second])
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "LOAD OK FAILED REQ/S TOK/S IN FLIGHT TTFT P50 P99 TPOT P50 P99 E2E P50 P99 GOODPUT",
        "1 at a time 100 0 33.3 167 100 1.00 s 1.00 s 500 ms 500 ms 3.00 s 3.00 s 33.3/s",
        "8 at a time 1 1 0.33 - 2.00 - - - - 3.00 s 3.00 s* 0.33/s",
    ]
    assert lines[3:] == [
        "",
        "  * the largest measured: there are too few for this percentile",
        "",
        "  8 at a time: 1 × time-out: Too late.",
    ]


def test_a_note_that_holds_for_every_step_is_said_once() -> None:
    steps = [made([sample(tokens=None)], load=Load(rate=rate)) for rate in (1, 2)]
    (note,) = [line for line in table.sweep(steps) if "chunks" in line]
    assert note == "  every step: Tokens are chunks: 1 of 1 answers came without usage."
    assert "GOODPUT" not in table.sweep(steps)[0]
