"""The way in: limits of the key, places of the model and of the server, and what is reserved."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from server.access.admission import Admission, Admitted, _inline, estimate
from server.access.keys import EVERYONE, KeyInfo
from server.access.limits import KeyLimits
from server.errors import Overloaded, RateLimited
from server.protocol import envelope
from server.protocol.envelope import Surface
from server.telemetry.metrics import Metrics
from tests.fakes.stepped import SteppedLoop

KEY = KeyInfo("a", limits=KeyLimits(rpm=3, tpm=1000, max_in_flight=2))
FREE = KeyInfo("b")


class Door:
    """An admission on a loop that stands still. One place of the model, none to wait."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.metrics = Metrics()
        self.admission = Admission(self.metrics, self.loop.time)

    def come(
        self,
        key: KeyInfo = FREE,
        tokens: int = 10,
        *,
        model: tuple[int | None, int] = (None, 0),
        server: tuple[int | None, int] = (None, 0),
        deadline: float = 1e9,
    ) -> asyncio.Task[Admitted]:
        task = self.loop.create_task(
            self.admission.enter(
                key,
                "m",
                *model,
                tokens,
                server_slots=server[0],
                server_waiting=server[1],
                deadline=deadline,
            )
        )
        self.loop.step()
        return task

    def refused(self, key: KeyInfo = KEY, tokens: int = 10) -> RateLimited:
        error = self.come(key, tokens).exception()
        assert isinstance(error, RateLimited)
        return error

    def shed(self) -> dict[str, float]:
        return {reason: child.value for (reason,), child in self.metrics.shed.series.items()}

    def rooms(self) -> dict[str, tuple[int, int]]:
        return {room.kind: (room.inside, room.depth) for room in self.admission.rooms.all()}


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.loop.close()


def test_without_limits_nothing_is_asked() -> None:
    assert Admission.open(EVERYONE, None, None)
    assert Admission.open(FREE, None, None)
    assert not Admission.open(KEY, None, None)
    assert not Admission.open(FREE, 1, None)
    assert not Admission.open(FREE, None, 1)


def test_who_enters_all_the_same_gets_in_without_waiting(door: Door) -> None:
    coroutine = door.admission.enter(
        FREE, "m", None, 0, 5, server_slots=None, server_waiting=0, deadline=0.0
    )
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    admitted: Admitted = done.value.value
    admitted.settle(5)
    admitted.leave()
    assert (admitted.headers, admitted.waited) == ({}, 0.0)
    assert door.admission.limiter.reserved == 0


def test_headers_say_how_the_key_stands(door: Door) -> None:
    admitted = door.come(KEY, 100).result()
    assert admitted.headers == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6s",
    }


def test_requests_per_minute(door: Door) -> None:
    for _ in range(3):
        admitted = door.come(KEY).result()
        admitted.settle(None)
        admitted.leave()
    error = door.refused()
    assert (error.status, error.type, error.code) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert error.message == "This key may send 3 requests per minute, and has. Try again in 20s."
    headers = error.headers()
    assert headers["retry-after"] == "20"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in headers
    door.loop.now = 20.0
    assert door.come(KEY).result()
    assert door.shed() == {"key_requests": 1}


def test_tokens_per_minute(door: Door) -> None:
    first = door.come(KEY, 600).result()
    error = door.refused(tokens=700)
    assert error.code == "rate_limit_exceeded"
    assert "1000 tokens per minute; this request may need 700" in error.message
    assert error.headers()["retry-after"] == "18"
    first.settle(200)
    assert door.come(KEY, 700).result()
    assert door.shed() == {"key_tokens": 1}


def test_a_request_that_never_fits_is_told_not_to_come_again(door: Door) -> None:
    error = door.refused(tokens=1001)
    assert (error.status, error.code) == (429, "request_too_large")
    assert "may need 1001 tokens, estimated" in error.message
    headers = error.headers()
    assert "retry-after" not in headers
    assert headers["x-should-retry"] == "false"
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert door.shed() == {"key_tokens": 1}


def test_requests_in_flight(door: Door) -> None:
    one, _ = door.come(KEY).result(), door.come(KEY).result()
    error = door.refused()
    assert error.message == "This key may have 2 requests in flight, and has."
    assert error.headers()["retry-after"] == "1"
    one.leave()
    one.leave()
    assert door.come(KEY).result()
    assert isinstance(door.refused(), RateLimited)
    assert door.shed() == {"key_in_flight": 2}


def test_places_of_the_model_and_of_the_server(door: Door) -> None:
    first = door.come(model=(1, 1), server=(1, 1)).result()
    assert door.rooms() == {"model": (1, 0), "server": (1, 0)}
    other = door.come(server=(1, 1))
    door.loop.now = 2.0
    waiter = door.come(model=(1, 1), server=(1, 1))
    assert door.rooms() == {"model": (1, 1), "server": (1, 1)}
    door.loop.now = 3.0
    first.leave()
    door.loop.step()
    # The model let it in. Another request has the server's place.
    assert other.result().waited == 3.0
    assert door.rooms() == {"model": (1, 0), "server": (1, 1)}
    door.loop.now = 7.0
    other.result().leave()
    door.loop.step()
    assert waiter.result().waited == 5.0
    waiter.result().leave()
    assert door.rooms() == {"model": (0, 0), "server": (0, 0)}
    assert door.shed() == {}
    counts = door.metrics.queue_wait
    assert (sum(counts.labels("model").counts), counts.labels("server").total) == (2, 7.0)


