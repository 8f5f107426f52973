"""`args` of an engine's config: vLLM's flags, and what some of them say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from server.config.parts import Scalar
from server.errors import EngineError

Arguments = Mapping[str, Scalar | list[Scalar] | None]

#: Of all lists, this one's values come one by one, each after the flag.
_ONE_BY_ONE: Final = frozenset({"middleware"})
#: Flags that have no `--no-` twin; off is how they are.
_WITHOUT_TWIN: Final = frozenset(
    "headless grpc disable-log-stats aggregate-engine-logging "
    "data-parallel-multi-port-external-lb".split()
)
_NUMBER: Final = re.compile(r"(\d+)(\.\d+)?([kKmMgGtT]?)")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def flags(args: Arguments) -> list[str]:
    """vLLM's flags: true → `--flag`, false → `--no-flag`, list → values after it, null → nothing.

    Raises EngineError (`arguments`) for list items that would be read as flags.
    """
    argv: list[str] = []
    for name, value in args.items():
        if value is None or (value is False and name in _WITHOUT_TWIN):
            continue
        if value is True:
            argv.append(f"--{name}")
        elif value is False:
            argv.append(f"--no-{name}")
        elif isinstance(value, list):
            items = [_text(item) for item in value]
            if any(item.startswith("-") for item in items):
                raise EngineError(
                    f"A value in the list {name!r} starts with a dash.",
                    reason="arguments",
                    terminal=True,
                )
            if name in _ONE_BY_ONE:
                argv += [word for item in items for word in (f"--{name}", item)]
            elif items:
                argv += [f"--{name}", *items]
        elif (text := _text(value)).startswith("-"):
            argv.append(f"--{name}={text}")
        else:
            argv += [f"--{name}", text]
    return argv


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def whole_number(value: object) -> int | None:
    """As vLLM reads it (`human_readable_int`): 4096, "32k" (1000 each), "32K" (1024 each), "1.5k".
    None for anything else."""
    found = _NUMBER.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        return None
    digits, fraction, unit = found[1], found[2] or "", found[3]
    if fraction and not unit.islower():
        return None
    step = 1000 if unit.islower() else 1024
    return int(float(digits + fraction) * step ** _POWERS[unit.lower()])


def share(value: object) -> float | None:
    """More than 0 and at most 1, as `gpu-memory-utilization`; None for anything else."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 < found <= 1 else None
