"""The score of a card for a task: parts between 0 and 1, weighed by the task's profile.

What a card does not say counts as 0, never as an average.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Final

from server.registry.cards import ModelInfo, ModelType, SizeClass
from server.registry.recommend.constraints import Constraints, blended
from server.registry.recommend.generation import Newest
from server.registry.recommend.memory import Fit
from server.registry.recommend.profiles import (
    BY_INVITATION,
    BY_THE_WAY,
    GENERAL,
    NAMED,
    PREVIEW,
    QUANTISED,
    SPECIALIST,
    SUPERSEDED,
    Profile,
    Weights,
)

#: Weights without a machine named: what it takes to run them.
_REACH: Final = {
    SizeClass.TINY: 1.0,
    SizeClass.SMALL: 0.9,
    SizeClass.MEDIUM: 0.7,
    SizeClass.LARGE: 0.4,
    SizeClass.HUGE: 0.15,
}
#: Windows that count as none and as all that one could wish.
_WINDOWS: Final = (4096, 2**20)
#: Dollars per million tokens, blended, that count as dear and as next to nothing.
_PRICES: Final = (10.0, 0.1)
#: `-A3B` in an id: three billion active parameters.
_ACTIVE: Final = re.compile(r"-A(\d+(?:\.\d+)?)B\b", re.IGNORECASE)
#: Up to here a model is dense unless its card says otherwise.
_DENSE: Final = 40e9
_JUDGING: Final = frozenset({"safety", "classification"})
_PREVIEW: Final = re.compile(r"^labs-|-(preview|exp|experimental|beta)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parts:
    """Each from 0 to 1. Named as in Weights."""

    strength: float
    recency: float
    advised: float
    cheap: float
    window: float
    abilities: float
    reach: float


def parts(
    card: ModelInfo, task: str, profile: Profile, demands: Constraints, fits: Fit | None, of: Newest
) -> Parts:
    return Parts(
        strength=_strength(card, profile, fits),
        recency=of.recency(card),
        advised=_advised(card, task, profile),
        cheap=_cheap(card, demands),
        window=_between(card.specs.context_window, _WINDOWS),
        abilities=_share(card, profile.abilities),
        reach=_reach(card, demands),
    )


def score(card: ModelInfo, task: str, profile: Profile, found: Parts, of: Newest) -> float:
    """From 0 to 100."""
    weights = profile.weights
    names = [one.name for one in fields(Weights)]
    whole = sum(getattr(weights, name) for name in names)
    value: float = sum(getattr(weights, name) * getattr(found, name) for name in names) / whole
    if specialist(card, task, profile) is not None:
        value *= SPECIALIST
    if profile.types and card.type not in profile.types:
        value *= BY_THE_WAY
    if of.superseded(card) is not None or card.replaced_by is not None:
        value *= SUPERSEDED
    if preview(card):
        value *= PREVIEW
    if by_invitation(card) is not None:
        value *= BY_INVITATION
    return 100 * value


def specialist(card: ModelInfo, task: str, profile: Profile) -> str | None:
    """What it is made for, where that is neither this task nor anything general."""
    name = card.model_id.rpartition("/")[2].lower()
    for word, tasks in NAMED.items():
        if word in name and task not in tasks:
            return word
    made_for = set(card.recommended)
    if made_for and not made_for & (GENERAL | {task, *profile.related}):
        return ", ".join(card.recommended)
    return None


def preview(card: ModelInfo) -> bool:
    return _PREVIEW.search(card.model_id.rpartition("/")[2]) is not None


def by_invitation(card: ModelInfo) -> str | None:
    """How a provider lets one in, where it does not let everybody. (Terms of weights on the hub
    are accepted in a minute, and are no invitation.)"""
    if card.local:
        return None
    if card.licence.gated:
        return card.licence.access or "only for whom its provider lets in"
    return next((one for one in card.limitations if one.startswith("Only for ")), None)


def _strength(card: ModelInfo, profile: Profile, fits: Fit | None) -> float:
    """By size where it is told; else by price, since providers ask more for more. (What routers
    ask for open weights tells of their rivals, not of the model.)"""
    if card.specs.parameters is None:
        return 0.0 if card.local else _between(blended(card), profile.prices)
    # Of a mixture of experts: between what it knows (all) and what it thinks with (active).
    size = _between(math.sqrt(card.specs.parameters * _active(card)), profile.sizes)
    return size * (QUANTISED[fits.format] if fits is not None else 1.0)


def _active(card: ModelInfo) -> float:
    """Active parameters; of a large model that does not tell them, as many as a mixture's would
    be, for most of that size are mixtures and to take it for a dense one would flatter it."""
    total = card.specs.parameters or 0
    if card.specs.active_parameters is not None:
        return card.specs.active_parameters
    if told := _ACTIVE.search(card.model_id):
        return float(told[1]) * 1e9
    return total if total <= _DENSE else total / 8


def _advised(card: ModelInfo, task: str, profile: Profile) -> float:
    if task in card.recommended:
        return 1.0
    return 0.5 if set(profile.related) & set(card.recommended) else 0.0


def _cheap(card: ModelInfo, demands: Constraints) -> float:
    if demands.offline or demands.memory_bytes is not None:
        return 1.0  # nobody is paid, so nobody is dear
    return _between(blended(card), _PRICES)


def _share(card: ModelInfo, abilities: tuple[str, ...]) -> float:
    if not abilities:
        return 0.0
    return sum(getattr(card.abilities, one) is True for one in abilities) / len(abilities)


def _reach(card: ModelInfo, demands: Constraints) -> float:
    if not card.local or demands.offline or demands.memory_bytes is not None:
        return 1.0  # asked over the network, known to fit, or there is no other way
    size = card.specs.size_class
    return 0.0 if size is None else _REACH[size]


def _between(value: float | None, bounds: tuple[float, float]) -> float:
    """Where a value stands between two bounds by its logarithm, from 0 to 1; unknown is 0."""
    if value is None:
        return 0.0
    low, high = bounds
    if value <= 0:  # a price of nothing
        return 1.0 if low > high else 0.0
    return min(1.0, max(0.0, math.log(value / low) / math.log(high / low)))


def candidate(card: ModelInfo, task: str, profile: Profile) -> bool:
    """Is it of the kind that does this task at all?"""
    if task != "safety" and "safety" in card.recommended and set(card.recommended) <= _JUDGING:
        return False  # it says `safe` or `unsafe` to whatever it is asked
    if card.type not in profile.types and not (profile.by_advice and task in card.recommended):
        return False
    if profile.local and not card.local:
        return False
    if profile.priced and blended(card) is None:
        return False
    if any(getattr(card.abilities, need) is not True for need in profile.needs) and (
        card.type is not ModelType.VISION
    ):
        return False
    if profile.most_parameters is not None and (
        card.specs.parameters is None or card.specs.parameters > profile.most_parameters
    ):
        return False
    return set(profile.inputs) <= set(card.specs.input_modalities or ()) and set(
        profile.outputs
    ) <= set(card.specs.output_modalities or ())
