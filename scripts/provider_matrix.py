"""What becomes of each thing that a client can say, found by saying it to the dialects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scripts.provider_probes import Probe
from server.dialects import openai
from server.dialects.base import Outgoing
from server.dialects.passing import BESIDES, plain_history
from server.dialects.table import DIALECTS
from server.errors import InvalidRequest
from server.protocol import functions
from server.protocol.envelope import Surface, raw
from server.protocol.request import Request

#: In the order of the page.
NAMES: Final = ("openai", *DIALECTS)
#: A model of each that can do most.
MODELS: Final = {
    "anthropic": "claude-opus-4-6",
    "cohere": "command-a-reasoning",
    "deepseek": "deepseek-reasoner",
    "huggingface": "org/model",
    "mistral": "mistral-medium",
    "openai": "gpt",
}
#: What stands for an account's settings and a card.
SETTINGS: Final[Mapping[str, Mapping[str, object]]] = {"anthropic": {"max_tokens": 4000}}
#: What each call cannot do without.
_BASES: Final[Mapping[Surface, Mapping[str, Any]]] = {
    Surface.CHAT: {"messages": [{"role": "user", "content": "Hello."}]},
    Surface.EMBEDDINGS: {"input": "Hello."},
    Surface.RERANK: {"query": "Hello?", "documents": ["Hello."]},
}
_EVERY: Final = frozenset({"model", "messages", "input", "stream"})


@dataclass(frozen=True, slots=True)
class Asking:
    """One dialect as it is asked: with this model and these settings. `strict`: at a provider that
    refuses what it does not know in messages."""

    name: str
    model: str
    settings: Mapping[str, object]
    strict: bool = False

    @classmethod
    def of(cls, name: str) -> Asking:
        return cls(name, MODELS[name], SETTINGS.get(name, {}))

    def send(
        self, surface: Surface, said: Mapping[str, Any], stream: bool, drop: frozenset[str]
    ) -> Outgoing:
        """The body that would go out. Raises InvalidRequest."""
        whole = {"model": "m", **said}
        if stream:
            whole["stream"] = True
        members = {name: raw(value) for name, value in whole.items()}
        legacy = surface is Surface.CHAT and functions.is_legacy(members)
        if legacy:  # before any dialect
            members = functions.to_tools(members)
        request = Request(
            id="r",
            surface=surface,
            model="m",
            members=members,
            stream=stream,
            wants_usage="stream_options" in said,
            legacy_functions=legacy,
            tenant=None,
            arrived=0.0,
            deadline=0.0,
        )
        lost: tuple[str, ...] = ()
        if self.strict and surface is Surface.CHAT:  # before any dialect, too
            messages, lost = plain_history(members["messages"], BESIDES)
            members = {**members, "messages": raw(messages)}
        if self.name == "openai":
            body = openai.request_out(
                request, model=self.model, tenant=None, drop=drop, members=members
            )
            return Outgoing(openai.PATHS[surface], body, dropped=(*request.dropped, *lost))
        return DIALECTS[self.name].request_out(
            request, model=self.model, members=members, drop=drop, settings=self.settings
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one thing. `word` is one of WORDS, or where it went, in backticks."""

    word: str
    adjusted: bool = False

    def __str__(self) -> str:
        return f"{self.word}, adjusted" if self.adjusted else self.word


#: `lost` stands in no cell: nothing is lost in silence, says a test.
WORDS: Final = ("passes", "is so", "moved", "let go", "refused", "always refused", "lost")
#: What says no more than saying nothing does: the provider does so anyway, or we do.
_ANYWAY: Final = frozenset(
    {
        "`encoding_format: base64`",  # packed here, from the floats of the answer
        "`reasoning_effort: none`",  # where a model does not think unless it is told to
        "`service_tier: default`",
        "`stream_options.include_usage`",
        "`tool_choice: auto`",
    }
)


