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


def test_it_is_tried_again_when_a_guard_removes_it_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lstat, looks = tmp_path / "run", Path.lstat, 0

    def removed(path: Path) -> os.stat_result:
        nonlocal looks
        found = lstat(path)
        if path == run and (looks := looks + 1) < 3:
            run.rmdir()
        return found

    monkeypatch.setattr(Path, "lstat", removed)
    assert rundir.scratch(run, 1).is_dir()
    assert looks == 3


def test_nothing_lies_there_between_engines() -> None:
    folder = rundir.RunFolder()
    place = folder.place(1)
    assert place == folder.place(1)
    assert not place.parent.exists()
    assert rundir.kept() == ()
    folder.make(1)
    assert place.is_dir()
    assert rundir.kept() == (place.parent,)
    folder.make(2)
    folder.clear(1)
    assert [*place.parent.iterdir()] == [folder.place(2)]
    folder.clear(2)
    assert not place.parent.exists()
    folder.make(3)
    folder.remove()
    assert not place.parent.exists()


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
