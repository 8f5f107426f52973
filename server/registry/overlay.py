"""Overlays: what providers' own lists of models say, laid over the checked catalog.

An overlay fills what the catalog does not know and adds cards. A fact of the catalog was checked
by somebody, so it stays, and what differs is told; once somebody has accepted a difference, the
list's value wins for as long as both values stay the same.

An overlay's file has the form of a file of cards (see `catalog`), and beside it `accepted`.
`exceptions` of an overlay's card that name `type` say that the list gave none: then it is no fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from server.registry.cards import CHATTING, ModelInfo, Source, Status
from server.registry.catalog import CardError, Catalog, parse

#: Where overlays are, in the server's home.
FOLDER: Final = "catalog"
#: Groups of facts: a list fills and contradicts their members one by one.
GROUPS: Final = ("specs", "licence", "cost", "abilities", "origin", "links")
SINGLE: Final = (
    "type",
    "api_endpoint",
    "status",
    "retires",
    "replaced_by",
    "default_temperature",
    "default_max_tokens",
)
#: Words for people: they fill, but two sentences never contradict each other.
_WORDS: Final = frozenset({"cost.notes", "cost.free_limits", "licence.conditions"})
#: Their order means nothing.
_SETS: Final = frozenset({"specs.input_modalities", "specs.output_modalities", "specs.languages"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A list says something else than the catalog. `fact` is a path, or `alias NAME`: the list
    has this name for `model_id` (`listed`), the catalog for another card (`checked`)."""

    model_id: str
    fact: str
    checked: Any
    listed: Any
    source: Source | None = None
    accepted: bool = False

    @property
    def told(self) -> Accepted:
        """What is written down when somebody accepts it."""
        return Accepted(self.model_id, self.fact, self.checked, self.listed)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A difference that somebody has accepted: these two values, and no others."""

    model_id: str
    fact: str
    checked: Any
    listed: Any


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay's file. `provider` is the name that the config has for the account."""

    provider: str
    source: Source
    #: Cards as a file of cards has them.
    models: Sequence[dict[str, Any]] = ()
    accepted: Sequence[Accepted] = field(default=())

    def cards(self) -> list[ModelInfo]:
        """Raises CardError."""
        return parse(self._file(), f"{self.provider}.json")

    def _file(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "sources": {"list": msgspec.to_builtins(self.source)},
            "defaults": {"access_method": "api", "sources": {"": "list"}},
            "models": list(self.models),
        }

    def text(self) -> str:
        """What its file holds."""
        accepted = [msgspec.to_builtins(one) for one in self.accepted]
        whole = {**self._file(), **({"accepted": accepted} if accepted else {})}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> Overlay:
    """Raises CardError, OSError."""
    return _parsed(path.read_bytes(), path.name)[0]


def _parsed(data: bytes, name: str) -> tuple[Overlay, list[ModelInfo]]:
    """An overlay's file, and its cards. Raises CardError."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CardError(f"{name}: no JSON") from None
    accepted = raw.pop("accepted", []) if isinstance(raw, dict) else []
    cards = parse(raw, name)
    strange = f"{name}: it was not written by `roundhouse models sync`"
    try:
        source = msgspec.convert(raw["sources"]["list"], Source)
        kept = msgspec.convert(accepted, list[Accepted])
    except (msgspec.ValidationError, KeyError, TypeError):
        raise CardError(strange) from None
    overlay = Overlay(raw["provider"], source, raw["models"], kept)
    if overlay.cards() != cards:
        raise CardError(strange)
    return overlay, cards


@dataclass(frozen=True, slots=True)
class Stack:
    """A catalog with all overlays of a folder laid over it. `files`: those that were read, and
    what they held; `left_out`: a sentence for each that is broken."""

    catalog: Catalog
    differences: list[Difference] = field(default_factory=list)
    files: list[tuple[Path, bytes]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def stacked(below: Catalog, folder: Path) -> Stack:
    """What `roundhouse models sync` has learned, over `below`. A broken file is left out."""
    cards: list[ModelInfo] = []
    accepted: list[Accepted] = []
    stack = Stack(below)
    for path in sorted(folder.glob("*.json")):
        try:
            data = path.read_bytes()
            found, theirs = _parsed(data, path.name)
        except (CardError, OSError) as error:
            stack.left_out.append(
                f"The overlay {path} is left out: {error}. "
                f"`roundhouse models sync {path.stem}` writes it anew."
            )
            continue
        cards += theirs
        accepted += found.accepted
        stack.files.append((path, data))
    if not cards:
        return stack
    catalog, differences = with_overlay(below, cards, accepted)
    return replace(stack, catalog=catalog, differences=differences)


def with_overlay(
    catalog: Catalog, cards: Iterable[ModelInfo], accepted: Iterable[Accepted] = ()
) -> tuple[Catalog, list[Difference]]:
    """The catalog with what `cards` know more, and where they say something else.

    A card is only ever completed by its own provider's list; the id of another provider's card
    is passed over. Doing it twice is doing it once.
    """
    agreed = {_key(one) for one in accepted}
    merged = dict(catalog)
    ids, aliases = _ids(catalog.values()), _aliases(catalog.values())
    differences: list[Difference] = []
    for card in cards:
        mine = match(card, merged, ids, aliases)
        if mine is None:
            merged[card.model_id] = replace(card, aliases=())
            ids.setdefault(card.model_id.lower(), card.model_id)
            mine = card.model_id
        elif merged[mine].provider == card.provider:
            differing = list(_differences(merged[mine], card, agreed))
            merged[mine] = _completed(merged[mine], card, differing)
            differences += differing
        else:
            continue
        differences += _named(merged, mine, card, ids, aliases, agreed)
    return Catalog(merged.values()), differences


def match(
    card: ModelInfo,
    known: Mapping[str, ModelInfo],
    ids: Mapping[str, str],
    aliases: Mapping[str, str],
) -> str | None:
    """The id of the known card for this one: the same id, its alias there, or an alias here that
    is an id of the same provider there. An alias of both proves nothing: `-latest` moves on."""
    name = card.model_id.lower()
    if name in ids or name in aliases:
        return ids.get(name) or aliases[name]
    for alias in card.aliases:
        found = ids.get(alias.lower())
        if found is not None and known[found].provider == card.provider:
            return found
    return None


def matches(catalog: Catalog, cards: Iterable[ModelInfo]) -> dict[str, str | None]:
    """By the id of each of these cards, the id of the catalog's card that it stands for."""
    ids, aliases = _ids(catalog.values()), _aliases(catalog.values())
    return {card.model_id: match(card, catalog, ids, aliases) for card in cards}