def ask(asking: Asking, probe: Probe, surface: Surface = Surface.CHAT) -> Cell:
    """Say it to this dialect, and look."""
    base = _BASES[surface]
    said = {**base, **probe.with_it}
    try:
        out = asking.send(surface, said, probe.stream, frozenset())
    except InvalidRequest:
        return Cell("refused" if _may_go(asking, surface, said, probe) else "always refused")
    root = probe.param or "messages"
    if any(name == root or name.startswith(f"{root}.") for name in out.dropped):
        return Cell("let go")
    before = asking.send(surface, {**base, **probe.without}, probe.stream, frozenset())
    word = (_of_message if probe.param is None else _of_member)(
        probe, json.loads(before.body), json.loads(out.body)
    )
    return Cell(word, bool(out.lowered))


def _may_go(asking: Asking, surface: Surface, said: Mapping[str, Any], probe: Probe) -> bool:
    """Would the target's `drop` let it pass without?"""
    if probe.param is None:
        return False
    drop = frozenset({probe.param, *probe.without}) - _EVERY
    try:
        out = asking.send(surface, said, probe.stream, drop)
    except InvalidRequest:
        return False
    return probe.param in out.dropped


def _of_member(probe: Probe, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    name, told = probe.param or "", probe.with_it[probe.param or ""]
    passes = ["passes"] if name in after and after[name] == told else []
    changed = sorted(key for key in after if after[key] != before.get(key))
    if not (passes or changed):
        return "is so" if probe.label in _ANYWAY else "lost"
    others = [key for key in changed if not passes or key != name]
    return ", ".join(passes + [_shown(key, before.get(key), after[key], told) for key in others])


def _shown(name: str, before: Any, after: Any, told: Any) -> str:
    """A member that came or changed: as little as tells where it went."""
    if isinstance(after, Mapping):
        old = before if isinstance(before, Mapping) else {}
        new = [key for key in after if after[key] != old.get(key)]
        if len(new) == 1:
            return _shown(f"{name}.{new[0]}", old.get(new[0]), after[new[0]], told)
        if isinstance(after.get("type"), str) and "type" in new:
            return f"`{name}: {after['type']}`"
    if isinstance(after, bool) and after != told:
        return f"`{name}: {json.dumps(after)}`"
    own = isinstance(after, str) and json.dumps(after) not in json.dumps(told)
    return f"`{name}: {after}`" if own else f"`{name}`"


def _of_message(probe: Probe, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if all(after.get(name) == value for name, value in probe.with_it.items()):
        return "passes"
    told = probe.with_it["messages"]
    if after == before:
        return "lost"
    leaves = set(_leaves({"messages": told}))
    new = [leaf for leaf in _leaves(after) if leaf not in leaves and "messages" in after]
    named = list(dict.fromkeys(name for path, value in new if value and (name := _place(path))))
    telling = [name for name in named if name not in _PLAIN] or named
    if telling:
        return ", ".join(f"`{name}`" for name in telling)
    here = [message["role"] for message in after["messages"]]
    return "passes" if here == [message["role"] for message in told] else "moved"


#: What a string becomes wherever contents are lists says nothing of its own.
_PLAIN: Final = frozenset({"content", "text"})
_TYPED: Final = re.compile(r"(\w+)\[\]\((\w+)\)")


def _place(path: str) -> str | None:
    """What a part is called by who reads the page: its type, or the member that it stands in."""
    head, _, rest = path.partition(".")
    if not head.startswith("messages[]"):
        return head.partition("[")[0] if "[]" in head else None
    if rest == "role":
        found = _TYPED.fullmatch(head)
        return f"role: {found[2]}" if found else None
    typed = _TYPED.findall(rest)
    return str(typed[-1][1]) if typed else rest.partition(".")[0].partition("[")[0]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves with their places; parts and messages are called by their type or role."""
    if isinstance(value, Mapping):
        kind = value.get("type") or value.get("role")
        here = f"{path}({kind})" if isinstance(kind, str) and path.endswith("[]") else path
        for key, inner in value.items():
            yield from _leaves(inner, f"{here}.{key}" if here else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, f"{path}[]")
    else:
        yield path, value
