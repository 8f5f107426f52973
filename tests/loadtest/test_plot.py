from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from server.loadtest import plot
from server.loadtest.plan import Load
from tests.loadtest.made import failed, made, sample

HEADS = {".svg": b"<?xml", ".png": b"\x89PNG"}


def test_what_no_chart_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plot.complaint("a.jpg") == (
        "a chart is written as .svg or .png; 'a.jpg' ends with neither."
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = plot.complaint("a.PNG") or ""
    assert "from the extra `plots`: pip install 'roundhouse-llm[plots]'" in said


@pytest.mark.parametrize("suffix", HEADS)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_charts(suffix: str, steps: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    reports = [
        made([sample()] * 3 + [failed()], load=Load(rate=rate)) for rate in range(1, steps + 1)
    ] or [made([failed()])]
    file = tmp_path / f"chart{suffix}"
    plot.draw(reports, "m at http://h", str(file))
    assert file.read_bytes().startswith(HEADS[suffix])
    assert plot.complaint(str(file)) is None


def test_a_sweep_without_streams_or_answers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    reports = [
        made([sample(first=None, tokens=None, streamed=False)]),
        made([failed()], load=Load(concurrency=9)),
    ]
    plot.draw(reports, "t", str(tmp_path / "a.svg"))


def test_tokens_over_time_are_all_the_tokens() -> None:
    report = made([sample(first=0.5, ended=2.5, tokens=8), sample(first=2.0, ended=2.5, tokens=1)])
    edges, rates = plot.tokens_over_time(report)
    assert edges == [0.0, 1.0, 2.0, 2.5]
    assert rates == [2.0, 4.0, 6.0]  # the last interval is half a second
    assert plot.tokens_over_time(made([failed()], end=0.0))[1] == [0.0]
