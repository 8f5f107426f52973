"""What the commands for weights share: where things are, who uses them, how sizes read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from server.config.engine import Engine
    from server.engines.store.holdings import Holding

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Here:
    """What the config of this folder, or the one named, says: the server's home and its engines.
    `folder` is what their weights are relative to."""

    home: Path
    folder: Path = field(default_factory=Path)
    engines: dict[str, Engine] = field(default_factory=dict)

    def users(self, holding: Holding) -> list[str]:
        """The engines that are served from it."""
        return [name for name, engine in self.engines.items() if self._uses(engine, holding)]

    def _uses(self, engine: Engine, holding: Holding) -> bool:
        if engine.weights is None:
            return False
        if holding.record is not None and holding.record.path is not None:
            return (self.folder / Path(engine.weights).expanduser()).resolve() == holding.path
        if engine.weights != holding.name:
            return False
        revision = engine.revision or "main"
        return revision in holding.refs or holding.commit.startswith(revision)


def here(config: str | None, *, strict: bool = False) -> Here:
    """From the config named or found. One that is only found and has faults does not count, unless
    `strict`. Raises ConfigError."""
    from server.cli.models.configured import read_config
    from server.config.load import load_quickstart
    from server.errors import StartError

    try:
        loaded, _ = read_config(config)
    except (StartError, OSError):
        if strict or config is not None:
            raise
        click.echo(
            "The config here has faults, so nobody knows which engine uses what. "
            "`roundhouse check` shows them.",
            err=True,
        )
        return Here(load_home())
    if loaded is None:
        return Here(load_quickstart().home)
    return Here(loaded.home, loaded.folder, dict(loaded.config.engines))


def load_home() -> Path:
    """The home that the environment names, else the default one."""
    import os

    return Path(os.environ.get("ROUNDHOUSE_HOME") or "~/.roundhouse").expanduser()


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the weights are, and whose engines count."""
    command = click.option(
        "--config", metavar="FILE", help="Default: ROUNDHOUSE_CONFIG, else ./roundhouse.yaml."
    )(command)
    return click.option(
        "--store",
        metavar="FOLDER",
        help="Where pulled models are. Default: the hub's cache. [HF_HUB_CACHE, HF_HOME]",
    )(command)


@contextmanager
def told(where: Path) -> Iterator[None]:
    """Turns what the system says of the store into a sentence."""
    from server.engines.store.errors import StoreError

    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename or where} cannot be used ({error.strerror or type(error).__name__}). "
            "Is the store somebody else's? --store, HF_HUB_CACHE or HF_HOME name another.",
            reason="disk",
        ) from None


def size_of(count: float) -> str:
    """`312 B`, `4.7 GiB`"""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return (
        f"{count:.0f} {_UNITS[unit]}"
        if unit == 0 or count >= 100
        else f"{count:.1f} {_UNITS[unit]}"
    )


def duration_of(seconds: float) -> str:
    """`42 s`, `7 min`, `2 h 5 min`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def since(when: str) -> str:
    """`3d ago`"""
    from datetime import UTC, datetime

    from server.cli.ps import ago

    if not when:
        return "-"
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()
    except (ValueError, TypeError):
        return when
    return f"{ago(max(seconds, 0))} ago"


def as_dict(holding: Holding, users: Sequence[str]) -> dict[str, Any]:
    """One holding for `--json`."""
    record = holding.record
    return {
        "name": holding.name,
        "state": holding.state,
        "commit": holding.commit or None,
        "refs": list(holding.refs),
        "size": holding.size,
        "when": holding.when or None,
        "path": str(holding.path) if holding.path else None,
        "licence": record.licence if record else None,
        "asked_by": record.asked_by if record else None,
        "used_by": list(users),
    }
