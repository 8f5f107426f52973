"""What is in the store, by whoever it was brought: listed, measured, checked, removed.

The scan and the deletion are huggingface_hub's own: it knows which bytes several revisions share.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.engines.store import records
from server.engines.store.choice import Remote
from server.engines.store.errors import StoreError
from server.engines.store.fetching import is_whole
from server.engines.store.local import hashed
from server.engines.store.locks import held
from server.engines.store.places import COMMIT, Place
from server.engines.store.progress import Progress
from server.engines.store.records import Record

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

    from server.config.engine import Engine


@dataclass(frozen=True, slots=True)
class Holding:
    """A model at one commit, or a folder. `state`: `verified` (pulled or registered by us),
    `cached` (here, by somebody else), `partial` (a pull that did not end), `damaged`, `gone`.
    `when` in UTC, or empty."""

    name: str
    state: str
    size: int
    commit: str = ""
    refs: tuple[str, ...] = ()
    when: str = ""
    path: Path | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What `remove` would do, or has done. `freed` in bytes."""

    name: str
    commits: tuple[str, ...]
    freed: int
    folder: bool = False


def users(holding: Holding, engines: Mapping[str, Engine], base: Path) -> list[str]:
    """The engines that are served from it. `base` is the folder of their config."""
    return [name for name, engine in engines.items() if _uses(engine, holding, base)]


def _uses(engine: Engine, holding: Holding, base: Path) -> bool:
    if engine.weights is None:
        return False
    if holding.record is not None and holding.record.path is not None:
        return _at(engine, base) == holding.path
    if engine.weights != holding.name:
        # Its whole path may be given, as `roundhouse show` tells it.
        return _at(engine, base) == (holding.path and holding.path.resolve())
    revision = engine.revision or "main"
    return revision in holding.refs or (
        # What is here only in part, or damaged, is what its next start would go on with.
        not holding.commit or holding.commit.startswith(revision)
    )


def _at(engine: Engine, base: Path) -> Path:
    return (base / Path(engine.weights or "").expanduser()).resolve()


def facts_of(holding: Holding, used_by: Sequence[str]) -> dict[str, Any]:
    """One holding as JSON."""
    record = holding.record
    return {
        "name": holding.name,
        "state": holding.state,
        "commit": holding.commit or None,
        "refs": list(holding.refs),
        "size": holding.size,
        "when": holding.when or None,
        "path": str(holding.path) if holding.path else None,
        "licence": record.licence if record else None,
        "asked_by": record.asked_by if record else None,
        "used_by": list(used_by),
    }


def holdings(store: Path, home: Path) -> list[Holding]:
    """All of them by name, the newest revision of each first. Reads the disk."""
    found = [*_hub(store), *(_folder(record) for record in records.folders(home))]
    return sorted(sorted(found, key=lambda one: one.when, reverse=True), key=lambda one: one.name)


def _hub(store: Path) -> Iterator[Holding]:
    from datetime import UTC, datetime

    scan = _scan(store)
    seen: set[Path] = set()
    for repo in scan.repos if scan else ():
        seen.add(repo.repo_path)
        if repo.repo_type != "model":
            continue
        place = Place(store, repo.repo_id)
        for revision in repo.revisions:
            record = records.of(place, revision.commit_hash)
            modified = datetime.fromtimestamp(revision.last_modified, UTC)
            yield Holding(
                repo.repo_id,
                _state(record, revision.snapshot_path),
                revision.size_on_disk,
                revision.commit_hash,
                tuple(sorted(revision.refs)),
                record.when if record else modified.isoformat(timespec="seconds"),
                revision.snapshot_path,
                record,
            )
        if not repo.revisions or place.partials():
            yield _partial(place)
    for folder in sorted(store.glob("models--*")) if store.is_dir() else ():
        if folder not in seen and folder.is_dir():
            name = folder.name.removeprefix("models--").replace("--", "/")
            yield Holding(name, "damaged", _size(folder), path=folder)


def _state(record: Record | None, snapshot: Path) -> str:
    if record is None:
        return "cached"
    for file in record.files:
        path = snapshot / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            return "damaged"
    return "verified"


def _partial(place: Place) -> Holding:
    size = sum(path.stat().st_size for path in place.partials())
    return Holding(place.repo, "partial", size, path=place.folder)


def _folder(record: Record) -> Holding:
    path = Path(record.path or "")
    state = _state(record, path) if path.is_dir() else "gone"
    return Holding(record.name, state, record.size, when=record.when, path=path, record=record)


def _scan(store: Path) -> HFCacheInfo | None:
    if not store.is_dir():
        return None
    from huggingface_hub import scan_cache_dir

    return scan_cache_dir(store)


def _size(folder: Path) -> int:
    return sum(
        path.lstat().st_size
        for path in folder.glob("**/*")
        if path.is_file() and not path.is_symlink()
    )


