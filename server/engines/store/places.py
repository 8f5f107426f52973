"""Where pulled weights are: the layout of the hub's cache, whoever wrote it.

::

    STORE/models--ORG--NAME/blobs/HASH               a file's bytes, named by what they are
                            blobs/HASH.incomplete    the part of one that is here
                            snapshots/COMMIT/PATH    links to blobs
                            refs/BRANCH              the commit that it was when it was asked for
                            roundhouse/COMMIT.json   our record: verified, and all of it is here
    STORE/.locks/models--ORG--NAME/pull.lock         held while one pulls or removes
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.engines.store.errors import StoreError
from server.engines.weights import HUB_ID

COMMIT = re.compile(r"[0-9a-f]{40}")
PARTIAL = ".incomplete"
RECORDS = "roundhouse"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


def store_folder(setting: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The store: what the operator set, else the hub's cache as its variables have it. Looks only.

    The same order as huggingface_hub's, which reads them once, when it is imported.
    """
    if setting:
        return Path(setting).expanduser().absolute()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if found := environ.get(name):
            return _expanded(found)
    if home := environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(cache) / "huggingface" / "hub"


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()


def checked_id(text: str) -> str:
    """A model's id on the hub, as given or as its page's address. Raises StoreError."""
    name = re.sub(r"^https?://[^/]+/", "", text).strip("/") if "://" in text else text
    if not HUB_ID.match(name) or ".." in name or "--" in name or name.endswith((".git", ".")):
        raise StoreError(
            f"{text!r} is no id of a model on the hub. Ids look like Qwen/Qwen3-8B; "
            "a folder is written with a slash: ./my-model.",
            reason="not_found",
        )
    return name


def checked_revision(text: str) -> str:
    """A branch, tag or commit that is safe as a file's name. Raises StoreError."""
    parts = text.split("/")
    if not _REVISION.fullmatch(text) or any(part.strip(".") == "" for part in parts):
        raise StoreError(
            f"{text!r} is no revision. Give a branch, a tag or a commit.", reason="not_found"
        )
    return text


@dataclass(frozen=True, slots=True)
class Place:
    """One repository's part of the store."""

    store: Path
    repo: str

    @property
    def folder(self) -> Path:
        return self.store / f"models--{self.repo.replace('/', '--')}"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def records(self) -> Path:
        return self.folder / RECORDS

    @property
    def lock(self) -> Path:
        return self.store / ".locks" / self.folder.name / "pull.lock"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def partials(self) -> list[Path]:
        """What pulls that did not end have left."""
        return sorted(self.blobs.glob(f"*{PARTIAL}"))

    def make(self) -> None:
        """The folders. Raises OSError."""
        for folder in (self.blobs, self.folder / "snapshots", self.records, self.lock.parent):
            folder.mkdir(parents=True, exist_ok=True)

    def link(self, commit: str, path: str, blob: str) -> None:
        """`snapshots/COMMIT/PATH` → the blob, in one step. Raises OSError."""
        link = self.snapshot(commit) / path
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.blobs / blob, link.parent)
        if link.is_symlink() and os.readlink(link) == target:
            return
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target)
            temporary.replace(link)
        finally:
            temporary.unlink(missing_ok=True)

    def refs(self) -> dict[str, str]:
        """Branches and tags as they were when somebody asked for them → commits."""
        root = self.folder / "refs"
        files = [path for path in root.glob("**/*") if path.is_file()]
        return {
            path.relative_to(root).as_posix(): path.read_text("utf-8", errors="replace").strip()
            for path in files
        }
