"""Reading an engine's log: its last lines, what comes after, and rotations under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from server.engines import logtail
from server.engines.logs import LogFile, numbered
from server.engines.logtail import BLOCK, GAP, LogTail


def all_of(tail: LogTail) -> bytes:
    return b"".join(iter(tail.read, b""))


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "logs" / "qwen.log", max_bytes=100)


def write(log: LogFile, *texts: str) -> None:
    """At once, as the log's thread does it."""
    for text in texts:
        log._write(text.encode())


@pytest.mark.parametrize(
    ("held", "lines", "told"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc", 0, b""),
        (b"a\nb\nc", -1, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"x" * BLOCK + b"\n" + b"y" * BLOCK + b"\n", 1, b"y" * BLOCK + b"\n"),
        (b"one\x1b[31m\r\x00\xff\n", 1, b"one\x1b[31m\r\x00\xff\n"),
    ],
)
def test_last_lines(held: bytes, lines: int, told: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(held)
    with LogTail(tmp_path / "a.log", lines) as tail:
        assert all_of(tail) == told


@settings(deadline=None)
@given(
    some.lists(some.binary(max_size=5).map(lambda b: b.replace(b"\n", b"")), max_size=9),
    some.integers(0, 12),
)
def test_as_many_lines_as_asked_for(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], count: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with LogTail(path, count) as tail:
        assert all_of(tail) == b"".join(
            line + b"\n" for line in lines[max(0, len(lines) - count) :]
        )


def test_lines_of_several_files(log: LogFile) -> None:
    write(log, *(f"line {n:02} {'x' * 40}\n" for n in range(6)))
    assert numbered(log.path, 2).exists()
    with LogTail(log.path, 5) as tail:
        told = all_of(tail).decode().splitlines()
    assert [line[:7] for line in told] == [f"line {n:02}" for n in range(1, 6)]


def test_it_goes_on_with_what_comes(log: LogFile) -> None:
    with LogTail(log.path, 10) as tail:
        assert tail.read() == b""  # there is no log yet
        write(log, "a\n")
        assert all_of(tail) == b"a\n"
        write(log, "b")
        assert all_of(tail) == b"b"
        assert tail.read() == b""


def test_a_rotation_loses_nothing(log: LogFile) -> None:
    texts = [f"{n:03} {'x' * 30}\n" for n in range(40)]
    told = b""
    with LogTail(log.path, 10) as tail:
        for at in range(0, len(texts), 4):  # two rotations between two looks
            write(log, *texts[at : at + 4])
            told += all_of(tail)
    assert told.decode() == "".join(texts)


def test_what_was_rotated_away_is_told(log: LogFile) -> None:
    write(log, "old\n")
    with LogTail(log.path, 10) as tail:
        assert all_of(tail) == b"old\n"
        write(log, *(f"{n} {'x' * 90}\n" for n in range(9)))
        told = all_of(tail)
    before, _, after = told.partition(GAP)
    assert before.startswith(b"0 ")  # it fitted into the file that was being read
    assert [line[:1] for line in after.decode().splitlines()] == ["6", "7", "8"]


def test_the_end_of_a_file_that_is_rotated_in_mid_look(
    log: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was at its end, then came a line and the rotation."""
    write(log, "first\n")
    with LogTail(log.path, 10) as tail:
        assert tail.read() == b"first\n"
        look = LogTail._newer

        def late(self: LogTail, file: object) -> object:
            monkeypatch.setattr(LogTail, "_newer", look)
            write(log, "last of the old\n", "x" * 99 + "\n")
            return look(self, file)  # type: ignore[arg-type]

        monkeypatch.setattr(LogTail, "_newer", late)
        assert all_of(tail).decode() == "last of the old\n" + "x" * 99 + "\n"


def test_amid_a_rotation(log: LogFile) -> None:
    write(log, "a\n")
    with LogTail(log.path, 10) as tail:
        assert tail.read() == b"a\n"
        log.path.replace(numbered(log.path, 1))
        assert tail.read() == b""
        write(log, "b\n")
        assert tail.read() == b"b\n"


def test_a_log_that_somebody_emptied(log: LogFile) -> None:
    write(log, "a long line\n")
    with LogTail(log.path, 10) as tail:
        assert tail.read() == b"a long line\n"
        log.path.write_bytes(b"new\n")
        assert tail.read() == b"new\n"


def test_files_are_closed(log: LogFile) -> None:
    write(log, "a\n")
    with LogTail(log.path, 1) as tail:
        (file,) = tail._files
    assert file.closed


def test_a_read_under_way_keeps_its_file(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, "a\n")
    tail = LogTail(log.path, 1)
    (file,) = tail._files
    more = LogTail._more

    def meanwhile(self: LogTail, one: Any) -> bytes:
        tail.close()
        assert not one.closed
        return more(self, one)

    monkeypatch.setattr(LogTail, "_more", meanwhile)
    assert tail.read() == b"a\n"
    assert file.closed
    assert tail.read() == b""


def rotates_once_opened(log: LogFile, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time that the newest file is opened, this is written right after."""
    opened = logtail._opened

    def late(path: Path) -> Any:
        found = opened(path)
        if path == log.path:
            monkeypatch.setattr(logtail, "_opened", opened)
            write(log, text)
        return found

    monkeypatch.setattr(logtail, "_opened", late)


def test_two_rotations_during_one_look(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is seen under two names is read once."""
    write(log, "a\n")
    with LogTail(log.path, 10) as tail:
        assert tail.read() == b"a\n"
        write(log, "b" * 99 + "\n")
        rotates_once_opened(log, "c" * 99 + "\n", monkeypatch)
        assert all_of(tail).decode() == "b" * 99 + "\n" + "c" * 99 + "\n"


def test_a_rotation_while_it_begins(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, "a\n")
    rotates_once_opened(log, "b" * 99 + "\n", monkeypatch)
    with LogTail(log.path, 10) as tail:
        assert all_of(tail).decode() == "a\n" + "b" * 99 + "\n"
