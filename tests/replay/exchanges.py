"""The recorded exchanges, one by one: those of the project's part, then what only the folder with
all of them has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.replay.choose import PROVIDERS
from tests.replay.folders import folders

#: A provider and a path that Roundhouse asks nobody for → why.
OUT_OF_SCOPE = {
    "anthropic /v1/messages/count_tokens": "OpenAI's API counts no tokens",
    "cohere /v1/chat": "Cohere's API before the second one",
    "cohere /v1/embed": "Cohere's API before the second one",
    "cohere /v1/models/command-a-03-2025": "a model's entry: tests/cli/test_models_listed.py",
    "cohere /v1/rerank": "Cohere's API before the second one",
}
#: What Roundhouse puts behind a base URL. The rest of a recorded path is in the base URL.
_PATH = re.compile(
    r"(?P<base>.*?)(?P<end>/(chat/completions|chat|embeddings|embed|messages|rerank))"
)


@dataclass(frozen=True)
class Exchange:
    """`place` names the line: its file, the file's folder and its number."""

    place: str
    data: dict[str, Any]

    @property
    def source(self) -> str:
        """The file that it was recorded in."""
        return str(self.data["source"])

    @property
    def provider(self) -> str:
        return str(self.data["provider"])

    @property
    def request(self) -> dict[str, Any]:
        """The body that the provider got."""
        return dict(self.data["request"])

    @cached_property
    def path(self) -> str:
        """Without the mark that the collection puts on streams."""
        return str(self.data["path"]).partition("#")[0]

    @property
    def base(self) -> str:
        """The path of the account's base URL."""
        found = _PATH.fullmatch(self.path)
        assert found is not None, self.path
        return found[1]

    @property
    def model(self) -> str:
        """As the provider names it."""
        return str(self.request["model"])

    @property
    def streamed(self) -> bool:
        """Whether a stream was asked for."""
        return bool(self.request.get("stream"))

    @property
    def status(self) -> int:
        return int(self.data["status"])

    @property
    def body(self) -> bytes:
        """The answer's."""
        return str(self.data["body"]).encode()

    @property
    def kind(self) -> str:
        """The answer's content type."""
        return str(self.data["headers"]["content-type"])


def exchanges() -> list[Exchange]:
    """Every exchange once."""
    seen: set[str] = set()
    found = []
    for name, text in _lines():
        if text not in seen:
            seen.add(text)
            found.append(Exchange(name, json.loads(text)))
    return found


def in_scope(one: Exchange) -> bool:
    return f"{one.provider} {one.path}" not in OUT_OF_SCOPE


def _lines() -> Iterator[tuple[str, str]]:
    for folder, path in folders().items():
        for provider in PROVIDERS:
            with (path / f"{provider}.jsonl").open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    yield f"{provider}-{folder}-{number}", line.rstrip("\n")
