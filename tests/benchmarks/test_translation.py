"""benchmarks.translation: what the mock says, in step with its clients, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from benchmarks import gateways, machine
from benchmarks.load import wire
from benchmarks.load.wire import Place, Unchunker
from benchmarks.translation import __main__ as command
from benchmarks.translation import figures, steps
from benchmarks.translation.figures import BLOCK, Costs, Turn, costs, dearest, tables, verdict
from benchmarks.translation.spoken import MARK, PASSED, SPOKEN, words
from benchmarks.translation.steps import Client, Mock, Part, WrongAnswer, check
from server.dialects.base import Asked
from server.dialects.table import DIALECTS
from server.protocol import sse
from server.protocol.envelope import Surface

TRANSLATED = [name for name in SPOKEN if name != PASSED]
ASKED = Asked(Surface.CHAT, "m", "chatcmpl-1", 1700000000)


# --- what is said


def contents(chunks: Sequence[bytes]) -> list[str]:
    """What each chunk has of the text."""
    choices = [msgspec.json.decode(chunk)["choices"][0] for chunk in chunks]
    return [choice["delta"].get("content") or "" for choice in choices]


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_each_piece_of_a_stream_is_one_chunk(dialect: str) -> None:
    reader = DIALECTS[dialect].reader(ASKED)
    begin, *pieces, end = SPOKEN[dialect].stream(words(4))

    def fed(block: bytes) -> list[bytes]:
        payloads = [sse.data_of(event) for event in sse.events(block)]
        return [made for payload in payloads if payload for made in reader.feed(None, payload)]

    first = contents(fed(begin))
    assert [text for text in first if text] == ["word000 "]
    assert [contents(fed(piece)) for piece in pieces] == [
        ["word001 "],
        ["word002 "],
        ["word003 "],
    ]
    assert not reader.done
    *last, done = fed(end)
    assert done == b"[DONE]"
    assert "".join(contents(last)) == ""
    assert reader.done
    assert reader.usage is not None


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_a_whole_answer_has_the_text(dialect: str) -> None:
    text = "".join(words(3))
    payload, facts = DIALECTS[dialect].answer_in(SPOKEN[dialect].whole(text), ASKED)
    assert msgspec.json.decode(payload)["choices"][0]["message"]["content"] == text
    assert facts.error is None
    assert facts.usage is not None


@pytest.mark.parametrize("dialect", SPOKEN)
def test_the_mark_stands_once_in_a_piece_and_nowhere_else(dialect: str) -> None:
    first, second, end = SPOKEN[dialect].stream(words(2))
    assert [part.count(MARK) for part in (first, second, end)] == [1, 1, 0]


@pytest.mark.parametrize(("block", "in_each"), [(1, [1] * 5), (2, [2, 2, 1]), (BLOCK, [5])])
def test_what_is_written_at_once(block: int, in_each: list[int]) -> None:
    *parts, end = Part("cohere", 5, block).writes()
    assert [part.count(MARK) for part in parts] == in_each
    head, _, _ = parts[0].partition(b"\r\n\r\n")
    chunks = Unchunker()
    chunks.feed(b"".join([*parts, end])[len(head) + 4 :])
    assert chunks.ended


# --- in step


@contextlib.asynccontextmanager
async def mock() -> AsyncIterator[tuple[Mock, Place]]:
    """The mock, whose clients may as well ask it directly."""
    made = Mock()
    server = await made.listen()
    try:
        yield made, Place("127.0.0.1", server.sockets[0].getsockname()[1], (), "mock")
    finally:
        server.close()
        made.leave()
        while made.peers:
            await asyncio.sleep(0)


@pytest.mark.parametrize("block", [0, 1, 2, BLOCK])
async def test_streams_and_answers_come_whole(block: int) -> None:
    async with mock() as (made, place):
        part = Part(PASSED, 7, block)
        made.take(part)
        clients = [await Client.connected(place, made, number) for number in range(3)]
        await asyncio.gather(*(one.ask(part, 4) for one in clients))
        for one in clients:
            one.leave()


async def test_the_next_piece_waits_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = Client._step

    def noted(self: Client, data: bytes, part: Part) -> None:
        seen.append(data.count(MARK))
        step(self, data, part)

    monkeypatch.setattr(Client, "_step", noted)
    async with mock() as (made, place):
        part = Part(PASSED, 6, 2)
        made.take(part)
        one = await Client.connected(place, made, 0)
        await one.ask(part, 1)
        one.leave()
    assert [count for count in seen if count] == [2, 2, 2]


async def test_an_answer_that_is_another_counts_for_nothing() -> None:
    async with mock() as (made, place):
        made.take(Part(PASSED, 3, 0))
        one = await Client.connected(place, made, 0)
        with pytest.raises(WrongAnswer, match="not what was said"):
            await one.ask(Part(PASSED, 4, 0), 1)
        one.leave()


async def test_a_lost_connection_is_told() -> None:
    async with mock() as (made, place):
        one = await Client.connected(place, made, 0)
        asking = asyncio.ensure_future(one.ask(Part(PASSED, 3, 1), 1))
        await asyncio.sleep(0)
        made.leave()
        one.transport.abort()
        with pytest.raises(WrongAnswer, match="connection lost"):
            await asking


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"nothing",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_answer(raw: bytes, stream: bool) -> None:
    with pytest.raises(WrongAnswer):
        check(raw, "text", stream=stream)


async def test_an_error_in_place_of_a_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"error":{"message":"no"}}'
    refused = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    monkeypatch.setattr(Part, "writes", lambda self: [refused])
    async with mock() as (made, place):
        part = Part(PASSED, 3, 1)
        made.take(part)
        one = await Client.connected(place, made, 0)
        with pytest.raises(WrongAnswer, match="502"):
            await one.ask(part, 1)
        one.leave()


# --- figures


def turns(number: int, events: dict[str, float], stream: float = 200.0) -> list[Turn]:
    """A round in which an event costs what is given, and in blocks a tenth of it."""
    found = []
    for dialect in SPOKEN:
        one = events.get(dialect, 30.0)
        for pieces in (8, 208):
            found.append(Turn(number, Part(dialect, pieces, 1), stream + pieces * one))
            found.append(Turn(number, Part(dialect, pieces, BLOCK), stream + pieces * one / 10))
        found.append(Turn(number, Part(dialect, 8, 0), 3 * one))
    return found


def test_what_a_request_costs_cancels() -> None:
    found = costs([*turns(0, {PASSED: 20.0}), *turns(1, {PASSED: 21.0}, stream=999.0)], 8, 208)
    assert found[PASSED].event == pytest.approx([20.0, 21.0])
    assert found[PASSED].event_of_block == pytest.approx([2.0, 2.1])
    assert found[PASSED].stream == pytest.approx([200.0, 999.0])
    assert found["cohere"].event == pytest.approx([30.0, 30.0])
    assert found["cohere"].whole == pytest.approx([90.0, 90.0])


def test_added_is_paired_by_round() -> None:
    found = figures.added([31.0, 42.0, 52.0], [20.0, 30.0, 41.0])
    assert found.middle == pytest.approx(34 / 3)
    assert found.low is not None
    assert found.low < 11.0


def of_rounds(**events: list[float]) -> dict[str, Costs]:
    rounds = [
        turn
        for number in range(3)
        for turn in turns(number, {name: said[number] for name, said in events.items()})
    ]
    return costs(rounds, 8, 208)


def test_the_dearest_decides() -> None:
    found = of_rounds(openai=[20.0] * 3, mistral=[58.0, 59.0, 60.0])
    name, most = dearest(found)
    assert (name, round(most.middle, 6)) == ("mistral", 39.0)
    said, met = verdict(found)
    assert met
    assert said.endswith("at most: 39.0 µs (mistral), **met**; the interval holds the bar.")
    said, met = verdict(of_rounds(openai=[20.0] * 3, cohere=[61.0, 61.1, 61.2]))
    assert not met
    assert said.endswith("41.1 µs (cohere), **not met**.")


def test_the_tables_have_every_dialect_once() -> None:
    text = tables(of_rounds(openai=[20.0] * 3, cohere=[30.0, 31.0, 32.0]))
    for dialect in SPOKEN:
        assert text.count(f"| {dialect}") == 2
    line = next(line for line in text.splitlines() if line.startswith("| cohere "))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:3] == ["cohere", "31.0", "11.0 (8.5 to 13.5)"]


def test_without_rounds_enough_there_is_no_interval() -> None:
    assert " to " not in tables(costs(turns(0, {PASSED: 20.0}), 8, 208))


# --- a run


def test_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, small, with a server of its own."""
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "choose", lambda: machine.Cores(cores[0], cores[-1]))
    monkeypatch.setattr(machine, "settle_in", lambda _: None)
    monkeypatch.setattr(gateways, "_LOOK", 0.01)
    monkeypatch.setattr(gateways, "_QUIET", 1.0)
    small = ["--rounds", "1", "--clients", "2", "--streams", "2", "--short", "2", "--long", "20"]
    assert command.main([*small, "--out", str(tmp_path)]) in (0, 1)  # that is the machine's to say
    said = capsys.readouterr()
    assert "wrong" not in said.err
    text = (tmp_path / "translation.md").read_text("utf-8")
    assert said.out.strip() == text.strip()
    assert str(tmp_path) not in text
    found = json.loads((tmp_path / "translation.json").read_text("utf-8"))
    assert len(found["turns"]) == 5 * len(SPOKEN)
    assert all(math.isfinite(turn["cpu_us"]) and turn["cpu_us"] > 0 for turn in found["turns"])


def test_one_core_is_too_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def choose() -> machine.Cores:
        raise machine.NoMachine("one core")

    monkeypatch.setattr(machine, "choose", choose)
    assert command.main([]) == 2
    assert "one core" in capsys.readouterr().err


def test_a_wrong_answer_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def wrong(*_: object) -> None:
        raise WrongAnswer("another text")

    monkeypatch.setattr(command, "measure", wrong)
    monkeypatch.setattr(machine, "choose", lambda: machine.Cores(0, 1))
    monkeypatch.setattr(machine, "settle_in", lambda _: None)
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    assert "another text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_prompt_may_have_an_opening() -> None:
    place = Place("127.0.0.1", 1, (), "m")
    plain = wire.request(place, stream=True, prompt=40)
    opened = wire.request(place, stream=True, prompt=40, opening=steps.WHO + "0007 ")
    assert len(plain) == len(opened)
    assert b'"content":"client 0007 lorem' in opened
