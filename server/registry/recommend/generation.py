"""How new a model is: by its knowledge, by a date in its name, by its version in its family.

Cards hold no day of release. A name does more often than not (`-2512`, `-2026-03-05`), knowledge
ends some months before, and a family's versions order its members (`gpt-6.1` after `gpt-5.6`),
whoever they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from server.registry.cards import CHATTING, ModelInfo

#: Sizes, and parts of a mixture: `27b`, `e4b`, `8x7b`, `270m`, `2.4t`, `a3b`, `16e`, `r7b`.
_SIZE: Final = re.compile(r"[aer]?(?:\d+x)?\d+(?:[._]\d+)?[bmtk]|\d+e")
_VERSION: Final = re.compile(r"(?P<letters>[a-z]*)\.?(?P<number>\d+(?:\.\d+)*)(?P<rest>[a-z]?)")
_LETTERS: Final = re.compile(r"^[a-z]*")
#: `2026-03-05`, `20260305`, `2026-03`, `03-2026`, `2603`, `2026`: year and month.
_DATE: Final = re.compile(
    r"(?<![\d.])(?:"
    r"(?P<year>20[2-3]\d)-?(?P<month>0[1-9]|1[0-2])(?:-?[0-3]\d)?"
    r"|(?P<late_month>0[1-9]|1[0-2])-(?P<late_year>20[2-3]\d)"
    r"|(?P<short_year>2[2-9])(?P<short_month>0[1-9]|1[0-2])"
    r"|(?P<only_year>20[2-3]\d)"
    r")(?![\d.])"
)
#: A month and a day without a year say nothing of age: `0813`.
_DAY: Final = re.compile(r"(?<![\d.])(?:0[1-9]|1[0-2])[0-3]\d(?![\d.])")
#: Ways of using or stages of one and the same model: they make no other line.
_MODES: Final = frozenset({"reasoning", "non", "thinking", "preview", "latest"})
#: What came out before the first is worth nothing, what came out after the second is new.
_OLDEST: Final = 2022.0
_NEWEST: Final = 2026.75
#: Years lose more the older they are: what is half as new is worth 0.35.
_STEEP: Final = 1.5
#: Years from the end of a model's knowledge to its release, as a rule.
_BEHIND: Final = 0.5
#: Years in which a family doubles its version: Qwen went from 3 to 3.8 in one.
_PACE: Final = 4.0
#: Windows have grown with the years: what was usual when, and how often a year it doubled.
_USUAL_WINDOW: Final = {"chat": (4096, 2023.0, 2.5), "other": (512, 2021.5, 2.0)}
#: The newest version's year in a family of which neither date nor window is known.
_UNDATED: Final = 2024.0


@dataclass(frozen=True, slots=True)
class Name:
    """What a model's id says. `line`: its id without version and date: `gpt-sol`."""

    family: str
    line: str
    version: tuple[int, ...] | None = None
    year: float | None = None


@lru_cache(maxsize=4096)
def parse(model_id: str) -> Name:
    """An id's parts. The first number that is no size and no date is the version; one that is
    written with a `v` comes before."""
    text = model_id.rpartition("/")[2].lower()
    year = None
    if dated := _DATE.search(text):
        part = dated.groupdict()
        whole = part["year"] or part["late_year"] or part["only_year"] or f"20{part['short_year']}"
        # The middle of the year, where no month is told.
        month = part["month"] or part["late_month"] or part["short_month"] or 7
        year = int(whole) + (int(month) - 1) / 12
    text = _DAY.sub("", _DATE.sub("", text))
    kept = [token for token in re.split(r"[-_ :@]+", text) if token]
    family = _LETTERS.findall(kept[0])[0] if kept else ""
    at = _version_at(kept)
    if at is None:
        return Name(family, "-".join(kept), None, year)
    token = kept[at]
    found = _VERSION.fullmatch(token)
    assert found is not None
    version = [int(one) for one in found["number"].split(".")]
    last = at
    # `opus-4-5` is 4.5: one digit after one digit.
    if len(version) == 1 and at + 1 < len(kept) and re.fullmatch(r"\d", kept[at + 1]):
        last = at + 1
        version.append(int(kept[last]))
    letters = found["letters"].removesuffix("v")
    if letters and at:  # series count on their own: `DeepSeek-R1`, `Falcon-H1`
        family = f"{family}-{letters}"
    line = [*kept[:at], *([letters] if letters else []), *kept[last + 1 :]]
    line = [token for token in line if token not in _MODES]
    return Name(family, "-".join(line), tuple(version), year)


