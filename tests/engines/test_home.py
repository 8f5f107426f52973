"""The server's home: one server at a time, and nothing in it of one that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.engines.home import Claim
from server.files import prepare_whole
from tests.engines.conftest import House, engine, ready


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = Claim(tmp_path), Claim(tmp_path)
    assert first.take(make=False)
    with capture_logs() as logs:
        assert not second.take(make=False)
    assert [one["event"] for one in logs] == ["home_is_shared"]
    second.leave()
    assert not second.take(make=False)
    first.leave()
    assert second.take(make=False)
    second.leave()
    assert not list(tmp_path.iterdir())


def test_it_is_made_where_it_is_needed(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "a" / "home")
    assert claim.take(make=False)
    assert not (tmp_path / "a").exists()
    assert claim.take(make=True)
    assert (tmp_path / "a" / "home").stat().st_mode & 0o777 == 0o700
    claim.leave()


def test_a_home_that_is_none_is_told_by_who_needs_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    claim = Claim(tmp_path / "file" / "home")
    assert claim.take(make=True)
    claim.leave()


def test_what_was_half_written_goes_with_who_wrote_it(tmp_path: Path, gone: int) -> None:
    own = prepare_whole(tmp_path / "state.json", "{}")
    left = own.rename(own.with_suffix(f".{gone}"))
    own = prepare_whole(tmp_path / "state.json", "{}")
    others = [tmp_path / f"state.json.{gone}", tmp_path / f".note.{gone}"]
    for path in others:
        path.touch()
    claim = Claim(tmp_path)
    claim.take(make=False)
    claim.leave()
    assert not left.exists()
    assert own.name == f".state.json.{os.getpid()}"
    assert all(path.exists() for path in (own, *others))


def test_beside_another_server_nothing_is_removed(tmp_path: Path, gone: int) -> None:
    """It may be in a container of its own, where processes have other numbers."""
    first, second = Claim(tmp_path), Claim(tmp_path)
    first.take(make=False)
    (tmp_path / f".state.json.{gone}").touch()
    second.take(make=False)
    assert (tmp_path / f".state.json.{gone}").exists()
    first.leave()


async def test_a_supervisor_has_it_until_it_is_closed(house: House) -> None:
    supervisor = await house.start(one=engine())
    await ready(supervisor, "one")
    with capture_logs() as logs:
        second = await house.start()
        await second.close()
    assert "home_is_shared" in [one["event"] for one in logs]
    await supervisor.close()
    claim = Claim(house.home)
    assert claim.take(make=False)
    claim.leave()