def filled(before: ModelInfo | None, after: ModelInfo) -> frozenset[str]:
    """The facts of `after` that an overlay brought, by their paths; all, for a card of its own."""
    known = {} if before is None else facts(before)
    return frozenset(path for path, value in facts(after).items() if known.get(path) != value)


def facts(card: ModelInfo) -> dict[str, Any]:
    """What is known of a card, by path. `status` is a fact, and never unknown."""
    found = {
        f"{group}.{part.name}": value
        for group in GROUPS
        for part in fields(getattr(card, group))
        if (value := getattr(getattr(card, group), part.name)) is not None
    }
    for name in SINGLE:
        if (value := getattr(card, name)) is not None:
            found[name] = value
    return found


# --- one card over another --------------------------------------------------------------------


def _said(card: ModelInfo) -> dict[str, Any]:
    """The facts that a list's card gives."""
    found = facts(card)
    if "type" in card.exceptions:
        del found["type"]
    return found


def _differences(
    mine: ModelInfo, card: ModelInfo, agreed: set[tuple[str, str, str, str]]
) -> Iterator[Difference]:
    known = facts(mine)
    for path, listed in _said(card).items():
        checked = known.get(path)
        if checked is None or path in _WORDS or _same(path, checked, listed):
            continue
        found = Difference(
            mine.model_id,
            path,
            msgspec.to_builtins(checked),
            msgspec.to_builtins(listed),
            next(iter(card.source(path)), None),
        )
        yield replace(found, accepted=_key(found.told) in agreed)


def _same(path: str, checked: Any, listed: Any) -> bool:
    if path in _SETS:
        return set(checked) == set(listed)
    if path == "type":
        return checked == listed or {checked, listed} <= CHATTING
    if path == "status":
        # To be on the list is to answer. That an end is near, a list need not say.
        return checked == listed or (listed is Status.CURRENT and checked is Status.DEPRECATED)
    return bool(checked == listed)


def _completed(mine: ModelInfo, card: ModelInfo, differing: Iterable[Difference]) -> ModelInfo:
    known, said = facts(mine), _said(card)
    won = {one.fact for one in differing if one.accepted}
    taken = {path: said[path] for path in said if path not in known or path in won}
    if "cost.notes" in taken and not taken.keys() & {"cost.input", "cost.output"}:
        del taken["cost.notes"]  # they speak of prices that are not the card's
    ended = taken.get("status", mine.status) is not Status.CURRENT
    if not ended:
        taken.pop("retires", None)
        taken.pop("replaced_by", None)
    if not taken:
        return mine
    groups: dict[str, dict[str, Any]] = {}
    single: dict[str, Any] = {}
    for path, value in taken.items():
        group, dot, part = path.partition(".")
        if dot:
            groups.setdefault(group, {})[part] = value
        else:
            single[path] = value
    if "status" in won and not ended:
        single["retires"] = None
    return replace(
        mine,
        **{group: replace(getattr(mine, group), **parts) for group, parts in groups.items()},
        **single,
        sources={**mine.sources, **{path: card.source(path) for path in taken}},
        exceptions={path: why for path, why in mine.exceptions.items() if path not in taken},
    )


# --- names ------------------------------------------------------------------------------------


def _named(
    merged: dict[str, ModelInfo],
    mine: str,
    card: ModelInfo,
    ids: Mapping[str, str],
    aliases: dict[str, str],
    agreed: set[tuple[str, str, str, str]],
) -> Iterator[Difference]:
    """Gives `mine` the list's names for it, as far as they are free or were accepted."""
    for alias in (card.model_id, *card.aliases):
        owner = ids.get(alias.lower()) or aliases.get(alias.lower())
        if owner == mine:
            continue
        if owner is not None:
            if alias.lower() in ids:
                continue  # a card of its own
            source = next(iter(card.source("aliases")), None)
            found = Difference(mine, f"alias {alias}", owner, mine, source)
            found = replace(found, accepted=_key(found.told) in agreed)
            yield found
            if not found.accepted:
                continue
            left = tuple(a for a in merged[owner].aliases if a.lower() != alias.lower())
            merged[owner] = replace(merged[owner], aliases=left)
        aliases[alias.lower()] = mine
        merged[mine] = replace(merged[mine], aliases=(*merged[mine].aliases, alias))


def _ids(cards: Iterable[ModelInfo]) -> dict[str, str]:
    found: dict[str, str] = {}
    for card in cards:
        found.setdefault(card.model_id.lower(), card.model_id)
    return found


def _aliases(cards: Iterable[ModelInfo]) -> dict[str, str]:
    found: dict[str, str] = {}
    for card in cards:
        for alias in card.aliases:
            found.setdefault(alias.lower(), card.model_id)
    return found


def _key(one: Accepted) -> tuple[str, str, str, str]:
    return (one.model_id, one.fact, json.dumps(one.checked), json.dumps(one.listed))
