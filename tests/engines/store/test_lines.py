"""Connections to the hub that somebody waits at, and that are cut."""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

from server.engines.store.lines import Lines
from server.engines.store.pulling import Wanted
from server.engines.store.service import NOTES, Shared


def answer(found: object) -> Any:
    """What of an httpx2 answer counts here."""
    stream = type("Stream", (), {"get_extra_info": lambda self, name: found})()
    return type("Answer", (), {"extensions": {"network_stream": stream}})()


def test_who_waits_is_sent_home() -> None:
    ours, theirs = socket.socketpair()
    lines, waits = Lines(), threading.Event()
    heard: list[bytes] = []

    def read() -> None:
        with lines.holding(answer(ours)):
            waits.set()
            heard.append(ours.recv(1))

    thread = threading.Thread(target=read)
    with ours, theirs:
        thread.start()
        assert waits.wait(20)
        lines.cut()
        thread.join(20)
        assert heard == [b""]
        lines.cut()  # nobody is there any more


def test_who_comes_too_late_finds_the_end() -> None:
    ours, theirs = socket.socketpair()
    lines = Lines()
    lines.cut()
    with ours, theirs, lines.holding(answer(ours)):
        assert ours.recv(1) == b""


def test_what_has_ended_by_itself_is_no_trouble() -> None:
    ours, theirs = socket.socketpair()
    lines = Lines()
    with lines.holding(answer(ours)):
        ours.close()
        theirs.close()
        lines.cut()


def test_answers_without_a_socket_are_let_be() -> None:
    lines = Lines()
    bare = cast("Any", type("Answer", (), {"extensions": {}})())
    for one in (answer(None), bare):
        with lines.holding(one):
            lines.cut()


async def test_a_pull_has_only_so_much_to_say() -> None:
    shared = Shared("pull-1", Wanted("a/b"))
    for number in range(3 * NOTES):
        shared.progress.say(f"note {number // 2}")
        shared.tick()
    assert shared.notes == [f"note {number}" for number in range(NOTES)]
    shared.ended.set()
    told = [facts["message"] async for kind, facts in shared.follow() if kind == "note"]
    assert told == shared.notes
