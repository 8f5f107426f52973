"""A file is there whole, or as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from server.files import prepare_whole, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_whole(file, "old")
    write_whole(file, "näw")
    assert file.read_text("utf-8") == "näw"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_leaves_what_was(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_prepared_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    temporary = prepare_whole(file, "new", mode=0o600)
    assert file.read_text() == "old"
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    temporary.replace(file)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_killed_ones_half_is_no_hindrance(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not ours")
    (tmp_path / f".a.json.{os.getpid()}").symlink_to(elsewhere)
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert elsewhere.read_text() == "not ours"
    assert sorted(tmp_path.iterdir()) == [file, elsewhere]
