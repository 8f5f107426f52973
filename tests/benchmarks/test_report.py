"""benchmarks.summary, bars, report and plots, from results that are made up."""

from __future__ import annotations

import builtins
import copy
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import cases, plots, report
from benchmarks.bars import judge
from benchmarks.summary import Table

Turn = dict[str, Any]
RATES = {"roundhouse": 12_000.0, "vllm-router": 16_000.0, "litellm": 70.0, "direct": 45_000.0}


def turn(case: str, contender: str, number: int, **values: float) -> Turn:
    errors = int(values.pop("errors", 0))
    return {
        "case": case,
        "contender": contender,
        "round": number,
        "errors": errors,
        "first_error": "status 500: | b'no'" * bool(errors),
        "failed": False,
        "noisy": False,
        "values": {"gateway_busy": 0.99, "load_busy": 0.5, "foreign": 0.01, **values},
    }


def turns(rounds: int = 3) -> list[Turn]:
    """Each round is a little faster than the one before, for all alike."""
    made = []
    for number in range(rounds):
        drift = 1 + number / 100
        for name, rate in RATES.items():
            cost = 1e6 / rate
            for case in (cases.REQUESTS, cases.STREAMS):
                made.append(
                    turn(case.name, name, number, rate=rate * drift, cpu_us=cost, p50_ms=cost)
                )
            for case in (cases.PACED_200, cases.PACED_1000):
                made.append(
                    turn(
                        case.name, name, number, chunks=1000, sent=1000, lost=0, doubled=0,
                        left_open=0, cpu_us=cost / 3, late_p50_ms=1, late_p99_ms=4 * drift,
                        added_p99_ms=2, rss_mb=90,
                    )
                )  # fmt: skip
            for case in cases.LATENCY:
                base = 0.1 * drift + (name != "direct") * cost / 1000
                made.append(
                    turn(
                        case.name, name, number, p50_ms=base, p99_ms=2 * base,
                        first_p50_ms=base, first_p99_ms=2 * base, rate=9, cpu_us=9,
                    )
                )  # fmt: skip
    return made


def results() -> dict[str, Any]:
    facts = {"version": "1.2", "start_seconds": 0.5, "rss_mb": 61.0, "idle": 0.001}
    return {
        "date": "2026-11-21T05:00:00Z",
        "command": "python -m benchmarks",
        "options": {"rounds": 3, "seconds": 3.0, "quick": False, "cases": []},
        "machine": {
            "cpu": "A CPU", "cores": 2, "gateway_core": 0, "load_core": 1, "memory_gib": 8.0,
            "kernel": "Linux 6", "python": "3.12.1", "uvloop": "0.23", "commit": "abc1234",
            "server_changed": False, "load_average_before": [0.0, 0.0, 0.0],
        },
        "contenders": [
            {"name": name, "stopped_between": name == "litellm", **facts}
            for name in RATES
            if name != "direct"
        ],
        "left_out": {"portkey": "it is not installed: make bench-peers"},
        "notes": ["a note"],
        "turns": turns(),
        "finished": True,
    }  # fmt: skip


# --- figures ------------------------------------------------------------------------------------


def test_rows_are_medians_and_ratios_are_paired() -> None:
    table = Table(turns())
    row = table.row("requests", "roundhouse")
    assert row is not None
    assert row.values["rate"] == pytest.approx(12_120)
    assert (row.turns, row.errors, row.counts) == (3, 0, True)
    ratio = table.ratio("requests", "roundhouse", "vllm-router", "rate")
    assert (ratio.middle, ratio.low, ratio.high) == pytest.approx((0.75, 0.75, 0.75))
    assert table.row("requests", "nobody") is None
    assert table.ratio("requests", "roundhouse", "nobody", "rate").count == 0


def test_added_is_what_the_same_round_has_more() -> None:
    table = Table(turns())
    added = table.added("request-1x4k", "vllm-router", "p50_ms")
    assert (added.middle, added.low) == pytest.approx((0.0625, 0.0625))
    ratio = table.added_ratio("request-1x4k", "litellm", "vllm-router", "p99_ms")
    assert ratio.middle == pytest.approx(16_000 / 70)


def test_rounds_that_one_missed_are_no_pairs() -> None:
    some = [one for one in turns() if (one["contender"], one["round"]) != ("litellm", 1)]
    assert Table(some).ratio("requests", "roundhouse", "litellm", "rate").count == 2


