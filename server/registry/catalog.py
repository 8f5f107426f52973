"""The catalog: cards from data files, one file per provider, and finding one by any of its names.

A file says what its cards share once, under `defaults`, and names its sources once, under
`sources`. See docs/registry.md for the form; `check` for what is asked of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec

from server.registry.cards import ModelInfo, Source, Status
from server.registry.searching import search

DATA: Final = Path(__file__).parent / "data"
#: More of a name is no help to who reads that it is unknown.
_LONGEST: Final = 100


class CardError(ValueError):
    """A card, or a file of cards, is not as it must be. The message names the file and the fact."""


class UnknownModel(LookupError):
    """No card has this name. `near`: names that look like it."""

    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
        super().__init__(f"The registry has no model {shown!r}.{hint}")
        self.name, self.near = name, near


class Catalog(Mapping[str, ModelInfo]):
    """Cards by `model_id`, in the order of the files. Immutable."""

    def __init__(self, cards: Iterable[ModelInfo]) -> None:
        self._cards = {card.model_id: card for card in cards}
        self._names = _names(self._cards.values())

    def __getitem__(self, model_id: str) -> ModelInfo:
        return self._cards[model_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def __repr__(self) -> str:
        return f"<Catalog of {len(self)} models>"

    def find(self, name: str) -> ModelInfo | None:
        """By id, alias, either with `provider/` before it, or an id's last part where only one has
        it; in any case."""
        card = self._cards.get(name)
        return card if card is not None else self._names.get(name.strip().lower())

    def info(self, name: str) -> ModelInfo:
        """As `find`. Raises UnknownModel."""
        card = self.find(name)
        if card is None:
            raise UnknownModel(name, self.near(name))
        return card

    def near(self, name: str) -> tuple[str, ...]:
        """Ids that an unknown name may have meant, the likeliest first: those that have all of its
        words, or without any those that are spelt like it."""
        name = name[:_LONGEST]
        last = self.find(name.rpartition("/")[2])
        found = [last] if last is not None else []
        if not found and len(name) > 1:  # one letter is a word of many names
            found = search(self, name, 3, names_only=True)
        if not found:
            near = get_close_matches(name.strip().lower(), self._names, n=6, cutoff=0.6)
            found = [self._names[match] for match in near]
            found.sort(key=lambda card: card.status is Status.RETIRED)
        return tuple(dict.fromkeys(card.model_id for card in found))[:3]

    def successor(self, card: ModelInfo) -> ModelInfo | None:
        """What its provider advises instead; the end of the chain, if that was replaced, too."""
        seen = {card.model_id}
        found: ModelInfo | None = None
        while card.replaced_by and (after := self.find(card.replaced_by)) is not None:
            if after.model_id in seen:
                break
            seen.add(after.model_id)
            found = card = after
        return found


def _names(cards: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
    """Every name in lower case. An id beats an alias, an alias a name that is made up here."""
    cards = list(cards)
    names: dict[str, ModelInfo] = {}
    for card in cards:
        names.setdefault(card.model_id.lower(), card)
    for card in cards:
        for alias in card.aliases:
            names.setdefault(alias.lower(), card)
    for card in cards:
        for own in (card.model_id, *card.aliases):
            names.setdefault(f"{card.provider}/{own}".lower(), card)
    last: dict[str, list[ModelInfo]] = {}
    for card in cards:
        last.setdefault(card.model_id.rpartition("/")[2].lower(), []).append(card)
    for name, found in last.items():
        if len(found) == 1:
            names.setdefault(name, found[0])
    return names


@functools.cache
def builtin() -> Catalog:
    """The catalog that Roundhouse comes with, read on first use."""
    # CI has looked for unknown keys in them, which takes half of the time.
    files = sorted(DATA.glob("*.json"))
    return Catalog(card for path in files for card in read(path, unknown_keys=True))


def read(path: Path, *, unknown_keys: bool = False) -> list[ModelInfo]:
    """The cards of a file. Raises CardError, OSError."""
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"{path.name}: no JSON: {error}") from None
    return parse(raw, path.name, unknown_keys=unknown_keys)


def parse(raw: Any, where: str, *, unknown_keys: bool = False) -> list[ModelInfo]:
    """The cards of a file's content; `where` names it in errors. Raises CardError, for unknown
    keys of a card too unless they are allowed."""
    if not isinstance(raw, dict) or not isinstance(raw.get("models"), list):
        raise CardError(f"{where}: must be an object with a list `models`")
    if extra := sorted(set(raw) - {"$schema", "provider", "sources", "defaults", "models"}):
        raise CardError(f"{where}: unknown key {extra[0]!r}")
    if not isinstance(raw.get("provider"), str):
        raise CardError(f"{where}: `provider` must be its name")
    try:
        sources = msgspec.convert(raw.get("sources", {}), dict[str, Source])
    except msgspec.ValidationError as error:
        raise CardError(f"{where}: sources: {error}") from None
    if not isinstance(raw.get("defaults", {}), dict):
        raise CardError(f"{where}: `defaults` must be an object")
    defaults = {"provider": raw["provider"], **raw.get("defaults", {})}
    cards = []
    for model in raw["models"]:
        card, merged = _card(model, defaults, sources, where)
        if not unknown_keys and (unknown := _unknown(merged, msgspec.to_builtins(card))):
            raise CardError(f"{where}: {card.model_id}: unknown key {unknown!r}")
        cards.append(card)
    return cards


def _card(
    model: Any, defaults: dict[str, Any], sources: Mapping[str, Source], where: str
) -> tuple[ModelInfo, dict[str, Any]]:
    """The card, and what it was made of."""
    if not isinstance(model, dict) or not isinstance(model.get("model_id"), str):
        raise CardError(f"{where}: each of `models` must be an object with a `model_id`")
    at = f"{where}: {model['model_id']}"
    merged = merge(defaults, model)
    cited = merged.get("sources", {})
    if not isinstance(cited, dict):
        raise CardError(f"{at}: `sources` must be an object: a fact, and its source's name")
    merged["sources"] = {
        fact: [_source(key, sources, at) for key in (keys if isinstance(keys, list) else [keys])]
        for fact, keys in cited.items()
    }
    try:
        return msgspec.convert(merged, ModelInfo), merged
    except msgspec.ValidationError as error:
        raise CardError(f"{at}: {error}") from None


def _source(key: Any, sources: Mapping[str, Source], at: str) -> Source:
    if not isinstance(key, str) or key not in sources:
        raise CardError(f"{at}: the source {key!r} is not under `sources`")
    return sources[key]


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, objects member by member; null takes a default away."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _unknown(given: Any, known: Any) -> str | None:
    """The path of a member that the card did not take: msgspec passes over such members."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                return str(key)
            if below := _unknown(value, known[key]):
                return f"{key}.{below}"
    return None
