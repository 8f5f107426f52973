"""How new a model is: by its knowledge, by a date in its name, by its version in its family.

Cards hold no day of release. A name does more often than not (`-2512`, `-2026-03-05`), and a
family's versions order its members (`gpt-6.1` after `gpt-5.6`), whoever they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from server.registry.cards import CHATTING, ModelInfo

#: Sizes, and parts of a mixture: `27b`, `e4b`, `8x7b`, `270m`, `2.4t`, `a3b`, `16e`, `128k`.
_SIZE: Final = re.compile(r"[ae]?(?:\d+x)?\d+(?:[._]\d+)?[bmtk]|\d+e")
_VERSION: Final = re.compile(r"(?P<letters>[a-z]*)(?P<number>\d+(?:\.\d+)*)(?P<rest>[a-z]?)")
_LETTERS: Final = re.compile(r"^[a-z]*")
_SHORT_DATE: Final = re.compile(r"2[2-9](?:0[1-9]|1[0-2])")
_LONG_DATE: Final = re.compile(r"(20[2-9]\d)(0[1-9]|1[0-2])\d\d")
_YEAR: Final = re.compile(r"20[2-9]\d")
#: Knowledge from before this year is worth nothing, what is from the last of these years is new.
_OLDEST: Final = 2022.0
_NEWEST: Final = 2026.5


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
    tokens = [
        token for token in re.split(r"[-_ :@]+", model_id.rpartition("/")[2].lower()) if token
    ]
    year = None
    kept: list[str] = []
    for place, token in enumerate(tokens):
        if _YEAR.fullmatch(token):
            month = tokens[place + 1] if place + 1 < len(tokens) else ""
            before = tokens[place - 1] if place else ""
            near = next((int(one) for one in (month, before) if one.isdigit() and len(one) == 2), 6)
            year = int(token) + (min(near, 12) - 1) / 12
        elif found := _LONG_DATE.fullmatch(token):
            year = int(found[1]) + (int(found[2]) - 1) / 12
        elif _SHORT_DATE.fullmatch(token):
            year = 2000 + int(token[:2]) + (int(token[2:]) - 1) / 12
        elif not (token.isdigit() and len(token) >= 2 and token[0] in "01" and year is not None):
            kept.append(token)
    at = _version_at(kept)
    family = _LETTERS.findall(kept[0])[0] if kept else ""
    if at is None:
        return Name(family, "-".join(kept), None, year)
    token = kept[at]
    found = _VERSION.fullmatch(token)
    assert found is not None
    version = [int(part) for part in found["number"].split(".")]
    last = at
    # `opus-4-5` is 4.5: one digit after one digit.
    if len(version) == 1 and at + 1 < len(kept) and re.fullmatch(r"\d", kept[at + 1]):
        last = at + 1
        version.append(int(kept[last]))
    rest = [found["letters"].removesuffix("v")] if found["letters"] else []
    line = [*kept[:at], *[one for one in rest if one], *kept[last + 1 :]]
    return Name(family, "-".join(line), tuple(version), year)


def _version_at(tokens: list[str]) -> int | None:
    def good(token: str) -> bool:
        return bool(_VERSION.fullmatch(token)) and not _SIZE.fullmatch(token) and len(token) < 12

    marked = [at for at, one in enumerate(tokens) if good(one) and re.match(r"v\d", one)]
    others = [at for at, one in enumerate(tokens) if good(one) and not re.fullmatch(r"\d{4,}", one)]
    return next(iter([*marked, *others]), None)


class Newest:
    """The newest version of every family and line among these cards."""

    def __init__(self, cards: Iterable[ModelInfo]) -> None:
        self._families: dict[tuple[str, str], tuple[int, ...]] = {}
        self._lines: dict[tuple[str, str], tuple[int, ...]] = {}
        for card in cards:
            name = parse(card.model_id)
            if name.version is not None:
                for known, key in ((self._families, name.family), (self._lines, name.line)):
                    at = (_kind(card), key)
                    known[at] = max(known.get(at, ()), name.version)

    def superseded(self, card: ModelInfo) -> str | None:
        """The newer version of the very same model (`6.1` for `gpt-6-sol`), where there is one."""
        name = parse(card.model_id)
        newest = self._lines.get((_kind(card), name.line), ())
        if name.version is None or newest <= name.version:
            return None
        return ".".join(map(str, newest))

    def generation(self, card: ModelInfo) -> float | None:
        """1 for the newest version of its family, 0 for one of half that number or less."""
        name = parse(card.model_id)
        newest = self._families.get((_kind(card), name.family))
        if name.version is None or newest is None or not _number(newest):
            return None
        return max(0.0, 2 * _number(name.version) / _number(newest) - 1)

    def recency(self, card: ModelInfo) -> float:
        """From 0 to 1: the mean of what is known of its date and its generation; 0: nothing."""
        known = [one for one in (dated(card), self.generation(card)) if one is not None]
        # One sign alone is worth a little less than two that agree.
        return sum(known) / len(known) * (1.0 if len(known) > 1 else 0.9) if known else 0.0


def dated(card: ModelInfo) -> float | None:
    """From 0 to 1, by the later of its knowledge's end and the date in its name."""
    years = [year for year in (_knowledge(card), parse(card.model_id).year) if year is not None]
    if not years:
        return None
    return min(1.0, max(0.0, (max(years) - _OLDEST) / (_NEWEST - _OLDEST)))


def _knowledge(card: ModelInfo) -> float | None:
    date = card.specs.knowledge_date
    if date is None:
        return None
    year, _, rest = date.partition("-")
    return int(year) + (int(rest[:2] or 6) - 1) / 12


def _number(version: tuple[int, ...]) -> float:
    """`6.1` as 6.1, `4.20` as 4.2."""
    return version[0] + (float(f"0.{version[1]}") if len(version) > 1 else 0.0)


def _kind(card: ModelInfo) -> str:
    """Versions are counted apart where the same family name stands on other kinds of models."""
    return "chat" if card.type in CHATTING else card.type.value
