"""The config as `roundhouse models` needs it: for its home and its accounts, not for serving."""

from __future__ import annotations

import os
from pathlib import Path

from server.config import load
from server.config.load import Loaded
from server.config.places import ConfigErrors, Problem
from server.config.providers_table import ROWS
from server.errors import ConfigError


def read_config(path: str | None) -> tuple[Loaded | None, dict[str, str]]:
    """The config named or found here, None without one; and the providers that have no key, with
    what to do about it. Raises ConfigError.

    To serve, every key must be there; here a missing one is no fault of the others.
    """
    file = path or load.find(os.environ, Path())
    if file is None:
        return None, {}
    try:
        return load.load(file), {}
    except ConfigError as error:
        problems = list(error) if isinstance(error, ConfigErrors) else [error]
        keyless: dict[str, str] = {}
        for problem in problems:
            at = problem.path if isinstance(problem, Problem) else ()
            if at[:1] != ("providers",) or not problem.message.startswith("has no key"):
                raise
            keyless[str(at[1])] = f"{problem.message} {problem.hint or ''}".strip()
    stand_ins = {ROWS[name].variables[0]: "none" for name in keyless}
    return load.load(file, environ={**os.environ, **stand_ins}), keyless
