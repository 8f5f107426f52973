"""What a model's card adds to what the config says of it. Pure.

The config's word always wins. Nothing is guessed: a price is known only from the config, or from
the card of the very provider that is asked.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from server.config.engine import Engine
from server.config.model import NO_DEFAULTS, Model, Target, plain
from server.config.parts import UPSTREAM
from server.config.providers_table import ROWS
from server.config.schema import Config
from server.protocol import older
from server.registry.cards import AccessMethod, ModelInfo, ModelType, Status
from server.registry.catalog import Catalog

#: Types that a surface of this server is for.
SERVED: Final = frozenset(
    {
        ModelType.CHAT,
        ModelType.INSTRUCT,
        ModelType.MULTIMODAL,
        ModelType.COMPLETION,
        ModelType.EMBEDDING,
        ModelType.RERANK,
    }
)
#: The name that stands for the model under the key `default`. No card has it.
DEFAULT: Final = "default"
#: Cohere's own names of parameters, as they stand on its cards.
_OPENAIS: Final = {"p": "top_p", "k": "top_k"}
_LOCAL: Final = AccessMethod.LOCAL
_UPSTREAM: Final = re.compile(UPSTREAM)
#: Those of a card, and one that only the config tells.
ABILITIES: Final = tuple("streaming tools json_schema vision audio reasoning logprobs n".split())


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens; None is unknown, 0 is free."""

    input: float | None = None
    cached_input: float | None = None
    output: float | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a model: the config's word, else the card's."""

    card: ModelInfo | None = None
    type: ModelType | None = None
    context_window: int | None = None
    max_output: int | None = None
    abilities: Mapping[str, bool] = field(default_factory=dict)


def card_of(config: Config, name: str, model: Model, catalog: Catalog) -> ModelInfo | None:
    """The card that `card` names; else that of what the first target runs; else the name's.

    A name alone makes no weights of ours what only a provider has: an engine called `gpt-4o` is
    not described by that card.
    """
    if model.without_card:
        return None
    if model.card:
        return catalog.find(model.card)
    first = model.targets[0] if model.targets else None
    if first is not None and (card := _card_run(config, first, catalog)) is not None:
        return card
    card = catalog.find(name)
    if card is not None and first is not None and first.engine is not None and not card.local:
        return None
    return card


def _card_run(config: Config, target: Target, catalog: Catalog) -> ModelInfo | None:
    if target.provider is not None:
        if target.model is None:
            return None
        own = card_at(config, catalog, target.provider, target.model)
        return own or catalog.find(target.model)
    engine = config.engines.get(target.engine or "")
    return engine_card(engine, catalog) if engine else None


def engine_card(engine: Engine, catalog: Catalog) -> ModelInfo | None:
    """Of its weights; else of the name that it goes by elsewhere or for its command, which for vLLM
    is the hub id unless it is told another."""
    name = engine.weights or engine.model
    return weights_card(name, catalog) if name else None


def weights_card(weights: str, catalog: Catalog) -> ModelInfo | None:
    """The card of a hub id; a folder has none."""
    is_hub_id = "/" in weights and not weights.startswith((".", "/", "~"))
    return catalog.find(weights) if is_hub_id else None


def window_of(config: Config, target: Target | None) -> int | None:
    """The context window that an engine is started with; None: that of its weights."""
    engine = config.engines.get(target.engine or "") if target else None
    said = engine.args.get("max-model-len") if engine else None
    return int(said) if isinstance(said, int | str) and str(said).isdecimal() else None


def card_at(config: Config, catalog: Catalog, provider: str, upstream: str) -> ModelInfo | None:
    """The card of an account's own id of a model. What is `like` a known one has its cards."""
    return at_provider(catalog, _like(config, provider), upstream)


def has_cards(config: Config, catalog: Catalog, provider: str) -> bool:
    """Does the catalog know an account's models?"""
    known = _like(config, provider)
    return known in ROWS and any(card.provider == known for card in catalog.values())


def _like(config: Config, provider: str) -> str:
    account = config.providers.get(provider)
    return provider if account is None else account.like or provider


def at_provider(catalog: Catalog, provider: str, upstream: str) -> ModelInfo | None:
    """The card of a provider's own id of a model. An id beats an alias."""
    card = catalog.get(upstream)
    if card is not None and card.provider == provider:
        return card
    for name in (f"{provider}/{upstream}", upstream):
        card = catalog.find(name)
        if card is not None and card.provider == provider:
            return card
    return None


def targets_of(config: Config, name: str, model: Model, catalog: Catalog) -> tuple[Target, ...]:
    """The targets of an entry, with what its card says where they do not: the provider when there
    is no target, the provider's id where one has none. What is still missing then is for the
    checks to tell."""
    if not model.targets:
        card = card_of(config, name, model, catalog)
        if card is None or card.access_method is _LOCAL:
            return ()
        account = account_of(config, card.provider)
        if account is None or not _UPSTREAM.fullmatch(card.model_id):
            return ()
        return (Target(provider=account, model=card.model_id),)
    return tuple(_with_model(config, target, name, model, catalog) for target in model.targets)