@pytest.mark.parametrize(
    ("gateway", "load", "counts"),
    [(0.95, 0.89, True), (0.94, 0.5, False), (0.99, 0.90, False), (0.2, 0.99, False)],
)
def test_a_rate_counts_when_the_gateway_alone_is_full(
    gateway: float, load: float, counts: bool
) -> None:
    table = Table([turn("requests", "x", 0, gateway_busy=gateway, load_busy=load)])
    row = table.row("requests", "x")
    assert row is not None
    assert row.counts is counts


# --- bars ---------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]
BARS = (
    "0.6 × vllm-router", "60 × LiteLLM", "1.3 × vllm-router", "1.25 × vllm-router",
    "0.35 ms", "3 × vllm-router", "20 ms", "lost or doubled", "80 MB", "150 MB",
)  # fmt: skip


def verdicts(change: Change = lambda _: None) -> Mapping[str, tuple[str, str]]:
    made = results()
    change(made)
    found = judge(Table(made["turns"]), made["contenders"])
    assert len(found) == len(BARS)
    return {
        name: (one.word, one.why) for name, one in zip(BARS, found, strict=True) if name in one.bar
    }


def setting(case: str, contender: str, **values: float) -> Change:
    def change(made: dict[str, Any]) -> None:
        for one in made["turns"]:
            if (one["case"], one["contender"]) == (case, contender):
                one["values"].update(values)

    return change


def without(contender: str) -> Change:
    def change(made: dict[str, Any]) -> None:
        made["turns"] = [one for one in made["turns"] if one["contender"] != contender]
        made["contenders"] = [one for one in made["contenders"] if one["name"] != contender]

    return change


def resting(rss: float) -> Change:
    def change(made: dict[str, Any]) -> None:
        made["contenders"][0]["rss_mb"] = rss

    return change


def test_bars_of_the_made_up_run() -> None:
    words = {name: word for name, (word, _) in verdicts().items()}
    missed = {"1.3 × vllm-router", "1.25 × vllm-router"}
    assert words == {name: "missed" if name in missed else "met" for name in BARS}


@pytest.mark.parametrize(
    ("bar", "change", "word"),
    [
        ("0.6 × vllm-router", setting("requests", "roundhouse", rate=9_000.0), "missed"),
        ("0.6 × vllm-router", without("vllm-router"), "not measured"),
        ("60 × LiteLLM", setting("requests", "litellm", rate=300.0), "missed"),
        ("60 × LiteLLM", setting("requests", "litellm", rate=0.0), "not measured"),
        ("60 × LiteLLM", without("litellm"), "not measured"),
        ("1.3 × vllm-router", setting("streams", "roundhouse", rate=30_000.0), "met"),
        ("1.25 × vllm-router", setting("paced-200x50", "roundhouse", cpu_us=21.0), "met"),
        ("1.25 × vllm-router", without("vllm-router"), "not measured"),
        ("0.35 ms", setting("request-1x4k", "roundhouse", p50_ms=0.6), "missed"),
        ("0.35 ms", without("direct"), "not measured"),
        ("3 × vllm-router", setting("request-1x4k", "roundhouse", p99_ms=0.9), "missed"),
        ("3 × vllm-router", without("vllm-router"), "not measured"),
        ("20 ms", setting("paced-1000x10", "roundhouse", late_p99_ms=20.1), "missed"),
        ("20 ms", setting("paced-1000x10", "roundhouse", late_p99_ms=math.nan), "not measured"),
        ("lost or doubled", setting("paced-1000x10", "roundhouse", lost=1), "missed"),
        ("lost or doubled", setting("paced-200x50", "roundhouse", doubled=1), "missed"),
        ("80 MB", resting(80.5), "missed"),
        ("80 MB", without("roundhouse"), "not measured"),
        ("150 MB", setting("paced-1000x10", "roundhouse", rss_mb=151), "missed"),
        ("150 MB", without("roundhouse"), "not measured"),
    ],
)
def test_bars(bar: str, change: Change, word: str) -> None:
    assert verdicts(change)[bar][0] == word


def test_a_rate_that_does_not_count_is_compared_by_cpu() -> None:
    def change(made: dict[str, Any]) -> None:
        setting("requests", "vllm-router", load_busy=0.95)(made)
        setting("requests", "roundhouse", rate=1.0, cpu_us=100.0)(made)

    word, why = verdicts(change)["0.6 × vllm-router"]  # 62.5 µs to 100 µs
    assert word == "met"
    assert "by CPU time" in why


