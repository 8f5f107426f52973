"""What providers list as their models: where the list is, how it goes on, and what it says. Pure.

Every list says other things: OpenAI's and DeepSeek's the ids alone, Mistral's abilities, windows,
aliases and ends, Anthropic's and Cohere's abilities and windows, Hugging Face's router who serves
a model at what price. What a list does not say stays unknown. The readers of the single providers'
entries are in `model_entries`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from server.dialects.anthropic.settings import SAMPLING
from server.dialects.model_entries import READERS, Prices, count, day, items, mapping, price, text
from server.registry.cards import ModelType

_UNKNOWN: Final = Prices()
_NOTHING: Final[Mapping[str, object]] = {}
#: Google's ids, as its list has them and nobody says them.
_PREFIX: Final = "models/"
_WINDOWS: Final = (
    "max_context_length",  # Mistral
    "max_input_tokens",  # Anthropic
    "context_length",  # Cohere, OpenRouter, Together, Fireworks
    "context_window",  # Groq
    "max_model_len",  # vLLM
)
#: Parameters by which a link to the next page may differ from this one's.
_PAGED: Final = frozenset({"cursor", "limit", "offset", "page"})


class NoList(ValueError):
    """The answer is JSON, but no list of models."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list is asked for, with what parameters and headers besides the account's own."""

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """One model of a list; None, and what is missing, was not said.

    `names` are other ids of the same model. `created` is in seconds since 1970; `retires` a day,
    `YYYY-MM-DD`.
    """

    id: str
    names: tuple[str, ...] = ()
    name: str | None = None
    description: str | None = None
    type: ModelType | None = None
    created: int | None = None
    context_window: int | None = None
    max_output: int | None = None
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()
    abilities: Mapping[str, bool] = field(default_factory=dict)
    prices: Prices = _UNKNOWN
    temperature: float | None = None
    deprecated: bool = False
    retires: str | None = None
    replaced_by: str | None = None


def place(dialect: str, base_url: str, settings: Mapping[str, object] = _NOTHING) -> Place:
    """Where an account's list is. `settings` are the account's for its dialect."""
    if dialect == "anthropic":
        base, version = base_url.removesuffix("/v1"), str(settings.get("version", SAMPLING))
        return Place(f"{base}/v1/models", {"limit": "1000"}, {"anthropic-version": version})
    if dialect == "cohere":  # its second version has no list; the first one's serves both
        base = base_url.removesuffix("/v2").removesuffix("/v1")
        return Place(f"{base}/v1/models", {"page_size": "1000"})
    return Place(f"{base_url}/models")


def entries(answer: Any) -> list[Any]:
    """The models of one answer. Raises NoList."""
    if isinstance(answer, Mapping):
        answer = next((answer[key] for key in ("data", "models") if key in answer), None)
    if not isinstance(answer, list):
        raise NoList
    return answer


def next_page(answer: Any) -> dict[str, str] | None:
    """What to ask for after this page: Anthropic's `after_id`, Cohere's `page_token`, what stands
    in OpenRouter's link."""
    if not isinstance(answer, Mapping):
        return None
    if answer.get("has_more") is True and (last := text(answer.get("last_id"))):
        return {"after_id": last}
    if token := text(answer.get("next_page_token"), 4096):
        return {"page_token": token}
    link = text(mapping(answer.get("links")).get("next"), 4096)
    found = dict(parse_qsl(urlsplit(link).query)) if link else {}
    return {name: value for name, value in found.items() if name in _PAGED} or None


def listed(found: Iterable[Any]) -> list[Listed]:
    """The models of a list, in its order; what has no usable id is passed over. Mistral lists a
    model once for each of its names; here it comes once."""
    maps = [entry for entry in found if isinstance(entry, Mapping)]
    ids = {said for entry in maps if (said := text(entry.get("id")))}
    models: dict[str, Listed] = {}
    for entry in maps:
        one = _one(entry, ids)
        if one is None:
            continue
        earlier = models.setdefault(one.id, one)
        if earlier is not one:
            names = tuple(dict.fromkeys((*earlier.names, *one.names)))
            models[one.id] = replace(earlier, names=names)
    return list(models.values())


def _one(entry: Mapping[str, Any], ids: Collection[str]) -> Listed | None:
    """None for what has no usable id, or does not answer now. `ids`: of the whole list."""
    said = text(entry.get("id")) or text(entry.get("name"))
    if said is None or entry.get("active") is False:  # Groq's word for what is switched off
        return None
    names = [said, *(name for alias in items(entry.get("aliases")) if (name := text(alias)))]
    own = text(entry.get("name"))
    model_id = own if own is not None and (own in names or own in ids) else said
    ends = day(entry.get("deprecation"))  # Mistral's word
    facts: dict[str, Any] = {
        "name": text(entry.get("display_name")) or own,
        "description": text(entry.get("description"), 500),
        "created": _created(entry),
        "context_window": _most(entry, _WINDOWS),
        "max_output": count(entry.get("max_completion_tokens")),
        "prices": _by_the_token(entry),
        "deprecated": ends is not None,
        "retires": ends,
        "replaced_by": text(entry.get("deprecation_replacement_model")) if ends else None,
    }
    for reader in READERS:
        if (special := reader(entry)) is not None:
            facts |= {name: value for name, value in special.items() if value is not None}
            break
    if facts.get("replaced_by") == model_id:
        del facts["replaced_by"]
    others = dict.fromkeys(_bare(name) for name in names)
    model_id = _bare(model_id)
    return Listed(model_id, tuple(name for name in others if name != model_id), **facts)


def _bare(model_id: str) -> str:
    bare = model_id.removeprefix(_PREFIX)
    return bare if bare and "/" not in bare else model_id


def _most(entry: Mapping[str, Any], names: Iterable[str]) -> int | None:
    found = (count(entry.get(name)) for name in names)
    return max((one for one in found if one is not None), default=None)


def _created(entry: Mapping[str, Any]) -> int | None:
    """Some write 0, or the first moment of 1970, for what they do not know."""
    said = entry.get("created", entry.get("created_at"))
    if isinstance(said, str):
        try:
            moment = datetime.fromisoformat(said)
            said = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    return count(int(said)) if isinstance(said, float) and 0 < said < 1e12 else count(said)


def _by_the_token(entry: Mapping[str, Any]) -> Prices:
    """OpenRouter's way, and that of those who serve through it: dollars for one token, as text."""
    pricing = mapping(entry.get("pricing"))

    def of(key: str) -> float | None:
        found = price(pricing[key]) if isinstance(pricing.get(key), str) else None
        return None if found is None else round(found * 1e6, 6)

    return Prices(of("prompt"), of("input_cache_read"), of("completion"))
