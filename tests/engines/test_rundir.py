from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from server.engines import rundir
from server.errors import EngineError


def test_it_is_private_and_paths_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    place = tempfile.mkdtemp(prefix="x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", place)
    run = rundir.create()
    assert run.parent == Path(place)
    assert run.stat().st_mode & 0o777 == 0o700
    scratch = rundir.scratch(run, 999_999)
    assert scratch.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(scratch)) + 1 + 36 <= rundir.LIMIT
    rundir.remove(run)
    assert not run.exists()
    Path(place).rmdir()


def test_it_is_made_anew_when_somebody_tidied_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert rundir.scratch(run, 1).is_dir()
    assert run.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(0o777)
    with pytest.raises(EngineError, match="cannot be used"):
        rundir.scratch(run, 1)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(EngineError, match="cannot be used"):
        rundir.scratch(tmp_path / "link", 1)


def test_what_was_not_removed_goes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_made", set())
    run = rundir.create()
    rundir._remove_all()
    assert not run.exists()


@pytest.mark.parametrize("place", ["", "/nowhere", "/" + "x" * 80])
def test_the_next_place_is_taken(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", place)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    run = rundir.create()
    rundir.remove(run)
    assert run.parent in (tmp_path, Path("/tmp"))


def test_no_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "LIMIT", 10)
    with pytest.raises(EngineError, match="Set TMPDIR") as caught:
        rundir.create()
    assert caught.value.reason == "environment"