def account_of(config: Config, provider: str) -> str | None:
    """The account that has a provider's cards: one with a key before others, then the one of the
    provider's name."""
    those = [name for name in config.providers if _like(config, name) == provider]
    those.sort(key=lambda name: (not config.providers[name].keys, name != provider))
    return those[0] if those else None


def _with_model(
    config: Config, target: Target, name: str, model: Model, catalog: Catalog
) -> Target:
    if target.provider is None or target.model is not None or model.without_card:
        return target
    card = card_at(config, catalog, target.provider, model.card or name)
    return target if card is None else target.model_copy(update={"model": card.model_id})


def about(card: ModelInfo | None, model: Model | None = None, window: int | None = None) -> About:
    """What /v1/models says of it. `window`: that of the engine which serves it, where it has one
    of its own."""
    specs = card.specs if card else None
    return About(
        card=card,
        type=(model.type if model else None) or (card.type if card else None),
        context_window=(model.context_window if model else None)
        or window
        or (specs.context_window if specs else None),
        max_output=(model.max_output if model else None) or (specs.max_output if specs else None),
        abilities=_abilities(card, model),
    )


def _abilities(card: ModelInfo | None, model: Model | None) -> dict[str, bool]:
    """The config's word, else the card's; what nobody says is left out."""
    theirs = card.abilities if card else None
    said = {ability: getattr(theirs, ability, None) for ability in ABILITIES}
    if model is not None:
        own = {ability: getattr(model.abilities, ability) for ability in ABILITIES}
        said |= {ability: value for ability, value in own.items() if value is not None}
    return {ability: value for ability, value in said.items() if value is not None}


def abilities_of(
    config: Config,
    target: Target,
    model: Model | None,
    catalog: Catalog | None,
    card: ModelInfo | None = None,
) -> dict[str, bool]:
    """What one target can do: the config's word, else that of the target's own card, else that of
    the model's (`card`). With `card: null` the config's word is all there is."""
    if catalog is None or (model is not None and model.without_card):
        return _abilities(None, model)
    if target.provider is not None:
        own = card_at(config, catalog, target.provider, target.model or "")
    else:
        own = engine_card(config.engines[target.engine or ""], catalog)
    return _abilities(own or card, model)


def prices_of(
    config: Config, target: Target, model: Model | None, catalog: Catalog
) -> Prices | None:
    """The config's; else those of the card at the target's provider; None when nobody says."""
    if model is not None and model.prices is not None:
        own = model.prices
        return _known(Prices(own.input, own.cached_input, own.output))
    if target.provider is None or target.model is None:
        return None
    card = card_at(config, catalog, target.provider, target.model)
    return None if card is None else card_prices(card)


def card_prices(card: ModelInfo) -> Prices | None:
    cost = card.cost
    return _known(Prices(*map(_price, (cost.input, cost.cached_input, cost.output))))


def _price(said: float | None) -> float | None:
    """Lists of models say -1 where a price depends."""
    return said if said is not None and math.isfinite(said) and said >= 0 else None


def _known(prices: Prices) -> Prices | None:
    return None if prices == Prices() else prices


def defaults_of(card: ModelInfo | None, model: Model | None = None) -> dict[str, Any]:
    """Parameters for what a client leaves out; the longest answer always as `max_tokens`. A null
    in the config takes the card's default away."""
    found: dict[str, Any] = {}
    if card is not None:
        theirs = card.default_parameters.items()
        found |= plain({_OPENAIS.get(n, n): v for n, v in theirs if n not in older.NAMES})
        found |= {"temperature": card.default_temperature, "max_tokens": card.default_max_tokens}
    if model is not None:
        found |= plain(model.defaults)
    return {n: value for n, value in found.items() if value is not None and n not in NO_DEFAULTS}


def offered(config: Config, catalog: Catalog) -> Iterator[tuple[str, ModelInfo]]:
    """(name, card) of all that `catalog: auto` adds: ids in the order of `providers`, then
    aliases. A name may come twice; the first one has it. What no body could say is left out, and
    `default`, which has a meaning of its own."""
    if config.catalog != "auto":
        return
    having_key = [_like(config, name) for name, one in config.providers.items() if one.keys]
    cards = [
        card
        for provider in dict.fromkeys(having_key)
        for card in catalog.values()
        if card.provider == provider
        and card.type in SERVED
        and card.access_method is not _LOCAL
        and card.status is not Status.RETIRED
        and _UPSTREAM.fullmatch(card.model_id)
    ]
    ids = ((card.model_id, card) for card in cards)
    aliases = ((alias, card) for card in cards for alias in card.aliases)
    for name, card in itertools.chain(ids, aliases):
        if name != DEFAULT and _UPSTREAM.fullmatch(name):
            yield name, card