def test_who_waits_for_a_model_holds_no_place_of_the_server(door: Door) -> None:
    door.come(model=(1, 8), server=(2, 0)).result()
    waiters = [door.come(model=(1, 8), server=(2, 0)) for _ in range(8)]
    assert door.come(server=(2, 0)).result(), "another model's request finds a place"
    assert not any(waiter.done() for waiter in waiters)


@pytest.mark.parametrize("full", ["model", "server"])
def test_a_request_that_is_turned_away_is_none_of_the_keys(door: Door, full: str) -> None:
    model, server = ((1, 0), (None, 0)) if full == "model" else ((None, 0), (1, 0))
    inside = door.come(model=model, server=server).result()
    for _ in range(9):
        error = door.come(KEY, 900, model=model, server=server).exception()
        assert isinstance(error, Overloaded)
    inside.leave()
    for _ in range(3):
        admitted = door.come(KEY, 300, model=model, server=server).result()
        admitted.settle(300)
        admitted.leave()
    assert door.refused().code == "rate_limit_exceeded"
    assert door.shed() == {f"{full}_queue": 9, "key_requests": 1}
    limiter = door.admission.limiter
    assert (limiter.reserved, limiter.settled, limiter.released) == (9000, 900, 8100)


def test_a_place_of_the_model_goes_back_when_the_server_is_full(door: Door) -> None:
    door.come(server=(1, 0)).result()
    assert isinstance(door.come(model=(1, 0), server=(1, 0)).exception(), Overloaded)
    assert door.rooms() == {"model": (0, 0), "server": (1, 0)}


def test_turned_away_by_the_clock(door: Door) -> None:
    door.come(server=(1, 1)).result()
    waiter = door.come(KEY, model=(1, 0), server=(1, 1), deadline=30.0)
    door.loop.now = 30.0
    door.loop.step(2)
    error = waiter.exception()
    assert isinstance(error, Overloaded)
    assert error.message.startswith("This server is busy")
    assert door.rooms() == {"model": (0, 0), "server": (1, 0)}
    assert door.shed() == {"queue_timeout": 1}
    assert door.come(KEY).result().headers["x-ratelimit-remaining-requests"] == "2"


def test_turned_away_by_a_target(door: Door) -> None:
    door.come(KEY).result().leave(uncount=True)
    assert door.come(KEY).result().headers["x-ratelimit-remaining-requests"] == "2"


@pytest.mark.parametrize("at", ["model", "server"])
def test_a_client_that_goes_while_it_waits_was_a_request(door: Door, at: str) -> None:
    inside = door.come(model=(1, 0), server=(1, 1)).result()
    waiter = door.come(KEY, model=(1 if at == "model" else 2, 1), server=(1, 1))
    waiter.cancel()
    door.loop.step()
    assert waiter.cancelled()
    inside.leave()
    assert door.rooms() == {"model": (0, 0), "server": (0, 0)}
    headers = door.come(KEY).result().headers
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-remaining-tokens"] == "990"


def test_keys_take_turns(door: Door) -> None:
    inside = [door.come(model=(1, 20)).result()]
    greedy = [door.come(FREE, model=(1, 20)) for _ in range(9)]
    late = [door.come(KEY, model=(1, 20)) for _ in range(2)]
    order = ""
    while inside:
        inside.pop().leave()
        door.loop.step()
        for name, tasks in (("a", greedy), ("b", late)):
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                inside.append(task.result())
                order += name
    assert order == "ababaaaaaaa"


def test_a_reload(door: Door) -> None:
    door.come(KEY, model=(1, 4), server=(9, 9)).result()
    waiters = [door.come(model=(1, 4), server=(9, 9)) for _ in range(3)]
    apply = door.admission.apply
    apply(["a"], server=(9, 9), models={"m": (2, 4)}, targets={}, providers={})
    door.loop.step()
    assert [waiter.done() for waiter in waiters] == [True, False, False]
    door.admission.collect()
    assert door.metrics.queue_depth.series[("model", "m")].value == 2
    apply([], server=None, models={}, targets={}, providers={})
    door.loop.step()
    assert all(waiter.done() for waiter in waiters)
    assert door.rooms() == {}
    for waiter in waiters:
        waiter.result().leave()


def members(**body: object) -> dict[str, msgspec.Raw]:
    return envelope.members(envelope.emit(body))


