"""A Dockerfile, read: the few instructions that ours uses. Fails on what it does not know."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = frozenset(
    "FROM ARG ENV LABEL COPY RUN WORKDIR VOLUME EXPOSE STOPSIGNAL HEALTHCHECK USER ENTRYPOINT "
    "CMD".split()
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::([+-])([^{}]*))?\}")


@dataclass(frozen=True)
class Instruction:
    """`flags` are the leading ones, such as `--from=wheel`, in their order."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    rest: str
    line: int

    @property
    def words(self) -> list[str]:
        """Of the exec form in JSON, or of the shell form."""
        if self.rest.startswith("["):
            return list(map(str, json.loads(self.rest)))
        return shlex.split(self.rest)

    @property
    def pairs(self) -> dict[str, str]:
        """Of ENV and LABEL: names and values, with their variables as they are."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}

    def flag(self, name: str) -> str | None:
        return dict(self.flags).get(name)

    @property
    def mounts(self) -> list[dict[str, str]]:
        """Of RUN."""
        return [
            dict(part.split("=", 1) for part in value.split(","))
            for name, value in self.flags
            if name == "mount"
        ]


@dataclass
class Stage:
    """`base` is a stage's name, or what a registry calls an image, with variables as they are."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[Instruction]:
        return [one for one in self.instructions if one.keyword == keyword]

    def one(self, keyword: str) -> Instruction:
        (found,) = self.all(keyword)
        return found


@dataclass(frozen=True)
class Dockerfile:
    """`arguments` are those before the first stage, with their defaults, each of which may have
    those before it in it."""

    arguments: dict[str, str]
    stages: dict[str, Stage]


def read(path: Path) -> Dockerfile:
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for one in _instructions(path.read_text("utf-8")):
        assert one.keyword in KNOWN, f"{path.name}:{one.line}: {one.keyword}"
        if one.keyword == "FROM":
            base, as_, name = one.rest.split()
            assert as_ == "AS", one
            stage = stages[name] = Stage(base, name)
        elif stage is None:
            assert one.keyword == "ARG", one
            name, _, value = one.rest.partition("=")
            arguments[name] = expand(value, arguments)
        else:
            stage.instructions.append(one)
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> list[Instruction]:
    found, held, began = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not held and not line.strip()):
            continue
        began = began if held else number
        held += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        keyword, _, rest = held.strip().partition(" ")
        flags, rest, held = [], rest.strip(), ""
        while rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            name, _, value = flag.removeprefix("--").partition("=")
            flags.append((name, value))
            rest = rest.strip()
        found.append(Instruction(keyword, tuple(flags), rest, began))
    assert not held
    return found


def variables(text: str) -> set[str]:
    """The names that `text` refers to."""
    return {name for name, _, _ in _VARIABLE.findall(text)}


def expand(text: str, values: Mapping[str, str]) -> str:
    """With its variables' values, as Docker has them: `${A}`, `${A:-word}`, `${A:+word}`."""

    def value(match: re.Match[str]) -> str:
        name, sign, word = match.groups()
        said = values.get(name, "")
        return (said or word if sign == "-" else word if said else "") if sign else said

    return _VARIABLE.sub(value, text)
