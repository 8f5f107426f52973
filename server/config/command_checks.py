"""What is wrong with, and what is odd about, the command of an engine with `runtime: command`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from server.config.engine import PORT, Engine
from server.config.parts import no_argument
from server.config.places import Path, Places, Problem

_EXAMPLE: Final = '`cmd: "llama-server --port ${PORT} -m model.gguf"`'
_IN_CMD: Final = "Say it to the program, in `cmd`, and remove it here."
_FOR_VLLM: Final = {
    "args": "Write them in `cmd`.",
    "revision": "A command finds its weights itself; remove it.",
    "kv_cache": "Say it in `cmd`; what it takes in all stands under `memory`.",
    "concurrency": "Say it in `cmd`; what it takes in all stands under `memory`.",
    "sleep": "Only engines of vLLM can sleep; remove it.",
}
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
#: Words, and what in a word, that a shell would make something of.
_OPERATORS: Final = frozenset("| || & && ; < > >> 2>&1 2> &>".split())
_EXPANDED: Final = re.compile(r"^~|\$[A-Za-z_(]|`")


def for_vllm(key: str) -> tuple[str, str]:
    """A key that a command has no use for, and what to do instead."""
    return "is not for an engine with `runtime: command`.", _FOR_VLLM.get(key, _IN_CMD)


def words(cmd: str) -> list[str]:
    """The program and its arguments, as a shell would cut them. Raises ValueError where a quote
    does not close."""
    return shlex.split(cmd)


def check(path: Path, engine: Engine, places: Places) -> Iterator[Problem]:
    here = (*path, "cmd")
    if engine.cmd is None:
        given = "cmd" in engine.model_fields_set
        yield places.error(here, "has no value." if given else "is missing.", f"Write {_EXAMPLE}.")
        return
    try:
        found = words(engine.cmd)
    except ValueError:
        yield places.error(
            here,
            "cannot be cut into words: a quote does not close, or it ends with a backslash.",
            "Close the quote; a quote that is meant itself takes a backslash before it.",
        )
        return
    if not found or not found[0]:
        yield places.error(here, "names no program.", f"Write {_EXAMPLE}.")
    elif (wrong := no_argument(engine.cmd)) is not None:
        yield places.error(here, f"{wrong}.")
    elif assigned := _VARIABLE.match(found[0]):
        yield places.error(
            here,
            f"begins with the variable {assigned[1]}, and no shell runs it.",
            f"Write it under `env`: `env: {{{assigned[1]}: …}}`.",
        )
    elif not any(PORT in word for word in found[1:]):
        yield places.error(
            here,
            f"has no `{PORT}`, so that nobody could tell it where to answer.",
            f"Write it where its port stands, as in {_EXAMPLE}.",
        )


def advice(name: str, engine: Engine) -> Iterator[str]:
    """Signs of a shell that none will read."""
    program, *arguments = words(engine.cmd or "")
    if PurePath(program).name in _SHELLS:
        return
    for word in arguments:
        found = _EXPANDED.search(word.replace(PORT, ""))
        if word in _OPERATORS or found:
            sign = found[0][0] if found else word  # the word may be a secret
            yield (
                f"Engine `{name}`: no shell runs its `cmd`, so that {sign} is given to the "
                "program as it stands. Write `sh -c 'exec …'` where a shell is wanted."
            )
            return
