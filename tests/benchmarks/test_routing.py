"""benchmarks.routing: everything but the engines themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.engine import stack
from benchmarks.routing import __main__ as program
from benchmarks.routing import figures, site
from benchmarks.routing.client import Door, ask
from benchmarks.routing.work import Crowd, Talks, asking_order, conversation, talk, throng, told
from benchmarks.upstream import framed
from server.config.load import load
from server.config.resolve import external_engines, resolve_models

TALKS = Talks(conversations=3, questions=3, system_words=20, question_words=4, at_once=2)


def stream(tokens: int) -> bytes:
    """An engine's whole answer of so many tokens."""
    events: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    ]
    for at in range(1, tokens + 1):
        finish = "length" if at == tokens else None
        events.append({"choices": [{"delta": {"content": "a"}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": {"completion_tokens": tokens}})
    blocks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return b"".join(framed(block) for block in (*blocks, b"data: [DONE]\n\n")) + b"0\r\n\r\n"


class Gateway:
    """Answers every request as told, by turns from two targets. `asked`: the bodies."""

    def __init__(self, *, status: str = "200 OK", cut: int | None = None) -> None:
        self.status, self.cut = status, cut
        self.asked: list[dict[str, Any]] = []
        self.open = self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.asked.append(body)
        target = ("one", "two")[len(self.asked) % 2]
        writer.write(
            f"HTTP/1.1 {self.status}\r\nx-roundhouse-target: engine/{target}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        writer.write(stream(body["max_tokens"])[: self.cut])
        self.open -= 1
        writer.close()


@contextlib.asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[Door]:
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    try:
        yield Door(server.sockets[0].getsockname()[1], "sk-benchmark")
    finally:
        server.close()
        await server.wait_closed()


# --- what is asked ------------------------------------------------------------------------------


def test_a_conversation_goes_on_where_it_was() -> None:
    first, second = (conversation(TALKS, 1, 2, number) for number in (1, 2))
    assert [part["role"] for part in second] == ["system", "user", "assistant", "user"]
    assert second[: len(first)] == first


def test_conversations_and_turns_share_no_beginning() -> None:
    texts = [
        conversation(TALKS, turn, number, 1)[0]["content"][:9]
        for turn in (1, 2)
        for number in range(3)
    ]
    assert len(set(texts)) == len(texts)


def test_all_ask_once_before_anybody_asks_again() -> None:
    order = asking_order(TALKS, seed=1)
    assert [question for _, question in order] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [sorted(number for number, _ in order[at : at + 3]) for at in (0, 3, 6)] == [
        [0, 1, 2]
    ] * 3
    assert asking_order(TALKS, seed=1) == order
    assert any(asking_order(TALKS, seed=seed) != order for seed in range(2, 9))


async def test_conversations_are_asked_in_turn() -> None:
    gateway = Gateway()
    async with listening(gateway) as door:
        row = await talk(door, "affinity", TALKS, turn=1, seed=1)
    assert (row["answers"], row["problems"]) == (9, 0)
    assert sum(row["where"].values()) == 9
    assert set(row["where"]) == {"one", "two"}
    assert {body["model"] for body in gateway.asked} == {"affinity"}
    assert gateway.most <= TALKS.at_once
    lengths = sorted(len(body["messages"]) for body in gateway.asked)
    assert lengths == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    assert 0 < row["first_p50_s"] <= row["first_p95_s"]


async def test_a_crowd_asks_again_until_its_time_is_over() -> None:
    gateway = Gateway()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.1
        return now

    crowd = Crowd(people=2, words=3, tokens=2, warm_up_s=1.0, seconds=2.0)
    async with listening(gateway) as door:
        row = await throng(door, "ordered", crowd, 1, clock=clock)
    assert row["problems"] == 0
    assert 0 < row["answers"] < len(gateway.asked)
    assert len({body["messages"][0]["content"] for body in gateway.asked}) == len(gateway.asked)


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        (Gateway(status="503 Service Unavailable"), "status 503"),
        (Gateway(cut=-60), ""),
    ],
    ids=["refused", "cut"],
)
async def test_what_is_no_whole_answer_is_a_problem(gateway: Gateway, problem: str) -> None:
    async with listening(gateway) as door:
        answered = await ask(door, "ordered", [{"role": "user", "content": "hi"}], 3)
    assert answered.problem
    assert problem in answered.problem
    row = told([answered], 1.0)
    assert (row["problems"], row["first_problem"]) == (1, answered.problem)


async def test_nobody_listens() -> None:
    answered = await ask(Door(stack.free_port(), "k"), "ordered", [], 3)
    assert "Connect" in answered.problem


# --- the site -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engines", [site.ours(8, 32), site.elsewhere((8101, 8102))])
def test_the_server_takes_the_config(engines: dict[str, Any], tmp_path: Path) -> None:
    made = site.config(engines, ports=(8011, 8012), key="sk-benchmark-0123456789", home=tmp_path)
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(made))
    loaded = load(str(path), environ={})
    models = resolve_models(loaded.config, loaded.catalog)
    for policy in site.POLICIES:
        assert models[policy].balance == policy
        assert [target.engine for target in models[policy].targets] == ["one", "two"]
    outside = external_engines(loaded.config)
    assert set(outside) in (set(), {"one", "two"})


def test_counts_over_all_series() -> None:
    exposition = (
        'vllm:prefix_cache_hits_total{engine="0",roundhouse_engine="one"} 128.0\n'
        'vllm:prefix_cache_hits_total{engine="0",roundhouse_engine="two"} 256.0\n'
        'vllm:prefix_cache_hits_created{engine="0"} 1.7e9\n'
        'other:prefix_cache_hits_total{engine="0"} 5.0\n'
    )
    assert stack.counts(exposition, ("prefix_cache_hits",)) == {"prefix_cache_hits": 384.0}


# --- figures ------------------------------------------------------------------------------------


def row(number: int, policy: str, hits: float = 0.5, first: float = 0.1, p95: float = 0.2) -> Any:
    return {
        "round": number, "policy": policy, "hit_ratio": hits, "first_p50_s": first,
        "first_p95_s": p95, "answers_per_s": 10.0, "where": {"one": 3}, "problems": 0,
        "first_problem": "",
    }  # fmt: skip


def test_rounds_go_forwards_and_backwards() -> None:
    assert figures.rounds("abc", 3) == [("a", "b", "c"), ("c", "b", "a"), ("a", "b", "c")]


def test_a_turn_that_went_wrong_says_so() -> None:
    good = row(0, "ordered")
    assert "PROBLEM" not in figures.line(good)
    assert "2 PROBLEMS: why" in figures.line({**good, "problems": 2, "first_problem": "why"})


def test_medians_and_ratios_are_by_policy_and_round() -> None:
    rows = [
        row(0, "affinity", 0.6), row(0, "ordered", 0.3),
        row(1, "ordered", 0.2), row(1, "affinity", 0.4),
        row(2, "affinity", 0.9),
    ]  # fmt: skip
    assert figures.medians(rows)["affinity"]["hit_ratio"] == 0.6
    assert figures.medians(rows)["ordered"]["hit_ratio"] == 0.25
    found = figures.ratio(rows, "hit_ratio", "affinity", "ordered")
    assert found is not None
    assert found["mean"] == pytest.approx(2.0)
    assert found["count"] == 2


def test_nothing_is_no_ratio() -> None:
    rows = [row(0, "affinity", 0.6), row(0, "ordered", 0.0)]
    assert figures.ratio(rows, "hit_ratio", "affinity", "ordered") is None
    assert "–" in figures.shown(None)
    assert figures.ratio(rows, "hit_ratio", "affinity", "least_busy") is None


@pytest.mark.parametrize(("better", "worse"), [(0.6, 0.2), (0.2, 0.6)])
def test_verdicts_hold_only_what_is_better(better: float, worse: float) -> None:
    talks = [
        row(0, "affinity", better), row(0, "ordered", worse), row(0, "least_busy", worse),
    ]  # fmt: skip
    crowd = [
        row(0, "ordered", first=better, p95=better),
        row(0, "least_busy", first=worse, p95=worse),
    ]
    expected = [better > worse] * 2
    assert [held for _, held in figures.verdicts("conversations", talks)] == expected
    assert [held for _, held in figures.verdicts("crowd", crowd)] == expected


class _Site:
    """Engines of whose prompts every second token was cached."""

    def __init__(self, door: Door) -> None:
        self.door, self.asked = door, 0

    def counts(self) -> dict[str, float]:
        self.asked += 1
        return {"prefix_cache_hits": 50.0 * self.asked, "prefix_cache_queries": 100.0 * self.asked}


def options(folder: Path, *words: str) -> Any:
    return program.parser().parse_args(["--out", str(folder), "--rounds", "1", *words])


def test_a_run_is_written_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def small(*args: Any, **more: Any) -> Any:
        one = await ask(args[0], args[1], [], 2)
        return told([one], 1.0)

    monkeypatch.setattr(program, "talk", small)
    monkeypatch.setattr(program, "throng", small)

    # uvloop.run begins a loop for each turn; the gateway needs one that goes on meanwhile.
    gateway, ready, over = Gateway(), threading.Event(), asyncio.Event()
    doors: list[Door] = []

    async def stay() -> None:
        async with listening(gateway) as door:
            doors.append(door)
            ready.set()
            await over.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(stay(),))
    thread.start()
    try:
        assert ready.wait(30)
        about: dict[str, Any] = {"title": "T", "told": "where", "command": "c", "settings": {}}
        run = program.Run(_Site(doors[0]), options(tmp_path), about)  # type: ignore[arg-type]
        for part in program.PARTS:
            run.part(part)
        text, _good = run.report()
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()
    written = json.loads((tmp_path / "routing.json").read_text())
    assert [turn["policy"] for turn in written["turns"]["conversations"]] == list(site.POLICIES)
    assert [turn["hit_ratio"] for turn in written["turns"]["crowd"]] == [0.5, 0.5]
    assert written["settings"]["talks"]["conversations"] == Talks().conversations
    assert "| `affinity` | 50.0% |" in text
    # Nothing is better than itself.
    assert "NOT held" in text
    assert "conversations" in capsys.readouterr().out


def test_external_results_have_a_folder_of_their_own(tmp_path: Path) -> None:
    ours, theirs = (program.parser().parse_args(words) for words in ([], ["--external"]))
    assert program.folder_of(ours).name.endswith("-routing")
    assert program.folder_of(theirs).name.endswith("-routing-external")
    assert program.folder_of(options(tmp_path)) == tmp_path


def test_the_command_names_no_folder_of_this_machine() -> None:
    told = program.command_of(["--rounds", "2", "--out", "/here", "--external"])
    assert told == "python -m benchmarks.routing --rounds 2 --external"


def test_without_vllm_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: Sequence[str] = ["--out", str(tmp_path), "--vllm-python", str(tmp_path / "python")]
    assert program.main(words) == 2
    assert "make setup-engine" in capsys.readouterr().out
