"""A config that passed every check, with what the server was told besides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from server.config import additions as state
from server.config import links, merging
from server.config.additions import NONE, Additions
from server.config.draft import Draft
from server.config.schema import Config
from server.config.validation import validate
from server.registry.catalog import Catalog, builtin


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that passed every check, and where it came from.

    `path` is None when there is no file of the user's own. Paths in the config are relative to
    `folder`. `digest` changes with anything that was read. `sources` names the files, variables and
    flags that had a say; `files` are those to watch. `advice` is for the log, a sentence each.
    `catalog` has the cards: the built-in ones, and over them those of the config's files.
    `by_variable`: provider → the variable that its key is from, where the file says none.

    `config` has the `additions`, too: what is in force of that which the server was told while it
    ran. `kept`: all of it, in force or not, as the state file holds it.
    """

    config: Config
    path: FilePath | None
    folder: FilePath
    home: FilePath
    digest: str
    sources: tuple[str, ...]
    files: tuple[FilePath, ...] = ()
    advice: tuple[str, ...] = ()
    catalog: Catalog = field(default_factory=builtin, repr=False, compare=False)
    by_variable: Mapping[str, str] = field(default_factory=dict, compare=False)
    additions: Additions = field(default=NONE, repr=False)
    kept: Additions = field(default=NONE, repr=False)
    _draft: Draft | None = field(default=None, repr=False, compare=False)
    _again: Callable[[], Draft] | None = field(default=None, repr=False, compare=False)

    def again(self) -> Loaded:
        """Read everything anew, with the same environment and flags, and with what is kept of the
        additions. Raises ConfigError."""
        return self if self._again is None else finish(self._again(), self._again, self.kept)

    def with_additions(self, additions: Additions) -> Loaded:
        """The same config with these instead of those that are in force. Raises ConfigError with
        all that is wrong with them; what the config has, too, is refused as well."""
        draft = self._draft
        if draft is None:
            raise ValueError("nothing can be added to a config that was not loaded")
        rest = self.left_out.without(additions)
        merged = merging.add(draft, _alone(draft), additions)
        return _loaded(draft, self._again, merged, additions.over(rest))

    def keeping(self, kept: Additions) -> Loaded:
        """The same config with what can be of these."""
        if self._draft is None:
            raise ValueError("nothing is kept beside a config that was not loaded")
        return finish(self._draft, self._again, kept)

    @property
    def left_out(self) -> Additions:
        """What is kept and not in force: the config has it, too, or it is no longer valid."""
        return self.kept.without(self.additions)

    def with_state(self) -> Loaded:
        """With what the state file in its home holds, as far as it can be. Never raises."""
        found, draft = state.read(self.home), self._draft
        made = self
        if found.additions and draft is not None:
            own = set(finish(draft).advice)
            made = finish(draft, self._again, found.additions)
            others = (sentence for sentence in self.advice if sentence not in own)
            made = replace(made, advice=(*made.advice, *others))
        return replace(made, advice=(*made.advice, *found.notes)) if found.notes else made


def finish(
    draft: Draft, again: Callable[[], Draft] | None = None, kept: Additions = NONE
) -> Loaded:
    """The config that it is, with those additions that go with it. `again` reads it anew. Raises
    ConfigError, with all that is wrong with the config."""
    return _loaded(draft, again, merging.merge(draft, _alone(draft), kept), kept)


def _alone(draft: Draft) -> Config:
    return validate(draft.tree, draft.places, draft.catalog, draft.folder, draft.faults)


def _loaded(
    draft: Draft,
    again: Callable[[], Draft] | None,
    merged: merging.Merged,
    kept: Additions,
) -> Loaded:
    return Loaded(
        config=merged.config,
        path=draft.path,
        folder=draft.folder.absolute(),
        home=draft.home,
        digest=_digest(draft.digest, merged.additions),
        sources=(*draft.sources, *((str(draft.home / state.FILE),) if merged.additions else ())),
        files=draft.files,
        advice=(
            *links.advice(merged.config, merged.places, draft.catalog),
            *draft.advice,
            *merged.left_out,
        ),
        catalog=draft.catalog,
        by_variable=draft.by_variable,
        additions=merged.additions,
        kept=kept,
        _draft=draft,
        _again=again,
    )


def _digest(alone: str, additions: Additions) -> str:
    if not additions:
        return alone
    said = json.dumps([additions.engines, additions.models, additions.default], sort_keys=True)
    return hashlib.sha256(f"{alone} {said}".encode()).hexdigest()
