"""The models that a config comes to: every name that clients may send, and who answers for it.

One order for a bare name: the entries under `models`, engines of that name, `provider/…` of a
configured provider, then, with `catalog: auto`, cards by id in the order of `providers`, and cards
by alias. An id that looks like a known provider's (`openai/gpt-oss-20b`, which is Hugging Face's)
is a card's where that provider has no such card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from server.config import cards
from server.config.cards import DEFAULT, About, Prices
from server.config.engine import Engine
from server.config.model import Model, Target, plain
from server.config.parts import MODEL_NAME, TargetTimeouts
from server.config.provider import Provider
from server.config.schema import Config
from server.registry.cards import ModelInfo
from server.registry.catalog import Catalog, builtin

_MODEL_NAME: Final = re.compile(MODEL_NAME)


@dataclass(frozen=True, slots=True)
class ResolvedTimeouts:
    """Seconds, from the target, else its engine or provider, else the server."""

    connect: float
    first_byte: float
    inter_chunk: float


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """An engine, or a provider with its own id of the model. `prices`: None is unknown.

    `max_in_flight` and `max_waiting` are the place's own: an engine's are the same in all models,
    and so are those of a provider's id of a model. `drop` has the provider's, too. `abilities` has
    what is known of this very target. `window`: tokens, beyond which it refuses a prompt for
    certain.
    """

    engine: str | None
    provider: str | None
    model: str | None
    timeouts: ResolvedTimeouts
    prices: Prices | None = None
    weight: float = 1.0
    drop: frozenset[str] = frozenset()
    max_in_flight: int | None = None
    max_waiting: int = 64
    abilities: Mapping[str, bool] = field(default_factory=dict, hash=False)
    window: int | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """`name` is the model's own name, also where the table has it under an alias; then
    `alias_of` is that name, too. `fallbacks`, `context_fallbacks`, `content_fallbacks` and `bridge`
    are models' own names, never aliases. `balance` and `while_loading` are words of the schema.

    `defaults` and `ceilings` are parameters of a body, the longest answer always as `max_tokens`;
    `clamp`: lower what is over a ceiling instead of refusing it. `offered`: the catalog adds it;
    `listed`: /v1/models shows it.
    """

    name: str
    targets: tuple[ResolvedTarget, ...]
    fallbacks: tuple[str, ...] = ()
    alias_of: str | None = None
    about: About = field(default_factory=About)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    clamp: bool = False
    offered: bool = False
    listed: bool = True
    balance: str = "ordered"
    context_fallbacks: tuple[str, ...] = ()
    content_fallbacks: tuple[str, ...] = ()
    bridge: str | None = None
    while_loading: str = "fallback"
    max_in_flight: int | None = None
    max_waiting: int = 64


def resolve_models(config: Config, catalog: Catalog | None = None) -> dict[str, ResolvedModel]:
    """Every name that clients may send: the file's models and aliases in its order, the engines
    that no model has as a target, `default`, then what the catalog adds. The config has
    passed `check` with the same catalog (by default the built-in one)."""
    catalog = builtin() if catalog is None else catalog
    found = {
        name: _own(config, name, catalog)
        for name in [*config.models, *loose_engines(config)]
        if config.models.get(name) is None or config.models[name].alias is None
    }
    for name, card in cards.offered(config, catalog):
        if name not in found and name not in config.models and not taken(config, name, catalog):
            found[name] = _offered(config, name, card, found, catalog)
    _add_aliases(config, found, catalog)
    own = [*config.models, *loose_engines(config)]
    if places := seats(config, catalog):
        for name, model in found.items():
            targets = tuple(_seated(target, places) for target in model.targets)
            found[name] = replace(model, targets=targets)
    order = sorted(dict.fromkeys([*own, *found]), key=lambda name: found[name].offered)
    return {name: found[name] for name in order}


def _own(config: Config, name: str, catalog: Catalog) -> ResolvedModel:
    model = config.models.get(name)
    if model is None:
        engine = config.engines[name]
        card = cards.engine_card(engine, catalog)
        target = _resolve(config, Target(engine=name), None, catalog)
        window = cards.window_of(config, Target(engine=name))
        return ResolvedModel(
            name=name,
            targets=(target,),
            about=cards.about(card, None, window),
            defaults=cards.defaults_of(card),
        )
    card = cards.card_of(config, name, model, catalog)
    targets = cards.targets_of(config, name, model, catalog)
    return ResolvedModel(
        name=name,
        targets=tuple(_resolve(config, target, model, catalog, card) for target in targets),
        fallbacks=_own_names(config, model.fallbacks),
        about=cards.about(card, model, cards.window_of(config, targets[0] if targets else None)),
        defaults=cards.defaults_of(card, model),
        ceilings=plain(model.ceilings),
        clamp=model.over_ceiling == "clamp",
        balance=model.balance,
        context_fallbacks=_own_names(config, model.context_fallbacks),
        content_fallbacks=_own_names(config, model.content_fallbacks),
        bridge=None if model.bridge is None else own_name(config, model.bridge),
        while_loading=model.while_loading,
        max_in_flight=model.max_in_flight,
        max_waiting=model.max_waiting,
    )


def _own_names(config: Config, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(own_name(config, name) for name in names))


def _offered(
    config: Config,
    name: str,
    card: ModelInfo,
    found: Mapping[str, ResolvedModel],
    catalog: Catalog,
) -> ResolvedModel:
    """A card's own model; under an alias, what its id stands for, which may be the config's."""
    if name != card.model_id and (same := found.get(card.model_id)) is not None:
        return replace(same, alias_of=same.name, offered=True, listed=False)
    account = cards.account_of(config, card.provider)
    target = Target(provider=account, model=card.model_id)
    return ResolvedModel(
        name=name,
        targets=(_resolve(config, target, None, catalog, card),),
        about=cards.about(card),
        defaults=cards.defaults_of(card),
        offered=True,
    )


def _add_aliases(config: Config, found: dict[str, ResolvedModel], catalog: Catalog) -> None:
    """The config's own aliases, and the name `default`."""
    for name, model in config.models.items():
        if model.alias is not None:
            same = found[own_name(config, name)]
            found[name] = replace(same, alias_of=same.name, offered=False, listed=True)
    if config.default is None or DEFAULT in found:
        return
    own = own_name(config, config.default)
    if own not in found:  # provider/any-upstream-id
        target = provider_target(config, own, catalog)
        assert target is not None
        card = cards.card_at(config, catalog, target.provider or "", target.model or "")
        found[own] = ResolvedModel(own, (target,), about=cards.about(card))
    same = found[own]
    found[DEFAULT] = replace(same, alias_of=same.name, offered=False, listed=True)


