"""helm/roundhouse/README.md from the chart's values: `python -m scripts.helm_readme [--check]`.

In values.yaml `# -- text` stands above a key and says what it means; a comment without the dashes
says what the mapping below it is for. Types come from values.schema.json.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "roundhouse"
PAGE = CHART / "README.md"
HEAD = Path(__file__).with_name("helm_readme.md")
#: A longer default is looked up in values.yaml.
LONGEST = 60
_KEY = re.compile(r"( *)([A-Za-z][\w./-]*):")


class Undocumented(ValueError):
    """A key of values.yaml says nothing of itself."""


@dataclass(frozen=True)
class Entry:
    """A key with its meaning; or a mapping, whose keys follow."""

    path: tuple[str, ...]
    text: str
    mapping: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)


def entries(text: str) -> Iterator[Entry]:
    """Every key of values.yaml that has a meaning of its own, in order. What is below it is its
    value. Raises Undocumented."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    inside: int | None = None  # the indentation of a key whose value this is
    for line in text.splitlines():
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        if not bare:
            comment = []
            continue
        if inside is not None:
            if indent > inside:
                continue
            inside = None
        if bare.startswith("#"):
            comment.append(bare.removeprefix("#").strip())
            continue
        found = _KEY.match(line)
        if found is None:
            raise Undocumented(f"values.yaml: {line!r} is no key")
        path = [*((depth, key) for depth, key in path if depth < indent), (indent, found[2])]
        keys = tuple(key for _, key in path)
        said = " ".join(comment)
        comment = []
        if said.startswith("-- "):
            inside = indent
            yield Entry(keys, said.removeprefix("-- "))
        elif isinstance(value(values, keys), dict) and value(values, keys):
            yield Entry(keys, said, mapping=True)
        else:
            raise Undocumented(f"values.yaml: no `# --` says what {'.'.join(keys)} means")


def value(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def kind(schema: dict[str, Any], path: tuple[str, ...]) -> str:
    """The type of a key, in a word or two."""
    node = schema
    for key in path:
        node = _resolved(node, schema)["properties"][key]
    node = _resolved(node, schema)
    if "enum" in node:
        return "one of " + ", ".join(f"`{choice}`" for choice in node["enum"])
    if "anyOf" in node:
        return " or ".join(each["type"] for each in node["anyOf"])
    if node["type"] == "array":
        return f"list of {_resolved(node['items'], schema).get('type', 'string')}s"
    return "mapping" if node["type"] == "object" else str(node["type"])


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def page() -> str:
    """The whole page."""
    text = (CHART / "values.yaml").read_text("utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load(text)
    # What stands by itself comes first.
    tables: dict[str, list[str]] = {"": []}
    about: dict[str, str] = {}
    for entry in entries(text):
        section = entry.path[0] if entry.mapping or len(entry.path) > 1 else ""
        rows = tables.setdefault(section, [])
        if not entry.mapping:
            default = json.dumps(value(values, entry.path), ensure_ascii=False)
            shown = f"`{default}`" if len(default) <= LONGEST else "see values.yaml"
            rows.append(_row(f"`{entry.name}`", kind(schema, entry.path), shown, entry.text))
        elif len(entry.path) == 1:
            about[section] = entry.text
        elif entry.text:
            rows.append(_row(f"`{entry.name}`", "mapping", "", entry.text))
    lines = [HEAD.read_text("utf-8").rstrip()]
    for section, rows in tables.items():
        lines += ["", f"### {section or 'General'}", ""]
        if about.get(section):
            lines += [about[section], ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        if PAGE.read_text("utf-8") != page():
            print("helm/roundhouse/README.md is not what values.yaml says: run `make docs`")
            return 1
        return 0
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
