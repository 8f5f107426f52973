"""Members of nested objects for which a dialect has no place: what becomes of them, decided once.

Conversations carry what other models and clients left in them, and refusing that would bind a
conversation to the model that it began with. So what a dialect does not know in `messages`, at any
depth, is let go and named, unless it is an order. All other objects (tools, formats, choices) hold
nothing but orders: there it is refused by its path, unless it merely advises.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from server.errors import InvalidRequest

#: Of a call of a tool, and of its function; streams leave an `index` in it.
CALL: Final = ("id", "type", "function", "index")
CALLED: Final = ("name", "arguments")
#: Of a tool's function, of a schema, and of OpenAI's options of streams.
FUNCTION: Final = ("name", "description", "parameters", "strict")
SCHEMA: Final = ("name", "description", "schema", "strict")
#: Objects in which nothing changes an answer's words but what a dialect takes anyway.
_HISTORY: Final = frozenset({"messages", "prediction", "stream_options"})
#: Of history: what says how to go on, or what was called. Without it the answer is another one.
_ORDERS: Final = frozenset({"function_call", "partial", "prefix"})
#: Of the others: what changes costs, or how much is shown.
_ADVICE: Final = frozenset({"cache_control", "display", "prompt_cache_breakpoint"})
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})
#: Fit for a header; clients may call their members anything.
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER: Final = "other"


def left_out(
    thing: Mapping[str, Any], known: Collection[str], where: str, who: str
) -> tuple[str, ...]:
    """What of this object is let go, as `messages.<member>`, `tools.<member>` and the like. `where`
    is its path in the body (`tools[0].function`), `who` the provider. Raises InvalidRequest, with
    the member's path as its param, for what is an order."""
    found: list[str] = []
    for name, value in thing.items():
        if name in known or value in _NOTHING:
            continue
        root = where.partition("[")[0].partition(".")[0]
        shown = name if _WORD.fullmatch(name) else _OTHER
        if root in _HISTORY:
            ordered = name in _ORDERS and value is not False
        else:
            ordered = name not in _ADVICE
        if ordered:
            path = f"{where}.{shown}"
            raise InvalidRequest(
                f"{who} has no `{path}`: leave it out.",
                param=path,
                code="unsupported_parameter",
            )
        if value is not False or name not in _ORDERS:
            found.append(f"{root}.{shown}")
    return tuple(dict.fromkeys(found))
