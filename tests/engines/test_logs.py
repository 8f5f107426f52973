from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from server.engines import logs
from server.engines.logs import LogFile, Output, clean


async def test_rotation_keeps_three_private_files(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "e.log", max_bytes=100, kept=3)
    for number in range(5):
        log.append(b"%d" % number * 60 + b"\n")
        await log.flush()
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == ["e.log", "e.log.1", "e.log.2"]
    assert [file.read_text()[0] for file in files] == ["4", "3", "2"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert log.dropped == 0


async def test_a_full_disk_loses_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path / "e.log")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        log.append(b"lost\n")
        await log.flush()
    assert log.dropped == 5
    log.append(b"kept\n")
    await log.flush()
    text = (tmp_path / "e.log").read_text()
    assert text == "kept\n--- roundhouse: 5 bytes of the log could not be written\n"


async def test_a_slow_disk_stalls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path / "e.log")
    gate = threading.Event()
    write = log._write

    def slow(data: bytes) -> None:
        gate.wait(10)
        write(data)

    monkeypatch.setattr(log, "_write", slow)
    for _ in range(20):
        log.append(b"x" * 2**16)
    assert log.dropped > 0
    await log.flush(timeout=0.01)
    gate.set()
    await log.flush()
    assert (tmp_path / "e.log").stat().st_size >= logs.PENDING - 2**16


async def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "e.log").symlink_to(target)
    log = LogFile(tmp_path / "e.log")
    log.append(b"x\n")
    await log.flush()
    assert target.read_text() == "mine"
    assert log.dropped == 2


async def test_lines_and_tail(tmp_path: Path) -> None:
    lines: list[str] = []
    output = Output(LogFile(tmp_path / "e.log"), lines.append)
    output.data_received(b"one\ntw")
    output.data_received("o\r 50%\r100% ü".encode()[:-1])
    output.data_received("ü".encode()[1:] + b"\n\n\x1b[31mred\x1b[0m \x07\n")
    output.data_received(b"z" * 10_000)
    output.data_received(b"last")
    output.connection_lost(None)
    output.connection_lost(None)
    await asyncio.wait_for(output.closed, 1)
    assert lines[:5] == ["one", "two", " 50%", "100% ü", "red �"]
    assert [len(line) for line in lines[5:]] == [logs.LINE, 4]
    assert output.tail(1) == ("last",)
    await output._file.flush()


def test_a_line_is_bounded() -> None:
    assert clean(b"x" * 100_000) == "x" * logs.LINE
