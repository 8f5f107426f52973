"""Messages: OpenAI's as Anthropic's `system` and turns.

What one side can say and the other cannot is refused with the place where it stands. Only what
merely advises, and what other models left behind, is let go, and then `lost` names it.

Reasoning of earlier turns comes back as it was given out: `reasoning_details` of an assistant's
message holds Anthropic's own blocks, each with an `index` that is ours and is taken off, and in the
place that `after` tells. Without its signature Anthropic takes no reasoning, so that
`reasoning_content` alone, and the details of other providers, are let go.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from server.dialects.anthropic import media
from server.dialects.members import CALL, CALLED, left_out
from server.errors import InvalidRequest

Block = dict[str, Any]

_ALL: Final = frozenset({"role", "content", "cache_control"})
_KNOWN: Final = {
    "system": _ALL,
    "user": _ALL,
    "assistant": _ALL
    | {"refusal", "tool_calls", "reasoning_content", "reasoning_details"}
    | {"reasoning"},  # vLLM's newer name
    "tool": _ALL | {"name", "tool_call_id"},  # the call has the name
}
#: Of an image and of a PDF; what a picture shows is seen at the provider's own resolution.
_IMAGE: Final = frozenset({"url"})
_FILE: Final = frozenset({"file_data", "filename"})
_WHO: Final = "Anthropic"
#: Anthropic's own words of parts, which a client may send besides.
_OF_PARTS: Final = ("cache_control",)
_OF_DOCUMENTS: Final = ("cache_control", "citations", "context")
_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")
_THINKING: Final = ("thinking", "redacted_thinking")  # a tuple: what is looked for may be anything
#: No answer thinks so often.
_MOST_DETAILS: Final = 1024
_arguments = msgspec.json.Decoder(dict[str, Raw])


#: Of a detail, what Anthropic's block has not; and what stands in the second of them.
_OURS: Final = frozenset({"index", "after"})
_AFTER: Final = ("text", "calls")


class _Thought(NamedTuple):
    """A block of thinking, and what stands before it: characters of the text, and calls."""

    block: Block
    text: int
    calls: int


class Conversation:
    """The turns of one request, message by message."""

    __slots__ = ("_inline", "_later", "_pending", "_words", "lost", "system", "turns")

    def __init__(self, messages: Any, *, inline: bool = False) -> None:
        """`inline`: instructions may stand inside the conversation. Anthropic takes them at the end
        of a user's turn."""
        self.system: list[Block] = []
        self.turns: list[Block] = []
        #: `messages.<member>`, each once, as they came.
        self.lost: dict[str, None] = {}
        self._inline = inline
        #: Later instructions on their way to the top, and to the end of the user's turn.
        self._later: list[str] = []
        self._pending: list[Block] = []
        #: What is to stand behind the results of the last turn; None where it begins with none.
        self._words: list[Block] | None = None
        if not isinstance(messages, list):
            raise _wrong("`messages` must be a list.", "messages")
        last = len(messages) - 1
        for index, message in enumerate(messages):
            self._take(message, f"messages[{index}]", last=index == last)
        self._put_pending()
        if self._later:  # the place is lost, the order is not
            self.system.append({"type": "text", "text": "\n".join(self._later)})
        if not self.turns:
            raise InvalidRequest(
                "`messages` must hold something besides instructions.", param="messages"
            )

    def _lose(self, thing: Block, known: Collection[str], where: str) -> None:
        self.lost.update(dict.fromkeys(left_out(thing, known, where, _WHO)))

    def _take(self, message: Any, where: str, *, last: bool) -> None:
        if not isinstance(message, dict):
            raise _wrong(f"`{where}` must be an object.", where)
        role = message.get("role")
        kind = "system" if role == "developer" else role
        if not isinstance(kind, str) or kind not in _KNOWN:
            raise InvalidRequest(f"`{where}.role` is not known.", param=f"{where}.role")
        # An answer that comes last is gone on with.
        self._lose(message, _KNOWN[kind] | {"prefix"} if last else _KNOWN[kind], where)
        if kind == "system":
            self._instruct(message, where)
        elif kind == "user":
            self._ask(message, where)
        elif kind == "assistant":
            self._answer(message, where)
        else:
            self._result(message, where)

    def _instruct(self, message: Block, where: str) -> None:
        blocks = self._blocks(message.get("content"), f"{where}.content", media_too=False)
        if not self.turns:
            self.system += _marked(blocks, message)
        elif self._inline:
            self._pending += _marked(blocks, message)
        else:
            self._put_on_top(blocks)

    def _put_on_top(self, blocks: list[Block]) -> None:
        if any("cache_control" in block for block in blocks):
            self.lost["messages.cache_control"] = None
        self._later += (block["text"] for block in blocks)

    def _put_pending(self) -> None:
        """The user's turn is over."""
        if self._words:
            self.turns[-1]["content"] += self._words
        self._words = None
        blocks, self._pending = self._pending, []
        if blocks and self.turns[-1]["role"] == "user":
            self.turns.append({"role": "system", "content": blocks})
        else:
            self._put_on_top(blocks)

    def _ask(self, message: Block, where: str) -> None:
        blocks = self._blocks(message.get("content"), f"{where}.content", media_too=True)
        if not blocks:
            raise InvalidRequest(
                f"`{where}.content` must not be empty: this provider refuses that.",
                param=f"{where}.content",
            )
        if self._words is not None:
            self._words += _marked(blocks, message)
        else:
            self.turns.append({"role": "user", "content": _marked(blocks, message)})

    def _result(self, message: Block, where: str) -> None:
        block: Block = {
            "type": "tool_result",
            "tool_use_id": id_of(message.get("tool_call_id"), f"{where}.tool_call_id"),
        }
        content = message.get("content")
        if isinstance(content, str):
            if content:
                block["content"] = content
        elif found := self._blocks(content, f"{where}.content", media_too=True):
            block["content"] = found
        _marked([block], message)
        if self._words is None:
            self.turns.append({"role": "user", "content": [block]})
            self._words = []
        else:  # results come first, or Anthropic misses them
            self.turns[-1]["content"].append(block)

    def _answer(self, message: Block, where: str) -> None:
        thoughts = self._reasoning(message, f"{where}.reasoning_details")
        said = self._blocks(message.get("content"), f"{where}.content", media_too=False)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            said.append({"type": "text", "text": refusal})
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise _wrong(f"`{where}.tool_calls` must be a list.", f"{where}.tool_calls")
        uses = [self._call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
        blocks = _woven(thoughts, said, uses)
        if not blocks:  # nothing was said; an empty turn is refused
            return
        self._put_pending()
        self.turns.append({"role": "assistant", "content": _marked(blocks, message)})

    def _reasoning(self, message: Block, where: str) -> list[_Thought]:
        details = message.get("reasoning_details") or []
        if not isinstance(details, list):
            raise _wrong(f"`{where}` must be a list.", where)
        if len(details) > _MOST_DETAILS:
            raise InvalidRequest(
                f"`{where}` holds {len(details)} blocks; this provider gets {_MOST_DETAILS} at "
                "most in one message.",
                param=where,
                code="over_limit",
            )
        thoughts = []
        for detail in details:
            if isinstance(detail, dict) and detail.get("type") in _THINKING:
                after = detail.get("after")
                text, calls = map(after.get, _AFTER) if isinstance(after, dict) else (0, 0)
                block = {k: v for k, v in detail.items() if k not in _OURS}
                thoughts.append(_Thought(block, _whole(text), _whole(calls)))
            else:
                self.lost["messages.reasoning_details"] = None
        if not thoughts and (message.get("reasoning_content") or message.get("reasoning")):
            self.lost["messages.reasoning_content"] = None
        return thoughts

    def _blocks(self, content: Any, where: str, *, media_too: bool) -> list[Block]:
        """The blocks of a string or of parts; blank text is left out, since it is refused."""
        if content is None:
            return []
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content.strip() else []
        if not isinstance(content, list):
            raise _wrong(f"`{where}` must be a string or a list.", where)
        found = (self._part(p, f"{where}[{i}]", media_too) for i, p in enumerate(content))
        return [block for block in found if block is not None]

    def _part(self, part: Any, where: str, media_too: bool) -> Block | None:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            text = part.get(kind)
            if not isinstance(text, str):
                raise _wrong(f"`{where}.{kind}` must be a string.", f"{where}.{kind}")
            if not text.strip():
                return None
            block: Block = {"type": "text", "text": text}
        elif kind == "image_url" and media_too:
            said = part.get("image_url")
            if isinstance(said, dict):
                known = _IMAGE | {"detail"} if said.get("detail") == "auto" else _IMAGE
                self._lose(said, known, f"{where}.image_url")
            url = said.get("url") if isinstance(said, dict) else said
            block = media.image(url, f"{where}.image_url.url")
        elif kind == "file" and media_too:
            block = media.document(said := part.get("file"), f"{where}.file")
            self._lose(said, _FILE, f"{where}.file")
        else:
            shown = kind if isinstance(kind, str) and len(kind) < 40 else "of this kind"
            raise InvalidRequest(
                f"This provider takes no part `{shown}` here.",
                param=f"{where}.type",
            )
        own = _OF_DOCUMENTS if kind == "file" else _OF_PARTS
        block.update((name, part[name]) for name in own if part.get(name) is not None)
        self._lose(part, {"type", kind, *own}, where)
        return block

    def _call(self, call: Any, where: str) -> Block:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type", "function") != "function":
            raise InvalidRequest(f"`{where}` must be the call of a function.", param=where)
        self._lose(call, CALL, where)
        self._lose(function, CALLED, f"{where}.function")
        name, said = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not name:
            raise _wrong(f"`{where}.function.name` must be a string.", f"{where}.function.name")
        return {
            "type": "tool_use",
            "id": id_of(call.get("id"), f"{where}.id"),
            "name": name,
            "input": _input(said, f"{where}.function.arguments"),
        }


def id_of(said: Any, where: str) -> str:
    """The id of a call in the characters that Anthropic takes. Others' ids have dots and colons;
    a checksum keeps apart what would fall together."""
    if not isinstance(said, str) or not said:
        raise InvalidRequest(
            f"You must provide `{where}`.", param=where, code="missing_required_parameter"
        )
    clean = _NOT_IN_IDS.sub("_", said)
    return said if clean == said else f"{clean}_{zlib.crc32(said.encode()):08x}"


def _whole(said: Any) -> int:
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else 0


def _woven(thoughts: list[_Thought], said: list[Block], uses: list[Block]) -> list[Block]:
    """The blocks of a turn in the order in which they came. What was thought comes first where
    nothing else is known."""
    blocks: list[Block] = []
    at = cut = written = called = 0  # `cut`: so much of the block `at` is written
    for thought in thoughts:
        while written < thought.text and at < len(said):
            text = said[at]["text"]
            end = min(len(text), cut + thought.text - written)
            written += end - cut
            if end < len(text):  # the rest of it was written later
                blocks.append({"type": "text", "text": text[cut:end]})
                cut = end
            else:
                blocks.append(_rest(said[at], cut))
                at, cut = at + 1, 0
        if thought.calls > called:
            blocks += uses[called : thought.calls]
            called = thought.calls
        blocks.append(thought.block)
    if at < len(said):
        blocks.append(_rest(said[at], cut))
    blocks += said[at + 1 :]
    return [block for block in [*blocks, *uses[called:]] if _has_words(block)]


def _rest(block: Block, cut: int) -> Block:
    return {**block, "text": block["text"][cut:]} if cut else block


def _has_words(block: Block) -> bool:
    return block.get("type") != "text" or bool(block["text"].strip())


def _marked(blocks: list[Block], message: Block) -> list[Block]:
    """A mark for the provider's cache on a whole message stands on its last block."""
    if message.get("cache_control") is not None and blocks:
        blocks[-1].setdefault("cache_control", message["cache_control"])
    return blocks


def _input(said: Any, where: str) -> Any:
    """The arguments as they were written, once they are known to be an object."""
    if said is None or said == "" or isinstance(said, dict):
        return said or {}
    try:
        if isinstance(said, str) and said.strip():
            _arguments.decode(said)
            return Raw(said.encode())
    except (msgspec.MsgspecError, RecursionError):
        pass
    if isinstance(said, str) and not said.strip():
        return {}
    raise InvalidRequest(f"`{where}` must be a JSON object, as a string.", param=where)


def _wrong(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_type")
