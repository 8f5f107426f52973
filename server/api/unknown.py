"""What a client is told of a model that is not served here."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from server.config.cards import SERVED, account_of
from server.config.model_checks import outlook
from server.config.providers_table import ROWS, key_hint
from server.config.resolve import ResolvedModel
from server.config.schema import Config
from server.registry.cards import AccessMethod, ModelInfo, Status
from server.registry.catalog import Catalog

#: Longer names are no model's, and comparing takes its time.
_LONGEST: Final = 200
#: Comparing a name takes some 20 µs, and a synced catalog may have thousands.
_COMPARED: Final = 256
_PART: Final = re.compile(r"[a-z]+|\d+")


def text(
    name: str,
    models: Mapping[str, ResolvedModel],
    visible: list[str],
    catalog: Catalog,
    config: Config | None = None,
) -> str:
    """Of a name that no model here has: what the registry knows of it, else what is near.
    `visible`: the names that the client may use. `config`: for the accounts that there are."""
    card = catalog.find(name) if len(name) <= _LONGEST else None
    if card is not None:
        account = account_of(config, card.provider) if config is not None else None
        known = _of_card(card, models, visible, catalog, account)
        return f"The model `{name}` is not served here. {known}"
    if near := near_matches(name, visible):
        hint = "Did you mean " + " or ".join(f"`{n}`" for n in near) + "?"
    elif visible:
        hint = "GET /v1/models lists the models of this server."
    else:
        hint = "This server has no models configured that this key may use."
    return f"The model `{name[:_LONGEST]}` does not exist. {hint}"


def _of_card(
    card: ModelInfo,
    models: Mapping[str, ResolvedModel],
    visible: list[str],
    catalog: Catalog,
    account: str | None,
) -> str:
    if card.status is Status.RETIRED:
        after = catalog.successor(card)
        return f"{outlook(card, catalog)}{_served(after, models, visible) if after else ''}"
    if served := _names_of(card, models, visible):
        return f"This server has it as `{served}`."
    if card.access_method is AccessMethod.LOCAL:
        return f"Its weights can be served: an engine with `weights: {card.model_id}`."
    if card.type not in SERVED:
        return f"The registry knows it at {card.provider}, but this server serves no {card.type}."
    if account is not None:
        return (
            f"The registry knows it at {card.provider}, where this server has an account: keys "
            f"that may use `{account}/*` can ask for `{account}/{card.model_id}`."
        )
    row = ROWS.get(card.provider)
    if row is None or not row.variables:
        return f"The registry knows it at {card.provider}, which is not configured here."
    return (
        f"The registry knows it at {card.provider}: {key_hint(row)} for the server, then add it "
        "under `models` in its config, or set `catalog: auto`."
    )


def _served(card: ModelInfo, models: Mapping[str, ResolvedModel], visible: list[str]) -> str:
    name = _names_of(card, models, visible)
    return f" This server has that as `{name}`." if name else " This server does not have that."


def _names_of(
    card: ModelInfo, models: Mapping[str, ResolvedModel], visible: list[str]
) -> str | None:
    """The first name of a model here that has this card."""
    return next(
        (
            name
            for name in visible
            if (found := models[name].about.card) is not None and found.model_id == card.model_id
        ),
        None,
    )


def near_matches(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Names that the client may have meant, best first."""
    if len(name) > _LONGEST:
        return []
    folded = {k.lower(): k for k in known}
    wanted = name.lower()
    near = difflib.get_close_matches(wanted, _likeliest(wanted, folded), n=most, cutoff=0.55)
    inside = [
        k for k in folded if k not in near and len(wanted) > 2 and (wanted in k or k in wanted)
    ]
    return [folded[k] for k in [*near, *inside][:most]]


def _likeliest(wanted: str, known: Collection[str]) -> Collection[str]:
    """Those that are worth the comparing: with most parts of the name, if there are too many."""
    if len(known) <= _COMPARED:
        return known
    parts = sorted(set(_PART.findall(wanted)), key=len, reverse=True)[:6]
    return heapq.nlargest(_COMPARED, known, key=lambda k: sum(part in k for part in parts))
