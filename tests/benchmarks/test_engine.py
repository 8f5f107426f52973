"""benchmarks.engine: everything but the engine itself."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import roundhouse
from benchmarks import upstream
from benchmarks.engine import __main__ as on_cpu
from benchmarks.engine import answers, compare, load, machine, report, stack, stats
from benchmarks.engine.answers import Expected, Raw
from benchmarks.engine.compare import Level
from benchmarks.engine.load import Door, Work
from benchmarks.engine.machine import Cpu

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
MOCK = Work(
    concurrency=4, tokens=upstream.TOKENS, warm_up_s=0.02, seconds=0.1,
    finish="stop", counted=False, stagger=False,
)  # fmt: skip


def event(content: str | None, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode()


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":3}}'
DONE = b"data: [DONE]"
WHOLE = (ROLE, event("a"), event("b"), event("c", "length"), USAGE, DONE)


def raw(blocks: tuple[bytes, ...] = WHOLE, *, step: int = 10**6, end: bytes = b"0\r\n\r\n") -> Raw:
    """An answer that was read `step` bytes at a time, the first at 1 ns, the next at 2, …"""
    framed = b"".join(upstream.framed(block + b"\n\n") for block in blocks)
    data = HEAD + framed + end
    made = Raw(0)
    for number, at in enumerate(range(0, len(data), step), 1):
        made.add(number, data[at : at + step])
    return made


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 50, 10**6])
def test_an_answer_is_read_whatever_the_reads_were(step: int) -> None:
    answer = answers.read(raw(step=step), Expected(3))
    assert (answer.problem, answer.tokens, answer.characters) == ("", 3, 3)
    assert len(answer.events_ns) == 3
    assert list(answer.events_ns) == sorted(answer.events_ns)


def test_an_event_has_come_when_its_last_byte_has() -> None:
    data = b"".join(raw().parts)
    behind = data.index(b'"b"') + len(b'"b"')
    made = Raw(0)
    made.add(5, data[:behind])
    made.add(9, data[behind:])
    assert answers.read(made, Expected(3)).events_ns == (5, 9, 9)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw((ROLE, event("a"), event("b", "length"), DONE)), "None tokens"),
        (raw((*WHOLE[:4], b'data: {"choices":[],"usage":{"completion_tokens":2}}', DONE)), "2 tok"),
        (raw(WHOLE[:-1]), "no [DONE]"),
        (raw((*WHOLE, event("d"))), "after [DONE]"),
        (raw((*WHOLE[:4], event("d"), *WHOLE[4:])), "after the finish reason"),
        (raw((ROLE, event("a", "stop"), USAGE, DONE)), "finish reason 'stop'"),
        (raw((ROLE, b'data: {"error":{"message":"no"}}', DONE)), "error event"),
        (raw(end=b""), "cannot be read"),
        (raw(end=b"0\r\n\r\nx"), "bytes after the end"),
        (Raw(0, [b"HTTP/1.1 503 No\r\n\r\n{}"], [(1, 21)]), "status 503"),
        (Raw(0, broken="connection lost"), "connection lost"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong(answer: Raw, said: str) -> None:
    judged = answers.read(answer, Expected(3))
    assert said in judged.problem
    assert judged.events_ns == ()


# --- load ---------------------------------------------------------------------------------------


async def test_load_over_tcp() -> None:
    mock = upstream.Upstream()
    server = await mock.listen()
    port = server.sockets[0].getsockname()[1]
    looks = iter("ab")
    window = await load.run(
        Door("through", "mock", port=port, key="sk-x"), MOCK, number=0, look=lambda: next(looks)
    )
    server.close()
    assert {answer.problem for answer in window.answers} == {""}
    assert len(window.answers) == mock.requests > MOCK.concurrency
    assert (window.before, window.after) == ("a", "b")
    found = compare.numbers(window)
    assert found["tokens_per_s"] > 0
    assert found["streams_checked"] == mock.requests
    assert found["tokens_per_event"] == 1.0


async def test_load_over_a_unix_socket_and_what_is_wrong(tmp_path: Path) -> None:
    mock = upstream.Upstream()
    path = str(tmp_path / "s")
    server = await asyncio.get_running_loop().create_unix_server(lambda: upstream._Peer(mock), path)
    window = await load.run(
        Door("direct", "mock", uds=path), dataclasses.replace(MOCK, finish="length"), number=0
    )
    server.close()
    found = compare.numbers(window)
    assert found["problems"] == mock.requests > 0
    assert "finish reason 'stop'" in found["first_problem"]
    assert found["tokens"] == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [(HEAD, "connection lost"), (b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\n{}", "refused")],
)
async def test_a_bad_server_is_a_problem_and_not_a_hang(answer: bytes, said: str) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    window = await load.run(Door("direct", "mock", port=port), MOCK, number=0)
    assert len(window.answers) >= MOCK.concurrency
    assert all(said in answer.problem for answer in window.answers)
    server.close()


def test_prompts_are_the_same_in_every_turn_behind_their_number() -> None:
    one, other = load.prompt(1, 7, 20), load.prompt(2, 7, 20)
    assert one != other
    assert one.split()[1:] == other.split()[1:]
    assert len({load.prompt(1, n, 20)[:9] for n in range(500)}) == 500


def test_a_request_asks_for_a_fixed_length_and_its_count() -> None:
    content = load.body(Door("d", "m"), dataclasses.replace(MOCK, temperature=1.0), "hi", 64)
    fields = json.loads(content)
    assert fields["max_tokens"] == 64
    assert fields["ignore_eos"] is True
    assert fields["stream_options"] == {"include_usage": True}
    assert fields["temperature"] == 1.0
    text = load.request(Door("d", "m", port=80, key="k"), content)
    assert b"authorization: Bearer k\r\n" in text
    assert text.endswith(b"\r\n\r\n" + content)
    assert "temperature" not in json.loads(load.body(Door("d", "m"), MOCK, "hi", 64))


# --- numbers ------------------------------------------------------------------------------------


def test_turns_go_abba() -> None:
    assert "".join(arm[0] for pair in stats.order(4) for arm in pair) == "dttddttd"


def test_intervals() -> None:
    found = stats.interval([1.0, 2.0, 3.0])
    assert found.low is not None
    assert found.mean - found.low == pytest.approx(4.303 / math.sqrt(3))
    one = stats.interval([5.0])
    assert (one.low, one.high) == (None, None)
    ratio = stats.ratio_interval([0.5, 2.0])
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.mean == pytest.approx(1.0)
    assert ratio.low * ratio.high == pytest.approx(1.0)
    assert stats.t95(10_000) == stats.t95(30)


def test_quantiles() -> None:
    assert stats.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert stats.quantile(list(range(1, 101)), 0.99) == 99
    assert math.isnan(stats.quantile([], 0.5))


def test_only_what_came_within_the_window_counts() -> None:
    inside = answers.Answer(10**9, (2 * 10**9, 3 * 10**9), tokens=4)
    before = answers.Answer(0, (5 * 10**8, 15 * 10**8), tokens=2)
    window = load.Window(10**9, 3 * 10**9, answers=[inside, before])
    found = compare.numbers(window)
    assert found["tokens"] == 2 + 1
    assert found["tokens_per_s"] == 1.5
    assert found["ttft_p50_s"] == 1.0
    assert math.isnan(found["itl_p50_s"])


def row(arm: str, rate: float, **more: Any) -> dict[str, Any]:
    counts = {"prefix_cache_hits": 0.0, "num_preemptions": 0.0}
    named = dict.fromkeys(compare.ARM_NUMBERS, 0.01)
    return {
        "arm": arm, "tokens": rate, "problems": 0, "first_problem": "", "streams_checked": 3,
        "engine_counts": counts, **named, "tokens_per_s": rate, **more,
    }  # fmt: skip


def level(*rates: tuple[float, float]) -> Level:
    made = Level(MOCK)
    for number, (direct, through) in enumerate(rates):
        turns = row("direct", direct), row("through", through, server_us_per_token=8.0)
        made.turns += turns
        made.pairs.append(compare.pair_of(number, "direct", *turns))
    return made


def test_the_summary_and_the_bar() -> None:
    found = compare.summary(level((100, 99), (100, 98), (100, 99)))
    assert found["ratio"]["mean"] == pytest.approx(0.9867, abs=1e-3)
    assert found["streams_checked"] == 18
    assert found["through_server_us_per_token"] == 8.0
    assert report.verdict(found, 0.93) is True
    assert report.verdict(found, 0.99) is False
    assert report.verdict({**found, "problems": 1}, 0.93) is False
    assert report.verdict(compare.summary(level((100, 99))), 0.93) is None
    assert report.verdict(compare.summary(level((100, 0))), 0.93) is None
    assert any("Roundhouse 8.0 µs" in line for line in report.closing(found))


def test_what_is_written(tmp_path: Path) -> None:
    made = level((100, 99), (100, 0))
    path = tmp_path / "new" / "out.json"
    report.write(path, report.as_json([made], machine={"nan": math.nan}))
    found = json.loads(path.read_text())
    assert found["machine"]["nan"] is None
    assert [turn["arm"] for turn in found["levels"][0]["turns"]] == ["direct", "through"] * 2
    assert [pair["ratio"] for pair in found["levels"][0]["pairs"]] == [0.99, None]
    assert len(report.line(made.pairs[0])) == len(report.HEAD)


def test_the_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.svg"
    assert report.plot(path, [level((100, 99), (100, 0)), level((100, 90), (9, 9))], 0.93, "t")
    assert "<svg" in path.read_text()


def test_cpu_seconds_of_threads() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel keeps no schedstat")
    before = machine.seconds([os.getpid()])
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert 0.04 < machine.seconds([os.getpid()]) - before < 5
    assert machine.seconds([2**22 + 1]) == 0
    used = Cpu(3, 5, 1, 12).since(Cpu(1, 2, 0, 2))
    assert (used.server, used.engine, used.client, used.others) == (2, 3, 1, 4)


def test_the_engine_on_a_cpu_is_the_quickstart_s(repo_root: Path) -> None:
    shipped = yaml.safe_load((repo_root / "configs" / "quickstart.yaml").read_text())
    ours = on_cpu.engine(compiled=False)
    assert ours == {**shipped["engines"]["guide"], "device": "cpu"}
    assert on_cpu.engine(compiled=True)["args"]["enforce-eager"] is False


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    section = on_cpu.engine(compiled=False)
    with (
        pytest.raises(stack.StackError, match="No Python with vLLM"),
        stack.running(tmp_path, section, str(tmp_path / "python"), within_s=30),
    ):
        pass


def test_a_checkout_that_is_not_installed_has_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setenv("PYTHONPATH", "before")
    folder, other = stack._as_installed(tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert other == "before"
    found = [one.version for one in metadata.distributions(path=[folder])]
    assert found == [roundhouse.__version__]