def _version_at(tokens: list[str]) -> int | None:
    def good(token: str) -> bool:
        return bool(_VERSION.fullmatch(token)) and not _SIZE.fullmatch(token) and len(token) < 12

    marked = [at for at, one in enumerate(tokens) if good(one) and re.match(r"v\d", one)]
    others = [at for at, one in enumerate(tokens) if good(one) and not re.fullmatch(r"\d{4,}", one)]
    return next(iter([*marked, *others]), None)


#: A kind of model, its maker, and a family's or a line's name.
Key: TypeAlias = tuple[str, str, str]


class Newest:
    """The newest of every family and line among these cards."""

    def __init__(self, cards: Iterable[ModelInfo]) -> None:
        self._families: dict[Key, float] = {}
        self._lines: dict[Key, tuple[int, ...]] = {}
        #: Of each family the newest version whose year is known, else any: (known, version, year)
        self._anchors: dict[Key, tuple[bool, float, float]] = {}
        cards = list(cards)
        alive: dict[Key, float] = {}
        for card in cards:
            family, _ = _keys(card)
            alive[family] = max(alive.get(family, 0.0), released(card) or 0.0)
        for card in cards:
            name = parse(card.model_id)
            if name.version is None:
                continue
            family, line = _keys(card)
            version, year = _number(name.version), released(card)
            self._lines[line] = max(self._lines.get(line, (0,)), name.version, key=_number)
            self._families[family] = max(self._families.get(family, 0.0), version)
            about = min(year or alive[family] or _by_window(card), _NEWEST)
            anchor = (year is not None, version, about)
            self._anchors[family] = max(self._anchors.get(family, anchor), anchor)

    def superseded(self, card: ModelInfo) -> str | None:
        """The newer version of the very same model (`6.1` for `gpt-6-sol`), where there is one."""
        name = parse(card.model_id)
        newest = self._lines.get(_keys(card)[1], (0,))
        if name.version is None or _number(newest) <= _number(name.version):
            return None
        return ".".join(map(str, newest))

    def latest(self, card: ModelInfo) -> bool:
        """Whether no card of its family has a higher version."""
        name = parse(card.model_id)
        if name.version is None:
            return False
        return _number(name.version) >= self._families.get(_keys(card)[0], 0.0)

    def recency(self, card: ModelInfo) -> float:
        """From 0 to 1; 0: nothing is known. The mean of what its own dates and its version say, or
        else what its window does."""
        years = [year for year in (released(card), self._by_version(card)) if year is not None]
        if not years and card.specs.context_window:
            years = [_by_window(card)]
        return sum(map(_age, years)) / len(years) if years else 0.0

    def _by_version(self, card: ModelInfo) -> float | None:
        """The year of its family's newest member with a date, and from there by the pace at which
        versions go up."""
        name = parse(card.model_id)
        anchor = self._anchors.get(_keys(card)[0])
        if name.version is None or anchor is None or not anchor[1]:
            return None
        _, version, year = anchor
        return year + _PACE * (_number(name.version) / version - 1)


def released(card: ModelInfo) -> float | None:
    """About the year of its release, by the latest of its names' dates and its knowledge."""
    named = (parse(name).year for name in (card.model_id, *card.aliases))
    return max((year for year in (_from_knowledge(card), *named) if year is not None), default=None)


def _by_window(card: ModelInfo) -> float:
    if not card.specs.context_window:
        return _UNDATED
    usual, year, doublings = _USUAL_WINDOW["chat" if card.type in CHATTING else "other"]
    return year + math.log2(card.specs.context_window / usual) / doublings


def _age(year: float) -> float:
    return float(min(1.0, max(0.0, (year - _OLDEST) / (_NEWEST - _OLDEST))) ** _STEEP)


def _from_knowledge(card: ModelInfo) -> float | None:
    date = card.specs.knowledge_date
    if date is None:
        return None
    year, _, rest = date.partition("-")
    return int(year) + (int(rest[:2] or 6) - 1) / 12 + _BEHIND


def _number(version: tuple[int, ...]) -> float:
    """As a decimal, since that is how they are counted: Grok 4.20 came before 4.3."""
    return version[0] + (float(f"0.{version[1]}") if len(version) > 1 else 0.0)


def _keys(card: ModelInfo) -> tuple[Key, Key]:
    """Of its family and of its line: both within one maker's models of one kind, since two makers
    may take the same name, and versions of other kinds are counted apart."""
    name = parse(card.model_id)
    within = (_kind(card), card.origin.creator or card.provider)
    return (*within, name.family), (*within, name.line)


def _kind(card: ModelInfo) -> str:
    return "chat" if card.type in CHATTING else card.type.value
