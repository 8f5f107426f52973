from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import DONE, FakeServer, framed

Run = Callable[..., Result]

ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}}
CHAT = "/v1/chat/completions"


@pytest.fixture
def model(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """Answers every chat, as fast as it can."""
    fake.models("guide")
    fake.stream(ROLE, "Hel", "lo", FINISH, USAGE, DONE)
    monkeypatch.setenv("ROUNDHOUSE_BASE_URL", fake.url)
    return fake


def chats(fake: FakeServer) -> list[Any]:
    return [seen for seen in fake.seen if seen.path == CHAT]


def test_one_step(model: FakeServer, run: Run) -> None:
    result = run("bench", "guide", "--requests", "5", "--concurrency", "2", "--api-key", "sk-1")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"guide at {model.url}, streams, 2 at a time"
    assert "  requests    5 answered in " in result.stdout
    assert "  tokens      35 out, " in result.stdout
    for name in ("first token (TTFT)", "between chunks", "per output token (TPOT)", "end to end"):
        assert f"\n  {name}" in result.stdout
    assert "there are too few for this percentile" in result.stdout
    assert "\x1b" not in result.output
    assert "done" not in result.stderr  # no progress in a pipe
    assert len(chats(model)) == 6  # one to warm up
    assert {seen.headers["authorization"] for seen in model.seen} == {"Bearer sk-1"}
    texts = [seen.body["messages"][0]["content"] for seen in chats(model)]
    assert len(set(texts)) == 6
    assert {len(text.split()) for text in texts} == {128}
    body = chats(model)[0].body
    assert (body["model"], body["max_tokens"], body["stream"]) == ("guide", 128, True)


def test_a_sweep_with_json_and_samples(model: FakeServer, run: Run, nowhere: Path) -> None:
    result = run(
        "bench", "guide", "--concurrency", "1,2,3", "--requests", "4", "--warmup", "0",
        "--goodput", "e2e:1h", "--json", "out.json", "--samples", "--same-prompt",
        "--prompt-tokens", "3", "--ignore-eos", "--temperature", "0", "--max-tokens", "7",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    head, *rows = result.stdout.splitlines()[2:6]
    assert head.split()[:2] == ["LOAD", "OK"]
    assert head.split()[-1] == "GOODPUT"
    assert [row.split()[:5] for row in rows] == [
        [n, "at", "a", "time", "4"] for n in ("1", "2", "3")
    ]
    assert "Prompts were sent more than once" in result.stdout
    found = json.loads((nowhere / "out.json").read_text("utf-8"))
    assert [step["load"]["concurrency"] for step in found["steps"]] == [1, 2, 3]
    for step in found["steps"]:
        assert step["requests_ok"] == 4
        assert step["output_tokens"] == 28
        assert step["goodput"]["share"] == 1.0
        assert step["ttft_seconds"]["count"] == 4
        assert [one["finish_reason"] for one in step["samples"]] == ["stop"] * 4
    assert found["settings"]["request_fields"] == {
        "max_tokens": 7,
        "temperature": 0.0,
        "ignore_eos": True,
    }
    assert found["prompts_repeated"] is True
    assert len({seen.body["messages"][0]["content"] for seen in chats(model)}) == 1


def test_json_on_the_standard_output(model: FakeServer, run: Run) -> None:
    result = run("bench", "guide", "--requests", "2", "--rate", "1000", "--json", "-")
    found = json.loads(result.stdout)
    assert found["steps"][0]["load"] == {"requests_per_second": 1000.0, "concurrency": None}
    assert "first token (TTFT)" in result.stderr


def test_no_streams_and_prompts_of_a_file(model: FakeServer, run: Run, nowhere: Path) -> None:
    whole = {"choices": [{"finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
    model.json("POST", CHAT, whole)
    (nowhere / "mine.jsonl").write_text('{"prompt": "a"}\nb\n')
    result = run("bench", "guide", "--requests", "2", "--no-stream", "--prompts", "mine.jsonl",
                 "--warmup", "0", "--concurrency", "1")  # fmt: skip
    assert result.exit_code == 0
    assert "no streams" in result.stdout
    assert "TTFT" not in result.stdout
    assert "6 out" in result.stdout
    assert [seen.body["messages"][0]["content"] for seen in chats(model)] == ["a", "b"]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_chart(suffix: str, model: FakeServer, run: Run, nowhere: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("bench", "guide", "--requests", "2", "--plot", f"chart.{suffix}")
    assert result.exit_code == 0
    assert (nowhere / f"chart.{suffix}").stat().st_size > 1000


def test_failures_of_the_server(model: FakeServer, run: Run) -> None:
    model.error("POST", CHAT, 429, "slow down")
    result = run("bench", "guide", "--concurrency", "1,2", "--max-errors", "5")
    assert result.exit_code == 1
    assert "5 × HTTP 429 c: slow down" in result.stdout
    assert "Stopped: the first 5 requests have all failed." in result.stdout
    assert "Of the warm-up 1 failed, first HTTP 429 c: slow down" in result.stdout
    assert "2 at a time" not in result.stdout  # the sweep is over
    assert len(chats(model)) == 6


def test_a_stream_that_breaks_off_is_no_fast_success(model: FakeServer, run: Run) -> None:
    model.stream(ROLE, "Hel")
    result = run("bench", "guide", "--requests", "3", "--concurrency", "1", "--warmup", "0")
    assert result.exit_code == 1
    assert "0 answered" in result.stdout
    assert "3 × truncated: The stream ended without [DONE]." in result.stdout


def test_one_failure_in_a_hundred_is_no_failed_run(model: FakeServer, run: Run) -> None:
    class Once(list[bytes]):
        """The first request gets half an answer."""

        def __iter__(self) -> Iterator[bytes]:
            first = len(chats(model)) == 1
            return iter(self[:1] if first else self[:])

    events = [framed(event) for event in ("a", FINISH)] + [DONE]
    model.answers["POST", CHAT] = (200, Once(events))
    asked = ("--warmup", "0", "--concurrency", "1", "--prompt-tokens", "1")
    assert run("bench", "guide", "--requests", "100", *asked).exit_code == 0
    model.seen.clear()
    result = run("bench", "guide", "--requests", "99", *asked)
    assert "98 answered" in result.stdout
    assert result.exit_code == 1


def test_ctrl_c_shows_what_was_measured(model: FakeServer, run: Run, nowhere: Path) -> None:
    over = threading.Event()

    class Interrupts(list[bytes]):
        """The third request presses Ctrl-C, and is never answered whole."""

        def __iter__(self) -> Iterator[bytes]:
            if len(chats(model)) < 3:
                return iter(self[:])
            return self.half()

        def half(self) -> Iterator[bytes]:
            yield self[0]
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

    events = [framed(event) for event in ("a", FINISH)] + [DONE]
    model.answers["POST", CHAT] = (200, Interrupts(events))
    result = run("bench", "guide", "--warmup", "0", "--concurrency", "1", "--json", "out.json")
    over.set()
    assert result.exit_code == 130
    assert "2 answered" in result.stdout
    assert "Requests in flight at the stop, counted nowhere: 1." in result.stdout
    assert "Interrupted: this is what was measured until then." in result.stdout
    assert json.loads((nowhere / "out.json").read_text())["interrupted"] is True


def test_ctrl_c_while_it_warms_up(model: FakeServer, run: Run) -> None:
    over = threading.Event()

    class Interrupts(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()
            return iter(())

    model.answers["POST", CHAT] = (200, Interrupts())
    result = run("bench", "guide", "--plot", "a.svg")
    over.set()
    assert result.exit_code == 130
    assert "Interrupted" in result.stdout


# --- what is wrong is said before anything is sent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'MODEL'"),
        (["m", "--rate", "0"], "Invalid value for --rate: '0' is no rate: write requests a second"),
        (["m", "--concurrency", "none"], "Invalid value for --concurrency: 'none' is no number"),
        (["m", "--rate", "1", "--concurrency", "1,2"], "give one number, or leave --rate away"),
        (["m", "--goodput", "fast"], "Invalid value for --goodput: 'fast' is no limit"),
        (["m", "--duration", "x"], "Invalid value for --duration: 'x' is no duration"),
        (["m", "--prompts", "nope"], "Invalid value for --prompts: nope cannot be read"),
        (["m", "--requests", "0"], "Invalid value for '--requests': 0 is not in the range"),
        (["m", "--temperature", "-1"], "Invalid value for '--temperature'"),
        (["m", "--samples"], "--samples adds to the JSON: say where that goes with --json FILE."),
        (["m", "--json", "."], "Invalid value for --json: . is a folder: give a file's name."),
        (["m", "--json", "no/such.json"], "there is no folder no: make it first."),
        (["m", "--json", "held/a.json"], "held/a.json may not be written."),
        (["m", "--plot", "a.pdf"], "a chart is written as .svg or .png; 'a.pdf' ends with neither"),
        (["m", "--plot", "no/a.svg"], "there is no folder no: make it first."),
    ],
)
def test_bad_options(
    arguments: list[str], said: str, model: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("held").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "held")
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert model.seen == []


def test_no_matplotlib(model: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run("bench", "guide", "--plot", "a.svg")
    assert result.exit_code == 2
    assert "pip install 'roundhouse-llm[plots]'" in " ".join(result.stderr.split())
    assert model.seen == []


def test_too_few_files(model: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (256, 512)}
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda what, new: limits.update(now=new))
    result = run("bench", "guide", "--concurrency", "500")
    assert result.exit_code == 2
    assert "raise the limit with `ulimit -n 564`" in " ".join(result.stderr.split())
    assert limits["now"] == (512, 512)
    for now in ((256, resource.RLIM_INFINITY), (resource.RLIM_INFINITY,) * 2):
        limits["now"] = now
        assert run("bench", "guide", "--concurrency", "500", "--requests", "1").exit_code == 0


def test_no_server(run: Run) -> None:
    result = run("bench", "guide", "--base-url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "No server answers at http://127.0.0.1:1. Start one with" in result.stderr


def test_a_server_without_a_list_of_models(model: FakeServer, run: Run) -> None:
    del model.answers["GET", "/v1/models"]
    assert run("bench", "guide", "--requests", "1").exit_code == 0


def test_a_file_that_cannot_be_written_in_the_end(
    model: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(Path, "write_text", lambda *args: (_ for _ in ()).throw(full))
    monkeypatch.setattr("server.loadtest.plot.draw", lambda *args: (_ for _ in ()).throw(full))
    monkeypatch.setattr("server.loadtest.plot.complaint", lambda file: None)
    for flag, file in (("--json", "a.json"), ("--plot", "a.svg")):
        result = run("bench", "guide", "--requests", "1", flag, file)
        assert result.exit_code == 1
        assert "1 answered" in result.stdout  # the figures are not lost
        assert f"Error: {file} cannot be written: No space left on device." in result.stderr
