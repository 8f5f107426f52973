"""The entries of single providers' lists of models, each known by its shape; see `models`.

A reader answers None for an entry of another shape, else what it says by the names of
`models.Listed`. A provider whose list says more than ids and windows gets a reader here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from server.registry.cards import ModelType

Entry = Mapping[str, Any]
Facts = dict[str, Any]

_MODALITIES: Final = frozenset({"text", "image", "audio", "video", "file"})


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. `note`: whose they are, where there are several."""

    input: float | None = None
    cached_input: float | None = None
    output: float | None = None
    note: str | None = None


# --- providers ------------------------------------------------------------------------------


def mistral(entry: Entry) -> Facts | None:
    """Abilities, and the temperature that is meant."""
    can = mapping(entry.get("capabilities"))
    if "completion_chat" not in can:
        return None
    chats = can["completion_chat"] is True
    order = (
        ("completion_chat", ModelType.MULTIMODAL if can.get("vision") is True else ModelType.CHAT),
        ("ocr", ModelType.VISION),
        ("moderation", ModelType.CLASSIFICATION),
        ("classification", ModelType.CLASSIFICATION),
        ("audio_transcription", ModelType.AUDIO),
        ("audio_speech", ModelType.AUDIO),
        ("completion_fim", ModelType.COMPLETION),
    )
    able = {"tools": can.get("function_calling"), "vision": can.get("vision")} if chats else {}
    return {
        "type": next((kind for ability, kind in order if can.get(ability) is True), None),
        "abilities": said(able),
        "temperature": price(entry.get("default_model_temperature")),
    }


def anthropic(entry: Entry) -> Facts | None:
    """Abilities, each with more about it, and both bounds of tokens."""
    can = mapping(entry.get("capabilities"))
    bounded = "max_input_tokens" in entry
    if not bounded and not any(isinstance(value, Mapping) for value in can.values()):
        return None
    names = {"vision": "image_input", "json_schema": "structured_outputs", "reasoning": "thinking"}
    able = {own: mapping(can.get(theirs)).get("supported") for own, theirs in names.items()}
    kind = None
    if isinstance(can.get("image_input"), Mapping):
        kind = ModelType.MULTIMODAL if able["vision"] is True else ModelType.CHAT
    most = count(entry.get("max_tokens")) if bounded else None
    return {"type": kind, "abilities": said(able), "max_output": most}


def cohere(entry: Entry) -> Facts | None:
    """The calls that it is for, and what it can do: what is not among that may only have another
    name there."""
    endpoints = items(entry.get("endpoints"))
    if not endpoints:
        return None
    features = items(entry.get("features"))
    kinds = (
        ("chat", ModelType.MULTIMODAL if "vision" in features else ModelType.CHAT),
        ("embed", ModelType.EMBEDDING),
        ("embed_image", ModelType.EMBEDDING),
        ("rerank", ModelType.RERANK),
        ("classify", ModelType.CLASSIFICATION),
        ("transcriptions", ModelType.AUDIO),
        ("generate", ModelType.COMPLETION),
    )
    return {
        "type": next((kind for endpoint, kind in kinds if endpoint in endpoints), None),
        "abilities": among(features, "tools", "json_schema", "vision", "reasoning", "logprobs"),
        "deprecated": entry.get("is_deprecated") is True,
    }


def router(entry: Entry) -> Facts | None:
    """Hugging Face's: who serves it now, each with a window, prices and abilities."""
    if not isinstance(entry.get("providers"), list) or "architecture" not in entry:
        return None
    serving = [
        one
        for one in entry["providers"]
        if isinstance(one, Mapping) and one.get("status", "live") == "live"
    ]
    sees = modalities(entry, "input")
    able = {
        "tools": _anybody(serving, "supports_tools"),
        "json_schema": _anybody(serving, "supports_structured_output"),
        "vision": "image" in sees if serving and sees else None,
    }
    windows = [window for one in serving if (window := count(one.get("context_length")))]
    return {
        "type": ModelType.MULTIMODAL if "image" in sees else ModelType.CHAT,
        "abilities": said(able),
        "context_window": max(windows, default=None),
        "input_modalities": sees,
        "output_modalities": modalities(entry, "output"),
        "prices": _cheapest(serving),
    }


def _anybody(serving: Iterable[Entry], key: str) -> bool | None:
    told = [one[key] for one in serving if isinstance(one.get(key), bool)]
    return any(told) if told else None


def _cheapest(serving: Iterable[Entry]) -> Prices | None:
    priced = []
    for one in serving:
        pricing = mapping(one.get("pricing"))
        given, taken = price(pricing.get("input")), price(pricing.get("output"))
        if given is not None and taken is not None:
            priced.append((given, taken, text(one.get("provider")) or "one of them"))
    if not priced:
        return None
    given, taken, who = min(priced)
    note = f"The router's price at {who}, the cheapest of {len(priced)} that give one."
    return Prices(given, None, taken, note)


def openrouter(entry: Entry) -> Facts | None:
    """The parameters that it takes, what goes in and comes out, and the bound of its answers."""
    takes = entry.get("supported_parameters")
    if not isinstance(takes, list):
        return None
    sees, gives = modalities(entry, "input"), modalities(entry, "output")
    kind = None
    if "text" in gives:
        kind = ModelType.MULTIMODAL if set(sees) - {"text", "file"} else ModelType.CHAT
    able = among(takes, "tools", "reasoning", "logprobs", json_schema="structured_outputs")
    if sees:
        able |= {"vision": "image" in sees, "audio": "audio" in sees}
    return {
        "type": kind,
        "abilities": able,
        "max_output": count(mapping(entry.get("top_provider")).get("max_completion_tokens")),
        "input_modalities": sees,
        "output_modalities": gives,
        "deprecated": day(entry.get("expiration_date")) is not None,
        "retires": day(entry.get("expiration_date")),
    }