@pytest.mark.parametrize(
    ("body", "default", "tokens"),
    [
        ({}, None, 26 + 256),
        ({}, 512, 26 + 512),
        ({"max_tokens": 50}, 512, 26 + 50),
        ({"max_tokens": 50, "max_completion_tokens": 60}, None, 26 + 60),
        ({"max_tokens": None}, None, 26 + 256),
        ({"max_tokens": 50, "n": 3}, None, 26 + 150),
        ({"max_tokens": 10**12, "n": -1}, None, 26 + 256),
        ({"max_tokens": 10**4000}, None, 26 + 256),
        ({"max_tokens": "5"}, None, 26 + 256),
        ({"max_tokens": 10**8}, None, 10_000),
    ],
)
def test_what_is_reserved(body: dict[str, object], default: int | None, tokens: int) -> None:
    found = members(model="m", **body)
    assert estimate(found, Surface.CHAT, 100, default, 10_000) == tokens
    assert estimate(found, Surface.COMPLETIONS, 100, default, 10_000) == tokens
    assert estimate(found, Surface.EMBEDDINGS, 100, default, 10_000) == 26
    assert estimate(found, Surface.TOKENIZE, 100, default, 10_000) == 0
    assert estimate(found, Surface.CHAT, 100, default, None) == 0


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"query": "why, then?", "documents": ["a", "b", "c"]}, 26 + 2 * 12 // 4),
        ({"query": "why, then?", "documents": ["a"], "max_tokens": 50}, 26),
        ({"query": "why, then?", "documents": []}, 26),
        ({"query": "why, then?", "documents": "a"}, 26),
        ({"documents": ["a", "b"]}, 26),
        ({"query": "why, then?"}, 26),
    ],
)
def test_a_query_is_read_with_each_document(body: dict[str, object], tokens: int) -> None:
    assert estimate(members(model="m", **body), Surface.RERANK, 100, None, 10_000) == tokens


def test_a_number_that_is_no_number_of_tokens() -> None:
    found = envelope.members(b'{"max_tokens": 1e999, "n": 1e308}')
    assert estimate(found, Surface.CHAT, 100, None, 10_000) == 26 + 256


def test_a_prompt_alone_may_be_more_than_the_key_has() -> None:
    assert estimate(members(max_tokens=5), Surface.CHAT, 100, None, 20) == 26


def test_pictures_and_sounds_are_not_read_as_text() -> None:
    data = base64.b64encode(bytes(30_000)).decode()
    parts = [
        {"type": "text", "text": "x" * 4000 + ' a quote: "data": "' + "y" * 5000},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "other", "data": {"z": 1}},
    ]
    body = envelope.emit({"messages": [{"role": "user", "content": parts}], "max_tokens": 1})
    text = len(body) - 2 * len(data)
    found = estimate(envelope.members(body), Surface.CHAT, len(body), None, 10**6)
    assert found == text // 4 + 1 + 2 * 1024 + 1
    spaced = body.replace(b'"data":', b'"data" :').replace(b'"data" :', b'"data":  ')
    again = estimate(envelope.members(spaced), Surface.CHAT, len(spaced), None, 10**6)
    assert abs(again - found) <= 1


def estimated(messages: str) -> int:
    """The tokens of the prompt of a body with these messages, which are its whole size."""
    found = {"messages": msgspec.Raw(messages.encode())}
    return estimate(found, Surface.EMBEDDINGS, len(messages), None, 10**9)


@pytest.mark.parametrize(
    "messages",
    [
        '[{"content":"' + "A" * 5000 + '","data":1}]',  # no quote comes after it
        '[{"content":"' + "A" * 5000 + '","data":1,"z":2}]',
        "[" + " " * 9000 + '{"content":"' + "A" * 9000 + '"}]',
        "[" + "[" * 9000 + "]" * 9000 + "]",
        '["' + "a" * 4093 + '","' + "data:" * 2000 + '"]',
        '["' + "a" * 4094 + '","' + "b" * 4095 + '"]',  # a quote where is looked
        '["data:' + "x" * 200 + ";base64," + "A" * 9000 + '"]',  # no head is so long
        '[{"data":"' + "A" * 4095 + '"}]',
        '[{"content":"see ;base64,' + "A" * 9000 + '"}]',
    ],
)
def test_what_is_no_picture_is_text(messages: str) -> None:
    assert estimated(messages) == len(messages) // 4 + 1


@pytest.mark.parametrize("size", range(4090, 4110))
@pytest.mark.parametrize("before", [0, 1, 4070, 4080, 4095])
def test_every_large_sound_is_found_wherever_it_stands(before: int, size: int) -> None:
    head, tail = "[" + " " * before + '{"data" :\n"', '"}]'
    found = estimated(head + "A" * size + tail)
    left = len(head) + len(tail)
    large = left // 4 + 1 + 1024
    assert found == (large if size >= 4096 else (left + size) // 4 + 1)


def test_the_work_does_not_grow_with_what_looks_like_sounds() -> None:
    """It looks at one place in so many bytes, and not at each of these."""
    looked = 0

    class Text(bytes):
        def find(self, *args: Any) -> int:
            nonlocal looked
            looked += 1
            return super().find(*args)

    text = Text(b'["' + b"A" * 5000 + b'",' + b'{"data":""},{"url":";base64,"},' * 10_000 + b"0]")
    assert _inline(text) == (0, 0)
    assert looked <= len(text) // 4096
