"""The dialects that are translated, by the config's word for them.

Each is imported when it is first asked for: who speaks to one provider waits for no other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final, cast

from server.dialects.base import Dialect
from server.dialects.loose import Loose
from server.dialects.plain import Plain
from server.dialects.thoughts import Thinking

#: The module under `server.dialects`, and the class in it.
_ROOMS: Final = {
    "anthropic": ("anthropic", "Anthropic"),
    "cohere": ("cohere", "Cohere"),
    "deepseek": ("deepseek", "DeepSeek"),
    "huggingface": ("huggingface", "HuggingFace"),
    "mistral": ("mistral", "Mistral"),
}


_NO_SETTINGS: Final[Mapping[str, object]] = {}


class _Table(Mapping[str, Dialect]):
    def __init__(self) -> None:
        self._made: dict[str, Dialect] = {}

    def __getitem__(self, name: str) -> Dialect:
        if (known := self._made.get(name)) is not None:
            return known
        module, kind = _ROOMS[name]
        made = getattr(import_module(f"server.dialects.{module}"), kind)()
        return self._made.setdefault(name, cast(Dialect, made))

    def __iter__(self) -> Iterator[str]:
        return iter(_ROOMS)

    def __len__(self) -> int:
        return len(_ROOMS)


DIALECTS: Final[Mapping[str, Dialect]] = _Table()


def dialect_of(name: str, settings: Mapping[str, object] = _NO_SETTINGS) -> Dialect | None:
    """The dialect of an account with these settings; None for `openai` whose bytes pass untouched.
    Raises KeyError for a word that is none.

    Settings, for those who speak like OpenAI: `answers`, of `openai` itself: `tidy` puts right what
    clients refuse; `keep`, the default, nothing. `think_tags`, what becomes of `<think>…</think>`
    at the beginning of a content. `keep`: nothing, the default; `split` makes it
    `reasoning_content`; `begun` does so where the model's template has opened the thought already,
    so that a content begins within one."""
    tags = settings.get("think_tags", "keep")
    tidy = settings.get("answers", "keep") == "tidy"
    if name == "openai" and tags == "keep" and not tidy:
        return None
    inner: Dialect = DIALECTS[name] if name != "openai" else Loose() if tidy else Plain()
    return inner if tags == "keep" else Thinking(inner, begun=tags == "begun")
