"""Write the chart's dashboards, or with `--check` say whether they are what is described here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from scripts.dashboards import engines, service

FOLDER: Final = Path(__file__).resolve().parents[2] / "helm" / "roundhouse" / "dashboards"
DASHBOARDS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "service": service.made,
    "engines": engines.made,
}


def text(name: str) -> str:
    """A dashboard as its file has it."""
    return json.dumps(DASHBOARDS[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    wrong = []
    for name in DASHBOARDS:
        file = FOLDER / f"{name}.json"
        if "--check" not in sys.argv:
            file.write_text(text(name), encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text(name):
            wrong.append(file.name)
    if wrong:
        print(f"{', '.join(wrong)}: not what is described: run `make docs`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
