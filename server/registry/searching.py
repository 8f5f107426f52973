"""Finding cards by words, as people type them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from server.registry.cards import ModelInfo, ModelType, Status
from server.registry.words import BY_WORD

_WORD: Final = re.compile(r"[a-z]+|\d+(?:\.\d+)*")
_PLUS: Final = re.compile(r"(?<=[a-z])\+")
#: Numbers of an id that are no version: how large it is (`7b`, `8x7b`, `a3b`), and days (`2512`,
#: `2024-05-13`, `08-2024`).
_NO_VERSION: Final = re.compile(
    r"\d+(?:\.\d+)?(?:x\d+)?[bmk]\b|\b\d\d-20\d\d\b|\b20\d\d(?:-\d\d)+\b|\d{4,}"
)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
#: Parts of an id that tell no model from another.
_PLAIN: Final = re.compile(r"v?\d.*|[ae]\d+b|instruct|it|chat|hf|meta|latest|preview")
#: Between two names of one field, so that no phrase reaches from one into the other.
_GAP: Final = ""
#: Who wants what goes on with a text says so.
_BASES: Final = frozenset({"base", "completion", "pt", "pretrained"})
#: So many of the fields are names.
_NAMING: Final = 2
#: Below that a piece of a word is in half of all names.
_PIECE: Final = 4
_EXACT, _LAST_PART, _NAME = 100.0, 50.0, 4.0
#: For words that follow each other, by the weight of their field; against each word too many.
_TOGETHER, _MORE = 0.15, 1.5
_STATUS: Final = {Status.CURRENT: 1.0, Status.DEPRECATED: 0.8, Status.RETIRED: 0.6}


def search(
    catalog: Mapping[str, ModelInfo],
    query: str,
    limit: int | None = None,
    *,
    names_only: bool = False,
) -> list[ModelInfo]:
    """Cards that have every word of the query, the best first; with `names_only`, in their ids,
    aliases and names. Raises ValueError for a `limit` below 0."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative: {limit}.")
    said = _PLUS.sub(" plus", query.strip().lower())
    words = _WORD.findall(said)
    if not words:
        return []
    ranked = []
    for place, card in enumerate(catalog.values()):
        fields = _fields(card)[: _NAMING if names_only else None]
        if score := _score(card, fields, said, words):
            by_name = any(word in fields[0][1] for word in words)
            ranked.append((-round(score, 6), _newest(card) if by_name else (), place, card))
    ranked.sort(key=lambda entry: entry[:-1])
    found = [card for *_, card in ranked] or _containing(catalog.values(), _squeezed(said))
    return found[:limit]


def _fields(card: ModelInfo) -> list[tuple[float, list[str]]]:
    """What it is searched by: what a word is worth there, and the words."""
    kind = card.licence.kind.value if card.licence.kind else ""
    texts = (
        (8.0, [card.model_id, *card.aliases]),
        (5.0, [card.name]),
        (4.0, [card.provider, card.origin.creator or ""]),
        (3.0, [card.type.value, *card.recommended, card.specs.architecture or ""]),
        (1.0, [card.description]),
        (1.0, [card.licence.id or "", kind, card.origin.base or ""]),
    )
    return [(weight, _words(some)) for weight, some in texts]


def _score(
    card: ModelInfo, fields: Sequence[tuple[float, list[str]]], said: str, words: Sequence[str]
) -> float:
    """0 where a word is nowhere."""
    score = 0.0
    for word in words:
        best = max(weight * _match(word, known) for weight, known in fields)
        if len(fields) > _NAMING:
            best = max(best, _meant(word, card))
        if best == 0:
            return 0.0  # every word must be somewhere
        score += best
    if len(words) > 1:
        score += max(_TOGETHER * weight * _together(words, known) for weight, known in fields)
    score += _whole(card, _squeezed(said))
    if any(word in fields[0][1] for word in words):
        score -= _MORE * min(3, _more(card, words))
    if card.type is ModelType.COMPLETION and not _BASES.intersection(words):
        score -= 1  # who asks for a family seldom means what it was trained from
    return max(score, 0.1) * _STATUS[card.status]


def _words(texts: Iterable[str]) -> list[str]:
    found: list[str] = []
    for text in texts:
        found += (*_WORD.findall(text.lower()), _GAP)
    return found


def _match(word: str, known: Sequence[str]) -> float:
    """1 for the word, 0.6 for its beginning, 0 for none."""
    if word in known:
        return 1.0
    if len(word) > 1 and word.isalpha() and any(one.startswith(word) for one in known):
        return 0.6
    return 0.0


def _meant(word: str, card: ModelInfo) -> float:
    """For a word that stands for a task: `cheap`, `rag`."""
    return 2.0 if BY_WORD.get(word) in card.recommended else 0.0


def _together(words: Sequence[str], known: Sequence[str]) -> bool:
    """Do the words follow each other? `llama 3 8b` is no `Llama-Guard-3-8B`."""
    count = len(words)
    return any(
        known[at : at + count] == words
        for at in range(len(known) - count + 1)
        if known[at] == words[0]
    )


def _whole(card: ModelInfo, said: str) -> float:
    """For what the card is called, however it is written: `gpt4o mini` is `gpt-4o-mini`."""
    ids = [name.lower() for name in (card.model_id, *card.aliases)]
    if any(_squeezed(name) == said for name in ids):
        return _EXACT
    if any(_squeezed(name.rpartition("/")[2]) == said for name in ids):
        return _LAST_PART
    return _NAME if _squeezed(card.name.lower()) == said else 0.0


def _squeezed(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum())


def _containing(cards: Iterable[ModelInfo], piece: str) -> list[ModelInfo]:
    """For words that nobody divides as we do: `gptoss`."""
    if len(piece) < _PIECE:
        return []
    found = [
        card
        for card in cards
        if any(piece in _squeezed(name.lower()) for name in (card.model_id, *card.aliases))
    ]
    return sorted(found, key=lambda card: card.status is not Status.CURRENT)


def _more(card: ModelInfo, words: Sequence[str]) -> int:
    """How many parts of its name were not asked for: `guard`, `distill`, `lite`. Of several names
    the nearest counts."""

    def spare(name: str) -> int:
        parts = re.split(r"[-_.:]", name.rpartition("/")[2].lower())
        return sum(
            not _PLAIN.fullmatch(part) and not any(word in words for word in _WORD.findall(part))
            for part in parts
        )

    return min(map(spare, (card.model_id, *card.aliases)))


def _newest(card: ModelInfo) -> tuple[float, ...]:
    """Puts the newer version before the older."""
    last = card.model_id.rpartition("/")[2].lower()
    numbers = [-float(one) for one in _NUMBER.findall(_NO_VERSION.sub(" ", last))][:4]
    return (*numbers, *[0.0] * (4 - len(numbers)))
