"""What was pulled, verified and by whom: one JSON file for each commit, or registered folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from server.engines.store.places import COMMIT, Place
from server.files import write_whole

FOLDERS = "folders"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that was verified. `sha256` of its bytes, or `git`, the hash of its git object."""

    path: str
    size: int
    sha256: str | None = None
    git: str | None = None

    @property
    def blob(self) -> str:
        return self.sha256 or self.git or ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`revision` is what was asked for, `commit` what it was then. A folder has neither, but a
    `path`. `when` is in UTC, ISO 8601."""

    name: str
    files: tuple[Kept, ...]
    when: str
    asked_by: str
    commit: str = ""
    revision: str = ""
    endpoint: str = ""
    licence: str | None = None
    path: str | None = None
    pickled: bool = False
    version: int = 1

    @property
    def size(self) -> int:
        return sum({file.blob: file.size for file in self.files}.values())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(path: Path) -> Record | None:
    """None for what is no record of ours: it then counts as not verified."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def of(place: Place, commit: str) -> Record | None:
    return read(place.records / f"{commit}.json")


def located(store: Path, repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model that is here, pulled and verified, at a branch, tag or commit; None if
    it is not, or not all of it any more. What an engine can be started from without a network."""
    place = Place(store, repo)
    asked = revision or "main"
    commit = asked if COMMIT.fullmatch(asked) else place.refs().get(asked, "")
    snapshot = place.snapshot(commit)
    if not COMMIT.fullmatch(commit) or (record := of(place, commit)) is None:
        return None
    return (
        snapshot
        if all(_is_there(snapshot / file.path, file.size) for file in record.files)
        else None
    )


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def write(record: Record, path: Path) -> None:
    """Whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
    write_whole(path, text + "\n")


def folder_file(home: Path, folder: Path) -> Path:
    """Where the record of a registered folder is: two folders of one name are two."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return home / FOLDERS / f"{folder.name}-{digest}.json"


def folders(home: Path) -> Iterator[Record]:
    """The registered folders, those that are gone as well."""
    for path in sorted((home / FOLDERS).glob("*.json")):
        record = read(path)
        if record is not None and record.path is not None:
            yield record
