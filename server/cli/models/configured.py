"""The config as `roundhouse models` needs it: for its home and its accounts, not for serving."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from server.config import load
from server.config.load import Loaded
from server.config.places import ConfigErrors, Problem
from server.errors import ConfigError

#: How the checks begin to tell of it, and the variable that would have it.
_NO_KEY: Final = re.compile(r"has no key: (\w+)")


def read_config(path: str | None) -> tuple[Loaded | None, dict[str, str]]:
    """The config named or found here, else that of the keys in the environment, None without any;
    and the providers that have no key, with what to do about it. Raises ConfigError.

    To serve, every key must be there; here a missing one is no fault of the others.
    """
    file = path or load.find(os.environ, Path())
    if file is None:
        return (load.from_keys(embedded=False) if load.providers_with_key() else None), {}
    try:
        return load.load(file), {}
    except ConfigError as error:
        problems = list(error) if isinstance(error, ConfigErrors) else [error]
        keyless: dict[str, str] = {}
        variables = []
        for problem in problems:
            at = problem.path if isinstance(problem, Problem) else ()
            missing = _NO_KEY.match(problem.message)
            if at[:1] != ("providers",) or missing is None:
                raise
            variables.append(missing[1])
            keyless[str(at[1])] = f"{problem.message} {problem.hint or ''}".strip()
    stand_ins = dict.fromkeys(variables, "none")
    return load.load(file, environ={**os.environ, **stand_ins}), keyless
