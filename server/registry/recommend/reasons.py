"""Why a model was chosen, and what speaks against it: short, with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from server.registry.cards import AccessMethod, LicenceKind, ModelInfo, Status
from server.registry.recommend.constraints import Constraints, blended
from server.registry.recommend.generation import Newest
from server.registry.recommend.memory import Fit, stored
from server.registry.recommend.profiles import Profile
from server.registry.recommend.ranking import by_invitation, preview, specialist

_ABILITY_NAMES: Final = {"json_schema": "structured output"}
#: Tokens that the allowance for the cache is not meant for.
_ROOMY: Final = 16_384
#: The newest of a family that nobody goes on with is no news.
_RECENT: Final = 0.5


def because(
    card: ModelInfo, task: str, profile: Profile, demands: Constraints, fits: Fit | None, of: Newest
) -> Iterator[str]:
    """Good reasons, the weightiest first."""
    if task in card.recommended:
        yield f"made or recommended for {task}"
    elif near := [one for one in profile.related if one in card.recommended]:
        yield f"recommended for {near[0]}, which is related"
    if fits is not None:
        yield str(fits)
    yield from _window(card, profile, demands)
    if not (demands.offline or demands.memory_bytes):
        yield from _price(card)
    if card.specs.parameters is not None:
        yield _size(card)
    if of.latest(card) and of.recency(card) > _RECENT:
        yield "newest generation of its family"
    if card.specs.knowledge_date is not None:
        yield f"knowledge until {card.specs.knowledge_date[:7]}"
    wanted = dict.fromkeys((*profile.needs, *sorted(demands.needs), *profile.abilities))
    if able := [one for one in wanted if getattr(card.abilities, one) is True]:
        yield "has " + ", ".join(_ABILITY_NAMES.get(one, one) for one in able)
    if demands.languages:
        yield "languages: " + ", ".join(sorted(demands.languages))
    if demands.licence != "any" or card.licence.open_source:
        yield _licence(card)


def but(
    card: ModelInfo, task: str, profile: Profile, demands: Constraints, fits: Fit | None, of: Newest
) -> Iterator[str]:
    """Caveats."""
    if card.status is Status.DEPRECATED:
        yield "deprecated" + (f", gone on {card.retires}" if card.retires else "")
    if card.replaced_by is not None:
        yield f"its makers advise {card.replaced_by} instead"
    elif (newer := of.superseded(card)) is not None:
        yield f"there is a version {newer} of it"
    if preview(card):
        yield "a preview: it may change or go any day"
    if (made_for := specialist(card, task, profile)) is not None:
        yield f"made for {made_for}"
    if (invitation := by_invitation(card)) is not None:
        yield invitation[:1].lower() + invitation[1:].removesuffix(".")
    elif card.licence.gated:
        yield "gated: accept its terms on the hub first"
    here = demands.offline or fits is not None or card.access_method is AccessMethod.LOCAL
    yield from _terms(card, here)
    if not card.local and blended(card) is None and not card.cost.other:
        yield "its price is not known"
    if fits is not None and fits.format not in ("bf16", stored(card)):
        yield f"only as {fits.format}: look for quantised weights, or let the engine quantise"
    if fits is not None and (demands.context or 0) > _ROOMY:
        yield f"the cache of {demands.context:,} tokens needs more memory than that"
    yield from profile.caveats


def _window(card: ModelInfo, profile: Profile, demands: Constraints) -> Iterator[str]:
    window = card.specs.context_window
    if window is None:
        return
    if demands.context is not None:
        yield f"window {window:,} ≥ {demands.context:,}"
    elif profile.weights.window:
        yield f"window {window:,}"


def _price(card: ModelInfo) -> Iterator[str]:
    cost = card.cost
    if cost.input == 0 and not cost.output:
        yield "free of charge"
    elif cost.input is not None and cost.output is not None:
        yield f"{dollars(cost.input)} in / {dollars(cost.output)} out per million"
    elif cost.input is not None:
        yield f"{dollars(cost.input)} per million"
    elif cost.other:
        unit, price = next(iter(cost.other.items()))
        yield f"{dollars(price)} per {unit}"


def dollars(price: float) -> str:
    """`$0.15`, `$2.00`, `$0.0375`."""
    text = f"{price:.4f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"


def _size(card: ModelInfo) -> str:
    total = card.specs.parameters or 0
    active = card.specs.active_parameters
    text = f"{_count(total)} parameters"
    return text if active in (None, total) else f"{text}, {_count(active or 0)} active"


def _count(number: int) -> str:
    for size, name in ((1e12, "trillion"), (1e9, "billion")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number / 1e6:.3g} million"


def _licence(card: ModelInfo) -> str:
    name = card.licence.id or card.licence.name or "a licence"
    if card.licence.open_source:
        return f"{name}, open source"
    return f"{name}, commercial use" if card.licence.commercial_use else name


def _terms(card: ModelInfo, here: bool) -> Iterator[str]:
    licence = card.licence
    if licence.commercial_use is False:
        yield f"not for commercial use ({licence.id or licence.name or 'its licence'})"
    elif licence.commercial_use is None:
        yield "whether it may be used commercially is not known"
    elif here and licence.conditions and licence.kind is LicenceKind.OPEN_WEIGHTS:
        yield f"{licence.id or 'its licence'}: {licence.conditions.removesuffix('.')}"
