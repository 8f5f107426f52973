"""`roundhouse models`: the models of a running server, and what the registry knows of all models.

Each subcommand is a module, imported only when it runs.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Final

import click
from click.core import ParameterSource

from server.cli.options import client_options, json_option

#: name → (module, its command, one line for `--help`)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "list": ("server.cli.models.listing", "list_models", "List the registry's models."),
    "search": ("server.cli.models.listing", "search", "Search the registry by words."),
    "show": ("server.cli.models.card", "show", "Show all that is known of a model."),
    "recommend": ("server.cli.recommend", "recommend", "Recommend models for a task."),
    "export": (
        "server.cli.models.exporting",
        "export",
        "Write the registry as JSON, YAML or text.",
    ),
    "sync": (
        "server.cli.models.syncing",
        "sync",
        "Ask the providers of the config what they have.",
    ),
}


class Models(click.Group):
    """Knows its commands' names and texts without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, *_) in COMMANDS.items() if _here(module)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module, attribute, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], known, n=1)
            hint = near[0] if near else f"show {args[0]}"
            ctx.fail(f"There is no command `models {args[0]}`. Did you mean `{hint}`?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


def _here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@click.command(
    cls=Models,
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="[COMMAND] [ARGS]...",
    epilog="""\b
Examples:
  roundhouse models                                     what a running server has
  roundhouse models --base-url http://gpu-box:8000 --json
  roundhouse models list --provider openai              what the registry knows
  roundhouse models show gpt-4o-mini --sources

Without a server, and without --base-url, it lists what the config here would serve.""",
)
@client_options
@json_option
@click.pass_context
def models(ctx: click.Context, base_url: str | None, api_key: str | None, as_json: bool) -> None:
    """List the models of a running server that the key may use; or, with a command, ask the
    registry what is known of any model."""
    if ctx.invoked_subcommand is None:
        from server.cli.models.running import show_running

        show_running(base_url, api_key, as_json)
        return
    for parameter in ctx.command.params:
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            name = parameter.opts[0]
            command = ctx.invoked_subcommand
            raise click.UsageError(
                f"{name} before `{command}` asks a running server. "
                f"Options of `{command}` stand after it."
            )
