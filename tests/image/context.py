"""The build context: what `.dockerignore` leaves of a folder, by Docker's rules."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath


def rules(text: str) -> list[tuple[bool, re.Pattern[str]]]:
    """(is it left out?, which paths), in their order: of those that match the last one counts."""
    found = []
    for line in text.splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            out = not pattern.startswith("!")
            found.append((out, _regex(pattern.removeprefix("!").strip("/"))))
    return found


def _regex(pattern: str) -> re.Pattern[str]:
    said = ""
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|.", pattern):
        said += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            part, part if part.startswith("[") else re.escape(part)
        )
    return re.compile(said)


def left_out(path: str, by: list[tuple[bool, re.Pattern[str]]]) -> bool:
    """A pattern that matches a folder counts for all that is in it."""
    pure = PurePosixPath(path)
    names = [path, *(str(parent) for parent in pure.parents if parent.name)]
    out = False
    for leaves_out, pattern in by:
        if any(pattern.fullmatch(name) for name in names):
            out = leaves_out
    return out


def context(project: Path) -> list[str]:
    """The files that a build sees, whether git knows them or not."""
    by = rules((project / ".dockerignore").read_text("utf-8"))
    # Whole folders that nothing below can bring back are not walked: environments are large.
    back = [str(name) for name in _brought_back(project)]
    found = []
    for name in back:
        top = project / name
        files = [top] if top.is_file() else [Path(at, f) for at, _, fs in os.walk(top) for f in fs]
        relative = [file.relative_to(project).as_posix() for file in files]
        found += [path for path in relative if not left_out(path, by)]
    return sorted(found)


def _brought_back(project: Path) -> list[str]:
    lines = (project / ".dockerignore").read_text("utf-8").split()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def copy(project: Path, to: Path) -> Path:
    """The context as a folder of its own."""
    for name in context(project):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, to / name)
    return to
