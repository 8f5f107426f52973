"""The tables of all keys and of all known providers in docs/configuration.md, made from the code.

``python -m server.config.reference --write docs/configuration.md`` renews it, ``--check`` exits
with 1 when it is not up to date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from server.config.explain import fields_at, model_at
from server.config.places import Path as Keys
from server.config.providers_table import ROWS
from server.config.schema_json import put
from server.config.variables import TWINS

START: Final = "<!-- generated: python -m server.config.reference -->\n"
END: Final = "<!-- end of what is generated -->\n"


def every_key(at: Keys = ()) -> Iterator[tuple[str, Any]]:
    """(`server.keys[].name`, pydantic's field) of every key of the file, in its order."""
    model = model_at(at)
    for name in fields_at(at):
        assert model is not None
        field = model.model_fields[name]
        yield shown((*at, name)), field
        for step in ((), ("*",), (0,)):
            yield from every_key((*at, name, *step))


def shown(path: Keys) -> str:
    """`models.NAME.targets[].engine`; `*` in `path` is any name, 0 any item."""
    text = ""
    for part in path:
        text += "[]" if part == 0 else ".NAME" if part == "*" else f".{part}" if text else str(part)
    return text


def text() -> str:
    """The Markdown between the two marks."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for path, field in every_key():
        lines.append(f"| `{path}` | {_default(field)} | {_cell(field.description or '')} |")
    lines += ["", "| variable | flag | sets | |", "|---|---|---|---|"]
    for twin in TWINS:
        flag = f"`{twin.flag}`" if twin.flag else ""
        sets = f"`{'.'.join(map(str, twin.path))}`" if twin.path else ""
        lines.append(f"| `{twin.name}` | {flag} | {sets} | {_cell(twin.text)} |")
    lines += ["", "| provider | dialect | base URL | key | get one at |", "|---|---|---|---|---|"]
    for name, row in ROWS.items():
        url = f"`{row.base_url}`" if row.base_url else f"yours, such as `{row.example}`"
        key = ", else ".join(f"`{variable}`" for variable in row.variables)
        lines.append(f"| `{name}` | {row.dialect} | {url} | {key} | {row.page or ''} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr):
        return ""
    if hasattr(value, "model_fields_set"):
        return ""
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value)}`" if value not in ({}, []) else ""


def renew(page: str) -> str:
    """The page with today's tables. Raises ValueError when it has no marks."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError("the page has no marks for the generated tables")
    return f"{before}{START}\n{text()}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The tables of docs/configuration.md.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", metavar="FILE", type=Path, help="exit with 1 unless up to date")
    what.add_argument("--write", metavar="FILE", type=Path, help="renew the tables there")
    given = parser.parse_args(arguments)
    page: Path = given.check or given.write
    made = renew(page.read_text("utf-8"))
    return put(made, given.check, given.write, "server.config.reference")


if __name__ == "__main__":
    raise SystemExit(main())
