"""The members of one request on their way into another dialect: what was taken, and what is left.

Whatever a dialect does not take must be told of: it is refused, unless the target's `drop` names
it, or it asks for nothing, or it only advises; then its name is in `dropped`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects import bounds
from server.dialects.members import SCHEMA, left_out
from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest

#: Longer members need not be looked into for what asks for nothing.
_LONGEST_IDLE: Final = 64
#: Without these there is no request, so no `drop` takes them.
_KEPT: Final = frozenset({"model", "messages", "prompt", "input", "stream", "query", "documents"})
_OF_CHATS: Final = _KEPT - {"query", "documents"}
#: What changes no answer, where it is not understood: it is let go, and named.
HARMLESS: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream_options",
        "user",
    }
)
#: A header has room for so many names; what goes besides is `messages.other` and the like.
_MOST_NAMES: Final = 32
_UNNAMED: Final = "other"
#: OpenAI takes 16 members of it.
_METADATA: Final = "metadata"
_MOST_METADATA: Final = 64
#: Values that say no more than saying nothing does.
_IDLE: Final[Mapping[str, tuple[Any, ...]]] = {
    "bad_words": ([],),
    "best_of": (1,),
    "echo": (False,),
    "encoding_format": ("float",),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_documents": (False,),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop": ([], ""),
    "stop_token_ids": ([],),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_k": (-1, 0),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}


class Given:
    """What one request says. `dropped` and `lowered` grow as `Outgoing` wants them."""

    __slots__ = ("_left", "_named", "_who", "dropped", "lowered")

    def __init__(self, members: Mapping[str, object], drop: frozenset[str], who: str) -> None:
        """`who`: the provider, as messages name it."""
        self._who = who
        self._left: dict[str, object] = {}
        self._named: set[str] = set()
        self.dropped: list[str] = []
        self.lowered: list[str] = []
        kept = _OF_CHATS if "messages" in members else _KEPT
        for name, value in members.items():
            if (name in drop or name in ENGINE_ONLY) and name not in kept:
                self.drop(name)
            else:
                self._left[name] = value

    def take(self, name: str) -> Any:
        """The value of a member, decoded; None when it is missing or null. Raises InvalidRequest
        for one that holds too much."""
        value = self._left.pop(name, None)
        if not isinstance(value, Raw):
            return value
        _weigh(name, value)
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):  # a lone surrogate, too
            raise InvalidRequest(
                f"`{name}` cannot be read.", param=name, code="invalid_json"
            ) from None

    def take_as(self, name: str, *kinds: type) -> Any:
        """As `take`; anything but these kinds is refused. A bool is no number."""
        value = self.take(name)
        if value is None or (isinstance(value, kinds) and not _is_odd(value, kinds)):
            return value
        raise wrong(name, " or ".join(_WORDS[kind] for kind in kinds))

    def keep(self, name: str) -> object:
        """A member, as JSON where it is long; None when it is missing or asks for nothing."""
        value = self._left.get(name)
        if isinstance(value, Raw) and len(memoryview(value)) <= _LONGEST_IDLE:
            value = self.take(name)
            return None if value is None or _is_idle(name, value) else value
        if isinstance(value, Raw) and name == _METADATA:
            _weigh(name, value)
        return self._left.pop(name, None)

    def whole(self, name: str) -> int | None:
        """A whole number; `8.0` is one, too."""
        value = self.take_as(name, int, float)
        if isinstance(value, float) and not value.is_integer():
            raise wrong(name, "a whole number")
        return None if value is None else int(value)

    def within(self, name: str, least: float, most: float) -> float | None:
        """A number, brought between two; then its name is in `lowered`."""
        value = self.take_as(name, int, float)
        if value is None or least <= value <= most:
            return None if value is None else value
        self.lower(name)
        return least if value < least else most

    def longest(self) -> tuple[str, int] | None:
        """The longest answer, of both its names the smaller one, with the name that said it."""
        said = {name: self.whole(name) for name in ("max_completion_tokens", "max_tokens")}
        found = [(value, name) for name, value in said.items() if value is not None]
        if not found:
            return None
        value, name = min(found)
        return name, value

    def drop(self, name: str) -> None:
        """Name something that is let go; `messages.name` is something within `messages`."""
        root, dot, _ = name.partition(".")
        if dot and len(self._named) >= _MOST_NAMES:
            name = f"{root}.{_UNNAMED}"
        if name not in self._named:
            self._named.add(name)
            self.dropped.append(name)

    def leave(self, thing: Mapping[str, Any], known: Collection[str], where: str) -> None:
        """Of this object, whose path in the body is `where`, these members are taken. What else it
        has is named, or refused; see `server.dialects.members`."""
        for name in left_out(thing, known, where, self._who):
            self.drop(name)

    def stream_options(self) -> None:
        """Usage is asked for by the relay; of the others none has a counterpart."""
        options = self.take_as("stream_options", dict) or {}
        asked = {name: value for name, value in options.items() if value is not False}
        self.leave(asked, ("include_usage",), "stream_options")

    def schema(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of a `response_format`, for providers that have but the schema itself and
        always hold to it. What the client says of it is its description; a name, which everybody
        has to give, says nothing."""
        outer = said.get("json_schema")
        schema = outer.get("schema") if isinstance(outer, dict) else None
        if not isinstance(outer, dict) or not isinstance(schema, dict):
            name = "response_format.json_schema.schema"
            raise InvalidRequest(
                f"You must provide `{name}`.", param=name, code="missing_required_parameter"
            )
        self.leave(said, ("type", "json_schema"), "response_format")
        self.leave(outer, SCHEMA, "response_format.json_schema")
        about = outer.get("description")
        if not isinstance(about, str) or about in ("", schema.get("description")):
            return schema
        if "description" in schema:
            self.drop("response_format.description")
            return schema
        return {**schema, "description": about}

    def lower(self, name: str) -> None:
        if name not in self.lowered:
            self.lowered.append(name)

    def close(self, harmless: frozenset[str] = HARMLESS) -> None:
        """Nothing more will be taken. Raises InvalidRequest for what is left and matters."""
        for name in tuple(self._left):
            value = self.take(name)
            if value is None or _is_idle(name, value):
                continue
            if name not in harmless:
                raise self.lacks(name)
            self.drop(name)

    def lacks(self, name: str, what: str | None = None) -> InvalidRequest:
        """That the provider has no word for this."""
        return InvalidRequest(
            f"{self._who} has no {what or f'`{name}`'}: leave it out, or let this model drop it.",
            param=name,
            code="unsupported_parameter",
        )


def wrong(name: str, kind: str) -> InvalidRequest:
    """That a value is of the wrong kind."""
    return InvalidRequest(f"`{name}` should be {kind}.", param=name, code="invalid_type")


_WORDS: Final[dict[type, str]] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
}


def _weigh(name: str, value: Raw) -> None:
    if name == _METADATA:
        bounds.check(value, name, _MOST_METADATA, _MOST_METADATA)
    else:
        bounds.check(value, name)


def _is_odd(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, bool) and bool not in kinds


def _is_idle(name: str, value: Any) -> bool:
    for idle in _IDLE.get(name, ()):
        if value == idle and isinstance(value, bool) is isinstance(idle, bool):
            return True
    return False
