"""Parameters of a body that are not the client's: defaults for what it leaves out, and ceilings.

Made once for each target, so that a request pays for what its model has, and nothing without.
`null` from a client counts as left out. `max_tokens` and `max_completion_tokens` are one thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest
from server.protocol.envelope import Surface, raw

#: Two names of one thing: OpenAI's newer chat models know only the second.
LONGEST: Final = frozenset({"max_tokens", "max_completion_tokens"})
#: Sampling that OpenAI's own API refuses to hear of. Source: vLLM 0.32's request models.
NOT_OPENAI: Final = frozenset(
    "add_special_tokens allowed_token_ids bad_words detokenize ignore_eos include_reasoning "
    "include_stop_str_in_output length_penalty min_p min_tokens prompt_logprobs "
    "repetition_penalty skip_special_tokens spaces_between_special_tokens stop_token_ids "
    "structured_outputs thinking_token_budget top_k truncate_prompt_tokens use_beam_search".split()
)
_CHAT_ONLY: Final = frozenset(
    "add_generation_prompt audio chat_template chat_template_kwargs continue_final_message "
    "include_reasoning modalities parallel_tool_calls prediction reasoning reasoning_effort "
    "response_format store thinking tool_choice tools top_logprobs verbosity "
    "web_search_options".split()
)
_COMPLETIONS_ONLY: Final = frozenset({"best_of", "echo", "suffix"})
#: One of a group from the client shuts out all of it.
_GROUPS: Final = (
    LONGEST,
    frozenset({"response_format", "structured_outputs"}),
    frozenset({"reasoning", "reasoning_effort", "thinking"}),
    frozenset({"function_call", "tool_choice"}),
    frozenset({"functions", "tools"}),
)
#: A parameter that means nothing without another, and is refused then.
_NEEDS: Final = {
    "parallel_tool_calls": "tools",
    "tool_choice": "tools",
    "top_logprobs": "logprobs",
}
_NOT_UNDER: Final = {"max_tokens": frozenset({"min_tokens"}), "best_of": frozenset({"n"})}
_SURFACES: Final = frozenset({Surface.CHAT, Surface.COMPLETIONS})
_BOUNDED: Final = _SURFACES | {Surface.EMBEDDINGS, Surface.RERANK}
_NOTHING: Final = (Raw(b"null"), Raw(b"false"), Raw(b"[]"))
#: Where a number below 0 (of `top_k` 0, too) stands for all that there is. So vLLM has it.
_ALL_UNDER: Final = {
    "top_k": 1,
    "logprobs": 0,
    "top_logprobs": 0,
    "prompt_logprobs": 0,
}
_TRUE: Final = Raw(b"true")
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Default:
    """`value` for `name`, unless the body has one of `unless`, or not what it `needs`, or a number
    that it must not be over or under. `single`: not for several answers; `whole`: not for streams.
    """

    name: str
    value: Raw
    unless: frozenset[str]
    needs: str | None = None
    number: float | None = None
    not_over: frozenset[str] = frozenset()
    not_under: frozenset[str] = frozenset()
    single: bool = False
    whole: bool = False

    def fits(self, out: Mapping[str, Any]) -> bool:
        for name in self.unless:
            if given(out, name) is not None:
                return False
        if self.needs is not None and out.get(self.needs, _NOTHING[0]) in _NOTHING:
            return False
        if self.whole and out.get("stream") == _TRUE:
            return False
        if self.single and "n" in out and (number(out["n"]) or 1) > 1:
            return False
        if self.number is None:
            return True
        most, least = self._numbers(out, self.not_over), self._numbers(out, self.not_under)
        return all(self.number <= n for n in most) and all(self.number >= n for n in least)

    def _numbers(self, out: Mapping[str, Any], names: frozenset[str]) -> Iterator[float]:
        found = (number(out[name]) for name in names if name in out)
        return (value for value in found if value is not None)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that a client may ask for: (names, number). `clamp`: lower it, refuse nothing."""

    most: tuple[tuple[tuple[str, ...], float], ...]
    clamp: bool

    @classmethod
    def of(cls, ceilings: Mapping[str, float], *, clamp: bool) -> Ceilings | None:
        """None when there are none. The longest answer may stand under either of its names."""
        most = ((_names(name), int(n) if n == int(n) else n) for name, n in ceilings.items())
        return cls(tuple(most), clamp) or None

    def __bool__(self) -> bool:
        return bool(self.most)

    def refusal(self, members: Mapping[str, Raw], surface: Surface) -> InvalidRequest | None:
        """Why this body is over a ceiling that is not clamped, or cannot be held against one."""
        if surface not in _BOUNDED:
            return None
        for names, most in self.most:
            for name in names:
                found = given(members, name)
                if found is None:
                    continue
                if name == "logprobs" and surface is Surface.CHAT:
                    continue  # there it is yes or no; `top_logprobs` has the number
                value = number(found)
                if value is None:
                    return InvalidRequest(
                        f"`{name}` should be a number.", param=name, code="invalid_type"
                    )
                if _over(name, value, most) and not self.clamp:
                    return InvalidRequest(
                        f"`{name}` is {value}; the limit of this model is {most}.",
                        param=name,
                        code="over_limit",
                    )
        return None


