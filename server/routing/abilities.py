"""What a request needs of a target, and what it asks for in vain. Pure.

Only what a target is known not to be able to do is looked for: a target of which nothing is known
may try, and its own error is the truth then. So a request pays nothing where nothing is lacking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from server.protocol.envelope import Surface
from server.protocol.parameters import given, number

#: The members that ask for an ability; a target that drops them all needs it no more. Images and
#: sounds that come in are parts of messages, and cannot be dropped.
PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "tools": ("tools", "functions"),
    "json_schema": ("response_format",),
    "logprobs": ("logprobs", "prompt_logprobs"),
    "n": ("n",),
    "vision": (),
    "audio": ("modalities", "audio"),
}
#: What cannot be dropped: without it there is no request.
KEPT: Final = frozenset({"model", "messages", "prompt", "input", "stream"})
#: Members that mean nothing without another, and go with it.
_FOLLOWERS: Final = {
    "tools": ("tool_choice", "parallel_tool_calls"),
    "functions": ("function_call",),
    "logprobs": ("top_logprobs",),
    "modalities": ("audio",),
}
#: With one of these, what is too long is shortened and not refused. The last ones are OpenRouter's.
_SHORTENING: Final = ("truncate_prompt_tokens", "truncation", "transforms", "plugins")
_NOTHING: Final = frozenset({b"null", b"false"})
_NULL: Final = Raw(b"null")


class _Message(msgspec.Struct):
    role: str = ""
    content: Raw = _NULL


class _Part(msgspec.Struct):
    """A part of a message's content. vLLM knows a part without `type` by its member."""

    type: Raw = _NULL
    text: Raw = _NULL
    image_url: Raw = _NULL
    image_embeds: Raw = _NULL
    video_url: Raw = _NULL
    input_audio: Raw = _NULL
    audio_url: Raw = _NULL


class _Format(msgspec.Struct):
    type: Raw = _NULL


_messages: Final = msgspec.json.Decoder(list[_Message])
_parts: Final = msgspec.json.Decoder(list[_Part | str])
_format: Final = msgspec.json.Decoder(_Format)
_modalities: Final = msgspec.json.Decoder(list[str])
_string: Final = msgspec.json.Decoder(str)
_strings: Final = msgspec.json.Decoder(list[str])
_VISION: Final = frozenset({"image_url", "input_image", "image_embeds", "video_url"})
_AUDIO: Final = frozenset({"input_audio", "audio_url"})
_MEDIA: Final = {"vision": _VISION, "audio": _AUDIO}
_BROKEN: Final = (msgspec.MsgspecError, RecursionError)
#: A request may hold millions of parts, and all others wait while they are looked at. Of no request
#: are more objects built than this.
_BUILT: Final = 8192
#: Bytes in which such objects are counted at a time, and places at which a sign is looked at.
_SLICE: Final = 2**16
_HITS: Final = 1024
#: Bytes in which a member's name and its neighbours stand, and of a word or number that is one.
_NEAR: Final = 64
_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Able:
    """What is known of one target; made by `of`, once for each.

    `lacks` names the abilities it is known not to have, `drop` the members that it is spared, with
    those that mean nothing without them.
    `window` is to be given only where a longer prompt is refused for certain, as vLLM does it: some
    providers shorten it. `longest_token`: characters of the longest entry of its vocabulary; None:
    text is not judged, only prompts of token ids are.
    """

    lacks: tuple[str, ...] = ()
    window: int | None = None
    longest_token: int | None = None
    drop: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        abilities: Mapping[str, bool | None],
        *,
        window: int | None = None,
        longest_token: int | None = None,
        drop: frozenset[str] = frozenset(),
    ) -> Able:
        """From `config.cards.About.abilities`; what is missing or None there is unknown, and what
        no request can be seen to need (`streaming`, `reasoning`) is passed over."""
        lacks = tuple(name for name in PARAMETERS if abilities.get(name) is False)
        followers = (name for leader in drop for name in _FOLLOWERS.get(leader, ()))
        return cls(lacks, window, longest_token, drop.union(followers) - KEPT)

    def without_dropped(
        self, members: Mapping[str, Raw]
    ) -> tuple[Mapping[str, Raw], tuple[str, ...]]:
        """The members without those that this target is spared, and the names that were taken out,
        for the response header."""
        if self.drop.isdisjoint(members):
            return members, ()
        kept = {name: value for name, value in members.items() if name not in self.drop}
        return kept, tuple(name for name in members if name in self.drop)


