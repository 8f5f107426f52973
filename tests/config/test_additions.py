"""The state file: whole, private, and never written over what could not be read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from server.config.additions import (
    DAMAGED,
    FILE,
    MAX_BYTES,
    NONE,
    Additions,
    Found,
    KeepError,
    read,
    write,
)
from server.config.additions import prepare as prepare_file

SOME = Additions(
    {"big": {"weights": "Qwen/Qwen3-8B", "kv_cache": "8GiB", "args": {"max-model-len": 4096}}},
    {"Qwen/Qwen3-8B": {"targets": [{"engine": "big"}]}},
    "Qwen/Qwen3-8B",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there"
    assert read(home) == Found()
    write(home, SOME)
    assert read(home) == Found(SOME)
    assert [path.name for path in home.iterdir()] == [FILE]
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    write(home, NONE)
    assert read(home) == Found(NONE)


def test_a_file_that_others_could_read_is_private_again(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    (tmp_path / FILE).chmod(0o644)
    stale = tmp_path / f".{FILE}.{os.getpid()}"  # of a process of the same number, that was killed
    stale.write_text("half")
    write(tmp_path, SOME)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_text_that_is_no_utf_8_is_kept_as_it_was_given(tmp_path: Path) -> None:
    odd = Additions({"e": {"weights": "a\ud800b"}})
    write(tmp_path, odd)
    assert read(tmp_path).additions == odd


DAMAGES = {
    "": "is no JSON",
    '{"version": 1, "engines": {"big": {"wei': "is no JSON",
    "[" * 100_000: "is no JSON",
    "\x00": "is no JSON",
    "[]": "has no version",
    "{}": "has no version",
    '{"version": true}': "has no version",
    '{"version": 0}': "has no version",
    '{"version": "1"}': "has no version",
    '{"version": 1, "engines": []}': "has no entries under `engines`",
    '{"version": 1, "models": {"m": 1}}': "has no entries under `models`",
    '{"version": 1, "default": 3}': "has no text as `default`",
    " " * (MAX_BYTES + 1): "is larger than 1048576 bytes",
}


@pytest.mark.parametrize("text", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_file_is_told_and_set_aside(text: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(text)
    (tmp_path / (FILE + DAMAGED)).write_text("an older one")
    found = read(tmp_path)
    assert found.additions == NONE
    assert found.notes == (
        f"{path} {DAMAGES[text]}: nothing of it is served. It is kept as state.json.damaged.",
    )
    assert not path.exists()
    assert (tmp_path / (FILE + DAMAGED)).read_text() == text
    assert read(tmp_path) == Found()


def test_a_file_that_is_damaged_meanwhile_is_set_aside_by_who_writes(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    write(tmp_path, SOME)
    assert read(tmp_path) == Found(SOME)
    assert (tmp_path / (FILE + DAMAGED)).read_text() == "{"


def test_a_newer_versions_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE
    text = '{"version": 2, "engines": [1]}'
    path.write_text(text)
    assert read(tmp_path) == Found(
        notes=(
            f"{path} is of version 2, from a newer Roundhouse: what was loaded then is not served.",
        )
    )
    with pytest.raises(KeepError) as caught:
        write(tmp_path, SOME)
    assert str(caught.value) == (
        f"{path}: The file is of version 2, from a newer Roundhouse, so that nothing was changed. "
        "Run that version, or move the file away."
    )
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert read(tmp_path).notes == (
        f"{tmp_path / FILE} cannot be read (it is no file): nothing of it is served.",
    )
    with pytest.raises(KeepError, match=r"Cannot be written \(it is no file\), so that nothing"):
        write(tmp_path, SOME)
    os.rmdir(tmp_path / FILE)
    os.mkfifo(tmp_path / FILE)  # opening it would wait for a writer
    assert "it is no file" in read(tmp_path).notes[0]


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    large = Additions(engines={"e": {"weights": "ü" * (MAX_BYTES // 6)}})  # six signs each in ASCII
    with pytest.raises(KeepError, match="larger than 1048576 bytes, so that nothing was changed"):
        write(tmp_path, large)
    assert read(tmp_path) == Found(SOME)
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_a_home_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(KeepError) as caught:
        write(tmp_path / "home", SOME)
    assert str(caught.value) == (
        f"{tmp_path / 'home' / FILE}: Cannot be written (File exists), so that nothing was "
        "changed. Make the folder writable, or set `server.home` to one that is."
    )
    assert read(tmp_path / "home").additions == NONE


def test_a_damaged_file_that_cannot_be_set_aside_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    (tmp_path / (FILE + DAMAGED)).mkdir()
    (note,) = read(tmp_path).notes
    assert note == (
        f"{tmp_path / FILE} is no JSON: nothing of it is served. It cannot be set aside (Is a "
        "directory)."
    )
    assert (tmp_path / FILE).read_text() == "{"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_only_be_read(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(KeepError, match=r"Cannot be written \(Permission denied\)"):
            write(tmp_path, NONE)
        assert read(tmp_path) == Found(SOME)
        tmp_path.chmod(0o700)
        (tmp_path / FILE).write_text("{")
        tmp_path.chmod(0o500)
        assert read(tmp_path).notes[0].endswith("It cannot be set aside (Permission denied).")
        tmp_path.chmod(0o700)
        (tmp_path / FILE).chmod(0)
        assert "cannot be read (Permission denied)" in read(tmp_path).notes[0]
        with pytest.raises(KeepError, match="Permission denied"):
            write(tmp_path, SOME)
    finally:
        tmp_path.chmod(0o700)


def test_nothing_is_there_before_it_is_committed(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    pending = prepare_file(tmp_path, NONE)
    assert read(tmp_path) == Found(SOME)
    pending.discard()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    pending = prepare_file(tmp_path, NONE)
    pending.commit()
    pending.discard()
    assert read(tmp_path) == Found(NONE)


def test_what_cannot_be_put_in_its_place(tmp_path: Path) -> None:
    pending = prepare_file(tmp_path, SOME)
    (tmp_path / FILE).mkdir()
    with pytest.raises(KeepError, match="what was changed is in force, and lost with"):
        pending.commit()
    pending.discard()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


WRITER = """
import sys
from pathlib import Path
from server.config.additions import Additions, write

for number in range(50):
    write(Path(sys.argv[1]), Additions({sys.argv[2]: {"weights": "w" * number * 100}}))
"""


def test_two_servers_of_one_home_never_leave_a_half(tmp_path: Path, repo_root: Path) -> None:
    write(tmp_path, SOME)
    both = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=repo_root)
        for name in ("a", "b")
    ]
    looks = 0
    while any(one.poll() is None for one in both):
        assert json.loads((tmp_path / FILE).read_text())["version"] == 1
        assert read(tmp_path).notes == ()
        looks += 1
    assert looks
    assert [one.returncode for one in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_over_and_without() -> None:
    more = Additions({"x": {"weights": "w"}}, {}, "x")
    both = more.over(SOME)
    assert list(both.engines) == ["big", "x"]
    assert both.default == "x"
    assert both.without(more) == Additions(SOME.engines, SOME.models)
    assert both.without(SOME) == Additions({"x": {"weights": "w"}})
    assert SOME.over(NONE) == NONE.over(SOME) == SOME
    assert SOME.without(SOME) == NONE
    assert SOME
    assert not NONE
