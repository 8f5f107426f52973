"""The JSON schema of the config file, for editors.

``python -m server.config.schema_json --write configs/schema.json`` makes it, ``--check`` exits with
1 when it is not up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from server.config.schema import Config

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
_VARIABLE_TEXT: Final = "or a variable: ${NAME}, ${NAME:-default}"
#: Sections and rows that may stand empty.
_MAY_BE_NULL: Final = (
    *("server", "log", "routing", "placement", "weights"),
    *("runtimes", "providers", "engines", "models"),
)


def schema() -> dict[str, Any]:
    """Draft 2020-12. Where a file may say `${VAR}` for a number, a choice or a pattern, so does
    the schema."""
    made = Config.model_json_schema(mode="validation")
    for definition in [made, *made.get("$defs", {}).values()]:
        properties = definition.get("properties", {})
        for name, one in properties.items():
            if isinstance(one.get("default"), dict):  # an editor would paste all of it
                one = _without(one, "default")
            if "patternProperties" in one:
                one = {**one, "additionalProperties": False}
            forms = definition is made and name == "version"  # of the file: told before it is read
            properties[name] = one if forms else _with_variable(one)
    for name in _MAY_BE_NULL:
        section = made["properties"][name]
        if name == "providers":
            rows = section["patternProperties"]
            section["patternProperties"] = {key: _or_null(row) for key, row in rows.items()}
        made["properties"][name] = _or_null(section)
    return {"$schema": DIALECT, "title": "Roundhouse config", **_without(made, "title")}


def text() -> str:
    """As it stands in configs/schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _with_variable(one: dict[str, Any]) -> dict[str, Any]:
    """`one`, or a string with a variable in it, unless any string will do."""
    if "items" in one and isinstance(one["items"], dict):
        return {**one, "items": _with_variable(one["items"])}
    if isinstance(one.get("additionalProperties"), dict):
        return {**one, "additionalProperties": _with_variable(one["additionalProperties"])}
    if "anyOf" in one:
        options = [_with_variable(o) if _is_container(o) else o for o in one["anyOf"]]
        if any(_narrow(o) for o in options) and not any(_any_string(o) for o in options):
            options.append(_VARIABLE)
        return {**one, "anyOf": options}
    if not _narrow(one):
        return one
    kept = ("title", "description", "default", "examples")
    outer = {name: value for name, value in one.items() if name in kept}
    return {**outer, "anyOf": [_without(one, *kept), {**_VARIABLE, "description": _VARIABLE_TEXT}]}


def _is_container(one: dict[str, Any]) -> bool:
    return "items" in one or "additionalProperties" in one


def _narrow(one: dict[str, Any]) -> bool:
    """A scalar of which a `${VAR}` is no instance."""
    if one.get("type") in ("integer", "number", "boolean") or "const" in one or "enum" in one:
        return True
    return one.get("type") == "string" and "pattern" in one


def _any_string(one: dict[str, Any]) -> bool:
    return one.get("type") == "string" and not {"pattern", "enum", "const"} & one.keys()


def _or_null(one: dict[str, Any]) -> dict[str, Any]:
    kept = ("title", "description", "default")
    outer: dict[str, Any] = {name: one[name] for name in kept if name in one}
    return {**outer, "anyOf": [_without(one, *outer), {"type": "null"}]}


def _without(one: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in names}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The JSON schema of the config file.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", metavar="FILE", type=Path, help="exit with 1 unless up to date")
    what.add_argument("--write", metavar="FILE", type=Path, help="write it there")
    given = parser.parse_args(arguments)
    return put(text(), given.check, given.write, "server.config.schema_json")


def put(made: str, check: Path | None, write: Path | None, module: str) -> int:
    """Write a generated text, or compare it with a file, or print it; the exit code."""
    if write is not None:
        write.write_text(made, "utf-8")
    elif check is not None:
        if not check.is_file() or check.read_text("utf-8") != made:
            sys.stderr.write(f"{check} is not up to date: python -m {module} --write {check}\n")
            return 1
    else:
        sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