class Needs:
    """What one request needs. Found out when first asked, and kept for the next target."""

    __slots__ = ("_media", "_members", "_surface")

    def __init__(self, members: Mapping[str, Raw], surface: Surface) -> None:
        self._members = members
        self._surface = surface
        self._media: frozenset[str] | None = None

    def missing(self, able: Able) -> str | None:
        """The first ability that the request needs and this target lacks: a name of PARAMETERS, or
        `context`; None when it may try."""
        for ability in able.lacks:
            if self.needs(ability, able.drop):
                return ability
        if able.window is not None and self._over(able.window, able.longest_token):
            return "context"
        return None

    def needs(self, ability: str, drop: frozenset[str] = frozenset()) -> bool:
        """Does the request need it, without the members that are dropped?"""
        members = self._members
        for name in PARAMETERS[ability]:
            if name in members and name not in drop and _ASKS[name](members[name]):
                return True
        return ability in ("vision", "audio") and ability in self._found_media()

    def _found_media(self) -> frozenset[str]:
        if self._media is None:
            self._media = _media_of(self._members.get("messages"))
        return self._media

    def _over(self, window: int, longest: int | None) -> bool:
        """Is the prompt longer than the window for certain?

        Certain is the number of token ids. Text has at least its characters over the longest
        token's; most vocabularies have a token of 128 spaces and some leave characters out, so that
        a rule for all would judge nothing or judge wrongly: the target must say. vLLM refuses
        by the same rule. Of a chat only the last user message is sure to be in the prompt whole:
        templates leave out thoughts, strip, and cut off what is old.
        """
        if any(given(self._members, name) is not None for name in _SHORTENING):
            return False
        if self._surface is Surface.COMPLETIONS:
            return self._prompt_over(window, longest)
        if self._surface is not Surface.CHAT or longest is None:
            return False
        raw, most = self._members.get("messages"), window * longest
        if raw is None or len(memoryview(raw)) <= most:  # a character is a byte or more
            return False
        return _last_length(raw) > most

    def _prompt_over(self, window: int, longest: int | None) -> bool:
        raw = self._members.get("prompt")
        if raw is None or len(memoryview(raw)) <= min(2, longest or 2) * window:
            return False  # an id has a digit and a comma
        text = bytes(raw)
        if (most := _most_ids(text)) is not None:
            return most > window
        if longest is None or text.count(b'"') > _BUILT:
            return False
        try:
            found = [_string.decode(text)] if text[:1] == b'"' else _strings.decode(text)
        except _BROKEN:
            return False
        return max(map(len, found), default=0) > window * longest


def _most_ids(text: bytes) -> int | None:
    """Token ids of the longest prompt in it, counted and not built; None: it is not of ids."""
    signs = text.translate(None, b"-0123456789" + _SPACE)
    if signs.translate(None, b"[],") or signs[:1] != b"[" or signs.count(b"[") > _BUILT:
        return None
    lists = signs[1:-1].split(b"[")
    return 1 + max(one.partition(b"]")[0].count(b",") for one in lists)


def _media_of(raw: Raw | None) -> frozenset[str]:
    """The abilities that the parts of the messages need.

    Contents are first split off as JSON and not built: that costs what a search for signs would,
    and no spelling of the member's name escapes it. Only a list of parts is looked into. Where too
    many objects would have to be built, signs must do.
    """
    if raw is None:
        return frozenset()
    found: set[str] = set()
    left = _BUILT
    try:
        for message in _messages.decode(raw):
            if (parts := _list_in(message)) is None:
                continue
            left -= _objects(parts, left)
            if left < 0:
                return frozenset(found | _signs(bytes(raw)))
            for part in _parts.decode(parts):
                if isinstance(part, _Part):
                    found |= _media_in(part)
    except _BROKEN:  # nothing to judge; the target will say what it thinks of it
        return frozenset()
    return frozenset(found)