_TOGETHERS: Final = {
    "chat": ModelType.CHAT,
    "language": ModelType.COMPLETION,
    "code": ModelType.COMPLETION,
    "image": ModelType.IMAGE,
    "embedding": ModelType.EMBEDDING,
    "rerank": ModelType.RERANK,
    "moderation": ModelType.CLASSIFICATION,
    "audio": ModelType.AUDIO,
    "transcribe": ModelType.AUDIO,
}


def together(entry: Entry) -> Facts | None:
    """A word for what it does, and prices; both 0 where it is rented by the hour."""
    kind = _TOGETHERS.get(str(entry.get("type")))
    pricing = mapping(entry.get("pricing"))
    if kind is None:
        return None
    given, taken = price(pricing.get("input")), price(pricing.get("output"))
    return {"type": kind, "prices": Prices(given, None, taken) if given or taken else None}


def fireworks(entry: Entry) -> Facts | None:
    """What it can do, by one flag each."""
    chats = entry.get("supports_chat")
    if not isinstance(chats, bool):
        return None
    kind = ModelType.EMBEDDING if entry.get("kind") == "EMBEDDING_MODEL" else None
    if chats:
        sees = entry.get("supports_image_input") is True
        kind = ModelType.MULTIMODAL if sees else ModelType.CHAT
    able = {"tools": entry.get("supports_tools"), "vision": entry.get("supports_image_input")}
    return {"type": kind, "abilities": said(able) if chats else {}}


def azure(entry: Entry) -> Facts | None:
    """The calls that it is for, and until when."""
    can = mapping(entry.get("capabilities"))
    if "chat_completion" not in can:
        return None
    kinds = (
        ("chat_completion", ModelType.CHAT),
        ("embeddings", ModelType.EMBEDDING),
        ("completion", ModelType.COMPLETION),
    )
    ends = None
    if going := entry.get("lifecycle_status") in ("deprecating", "deprecated"):
        ends = _day_at(mapping(entry.get("deprecation")).get("inference"))
    return {
        "type": next((kind for ability, kind in kinds if can.get(ability) is True), None),
        "deprecated": going,
        "retires": ends,
    }


_STATUSES: Final = frozenset({"deprecated", "retired"})


def roundhouse(entry: Entry) -> Facts | None:
    """Another of ours: all that it knows."""
    ours = entry.get("roundhouse")
    if not isinstance(ours, Mapping):
        return None
    kind = ours.get("type")
    prices, able = mapping(ours.get("prices")), mapping(ours.get("abilities"))
    given, cached, taken = (price(prices.get(f"{of}put")) for of in ("in", "cached_in", "out"))
    seen = mapping(ours.get("modalities"))
    return {
        "type": ModelType(kind) if kind in set(ModelType) else None,
        "context_window": count(ours.get("context_window")),
        "max_output": count(ours.get("max_output")),
        "abilities": said({name: able.get(name) for name in _ABILITIES}),
        "prices": Prices(given, cached, taken),
        "input_modalities": _known(seen.get("input")),
        "output_modalities": _known(seen.get("output")),
        "deprecated": ours.get("status") in _STATUSES,
        "retires": day(ours.get("retires")),
        "replaced_by": text(ours.get("replaced_by")),
    }


_ABILITIES: Final = "streaming tools json_schema vision audio reasoning logprobs".split()
#: The first that knows the shape reads the entry.
READERS: Final[tuple[Callable[[Entry], Facts | None], ...]] = (
    roundhouse,
    mistral,
    azure,
    anthropic,
    cohere,
    router,
    openrouter,
    fireworks,
    together,
)


# --- values -----------------------------------------------------------------------------------


def said(able: Mapping[str, Any]) -> dict[str, bool]:
    """Without what is no yes and no no."""
    return {name: value for name, value in able.items() if isinstance(value, bool)}


def among(features: Sequence[Any], *names: str, **others: str) -> dict[str, bool]:
    """Those of the abilities that are named; `others` by a word that is not ours."""
    words = {**{name: name for name in names}, **others}
    return {ability: True for ability, word in words.items() if word in features}


def modalities(entry: Entry, way: str) -> tuple[str, ...]:
    return _known(mapping(entry.get("architecture")).get(f"{way}_modalities"))


def _known(found: Any) -> tuple[str, ...]:
    return tuple(one for one in items(found) if isinstance(one, str) and one in _MODALITIES)


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: Any, most: int = 200) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= most or value != value.strip():
        return None
    return value if value.isprintable() else None


def day(value: Any) -> str | None:
    """`YYYY-MM-DD`, of a day or of a moment."""
    found = (text(value) or "")[:10]
    try:
        # Python would take `20261231`, too, and the first ten signs of something longer than that.
        return found if date.fromisoformat(found).isoformat() == found else None
    except ValueError:
        return None


def _day_at(value: Any) -> str | None:
    """The day of a moment in seconds since 1970."""
    seconds = count(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def count(value: Any) -> int | None:
    """Of tokens, or seconds. Some lists write 0 for what they do not know; Cohere writes floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < 1e12 and value == int(value) else None


def price(value: Any) -> float | None:
    """Dollars, or a temperature."""
    try:
        found = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < 1e6 and not isinstance(value, bool) else None
