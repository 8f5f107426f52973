"""Which of the recorded exchanges stand in `tests/data/recordings`.

First the smallest ones that show everything which any of them shows (`traits`), then as many of
the others as there is room for: short streams, then the smallest. From a folder with all of them::

    python -m tests.replay.choose ../shared/recordings
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.replay.folders import PART

#: Streams of so many bytes are taken before answers that are whole.
_SHORT = 20_000
PROVIDERS = ("anthropic", "cohere", "deepseek", "huggingface", "mistral", "openai")
#: Bytes of all the lines together.
ROOM = 1_900_000
#: What Roundhouse has no surface for, and Cohere's API before its second one.
_LEFT_OUT = re.compile(r"anthropic /v1/messages/count_tokens|cohere /v1/(chat|embed|rerank)")
#: Schemas are the clients' own, and arguments the models': their members are no trait.
_FREE = frozenset({"arguments", "input", "input_schema", "metadata", "parameters", "schema"})
#: Where a file is: in the request, or elsewhere.
_ADDRESS = re.compile(r"data:[a-z]*|https?:(?=\S+$)")
_FINISH = frozenset({"finish_reason", "stop_reason"})

Exchange = dict[str, Any]
Trait = tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One recorded exchange, as it is written."""

    provider: str
    number: int
    text: str

    @property
    def size(self) -> int:
        return len(self.text.encode()) + 1

    @property
    def order(self) -> tuple[int, str, int]:
        return self.size, self.provider, self.number

    @property
    def is_short_stream(self) -> bool:
        streamed = bool((json.loads(self.text)["request"] or {}).get("stream"))
        return streamed and self.size <= _SHORT

    @property
    def kind(self) -> str:
        return f"{self.provider} {json.loads(self.text)['path']}"

    def traits(self) -> frozenset[Trait]:
        return traits(json.loads(self.text))


def lines_of(folder: Path) -> list[Line]:
    """Every line of a folder."""
    found = []
    for provider in PROVIDERS:
        text = (folder / f"{provider}.jsonl").read_text("utf-8")
        found += [Line(provider, i, line) for i, line in enumerate(text.split("\n"), 1) if line]
    return found


def traits(exchange: Exchange) -> frozenset[Trait]:
    """What an exchange shows: its kind, the members and types in its bodies, how it ended, how many
    tools were called, and letters beyond ASCII in a stream."""
    request, body = exchange["request"] or {}, exchange["body"]
    streamed = bool(request.get("stream"))
    kind = (exchange["provider"], exchange["path"], str(exchange["status"]), f"stream={streamed}")
    found: set[Trait] = {("kind", *kind)}
    found |= {("header", exchange["provider"], name) for name in exchange["headers"]}
    found |= {("request", *kind[:2], *one) for one in _shown(request)}
    payloads = list(payloads_of(body))
    for payload in payloads:
        found |= {("answer", *kind, *one) for one in _shown(payload)}
    found.add(("calls", *kind, str(min(_calls(payloads), 2))))
    if streamed and not body.isascii():
        found.add(("letters", *kind))
    return frozenset(found)


def payloads_of(body: str) -> Iterator[Any]:
    """The JSON of an answer, or of each event of a stream."""
    try:
        yield json.loads(body)
    except ValueError:
        for line in body.splitlines():
            said = line.removeprefix("data:").strip()
            if said.startswith("{"):
                yield json.loads(said)


def _shown(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _shown(item, f"{place}[]")
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        yield f"{place}.{name}", "null" if inner is None else type(inner).__name__
        if name in _FINISH or name in ("type", "code", "role", "tool_choice"):
            yield f"{place}.{name}", str(inner) if not isinstance(inner, dict) else "object"
        if isinstance(inner, str) and (found := _ADDRESS.match(inner)):
            yield f"{place}.{name}", found[0]
        if name not in _FREE:
            yield from _shown(inner, f"{place}.{name}")


def _calls(payloads: list[Any]) -> int:
    """How many tools were called."""
    return len(set(_ids(payloads)))


def _ids(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _ids(item)
    elif isinstance(value, dict):
        called = value.get("type") == "tool_use" or isinstance(value.get("function"), dict)
        if called and isinstance(value.get("id"), str):
            yield value["id"]
        for inner in value.values():
            yield from _ids(inner)


def chosen(lines: list[Line]) -> list[Line]:
    """The choice, in the order of the lines. Raises ValueError where the room does not do."""
    left = [line for line in lines if not _LEFT_OUT.fullmatch(line.kind)]
    left.sort(key=lambda line: line.order)
    shows = {line: line.traits() for line in left}
    missing = frozenset().union(*shows.values())
    taken: list[Line] = []
    while missing:
        # The most for its size; of two alike the smaller one, since they are sorted.
        best = max(left, key=lambda line: len(shows[line] & missing) / line.size)
        taken.append(best)
        left.remove(best)
        missing -= shows[best]
    # What a later one shows as well was taken for nothing.
    for line in sorted(taken, key=lambda line: -line.size):
        others = frozenset().union(*(shows[one] for one in taken if one is not line))
        if shows[line] <= others:
            taken.remove(line)
            left.append(line)
    room = ROOM - sum(line.size for line in taken)
    if room < 0:
        raise ValueError(f"what shows everything takes {-room} bytes more than there is room for")
    for line in sorted(left, key=lambda line: (not line.is_short_stream, *line.order)):
        if line.size <= room:
            room -= line.size
            taken.append(line)
    return sorted(taken, key=lambda line: (line.provider, line.number))


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose recorded exchanges for the project.")
    parser.add_argument("folder", type=Path, help="one with all recordings")
    lines = lines_of(parser.parse_args().folder)
    found = chosen(lines)
    PART.mkdir(parents=True, exist_ok=True)
    for provider in PROVIDERS:
        texts = [line.text for line in found if line.provider == provider]
        (PART / f"{provider}.jsonl").write_text("\n".join([*texts, ""]), "utf-8")
        there = sum(line.provider == provider for line in lines)
        print(f"{provider}: {len(texts)} of {there}")
    print(f"{sum(line.size for line in found)} bytes")


if __name__ == "__main__":
    main()
