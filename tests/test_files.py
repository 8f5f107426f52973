"""A file is there whole, or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.files import write_whole


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
