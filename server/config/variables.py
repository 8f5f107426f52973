"""`${VAR}` in values, `.env` beside the file, and the settings' twins in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from server.config import paths
from server.config.engine import PORT
from server.config.places import Path, Place, Places, Problem

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_INSIDE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
#: Kubernetes sets ROUNDHOUSE_PORT=tcp://10.… in every pod beside a Service named `roundhouse`.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Twin:
    """An environment variable and what it sets: `path` in the config, `flag` on the command line.

    `is_path`: a value from the environment or a flag is relative to the working directory.
    `nothing`: words that mean null.
    """

    name: str
    path: Path | None
    flag: str | None
    text: str
    is_path: bool = False
    nothing: tuple[str, ...] = ()


TWINS: Final = (
    Twin("ROUNDHOUSE_CONFIG", None, "CONFIG", "The config file."),
    Twin("ROUNDHOUSE_HOST", ("server", "host"), "--host", "Address to listen on."),
    Twin("ROUNDHOUSE_PORT", ("server", "port"), "--port", "Port to listen on; 0 takes a free one."),
    Twin(
        "ROUNDHOUSE_ADMIN",
        ("server", "admin"),
        "--admin",
        "Listener of the admin API, host:port; `off` switches it off.",
        nothing=("off", "none", "null", ""),
    ),
    Twin(
        "ROUNDHOUSE_ADMIN_KEY",
        ("server", "admin_key"),
        None,
        "Key of the admin API. The client commands send it, too.",
    ),
    Twin(
        "ROUNDHOUSE_METRICS_KEY",
        ("server", "metrics_key"),
        None,
        "Key that opens the metrics and nothing else.",
    ),
    Twin(
        "ROUNDHOUSE_API_KEY",
        None,
        None,
        "Adds a key named `env` for all models, unless the file uses the variable itself. The "
        "client commands send it.",
    ),
    Twin(
        "ROUNDHOUSE_KEYS_FILE",
        ("server", "keys_file"),
        "--keys-file",
        "A YAML list of keys.",
        is_path=True,
    ),
    Twin(
        "ROUNDHOUSE_HOME",
        ("server", "home"),
        "--home",
        "Engine logs, caches, estimates.",
        is_path=True,
    ),
    Twin("ROUNDHOUSE_DOCS", ("server", "docs"), "--docs/--no-docs", "Serve /docs."),
    Twin(
        "ROUNDHOUSE_LOG_LEVEL",
        ("log", "level"),
        "--log-level",
        "debug, info, warning or error.",
    ),
    Twin("ROUNDHOUSE_LOG_FORMAT", ("log", "format"), "--log-format", "auto, json or console."),
    Twin(
        "ROUNDHOUSE_LOG_ACCESS",
        ("log", "access"),
        "--log-access/--no-log-access",
        "One line per request.",
    ),
    Twin(
        "MODEL_ID",
        ("default",),
        None,
        "The model behind the name `default`, and behind a request without `model`.",
    ),
    Twin("ROUNDHOUSE_BASE_URL", None, "--base-url", "Where the client commands find the server."),
    Twin("ROUNDHOUSE_ADMIN_URL", None, "--admin-url", "Where they find its admin API."),
    Twin("ROUNDHOUSE_DEBUG", None, None, "1: errors of the command come with their traceback."),
)
BY_PATH: Final = {twin.path: twin for twin in TWINS if twin.path is not None}


def dot_env(file: FilePath) -> dict[str, str]:
    """The variables of a `.env`; empty when there is none. Raises OSError, UnicodeDecodeError."""
    from io import StringIO

    from dotenv import dotenv_values

    try:
        text = file.read_text("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


class Expander:
    """Expands `${VAR}` in all strings of a tree; collects what failed and the names used."""

    def __init__(self, variables: Mapping[str, str], places: Places) -> None:
        self.variables = variables
        self.places = places
        self.problems: list[Problem] = []
        self.used: set[str] = set()

    def expand(self, value: Any, path: Path = ()) -> Any:
        if isinstance(value, dict):
            return {key: self.expand(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.expand(inner, (*path, at)) for at, inner in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda match: self._one(match, path), value)
        return value

    def _one(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(match[1]) if match[1] is not None else None
        if inside is None:
            self._fail(
                path,
                "`${` does not begin a variable like ${NAME} or ${NAME:-default}.",
                "Write $${ for the two signs themselves; variables do not nest.",
            )
            return match[0]
        if match[0] == PORT and _is_cmd(path):
            return match[0]
        name, default = inside.groups()
        self.used.add(name)
        value = self.variables.get(name)
        if value or (value is not None and default is None):
            return value
        if default is not None:
            return str(default)
        self._fail(
            path,
            f"${{{name}}} is not set.",
            f"Set {name} in the environment or in .env beside the file, "
            f"or give a default: ${{{name}:-…}}.",
        )
        return match[0]

    def _fail(self, path: Path, message: str, hint: str) -> None:
        self.problems.append(self.places.error(path, message, hint))


def _is_cmd(path: Path) -> bool:
    """An engine's command: its port is known when it starts."""
    return len(path) == 3 and path[0] == "engines" and path[2] == "cmd"


def apply_twins(
    tree: dict[str, Any],
    places: Places,
    *,
    environ: Mapping[str, str],
    beside: Mapping[str, str],
    overrides: Mapping[str, Any],
    cwd: FilePath,
) -> list[str]:
    """Write the environment's settings, then the flags' (`overrides`, by dotted path), into `tree`.

    `beside` is the `.env`, over which `environ` wins. Returns the names that took effect.
    """
    took = []
    for twin in TWINS:
        if twin.path is None:
            continue
        name = dotted_path = ".".join(str(part) for part in twin.path)
        value: Any
        if dotted_path in overrides:
            name, value, base = twin.flag or twin.name, overrides[dotted_path], cwd
        elif twin.name in environ:
            name, value, base = twin.name, environ[twin.name], cwd
        elif twin.name in beside:
            name, value, base = twin.name, beside[twin.name], None
        else:
            continue
        if twin.path == ("server", "port") and _SERVICE_LINK.match(str(value)):
            continue
        if isinstance(value, str) and twin.nothing and value.strip().lower() in twin.nothing:
            value = None
        elif value == "" and isinstance(value, str):
            continue  # set to nothing, as compose files do, is not set
        elif twin.is_path and base is not None and paths.fault(str(value)) is None:
            value = str(base / FilePath(value).expanduser())
        *section, key = twin.path
        inner: Any = tree
        for part in section:
            inner = inner.setdefault(str(part), {}) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[str(key)] = value
            places.move(twin.path, Place(name))
            took.append(name)
    return took