def loose_engines(config: Config) -> tuple[str, ...]:
    """Engines that are models of their own name: no model's target, and the name is not taken."""
    used = {target.engine for model in config.models.values() for target in model.targets}
    return tuple(e for e in config.engines if e not in used and e not in config.models)


def own_name(config: Config, name: str) -> str:
    """The name at the end of a chain of aliases."""
    while (model := config.models.get(name)) is not None and model.alias is not None:
        name = model.alias
    return name


def provider_of(config: Config, name: str) -> str | None:
    """The configured provider of a name `provider/any-upstream-id`; None for other names."""
    provider, slash, upstream = name.partition("/")
    known = slash and provider in config.providers and _MODEL_NAME.fullmatch(upstream)
    return provider if known else None


def taken(config: Config, name: str, catalog: Catalog) -> bool:
    """Is this name of a card `provider/…` of another provider, which is to be asked then? Not when
    that one's models are known, and this is none of them."""
    provider = provider_of(config, name)
    if provider is None:
        return False
    upstream = name.partition("/")[2]
    card = catalog.get(name)
    by_name = cards.has_cards(config, catalog, provider)
    return card is None or not by_name or bool(cards.card_at(config, catalog, provider, upstream))


def provider_target(
    config: Config, name: str, catalog: Catalog | None = None
) -> ResolvedTarget | None:
    """`provider/any-upstream-id`, for a provider of the config; None for other names. What its card
    says is known where there is a catalog."""
    provider = provider_of(config, name)
    if provider is None:
        return None
    upstream = name.partition("/")[2]
    target = _resolve(config, Target(provider=provider, model=upstream), None, catalog)
    return _seated(target, seats(config, builtin() if catalog is None else catalog))


def local_engines(config: Config) -> dict[str, Engine]:
    """Those that this server starts and watches itself."""
    return {name: engine for name, engine in config.engines.items() if not engine.external}


def external_engines(config: Config) -> dict[str, Engine]:
    """Those whose replicas somebody else runs."""
    return {name: engine for name, engine in config.engines.items() if engine.external}


def _resolve(
    config: Config,
    target: Target,
    model: Model | None,
    catalog: Catalog | None,
    card: ModelInfo | None = None,
) -> ResolvedTarget:
    """`card` is the model's, for what no card of the target itself says."""
    around: Engine | Provider
    if target.engine is not None:
        around = engine = config.engines[target.engine]
        most, waiting, drop = engine.max_in_flight, engine.max_waiting, target.drop
    else:
        around = provider = config.providers[target.provider or ""]
        drop = (*target.drop, *provider.drop)
        most, waiting = target.max_in_flight, target.max_waiting
    return ResolvedTarget(
        target.engine,
        target.provider,
        target.model,
        _times(config, target.timeouts, around.timeouts),
        None if catalog is None else cards.prices_of(config, target, model, catalog),
        weight=target.weight,
        drop=frozenset(drop),
        max_in_flight=most,
        max_waiting=waiting,
        abilities=cards.abilities_of(config, target, model, catalog, card),
        window=cards.window_of(config, target),
    )


def seats(config: Config, catalog: Catalog) -> dict[tuple[str, str], Target]:
    """(provider, its id) → the first target that says how many requests may be there. A place has
    so many seats, by whichever name one comes in."""
    found: dict[tuple[str, str], Target] = {}
    for name, model in config.models.items():
        if any(limited(target) for target in model.targets):
            for target in cards.targets_of(config, name, model, catalog):
                if target.provider is not None and target.model is not None and limited(target):
                    found.setdefault((target.provider, target.model), target)
    return found


def _seated(target: ResolvedTarget, places: Mapping[tuple[str, str], Target]) -> ResolvedTarget:
    said = places.get((target.provider or "", target.model or ""))
    if said is None:
        return target
    return replace(target, max_in_flight=said.max_in_flight, max_waiting=said.max_waiting)


def limited(target: Target) -> bool:
    """Does it say how many it takes?"""
    return not target.model_fields_set.isdisjoint({"max_in_flight", "max_waiting"})


def _times(config: Config, *nearest_first: TargetTimeouts) -> ResolvedTimeouts:
    def pick(name: str) -> float:
        set_here = (getattr(times, name) for times in nearest_first)
        last = getattr(config.server.timeouts, name)
        return float(next((value for value in set_here if value is not None), last))

    return ResolvedTimeouts(pick("connect"), pick("first_byte"), pick("inter_chunk"))
