"""`roundhouse chat`."""

from __future__ import annotations

import sys
from typing import Any

import click

from server.cli.options import Command, Name, client_options


def chat_options(command: Command) -> Command:
    """What is asked of the model beside the messages."""
    for option in (
        click.option("--system", metavar="TEXT", help="A system message."),
        click.option("--temperature", type=float, help="0 is the most predictable."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer."),
    ):
        command = option(command)
    return command


def request_options(temperature: float | None, max_tokens: int | None) -> dict[str, Any]:
    """Those that were given, as fields of a request."""
    given = {"temperature": temperature, "max_tokens": max_tokens}
    return {name: value for name, value in given.items() if value is not None}


@click.command(
    epilog="""\b
Examples:
  roundhouse chat                        the server's first model
  roundhouse chat guide --system "Answer in one sentence."
  echo "What is a fallback?" | roundhouse chat guide
  roundhouse chat --base-url https://llm.example.com gpt-6-luna"""
)
@click.argument("model", required=False, type=Name())
@chat_options
@client_options
def chat(
    model: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    base_url: str | None,
    api_key: str | None,
) -> None:
    """Chat with a model of a running server.

    With something else than a terminal as its input, all of that is one question, and the answer
    goes to the standard output.
    """
    from server.cli import client, talk
    from server.cli.prompt import Prompt

    with client.public(base_url, api_key) as server:
        piped = None if sys.stdin.isatty() else talk.piped_text()
        if piped == "":
            raise click.UsageError("The standard input is empty: there is nothing to ask.")
        options = request_options(temperature, max_tokens)
        conversation = talk.Talk(server, talk.pick(server, model), options)
        if system:
            conversation.system(system)
        if piped is not None:
            talk.once(conversation, piped)
        else:
            with Prompt() as prompt:
                talk.interactive(conversation, prompt.read)