def named(
    name: str, revision: str | None, found: Sequence[Holding], *, show: str = "roundhouse ls"
) -> list[Holding]:
    """Those of a name, or of a folder's path; of `revision` if given: a branch, a commit, or how it
    begins. Raises StoreError with names that are like it, or with the command that can `show` all.
    """
    path = Path(name).expanduser().resolve() if name.startswith(("/", ".", "~")) else None
    same = [one for one in found if one.name == name or (path is not None and one.path == path)]
    if not same:
        import difflib

        names = list(dict.fromkeys(one.name for one in found))
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        near = f" Did you mean {' or '.join(close)}?" if close else f" `{show}` shows all."
        raise StoreError(f"{name} is not here.{near}", reason="not_found")
    if revision is None:
        return same
    right = [
        one
        for one in same
        if revision in one.refs
        or (len(revision) >= 6 and one.commit and one.commit.startswith(revision))
    ]
    if not right:
        has = ", ".join(one.commit[:12] for one in same if one.commit) or "no commit"
        raise StoreError(f"{name} is not here at {revision!r}; there is {has}.", reason="not_found")
    return right


def verify(
    holding: Holding,
    *,
    progress: Progress,
    stop: threading.Event,
    tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """Read every recorded file; the paths of those that are not what they were."""
    record = holding.record
    if record is None or holding.path is None:
        raise StoreError(
            f"Nothing is recorded of {holding.name}, so there is nothing to hold it against. "
            f"`roundhouse pull {holding.name}` verifies what is here and fetches what is missing.",
            reason="not_found",
        )
    progress.plan(len(record.files), sum(file.size for file in record.files))
    wrong = []
    for file in record.files:
        path = holding.path / file.path
        if record.path is not None:
            try:
                right = hashed(path, holding.path, progress, stop) == file
            except OSError:
                right = False
        else:
            remote = Remote(file.path, file.size, file.git or "", file.sha256)
            right = is_whole(path, remote, progress, stop)
        if not right:
            wrong.append(file.path)
        progress.file_done()
        tick()
    return wrong


def remove(
    holdings: Sequence[Holding], store: Path, home: Path, *, dry_run: bool = False
) -> Removal:
    """Remove them (all of one name): the bytes that no other revision has. Of a registered folder
    only the record goes. Raises StoreError, OSError."""
    name = holdings[0].name
    if any(one.record is not None and one.record.path is not None for one in holdings):
        for one in holdings:
            if not dry_run and one.path is not None:
                records.folder_file(home, one.path).unlink(missing_ok=True)
        return Removal(name, (), 0, folder=True)
    place = Place(store, name)
    # Who only looks must not write, not even a lock.
    with contextlib.nullcontext() if dry_run else held(place.lock, name):
        return _remove(holdings, place, dry_run)


def _remove(holdings: Sequence[Holding], place: Place, dry_run: bool) -> Removal:
    commits = tuple(one.commit for one in holdings if COMMIT.fullmatch(one.commit))
    scan = _scan(place.store)
    repo = (
        next((one for one in scan.repos if one.repo_path == place.folder), None) if scan else None
    )
    others = {one.commit_hash for one in repo.revisions} - set(commits) if repo else set()
    if scan is None or not others:
        # All of it, with the parts of files. A folder that is damaged is not scanned at all.
        freed = _size(place.folder) + _shared(scan, commits)
        if not dry_run:
            if scan is not None and commits and repo is not None:
                scan.delete_revisions(*commits).execute()
            shutil.rmtree(place.folder, ignore_errors=not place.folder.exists())
        return Removal(place.repo, commits, freed)
    parts = place.partials() if any(one.state == "partial" for one in holdings) else []
    strategy = scan.delete_revisions(*commits)
    freed = strategy.expected_freed_size + sum(path.stat().st_size for path in parts)
    if not dry_run:
        for commit in commits:
            (place.records / f"{commit}.json").unlink(missing_ok=True)
        strategy.execute()
        for path in parts:
            path.unlink(missing_ok=True)
    return Removal(place.repo, commits, freed)


def _shared(scan: HFCacheInfo | None, commits: Sequence[str]) -> int:
    """Bytes in the store that several repositories share, which links of this one point to."""
    if scan is None or not commits:
        return 0
    strategy = scan.delete_revisions(*commits)
    local = sum(
        file.size_on_disk
        for file in {
            file.blob_path: file
            for repo in scan.repos
            if repo.repo_path in strategy.repos
            for revision in repo.revisions
            for file in revision.files
        }.values()
        if not file.blob_path.is_symlink()
    )
    return max(strategy.expected_freed_size - local, 0)


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on the disk: `size` of all, `partial` of pulls that did not end."""

    name: str
    size: int
    partial: int = 0


def usage(store: Path) -> list[Usage]:
    """What each model of the store takes, the largest first, bytes that revisions share once.
    Registered folders are elsewhere and not counted. Reads the disk."""
    found = []
    for folder in store.glob("models--*") if store.is_dir() else ():
        name = folder.name.removeprefix("models--").replace("--", "/")
        parts = sum(path.stat().st_size for path in Place(store, name).partials())
        found.append(Usage(name, _size(folder), parts))
    if shared := _size(store / "blobs"):
        found.append(Usage("(shared between models)", shared))
    return sorted(found, key=lambda one: (-one.size, one.name))
