"""The `roundhouse` command. Each command is a module, imported only when it runs."""

from __future__ import annotations

import os


def main() -> None:
    """The console script's entry."""
    if os.getpid() == 1:
        from server.cli.first import stand_over

        if (code := stand_over()) is not None:
            raise SystemExit(code)
    from server.cli.command import run

    raise SystemExit(run())
