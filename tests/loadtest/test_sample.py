from __future__ import annotations

import pytest

from tests.loadtest.made import failed, sample


def test_measures_count_from_being_due_and_from_being_sent() -> None:
    one = sample(due=10.0, sent=10.25, first=11.0, ended=13.0, tokens=5)
    assert (one.ttft, one.ttft_service) == (1.0, 0.75)
    assert (one.e2e, one.e2e_service) == (3.0, 2.75)
    assert one.late == 0.25
    assert one.tpot == 0.5  # (13 - 11) / (5 - 1)
    assert one.speed == pytest.approx(5 / 2.75)


def test_without_usage_chunks_stand_in_for_tokens() -> None:
    one = sample(tokens=None, gaps=[0.5, 0.5])
    assert one.tokens_are_chunks
    assert one.tokens == 3
    assert one.tpot == 1.0


@pytest.mark.parametrize("tokens", [0, 1])
def test_fewer_than_two_tokens_have_no_time_between_them(tokens: int) -> None:
    assert sample(tokens=tokens).tpot is None


def test_what_is_no_stream_has_neither_ttft_nor_chunks() -> None:
    one = sample(streamed=False, first=None, tokens=None, gaps=[])
    assert (one.ttft, one.ttft_service, one.tpot, one.tokens, one.speed) == (None,) * 5
    assert not one.tokens_are_chunks
    assert sample(sent=3.0, ended=3.0).speed is None


def test_the_raw_record_counts_from_the_start_of_the_step() -> None:
    assert failed(due=5.0, sent=5.5, first=None, ended=7.0).as_json(5.0) == {
        "index": 0,
        "due_at_seconds": 0.0,
        "sent_at_seconds": 0.5,
        "first_token_at_seconds": None,
        "ended_at_seconds": 2.0,
        "inter_chunk_seconds": [0.5, 0.5],
        "content_chunks": 2,
        "output_tokens": 5,
        "prompt_tokens": None,
        "cached_prompt_tokens": None,
        "finish_reason": None,
        "error": {"kind": "time-out", "text": "Too late."},
    }
    assert sample().as_json(0.0)["error"] is None
