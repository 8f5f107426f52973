"""YAML text to plain values, with the line of every key.

Only strings, numbers, true/false, null, lists and mappings; a key given twice is an error; anchors
may be used, but not to blow a small file up into a large tree.
"""

from __future__ import annotations

import math
from typing import Any, Final

import yaml

from server.config.places import Path, Place, Places
from server.errors import ConfigError

MAX_BYTES: Final = 2**20
MAX_VALUES: Final = 50_000
MAX_DEPTH: Final = 32

_TAG: Final = "tag:yaml.org,2002:"
_TEXT: Final = frozenset({_TAG + "str", _TAG + "value"})
_PLAIN: Final = frozenset(_TAG + kind for kind in ("int", "float", "bool", "null"))

#: What PyYAML says → what to do about it.
_HINTS: Final = (
    ("'\\t'", "Indent with spaces; YAML allows no tabs there."),
    ("alias", 'A value that starts with * must stand in quotes: "*".'),
    ("anchor", "A value that starts with & must stand in quotes."),
    ("mapping values are not allowed", 'Put values that contain ": " in quotes.'),
    ("cannot start any token", "Put values that start with a special sign in quotes."),
    ("a single document", "A config is one YAML document: remove the line `---` between them."),
    ("expected <block end>", "Look at the indentation of this line and of the one before it."),
    ("could not find expected ':'", "A line `key: value` is not complete here."),
    ("unexpected end of stream", "A quote or a bracket is not closed."),
    ("expected ',' or", "A bracket is not closed."),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader for which a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != _TAG + "timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(data: bytes, source: str) -> tuple[Any, Places]:
    """The tree of a YAML text (None when it is empty), and where its parts stand.

    `source` is the file's name for messages. Raises ConfigError at the first fault.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"The file is larger than {MAX_BYTES} bytes.", file=source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError("The file is not UTF-8 text.", file=source, line=line) from None
    loader = _open(text, source)
    try:
        node = loader.get_single_node()
        reader = _Reader(loader, source)
        tree = None if node is None else reader.value(node, (), 0)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, source) from None
    except yaml.YAMLError:
        raise ConfigError("This is not YAML.", file=source) from None
    except RecursionError:
        raise ConfigError("The file is nested too deeply.", file=source) from None
    finally:
        loader.dispose()
    return tree, reader.places


def _open(text: str, source: str) -> _Loader:
    try:
        return _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError("There is a control character.", file=source, line=line) from None


def _syntax(error: yaml.MarkedYAMLError, source: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for sign, hint in _HINTS if sign in said), None)
    line = mark.line + 1 if mark else None
    return ConfigError(f"This is not YAML: {said}.", file=source, line=line, hint=hint)


class _Reader:
    def __init__(self, loader: _Loader, source: str) -> None:
        self.loader = loader
        self.places = Places(source)
        self.count = 0
        self.above: set[int] = set()

    def fail(self, node: yaml.Node, message: str, hint: str | None = None) -> ConfigError:
        line = node.start_mark.line + 1
        return ConfigError(message, file=self.places.source, line=line, hint=hint)

    def value(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.fail(node, f"The file has more than {MAX_VALUES} values.")
        if depth > MAX_DEPTH or id(node) in self.above:
            raise self.fail(node, "The file is nested too deeply, or an anchor contains itself.")
        self.places.found.setdefault(path, Place(self.places.source, node.start_mark.line + 1))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.above.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.value(n, (*path, at), depth + 1) for at, n in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self.mapping(node, path, depth)
        finally:
            self.above.discard(id(node))
        raise self.unknown_tag(node)

    def unknown_tag(self, node: yaml.Node) -> ConfigError:
        tag = node.tag.replace(_TAG, "!!")[:60]
        return self.fail(node, f"The YAML type {tag} has no place in a config.", "Remove the tag.")

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if node.tag in _TEXT:
            return node.value
        if node.tag not in _PLAIN:
            raise self.unknown_tag(node)
        self.places.scalars[path] = node.value
        try:
            found = self.loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            raise self.fail(node, f"{node.value[:40]!r} is no number that can be read.") from None
        if isinstance(found, float) and not math.isfinite(found):
            raise self.fail(node, f"{node.value} has no meaning in a config.")
        return found

    def mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, "A key must be a word.", "Braces need quotes: '{{x}}'.")
            # `on:` and `8b:` are names here, whatever YAML makes of them.
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in tree:
                raise self.fail(
                    key_node,
                    f"`{key}` stands here twice (first on line {lines[key]}).",
                    "Keep one of them.",
                )
            lines[key] = line
            self.places.found[(*path, key)] = Place(self.places.source, line)
            tree[key] = self.value(value_node, (*path, key), depth + 1)
        for value_node in merged:
            self.merge(value_node, tree, path, depth)
        return tree

    def merge(self, node: yaml.Node, tree: dict[str, Any], path: Path, depth: int) -> None:
        """`<<: *defaults`: keys that are not set yet."""
        several = isinstance(node, yaml.SequenceNode)
        for one in node.value if several else [node]:
            if not isinstance(one, yaml.MappingNode):
                raise self.fail(node, "`<<` takes a mapping, or a list of mappings.")
            found = _Reader(self.loader, self.places.source)
            found.count, found.above = self.count, self.above
            values = found.value(one, (), depth + 1)
            self.count = found.count
            for key, value in values.items():
                if key in tree:
                    continue
                tree[key] = value
                for place, at in found.places.found.items():
                    if place[:1] == (key,):
                        self.places.found.setdefault(path + place, at)
                for place, text in found.places.scalars.items():
                    if place[:1] == (key,):
                        self.places.scalars[path + place] = text
