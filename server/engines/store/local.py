"""A folder of somebody's own, registered: checked, hashed, recorded. Nothing is copied or moved."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from server.engines import weights
from server.engines.store import records
from server.engines.store.choice import Remote, choose
from server.engines.store.errors import Cancelled, StoreError
from server.engines.store.progress import Progress
from server.engines.store.records import Kept, Record
from server.errors import EngineError

CHUNK = 4 << 20


def register(
    folder: Path, home: Path, *, asked_by: str, progress: Progress, stop: threading.Event
) -> Record:
    """Raises StoreError for a folder that no engine could serve, Cancelled."""
    folder = folder.expanduser().resolve()
    try:
        weights.resolve(str(folder), base=Path())
        files = files_of(folder)
        progress.plan(len(files), sum(path.stat().st_size for path in files))
        kept = []
        for path in files:
            kept.append(hashed(path, folder, progress, stop))
            progress.file_done()
        record = Record(
            name=folder.name,
            path=str(folder),
            files=tuple(kept),
            when=records.now(),
            asked_by=asked_by,
        )
        records.write(record, records.folder_file(home, folder))
    except EngineError as error:
        raise StoreError(error.message, reason="folder") from None
    except OSError as error:
        where = error.filename or folder
        raise StoreError(
            f"{where} cannot be read or written ({error.strerror}).", reason="folder"
        ) from None
    return record


def files_of(folder: Path) -> list[Path]:
    """The files that would be pulled if the folder were a repository."""
    paths = [path for path in sorted(folder.glob("**/*")) if path.is_file()]
    listed = [
        Remote(path.relative_to(folder).as_posix(), path.stat().st_size, f"{number:040x}")
        for number, path in enumerate(paths)
    ]
    return [folder / file.path for file in choose(str(folder), listed).files]


def hashed(path: Path, folder: Path, progress: Progress, stop: threading.Event) -> Kept:
    """Reads all of it. Raises OSError, Cancelled."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while data := stream.read(CHUNK):
            if stop.is_set():
                raise Cancelled
            digest.update(data)
            size += len(data)
            progress.came(len(data))
    return Kept(path.relative_to(folder).as_posix(), size, digest.hexdigest())