@dataclass(frozen=True, slots=True)
class Fill:
    """What one target's bodies get."""

    chat: tuple[Default, ...]
    completions: tuple[Default, ...]
    clamps: tuple[tuple[tuple[str, ...], float, Raw], ...]

    def into(self, out: dict[str, Any], surface: Surface) -> tuple[str, ...]:
        """Lower what is over a ceiling and fill in what is left out. Returns the names lowered."""
        lowered: tuple[str, ...] = ()
        if self.clamps and surface in _BOUNDED:
            lowered = tuple(self._clamp(out))
        if surface in _SURFACES:
            for default in self.chat if surface is Surface.CHAT else self.completions:
                if default.fits(out):
                    out[default.name] = default.value
        return lowered

    def _clamp(self, out: dict[str, Any]) -> Iterator[str]:
        for names, most, value in self.clamps:
            for name in names:
                if name not in out or (asked := number(out[name])) is None:
                    continue
                if _over(name, asked, most):
                    out[name] = value
                    yield name


def fill_of(
    defaults: Mapping[str, Any],
    ceilings: Ceilings | None = None,
    *,
    without: frozenset[str] = frozenset(),
    chat_longest: str = "max_tokens",
) -> Fill | None:
    """The fill of one target; None when there is nothing to do. `without`: parameters that the
    target does not take; `chat_longest`: its name for the longest answer of a chat."""
    bounds = {names[0]: most for names, most in ceilings.most} if ceilings else {}
    clamp = ceilings is not None and ceilings.clamp
    known = {
        name: _at_most(value, bounds.get(name))
        for name, value in sorted(defaults.items(), key=lambda item: item[0] in _NEEDS)
        if name not in without
    }
    longest = bounds.get("max_tokens") if clamp else None

    def of(surface: Surface) -> tuple[Default, ...]:
        chat = surface is Surface.CHAT
        name_of = {"max_tokens": chat_longest if chat else "max_tokens"}
        found = [
            _default(name_of.get(name, name), value)
            for name, value in known.items()
            if _suits(name, value, chat=chat)
        ]
        if longest is not None:  # a ceiling holds for those, too, who name no length
            found.append(Default(name_of["max_tokens"], raw(longest), LONGEST))
        return tuple(found)

    clamps = tuple((n, most, raw(most)) for n, most in ceilings.most) if ceilings and clamp else ()
    fill = Fill(of(Surface.CHAT), of(Surface.COMPLETIONS), clamps)
    return fill if fill.chat or fill.completions or fill.clamps else None


def _default(name: str, value: Any) -> Default:
    group = next((group for group in _GROUPS if name in group), frozenset({name}))
    figure = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Default(
        name,
        raw(value),
        group,
        _NEEDS.get(name),
        figure,
        not_over=LONGEST if name == "min_tokens" else frozenset(),
        not_under=_NOT_UNDER.get("max_tokens" if name in LONGEST else name, frozenset()),
        # vLLM and others refuse to take the likeliest token twice.
        single=name == "temperature" and figure == 0,
        whole=name == "prompt_logprobs",
    )


def _suits(name: str, value: Any, *, chat: bool) -> bool:
    if name == "logprobs":  # yes or no in a chat, a number in a completion
        return isinstance(value, bool) is chat
    return name not in (_COMPLETIONS_ONLY if chat else _CHAT_ONLY)


def _at_most(value: Any, most: float | None) -> Any:
    figure = isinstance(value, int | float) and not isinstance(value, bool)
    return most if figure and most is not None and value > most else value


def _over(name: str, asked: float, most: float) -> bool:
    return asked > most or asked < _ALL_UNDER.get(name, -math.inf)


def _names(name: str) -> tuple[str, ...]:
    return ("max_tokens", "max_completion_tokens") if name in LONGEST else (name,)


def given(members: Mapping[str, Any], name: str) -> Any:
    """A member that says something; None when it is missing or null."""
    found = members.get(name)
    return None if found is None or found == _NOTHING[0] else found


def number(value: Raw) -> float | None:
    """The number that a member is; None for anything else."""
    try:
        found = _decode(value)
    except msgspec.MsgspecError:  # a number that is none for us
        return None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
