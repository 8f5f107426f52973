"""The group of commands, and how every one of them ends: an exit code and one paragraph."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from server.errors import StartError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

#: name → (module with a click command of this name, one line for `--help`)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve", "Serve models: from a config file, or by hub id or folder."),
    "run": ("run", "Serve one model and chat with it, here in the terminal."),
    "chat": ("chat", "Chat with a model of a running server; works in a pipe, too."),
    "bench": ("bench", "Measure how fast a server answers under load."),
    "check": ("check", "Check a config file, and show what it comes to."),
    "models": ("models", "A running server's models; list, search, show: all that are known."),
    "pull": ("weights.pulling", "Bring a model's weights to this disk: from a hub, or a folder."),
    "ls": ("weights.listing", "List the models on this disk."),
    "show": ("weights.showing", "Show a model on this disk: commits, files, who uses it."),
    "rm": ("weights.removing", "Remove a model from this disk."),
    "du": ("weights.listing", "Show what the models take on the disk."),
    "ps": ("ps", "Show the engines of a running server."),
    "health": ("health", "Ask a running server whether it is well; for health checks."),
    "explain": ("explain", "Show where a request would go, target by target, and why."),
    "load": ("loading", "Load an engine, or other weights, into a running server."),
    "unload": ("engines", "Drain and stop an engine."),
    "stop": ("engines", "The same as unload."),
    "default": ("engines", "Show or set the model of requests that name none."),
    "logs": ("logs", "Show an engine's log; -f goes on with what comes."),
    "reload": ("engines", "Have the server read its config again."),
    "version": ("version", "Show the versions of Roundhouse, Python and vLLM."),
}

_EPILOG: Final = """\b
Examples:
  roundhouse serve                         the embedded model, no config needed
  roundhouse serve Qwen/Qwen3-0.6B         a model of the hub
  roundhouse serve roundhouse.yaml         a config file
  roundhouse pull Qwen/Qwen3-0.6B          bring its weights here first
  roundhouse load Qwen/Qwen3-0.6B          into a server that runs
  roundhouse run embedded:guide            serve and chat
  echo "What is a fallback?" | roundhouse chat guide

\b
Exit codes: 0 done, 1 error, 2 wrong usage or config, 3 address not available,
4 engine cannot start, 130 interrupted. ROUNDHOUSE_DEBUG=1 shows tracebacks."""


class Commands(click.Group):
    """Knows its commands' names and texts without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"server.cli.{COMMANDS[name][0]}")
        command = getattr(module, name if name != "reload" else "reload_")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            found = difflib.get_close_matches(args[0], COMMANDS, n=1)
            near = f" Did you mean `roundhouse {found[0]}`?" if found else ""
            if not found and (args[0].endswith((".yaml", ".yml")) or "/" in args[0]):
                near = f" Did you mean `roundhouse serve {args[0]}`?"
            ctx.fail(f"There is no command `{args[0]}`.{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from server.cli.version import roundhouse_version

        click.echo(f"roundhouse {roundhouse_version()}")
        ctx.exit()


@click.command(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One OpenAI-compatible server for the vLLM engines it runs and the providers you have."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own); the exit code."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us (`>&-`)
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
    try:
        with cli.make_context(
            "roundhouse", list(sys.argv[1:] if arguments is None else arguments)
        ) as ctx:
            result = cli.invoke(ctx)
        code = result if isinstance(result, int) else OK
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:  # the reader has seen enough
        _no_more_output()
        code = OK
    except StartError as error:
        _tell(error, str(error))
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - no traceback for a person who asked for none
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _no_more_output()
            _tell(error, "The disk is full to which the output goes, or another that is needed.")
            return FAILED
        _tell(error, f"Something broke that should not: {type(error).__name__}: {error}")
        if not _debug():
            click.echo("Set ROUNDHOUSE_DEBUG=1 to see where.", err=True)
        code = FAILED
    return code


def _no_more_output() -> None:
    """Else Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _debug() -> bool:
    return os.environ.get("ROUNDHOUSE_DEBUG", "") not in ("", "0")


def _tell(error: BaseException, text: str) -> None:
    if _debug():
        traceback.print_exception(error)
    lines = text.splitlines() or [""]
    if len(lines) == 1 or hasattr(error, "log_tail"):
        click.echo(f"Error: {text}", err=True)
    else:
        click.echo(f"Error: {len(lines)} things to mend:", err=True)
        for line in lines:
            click.echo(f"  {line}", err=True)
    for line in getattr(error, "log_tail", ()):
        click.echo(f"  | {line}", err=True)
