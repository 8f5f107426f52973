"""One file: from the hub into its blob, going on where an earlier try ended, and verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.engines.store.choice import Remote
from server.engines.store.errors import Broken, Cancelled, StoreError
from server.engines.store.places import PARTIAL
from server.engines.store.progress import Progress

CHUNK = 1 << 20
#: What a full disk, or a full quota, says.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: Hubs' front doors give no more than 50 GB in one answer; larger files come in parts.
WINDOW = 16 << 30


class Source(Protocol):
    """Where bytes come from: the hub, for one repository at one commit."""

    def __call__(
        self, path: str, start: int, end: int | None
    ) -> AbstractContextManager[tuple[bool, Iterator[bytes]]]: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts`: tries in a row that bring next to nothing, before it is given up. `pause`:
    seconds before the second; doubles, up to half a minute. `least`: what must come within `span`
    seconds, in bytes; a hub that sends less is silent in all but name."""

    attempts: int = 5
    pause: float = 1.0
    least: int = 64 << 10
    span: float = 60.0
    clock: Callable[[], float] = time.monotonic

    def before(self, failures: int, wait: float | None) -> float:
        return max(min(self.pause * 2.0 ** (failures - 1), 30.0), wait or 0.0)


class Digest:
    """The hash that the hub names a file by: SHA-256, or that of a git object."""

    def __init__(self, file: Remote) -> None:
        self.wanted = file.blob
        if file.sha256 is not None:
            self._hash = hashlib.sha256()
        else:
            kind = "sha1" if len(file.git) == 40 else "sha256"
            self._hash = hashlib.new(kind, b"blob %d\0" % file.size, usedforsecurity=False)
        self.update = self._hash.update

    def is_right(self) -> bool:
        return self._hash.hexdigest() == self.wanted


def read_through(path: Path, digest: Digest, progress: Progress, stop: threading.Event) -> int:
    """Feed a file's bytes; how many."""
    size = 0
    with path.open("rb") as stream:
        while data := stream.read(4 * CHUNK):
            if stop.is_set():
                raise Cancelled
            digest.update(data)
            size += len(data)
            progress.found(len(data))
    return size


def is_whole(path: Path, file: Remote, progress: Progress, stop: threading.Event) -> bool:
    """Is what stands there the file? Counts it as done if so."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = Digest(file)
    size = read_through(path, digest, progress, stop)
    if digest.is_right():
        return True
    progress.found(-size)
    return False


class Fetch:
    """Fetches one file into `blobs`. After `run` the blob is there, whole and verified."""

    def __init__(
        self,
        source: Source,
        file: Remote,
        blobs: Path,
        *,
        progress: Progress,
        stop: threading.Event,
        patience: Patience = Patience(),
    ) -> None:
        self._source, self._file, self._progress = source, file, progress
        self._stop, self._patience = stop, patience
        self._blob = blobs / file.blob
        self._partial = blobs / f"{file.blob}{PARTIAL}"
        self._have = 0
        self._digest = Digest(file)

    def run(self) -> None:
        """Raises StoreError (the partial file stays, unless its hash is wrong), or Cancelled."""
        file = self._file
        if self._blob.exists() and is_whole(self._blob, file, self._progress, self._stop):
            return
        try:
            resumed = self._once()
            if not self._digest.is_right() and resumed:
                # The part from an earlier pull may be the wrong one: once more, from the start.
                self._partial.unlink(missing_ok=True)
                self._progress.found(-file.size)
                self._once()
            if not self._digest.is_right():
                self._partial.unlink(missing_ok=True)
                raise StoreError(
                    f"{file.path} arrived with another hash than the hub's metadata says, so it "
                    "was removed and nothing was recorded. Pull again; if it comes back, a proxy "
                    "or mirror on the way changes files.",
                    reason="hash",
                )
            self._partial.replace(self._blob)
        except OSError as error:
            raise self._no_room(error) from None

    def _once(self) -> bool:
        """All bytes, however many tries; whether some were there already."""
        self._digest = Digest(self._file)
        self._have = 0
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.closing(_Descriptor(descriptor)):
            if os.fstat(descriptor).st_size > self._file.size:
                os.ftruncate(descriptor, 0)
            self._have = read_through(self._partial, self._digest, self._progress, self._stop)
            resumed = self._have > 0
            failures = 0
            while self._have < self._file.size:
                before = self._have
                try:
                    self._receive(descriptor)
                except Broken as broken:
                    came = self._have - before
                    failures = 1 if came >= self._patience.least else failures + 1
                    self._pause(failures, broken)
            os.fsync(descriptor)
        return resumed

    def _receive(self, descriptor: int) -> None:
        file, start = self._file, self._have
        end = min(start + WINDOW, file.size)
        with self._source(file.path, start, None if end == file.size else end) as (ranged, chunks):
            if start and not ranged:  # it cannot continue: all of it comes
                self._restart(descriptor)
            since, mark = self._patience.clock(), self._have
            for data in chunks:
                if self._stop.is_set():
                    raise Cancelled
                if self._have + len(data) > file.size:
                    raise Broken("more bytes than the hub's metadata says")
                _write_at(descriptor, data, self._have)
                self._digest.update(data)
                self._have += len(data)
                self._progress.came(len(data))
                if (now := self._patience.clock()) - since >= self._patience.span:
                    if self._have - mark < self._patience.least and self._have < end:
                        raise Broken(f"{self._have - mark} bytes in {now - since:.0f} s")
                    since, mark = now, self._have
        if self._have < end:
            raise Broken("the answer ended early")

    def _restart(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        self._progress.found(-self._have)
        self._have = 0
        self._digest = Digest(self._file)

    def _pause(self, failures: int, broken: Broken) -> None:
        if self._stop.is_set():
            raise Cancelled
        if failures > self._patience.attempts:
            raise StoreError(
                f"{self._file.path} could not be fetched: {broken.cause}, {failures} times in a "
                "row. What has come is kept: pull again to go on.",
                reason="stalled",
            ) from None
        self._progress.say(f"{self._file.path}: {broken.cause}; trying again")
        if self._stop.wait(self._patience.before(failures, broken.wait)):
            raise Cancelled

    def _no_room(self, error: OSError) -> StoreError:
        if error.errno in FULL:
            here = self._partial.stat().st_size if self._partial.is_file() else 0
            return StoreError(
                f"The disk with {self._blob.parent} is full: {self._file.path} has "
                f"{here:,} of {self._file.size:,} bytes, which are kept. Make room "
                "(`roundhouse du` shows what is here), then pull again to go on.",
                reason="disk",
            )
        return StoreError(
            f"{self._file.path} cannot be written to {self._blob.parent} "
            f"({error.strerror or type(error).__name__}).",
            reason="store",
        )


class _Descriptor:
    def __init__(self, number: int) -> None:
        self._number = number

    def close(self) -> None:
        os.close(self._number)


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest, at)
        rest, at = rest[done:], at + done
