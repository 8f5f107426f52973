"""What must hold, and which of it a card fails. What is not known fails, and is told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from server.registry.cards import Abilities, AccessMethod, LicenceKind, ModelInfo, ModelType, Status
from server.registry.recommend.memory import Fit, fit

#: What `licence` may ask for, and what it means.
LICENCES: Final = {
    "any": "no demand",
    "commercial": "may be used for profit",
    "open-weights": "weights for all, under whatever terms",
    "open-source": "weights under a licence of the OSI",
}
ABILITIES: Final = tuple(one.name for one in fields(Abilities))
#: What models take in.
MODALITIES: Final = ("text", "image", "audio", "video", "file")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a model must fulfil. Each is a demand; a card that does not say fails it.

    `context`: tokens that the window must hold. `max_price`: dollars per million tokens, blended
    of three parts input and one part output (see `blended`). `licence`: a key of LICENCES.
    `memory_bytes`: its weights must fit in here, see `memory`; what has no weights cannot.
    `offline`: its weights can be had.
    `providers`: one of them answers for it. A model that runs here needs nobody: leave it None
    then. `needs`: abilities that it must have. `modalities`: what it must take in.
    `languages`: ISO 639 codes that it must know. Retired models never come, deprecated ones only
    with `include_deprecated`.

    Raises ValueError for a word that is none.
    """

    context: int | None = None
    max_price: float | None = None
    licence: str = "any"
    memory_bytes: int | None = None
    offline: bool = False
    providers: frozenset[str] | None = None
    needs: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    include_deprecated: bool = False

    def __post_init__(self) -> None:
        if self.licence not in LICENCES:
            raise ValueError(f"{self.licence!r} is no demand on a licence: {', '.join(LICENCES)}.")
        for need in sorted(self.needs):
            if need not in ABILITIES:
                raise ValueError(f"{need!r} is no ability: {', '.join(ABILITIES)}.")
        for one in sorted(self.modalities):
            if one not in MODALITIES:
                raise ValueError(f"{one!r} is nothing that models take: {', '.join(MODALITIES)}.")
        for language in sorted(self.languages):
            if not _LANGUAGE.fullmatch(language):
                raise ValueError(f"{language!r} is no ISO 639 code: write de, ja or zh.")


def blended(card: ModelInfo) -> float | None:
    """Dollars per million tokens, three of input to one of output; None where one is unknown.
    Embeddings and scores have no output that is paid."""
    if card.cost.input is None:
        return None
    if card.type in (ModelType.EMBEDDING, ModelType.RERANK, ModelType.CLASSIFICATION):
        return card.cost.input
    if card.cost.output is None:
        return None
    return (3 * card.cost.input + card.cost.output) / 4


def fitting(card: ModelInfo, demands: Constraints, quantised: bool = True) -> Fit | None:
    """How it fits the memory; None where it does not, or where no memory is given."""
    if demands.memory_bytes is None:
        return None
    return fit(card, demands.memory_bytes, quantised=quantised)


def failures(card: ModelInfo, demands: Constraints, quantised: bool = True) -> Iterator[str]:
    """A short name of every demand that the card fails; ` unknown` at its end where the card does
    not say. `quantised`: as in `memory.fit`."""
    yield from _status(card, demands)
    if demands.providers is not None and (
        card.provider not in demands.providers or card.access_method is AccessMethod.LOCAL
    ):
        yield "provider"
    yield from _weights(card, demands, quantised)
    if demands.context is not None:
        yield from _at_least("context", card.specs.context_window, demands.context)
    if demands.max_price is not None:
        price = blended(card)
        if price is None or price > demands.max_price:
            yield "max_price unknown" if price is None else "max_price"
    yield from _licence(card, demands)
    for need in sorted(demands.needs):
        known: bool | None = getattr(card.abilities, need)
        if known is not True:
            yield f"needs {need} unknown" if known is None else f"needs {need}"
    yield from _holds("modality", card.specs.input_modalities, demands.modalities)
    yield from _holds("language", card.specs.languages, demands.languages)


def _status(card: ModelInfo, demands: Constraints) -> Iterator[str]:
    if card.status is Status.RETIRED:
        yield "retired"
    elif card.status is Status.DEPRECATED and not demands.include_deprecated:
        yield "deprecated"


def _weights(card: ModelInfo, demands: Constraints, quantised: bool) -> Iterator[str]:
    if not card.local:
        if demands.offline or demands.memory_bytes is not None:
            yield "weights"
    elif demands.memory_bytes is not None and fitting(card, demands, quantised) is None:
        yield "memory unknown" if card.specs.parameters is None else "memory"


def _licence(card: ModelInfo, demands: Constraints) -> Iterator[str]:
    kind, commercial = card.licence.kind, card.licence.commercial_use
    held: bool | None = True
    if demands.licence == "commercial":
        held = commercial
    elif demands.licence == "open-weights":
        held = None if kind is None else kind is not LicenceKind.PROPRIETARY
    elif demands.licence == "open-source":
        held = card.licence.open_source
    if held is not True:
        yield "licence unknown" if held is None else "licence"


def _at_least(name: str, value: int | None, least: int) -> Iterator[str]:
    if value is None:
        yield f"{name} unknown"
    elif value < least:
        yield name


def _holds(name: str, known: tuple[str, ...] | None, wanted: frozenset[str]) -> Iterator[str]:
    for one in sorted(wanted):
        if known is None:
            yield f"{name} {one} unknown"
        elif one not in known:
            yield f"{name} {one}"
