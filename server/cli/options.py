"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

Command = Callable[..., Any]

#: Parameter of a command → path in the config.
SETTINGS: Final = {
    "host": "server.host",
    "port": "server.port",
    "admin": "server.admin",
    "home": "server.home",
    "keys_file": "server.keys_file",
    "docs": "server.docs",
    "log_level": "log.level",
    "log_format": "log.format",
    "log_access": "log.access",
}


class Name(click.types.StringParamType):
    """Not empty, as what a variable holds that is not set: it would mean this folder, or all."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("it is empty.", param, ctx)
        return text


def server_options(command: Command) -> Command:
    """The settings of the config that have a flag. A flag wins over all else."""
    options: list[Callable[[Command], Command]] = [
        click.option("--host", metavar="ADDRESS", help="Address to listen on. [ROUNDHOUSE_HOST]"),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            help="Port to listen on; 0 takes a free one. [ROUNDHOUSE_PORT]",
        ),
        click.option(
            "--admin",
            metavar="HOST:PORT",
            help="Listener of the admin API, or `off`. [ROUNDHOUSE_ADMIN]",
        ),
        click.option(
            "--home",
            metavar="FOLDER",
            help="Where engine logs, caches and estimates go. [ROUNDHOUSE_HOME]",
        ),
        click.option(
            "--keys-file", metavar="FILE", help="A YAML list of keys. [ROUNDHOUSE_KEYS_FILE]"
        ),
        click.option("--docs/--no-docs", default=None, help="Serve /docs. [ROUNDHOUSE_DOCS]"),
        *log_options(),
    ]
    return _all(options, command)


def log_options() -> Sequence[Callable[[Command], Command]]:
    return [
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="How much the log says. [ROUNDHOUSE_LOG_LEVEL]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["auto", "json", "console"]),
            help="auto: console on a terminal, else JSON. [ROUNDHOUSE_LOG_FORMAT]",
        ),
        click.option(
            "--log-access/--no-log-access",
            default=None,
            help="One line for each request. [ROUNDHOUSE_LOG_ACCESS]",
        ),
    ]


def base_url_option(command: Command) -> Command:
    """Where the server is."""
    return click.option(
        "--base-url",
        metavar="URL",
        envvar="ROUNDHOUSE_BASE_URL",
        help="Where the server is. Default: as the config here says, else "
        "http://127.0.0.1:8000. [ROUNDHOUSE_BASE_URL]",
    )(command)


def client_options(command: Command) -> Command:
    """Where the server is, and the key to use."""
    options: list[Callable[[Command], Command]] = [
        base_url_option,
        click.option(
            "--api-key",
            metavar="KEY",
            envvar="ROUNDHOUSE_API_KEY",
            help="Better in the environment, where others cannot see it. [ROUNDHOUSE_API_KEY]",
        ),
    ]
    return _all(options, command)


def admin_options(command: Command) -> Command:
    """Where the admin API is, and its key."""
    options = [
        click.option(
            "--admin-url",
            metavar="URL",
            envvar="ROUNDHOUSE_ADMIN_URL",
            help="Where the admin API is. Default: as the config here says, else "
            "http://127.0.0.1:8001. [ROUNDHOUSE_ADMIN_URL]",
        ),
        click.option(
            "--admin-key",
            metavar="KEY",
            envvar="ROUNDHOUSE_ADMIN_KEY",
            help="Better in the environment, where others cannot see it. [ROUNDHOUSE_ADMIN_KEY]",
        ),
    ]
    return _all(options, command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def all_options(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Several decorators as one."""
    return lambda command: _all(options, command)


def _all(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def overrides(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, by the config's paths."""
    return {SETTINGS[name]: value for name, value in flags.items() if value is not None}


def is_config(argument: str) -> bool:
    """Is this argument of `serve` a config file? Else it is weights: a hub id or a folder."""
    return argument.endswith((".yaml", ".yml")) or Path(argument).is_file()
