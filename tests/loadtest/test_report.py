from __future__ import annotations

import json

import pytest

from server.loadtest.goodput import Limits
from server.loadtest.plan import Load
from tests.loadtest.made import failed, made, sample


def test_rates_are_of_whole_answers_over_the_time_to_the_last_end() -> None:
    found = made([sample(ended=2.0, tokens=4), sample(ended=4.0, tokens=6), failed(ended=1.0)])
    assert found.wall_seconds == 4.0  # not the 10 s until the step was put away
    assert (found.ok, found.failures.total(), found.output_tokens) == (2, 1, 10)
    assert found.per_second(found.ok) == 0.5
    assert found.failed_share == pytest.approx(1 / 3)
    assert found.in_flight == (2 + 4 + 1) / 4
    assert found.spreads["e2e_seconds"] is not None
    assert found.spreads["e2e_seconds"].count == 2  # a failure has no latency


def test_failures_by_kind_with_the_words_of_the_first() -> None:
    found = made([failed("a", "one"), failed("b", "two"), failed("a", "three"), sample()])
    assert found.failures == {"a": 2, "b": 1}
    assert found.as_json()["errors"] == [
        {"kind": "a", "count": 2, "first": "one"},
        {"kind": "b", "count": 1, "first": "two"},
    ]


def test_both_ways_of_counting_where_they_differ() -> None:
    late = made([sample(due=0.0, sent=0.5)], load=Load(rate=2.0)).spreads
    assert late["ttft_seconds"] is not None
    assert late["ttft_service_seconds"] is not None
    assert (late["ttft_seconds"].p50, late["ttft_service_seconds"].p50) == (1.0, 0.5)
    assert made([sample(sent=0.5)]).sent_late
    assert not made([sample(sent=0.001)]).sent_late
    assert made([sample(sent=0.5, first=None, streamed=False)]).sent_late
    assert not made([]).sent_late


def test_goodput() -> None:
    samples = [sample(), sample(first=2.0), failed(ended=2.0), sample(ended=10.0)]
    found = made(samples, limits=Limits(ttft=1.5))
    assert found.as_json()["goodput"] == {
        "limits": {"ttft_seconds": 1.5},
        "requests_good": 2,
        "requests_good_per_second": 0.2,
        "share": 0.5,
    }
    assert made(samples).as_json()["goodput"] is None


def test_chunks_between_all_answers() -> None:
    spread = made([sample(gaps=[1.0, 2.0]), sample(gaps=[3.0]), failed(gaps=[9.0])]).spreads[
        "inter_chunk_seconds"
    ]
    assert spread is not None
    assert (spread.count, spread.high) == (3, 3.0)


def test_unknown_counts_are_no_zeros() -> None:
    silent = made([sample(streamed=False, tokens=None, first=None)]).as_json()
    assert silent["output_tokens"] is None
    assert silent["output_tokens_per_second_total"] is None
    assert silent["ttft_seconds"] is None
    known = made([sample(prompt_tokens=10, cached_tokens=4), sample(prompt_tokens=6)]).as_json()
    assert (known["prompt_tokens"], known["cached_prompt_tokens"]) == (16, 4)


def test_nothing_was_measured() -> None:
    for found in (made([], cut=3, end=0.0), made([failed()], end=0.0)):
        assert found.wall_seconds == 0.0
        assert found.as_json()["requests_ok_per_second"] == 0.0
    assert made([]).failed_share == 0.0
    assert made([], limits=Limits(e2e=1.0)).as_json()["goodput"]["share"] == 0.0


def test_json_has_raw_samples_only_on_request() -> None:
    found = made([sample(), failed()])
    assert "samples" not in found.as_json()
    raw = json.loads(json.dumps(found.as_json(raw=True)))["samples"]
    assert [entry["error"] and entry["error"]["kind"] for entry in raw] == [None, "time-out"]