def test_a_bar_within_the_interval_says_so() -> None:
    def change(made: dict[str, Any]) -> None:
        for one in made["turns"]:
            if (one["case"], one["contender"]) == ("requests", "roundhouse"):
                one["values"]["rate"] = (9_000, 10_000, 11_000)[one["round"]]

    assert verdicts(change)["0.6 × vllm-router"] == ("met", "the interval holds the bar, too")


def test_two_rounds_have_no_interval() -> None:
    def change(made: dict[str, Any]) -> None:
        made["turns"] = turns(2)

    assert verdicts(change)["0.6 × vllm-router"] == ("met", "too few rounds for an interval")


# --- the report ---------------------------------------------------------------------------------


def section(text: str, title: str) -> str:
    return text.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_the_report() -> None:
    text = report.markdown(json.loads(json.dumps(bench.finite(results()))))
    assert text.startswith("# Side by side, 2026-11-21\n")
    assert "A CPU, 2 cores" in text
    requests = section(text, "Requests, 32 connections")
    assert "12,120" in requests
    assert "0.750 (0.750–0.750)" in requests
    assert "portkey was not measured: it is not installed" in text
    assert "stopped between turns" in section(text, "At rest")
    assert "4.04" in section(text, "1,000 streams × 10 chunks/s")
    assert "+0.06" in section(text, "Time of an answer")
    assert section(text, "Bars").count("**met**") == 8
    assert "a note" in section(text, "Notes")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_the_report_of_a_run_in_which_much_went_wrong() -> None:
    made = results()
    made["finished"] = False
    made["options"]["rounds"] = 1
    made["turns"] = [one for one in made["turns"] if one["round"] == 0]
    for one in made["turns"]:
        if one["contender"] == "litellm":
            one.update(values={}, errors=7, first_error="it | broke\nhere", failed=True)
        if one["contender"] == "vllm-router":
            one["noisy"] = True
            one["values"] = dict.fromkeys(one["values"], math.nan)
        if one["contender"] == "roundhouse":
            one["values"].update(load_busy=0.99, left_open=3)
    text = report.markdown(json.loads(json.dumps(bench.finite(made))))
    assert "the run was ended early" in text
    assert "1 round: too few for intervals" in text
    assert "litellm†" in text
    assert "vllm-router~" in text
    assert "(12,000)" in text
    assert "A rate in brackets does not count" in text
    assert "it / broke here" in section(text, "Notes")
    assert "roundhouse read on from the upstream" in section(text, "Notes")


def test_the_report_of_one_case_has_no_other() -> None:
    made = results()
    made["turns"] = [one for one in made["turns"] if one["case"] == "requests"]
    text = report.markdown(made)
    assert "## Requests, 32 connections" in text
    assert "## Streams" not in text
    assert "chunks/s" not in text.split("## Bars")[0]


# --- files --------------------------------------------------------------------------------------


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = plots.draw(results(), tmp_path)
    assert [path.name for path in made] == ["throughput.svg", "paced.svg", "latency.svg"]
    for path in made:
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_plots_of_little(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = results()
    made["turns"] = [one for one in made["turns"] if one["case"] == "request-1x4k"]
    assert [path.name for path in plots.draw(made, tmp_path)] == ["latency.svg"]


def test_an_old_run_is_written_anew_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_it(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_it)
    (tmp_path / "results.json").write_text(json.dumps(results()), "utf-8")
    assert bench.main(["--report", str(tmp_path)]) == 0
    assert "Matplotlib is not installed" in capsys.readouterr().out
    assert (tmp_path / "report.md").read_text("utf-8").startswith("# Side by side")
    assert list(tmp_path.glob("*.svg")) == []


def test_there_is_no_old_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--report", str(tmp_path)]) == 2
    assert "no results" in capsys.readouterr().err


def test_json_has_no_nan_and_no_needless_digits() -> None:
    given = {"a": [math.nan, math.inf, 1.23456789], "b": {"c": "x", "d": 7}, "e": None}
    before = copy.deepcopy(given)
    assert bench.finite(given) == {"a": [None, None, 1.23457], "b": {"c": "x", "d": 7}, "e": None}
    assert str(given) == str(before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "python -m benchmarks"),
        (["--quick", "--out", "/somewhere/else"], "python -m benchmarks --quick"),
        (["--out=/x", "--rounds", "2"], "python -m benchmarks --rounds 2"),
        (["--only", "a,b c"], "python -m benchmarks --only 'a,b c'"),
    ],
)
def test_the_command_line_has_no_folder(arguments: list[str], said: str) -> None:
    assert bench.command(arguments) == said
