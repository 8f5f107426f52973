from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as PromCounter
from prometheus_client.parser import text_string_to_metric_families

from server.engines.scrape import fetch, merge
from server.engines.state import EngineState, EngineView, Instance
from tests.engines.conftest import House, engine, ready


def exposition(value: float, label: str = "m") -> str:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "Running.", ["engine"], registry=registry).labels(label).set(
        value
    )
    PromCounter("vllm:prompt_tokens", "Tokens.", registry=registry).inc(value)
    Histogram("vllm:e2e", "Seconds.", ["m"], buckets=(1, 2), registry=registry).labels(
        label
    ).observe(value)
    return generate_latest(registry).decode()


def test_families_stand_once_and_samples_are_labelled() -> None:
    text = merge({"one": exposition(1), "two": exposition(2, 'qu"o\\te,}')})
    types = Counter(line for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(types.values()) == {1}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["roundhouse_engine"] in ("one", "two")
    assert 'vllm:num_requests_running{roundhouse_engine="one",engine="m"} 1.0' in text
    assert 'vllm:prompt_tokens_total{roundhouse_engine="two"} 2.0' in text


def test_what_is_no_sample_is_left_out() -> None:
    text = merge(
        {
            "one": "# a comment\nnonsense\n\nlone 3 1700000000\n# TYPE a gauge\na NaN\nx{ 1\n"
            '# TYPE b counter\na 2\na_total 5\nc{roundhouse_engine="lie"} 1\n'
        }
    )
    assert text == (
        'lone{roundhouse_engine="one"} 3 1700000000\n'
        '# TYPE a gauge\na{roundhouse_engine="one"} NaN\na{roundhouse_engine="one"} 2\n'
        'a_total{roundhouse_engine="one"} 5\n'
    )
    assert merge({}) == ""


@pytest.mark.parametrize(
    "line",
    [
        *("Hello world", "else {", "x 1_0", "x 0x1", "x 1e", "x ١", "x infinity", "ä 1"),
        *("x{oops} 1", "x{a=1} 1", 'x{a="b} 1', 'x{a="b"c="d"} 1', r'x{a="\t"} 1', "x{,} 1"),
        *("# TYPE x banana", "# TYPE x info", "# TYPE x"),
        *('x{ roundhouse_engine="lie"} 1', 'x{a="b", roundhouse_replica="0"} 1'),
    ],
)
def test_no_scraper_refuses_all_for_what_one_engine_says(line: str) -> None:
    assert merge({("odd", 0): f"{line}\n", ("two", 0): "x 2\n"}) == (
        'x{roundhouse_engine="two",roundhouse_replica="0"} 2\n'
    )


@pytest.mark.parametrize(
    "sample",
    [
        *("x 1", "x -1.5e-3", "x +Inf", "x .5", "x 5.", "x{} 1", 'x{a="b",} 1'),
        *('x{a="b", c="d"} NaN 12', r'x{a="\"\\\n,}{ = "} 1', 'x{a="ä\x85"} 1'),
    ],
)
def test_every_way_to_write_a_sample(sample: str) -> None:
    text = merge({"one": f"{sample}\n"})
    (family,) = text_string_to_metric_families(text)
    (before,) = text_string_to_metric_families(f"{sample}\n")
    labels = before.samples[0].labels | {"roundhouse_engine": "one"}
    assert family.samples[0].labels == labels
    assert repr(family.samples[0].value) == repr(before.samples[0].value)


def test_replicas_of_an_engine_are_told_apart() -> None:
    text = merge({("two", 0): exposition(1), ("two", 1): exposition(2)})
    both = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "vllm:prompt_tokens_total"
    ]
    assert {one.labels["roundhouse_replica"]: one.value for one in both} == {"0": 1, "1": 2}
    assert {one.labels["roundhouse_engine"] for one in both} == {"two"}
    assert merge({("two", 1): 'a{roundhouse_replica="0"} 1\n'}) == ""


async def test_every_ready_instance_is_asked_over_its_socket_or_port() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if statuses.pop(0) == 200 else b"404 no"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 4\r\n\r\na 1\n")
        await writer.drain()
        writer.close()

    statuses = [200, 404]
    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready = Instance(1, EngineState.READY, url=url)
        starting = Instance(0, EngineState.STARTING, url=url)
        gone = Instance(2, EngineState.READY, socket="/nowhere/s")
        view = EngineView("cmd", EngineState.READY, url=url, instances=(starting, ready, gone))
        text, left_out = await fetch([view], timeout=5)
        assert text == 'a{roundhouse_engine="cmd",roundhouse_replica="1"} 1\n'
        assert left_out == ("cmd",)
        # What a command runs may have none, and is missed by nobody.
        view = EngineView("cmd", EngineState.READY, url=url, instances=(ready,))
        assert await fetch([view], timeout=5) == ("", ())


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
        st.tuples(st.integers(0, 10**6), st.text(st.characters(codec="ascii"), max_size=8)),
        max_size=5,
    )
)
def test_nothing_is_lost_or_doubled(engines: dict[str, tuple[int, str]]) -> None:
    # The parser splits at more line ends than the format has: keep to printable names.
    engines = {name: told for name, told in engines.items() if name.isprintable()}
    text = merge({name: exposition(value, label) for name, (value, label) in engines.items()})
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    totals = {
        sample.labels["roundhouse_engine"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "vllm:prompt_tokens_total"
    }
    assert totals == {name: value for name, (value, _) in engines.items()}


async def test_a_slow_engine_is_left_out(house: House) -> None:
    supervisor = await house.start(
        one=engine(), two=engine(health_interval=3600), off=engine(load="request")
    )
    await ready(supervisor, "one")
    two = await ready(supervisor, "two")
    dead = EngineView("dead", EngineState.READY, socket="/nowhere/s")
    text, missing = await fetch([*supervisor.views(), dead], timeout=5)
    assert missing == ("dead",)
    assert 'roundhouse_engine="one"' in text
    assert 'roundhouse_engine="two"' in text
    assert two.pid is not None
    await supervisor.unload("one")
    text, missing = await fetch(supervisor.views(), timeout=5)
    assert 'roundhouse_engine="one"' not in text


async def test_answers_have_a_deadline_and_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 50)
        await reader.read()
        writer.close()

    socket = str(tmp_path / "s")
    async with await asyncio.start_unix_server(endless, socket):
        view = EngineView("slow", EngineState.READY, socket=socket)
        assert await fetch([view], timeout=0.05) == ("", ("slow",))
        monkeypatch.setattr("server.engines.control.MAX_ANSWER", 10)
        assert await fetch([view], timeout=5) == ("", ("slow",))
