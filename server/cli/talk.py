"""A conversation with a model over the API: one answer at a time, streamed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click

from server.cli.client import Client, ClientError, error_text, printable
from server.errors import UpstreamError
from server.protocol import sse

_EVENT_LIMIT: Final = 8 * 2**20
_HELP: Final = """\
/clear   begin anew     /model NAME   ask another model     /models   list them
/exit    leave (so does Ctrl-D)       Ctrl-C stops an answer"""


@dataclass
class Talk:
    """The messages so far. `options` go into each request as they are."""

    client: Client
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def system(self, text: str) -> None:
        """Set the system message."""
        self.messages.insert(0, {"role": "system", "content": text})

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def ask(self, text: str) -> Iterator[str]:
        """The pieces of the answer. What came of it is remembered when the iterator ends, however
        it ends; a question without any answer is not. Raises ClientError."""
        question = {"role": "user", "content": text}
        body = {
            "model": self.model,
            "messages": [*self.messages, question],
            "stream": True,
            **self.options,
        }
        answer: list[str] = []
        try:
            with self.client.stream("/v1/chat/completions", body) as chunks:
                for piece in deltas(chunks):
                    answer.append(piece)
                    yield piece
        finally:
            if answer:
                said = {"role": "assistant", "content": "".join(answer)}
                self.messages += [question, said]


def deltas(chunks: Iterator[bytes]) -> Iterator[str]:
    """The text in a chat stream. Raises ClientError for an error event or a broken stream."""
    splitter = sse.Splitter(_EVENT_LIMIT)
    try:
        for chunk in chunks:
            for event in sse.events(splitter.feed(chunk)):
                payload = sse.data_of(event)
                if payload == b"[DONE]":
                    return
                if payload is not None:
                    yield from _text(payload)
    except (UpstreamError, ValueError):
        raise ClientError("The server sent something that is no chat stream.") from None
    raise ClientError("The answer broke off.")


def _text(payload: bytes) -> Iterator[str]:
    chunk = json.loads(payload)
    if said := error_text(chunk):
        raise ClientError(said)
    for choice in chunk.get("choices") or () if isinstance(chunk, dict) else ():
        content = (choice.get("delta") or {}).get("content")
        if isinstance(content, str) and content:
            yield content


def pick(client: Client, asked: str | None) -> str:
    """The model to use: the one asked for, else the server's first. Raises ClientError."""
    if asked:
        return asked
    names = model_names(client)
    if not names:
        raise ClientError("The server has no model that this key may use.")
    if len(names) > 1:
        click.echo(f"Using {names[0]}; there are also: {', '.join(names[1:])}.", err=True)
    return names[0]


def model_names(client: Client) -> list[str]:
    """The ids of /v1/models. Raises ClientError."""
    answer = client.get("/v1/models")
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise ClientError(f"What answers at {client.url} lists no models.")
    return [
        printable(str(entry["id"])) for entry in data if isinstance(entry, dict) and "id" in entry
    ]


def once(talk: Talk, text: str) -> None:
    """One question, the answer on stdout; for pipes."""
    last = ""
    for piece in talk.ask(text):
        last = _write(piece)
    if not last.endswith("\n"):
        _write("\n")


def interactive(talk: Talk, read: Callable[[str], str]) -> None:
    """Until Ctrl-D or /exit. Ctrl-C stops an answer; at the prompt it is KeyboardInterrupt."""
    click.echo(f"Talking to {talk.model}. /help says what you can do, Ctrl-D leaves.", err=True)
    while True:
        try:
            line = read(">>> ").strip()
        except EOFError:
            click.echo()
            return
        if line in ("/exit", "/quit", "/bye"):
            return
        if line.startswith("/"):
            _command(talk, line)
        elif line:
            _answer(talk, line)


def _command(talk: Talk, line: str) -> None:
    name, _, argument = line.partition(" ")
    if name == "/clear":
        talk.clear()
        click.echo("Forgotten.", err=True)
    elif name == "/model" and argument.strip():
        talk.model = argument.strip()
        click.echo(f"Talking to {talk.model}.", err=True)
    elif name == "/models":
        try:
            click.echo("\n".join(model_names(talk.client)), err=True)
        except ClientError as error:
            click.echo(f"Error: {error}", err=True)
    else:
        click.echo(_HELP, err=True)


def _answer(talk: Talk, line: str) -> None:
    pieces = talk.ask(line)
    try:
        for piece in pieces:
            _write(piece)
        _write("\n")
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
        _write("\n")
        click.echo("(stopped)", err=True)
    except ClientError as error:
        _write("\n")
        click.echo(f"Error: {error}", err=True)


def piped_text() -> str:
    """All of the standard input; bytes that are no UTF-8 become replacement characters."""
    return sys.stdin.buffer.read().decode("utf-8", "replace").strip()


def _write(piece: str) -> str:
    """To stdout at once: for a terminal without what could draw on it, for a pipe as it is."""
    shown = printable(piece) if sys.stdout.isatty() else piece
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(shown.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
    return shown
