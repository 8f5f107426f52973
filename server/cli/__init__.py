"""The `roundhouse` command. Each command is a module, imported only when it runs."""

from __future__ import annotations


def main() -> None:
    """The console script's entry."""
    from server.cli.command import run

    raise SystemExit(run())
