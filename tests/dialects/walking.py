"""Walks through the types of official SDKs: all that can be said in a value, one thing at a time.

TypedDicts (requests) and pydantic's models (answers) are the same here.
"""

from __future__ import annotations

import datetime
import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pydantic
import typing_extensions

Path = tuple[str, ...]
UNIONS: Final[Any] = (typing.Union, types.UnionType)
_KINDS: Final = frozenset({"object", "role", "type"})
#: Of Mistral's SDK: what stands for nothing, and for what it does not know yet.
_STANDS_FOR_NOTHING: Final = re.compile("Unset|Unrecognized|Unknown")
_SIMPLE: Final[dict[Any, tuple[Any, Any]]] = {
    str: ("zq", "qz"),
    int: (7, 8),
    float: (7.5, 8.5),
    bool: (True, False),
    datetime.datetime: ("2026-01-02T03:04:05Z", "2027-01-02T03:04:05Z"),
}


@dataclass(frozen=True)
class Said:
    """A value at a place, in something that is as small as can be; and the same without it, or with
    another value where it must not be missing."""

    path: Path
    value: Any
    whole: Any
    without: Any

    @property
    def place(self) -> str:
        return ".".join(self.path)


@functools.cache
def hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The members of an object: what each is, and whether it must be there."""
    if not typing_extensions.is_typeddict(kind):
        return {
            one.alias or name: (one.annotation, one.is_required())
            for name, one in kind.model_fields.items()
        }
    found = {}
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        origin: Any = typing_extensions.get_origin(hint)
        required = origin is typing_extensions.Required
        found[name] = (typing_extensions.get_args(hint)[0] if required else hint, required)
    return found


def is_object(kind: Any) -> bool:
    model = isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)
    return model or typing_extensions.is_typeddict(kind)


def options(hint: Any) -> list[Any]:
    """The kinds of a union; None is none."""
    origin: Any = typing_extensions.get_origin(hint)
    if origin is typing_extensions.Annotated:
        return options(typing_extensions.get_args(hint)[0])
    if origin in UNIONS or isinstance(origin, typing_extensions.TypeAliasType):
        return [kind for arm in typing_extensions.get_args(hint) for kind in options(arm)]
    if isinstance(hint, typing_extensions.TypeAliasType):
        return options(hint.__value__)
    if hint is type(None) or _STANDS_FOR_NOTHING.search(getattr(hint, "__name__", "")):
        return []
    return [hint]


def inner(kind: Any) -> Any:
    """What a list is of; None for what is no list."""
    named = str(typing_extensions.get_origin(kind))
    found = typing_extensions.get_args(kind)
    return found[0] if found and re.search("list|Iter", named) else None


def _is_literal(kind: Any) -> bool:
    return typing_extensions.get_origin(kind) is typing.Literal


@dataclass(frozen=True)
class Walk:
    """`values`: two values where not any two will do, by the end of a path. `required`: ends of
    paths of what is needed besides what the types say. `passed_over`: members of the whole that are
    not asked about. `unknown`: each object has a member, too, that nobody knows. `typed`: in paths
    what has a `type` is called by it (`content[text]`)."""

    values: Mapping[Path, tuple[Any, Any]]
    required: frozenset[Path]
    passed_over: frozenset[str] = frozenset()
    unknown: bool = False
    typed: bool = False

    def two(self, kind: Any, path: Path) -> tuple[Any, Any]:
        """The smallest value of this kind, and another one where there is one."""
        for end, values in self.values.items():
            if path[-len(end) :] == end and not is_object(kind) and inner(kind) is None:
                return values
        if is_object(kind):
            members = {
                name: self.two(options(hint)[0], (*path, name))
                for name, (hint, required) in hints(kind).items()
                if required or self._is_required((*path, name))
            }
            one, other = ({name: pair[i] for name, pair in members.items()} for i in (0, 1))
            return one, other
        if (element := inner(kind)) is not None:
            one, other = self.two(options(element)[0], path)
            return [one], [other]
        if _is_literal(kind):
            found = typing_extensions.get_args(kind)
            return found[0], found[-1]
        return _SIMPLE.get(kind) or ({"zq": 7}, {"qz": 8})

    def _is_required(self, path: Path) -> bool:
        return any(path[-len(end) :] == end for end in self.required)

    def said(self, kind: Any, path: Path = ()) -> Iterator[Said]:
        """Whatever can be said in a value of this kind, one thing at a time."""
        if (element := inner(kind)) is not None:
            for arm in options(element):
                for one in self.said(arm, path):
                    yield Said(one.path, one.value, [one.whole], [one.without])
        if not is_object(kind):
            return
        least, others = self.two(kind, path)
        if self.typed and path and "type" in hints(kind):
            for name in typing_extensions.get_args(options(hints(kind)["type"][0])[0])[:1]:
                path = (*path[:-1], f"{path[-1]}[{name}]")
                least, others = {**least, "type": name}, {**others, "type": name}
        for name, (hint, _) in hints(kind).items():
            if path or name not in self.passed_over:
                other = others if name in least else None
                yield from self._member(name, hint, (*path, name), least, other)
        if self.unknown and path:
            yield Said((*path, "frobnicate"), "zq", {**least, "frobnicate": "zq"}, least)

    def _member(self, name: str, hint: Any, path: Path, least: Any, others: Any) -> Iterator[Said]:
        bare = {key: value for key, value in least.items() if key != name}
        for kind in options(hint):
            literals = typing_extensions.get_args(kind) if _is_literal(kind) else None
            if literals is not None and len(literals) == 1 and name in _KINDS:
                continue  # what an object is, and nothing that it says
            for value in literals or self.two(kind, path)[:1]:
                other = bare if others is None else {**bare, name: others[name]}
                if others is None or others[name] != value:
                    yield Said(path, value, {**bare, name: value}, other)
            for one in self.said(kind, path):
                inside, outside = {**bare, name: one.whole}, {**bare, name: one.without}
                yield Said(one.path, one.value, inside, outside)