def _list_in(message: _Message) -> bytes | None:
    """The content, if it is a list."""
    content = message.content
    return bytes(content) if bytes(memoryview(content)[:1]) == b"[" else None


def _objects(text: bytes, most: int) -> int:
    """As many as it may hold, or more: each of them begins with a brace or a quote. Over `most` it
    is not counted on."""
    count = 0
    for at in range(0, len(text), _SLICE):
        count += text.count(b"{", at, at + _SLICE) + text.count(b'"', at, at + _SLICE)
        if count > most:
            break
    return count


def _signs(text: bytes) -> set[str]:
    """As `_media_in`, of all parts at once, by how their members are nearly always written: an
    escaped name is missed, and one that is nested deeper is taken for a part's."""
    return {
        ability
        for ability, names in _MEDIA.items()
        if any(_stands(text, b'"%s"' % name.encode()) for name in names)
    }


def _stands(text: bytes, name: bytes) -> bool:
    """Is there such a member that is not null, or such a `type`?"""
    at = -1
    for _ in range(_HITS):
        if (at := text.find(name, at + 1)) < 0:
            return False
        before = text[max(0, at - _NEAR) : at]
        if before.endswith(b"\\"):  # quoted in somebody's words
            continue
        after = text[at + len(name) : at + len(name) + _NEAR].lstrip(_SPACE)
        if after.startswith(b":"):
            if not after[1:].lstrip(_SPACE).startswith(b"null"):
                return True
        elif _leads(b'"type"', before):
            return True
    return False


def _leads(member: bytes, before: bytes) -> bool:
    """Does the text before a value end with this member's name?"""
    before = before.rstrip(_SPACE)
    return before.endswith(b":") and before[:-1].rstrip(_SPACE).endswith(member)


def _media_in(part: _Part) -> set[str]:
    kinds = {name for name in _VISION | _AUDIO if getattr(part, name, _NULL) != _NULL}
    kinds.add(_word(part.type))
    return {ability for ability, names in _MEDIA.items() if not kinds.isdisjoint(names)}


def _word(raw: Raw) -> str:
    """The short string that it is; empty for anything else, which is not built."""
    if len(memoryview(raw)) > _NEAR or bytes(memoryview(raw)[:1]) != b'"':
        return ""
    return _string.decode(raw)


def _last_length(raw: Raw) -> int:
    """Characters of the last user message's text; 0: not judged."""
    try:
        users = [message for message in _messages.decode(raw) if message.role == "user"]
        if not users:
            return 0
        parts = _list_in(users[-1])
        if parts is None:
            return len(_string.decode(users[-1].content).strip())
        if _objects(parts, _BUILT) > _BUILT:
            return 0
        texts = [
            _string.decode(part.text)
            for part in _parts.decode(parts)
            if isinstance(part, _Part) and part.text != _NULL
        ]
        return sum(len(text.strip()) for text in texts)
    except _BROKEN:
        return 0


def _something(raw: Raw) -> bool:
    return bytes(memoryview(raw)[:5]) not in _NOTHING


def _a_list(raw: Raw) -> bool:
    """A list with something in it."""
    text = bytes(memoryview(raw)[:_NEAR])
    return text[:1] == b"[" and text[1:].lstrip(_SPACE)[:1] != b"]"


def _a_schema(raw: Raw) -> bool:
    try:
        return _word(_format.decode(raw).type) == "json_schema"
    except _BROKEN:
        return False


def _several(raw: Raw) -> bool:
    return len(memoryview(raw)) <= _NEAR and (number(raw) or 0) > 1


def _spoken(raw: Raw) -> bool:
    try:
        return len(memoryview(raw)) <= _BUILT and "audio" in _modalities.decode(raw)
    except _BROKEN:
        return False


#: Does what this member says ask for its ability?
_ASKS: Final[dict[str, Callable[[Raw], bool]]] = {
    "tools": _a_list,
    "functions": _a_list,
    "response_format": _a_schema,
    "logprobs": _something,
    "prompt_logprobs": _something,
    "n": _several,
    "modalities": _spoken,
    "audio": _something,
}
