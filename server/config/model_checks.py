"""What is wrong with the entries under `models`, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from server.config import cards, routing_checks
from server.config.explain import near
from server.config.model import Model, Target
from server.config.places import Path, Places, Problem
from server.config.providers_table import ROWS, key_hint
from server.config.resolve import loose_engines, provider_of, taken
from server.config.schema import Config
from server.registry.cards import AccessMethod, ModelInfo, Status
from server.registry.catalog import Catalog

#: Name → the others that it leads to, each with its place in the file.
Edges = dict[str, list[tuple[str, Path]]]


def check(config: Config, places: Places, catalog: Catalog) -> Iterator[Problem]:
    """All that keeps a name from being answered for."""
    own = [*config.models, *loose_engines(config)]
    extra: dict[str, ModelInfo] = {}
    for name, card in cards.offered(config, catalog):
        if not taken(config, name, catalog):
            extra.setdefault(name, card)
    edges: dict[str, Edges] = {field: {} for field in (*routing_checks.LISTS, "bridge")}
    for name, model in config.models.items():
        yield from _targets(config, name, model, places, catalog)
        for field, other, here in routing_checks.references(name, model):
            if other not in own and other not in extra:
                yield places.error(here, *_no_model(config, other, own))
            elif other in own:
                for kind in edges if field == "alias" else (field,):
                    edges[kind].setdefault(name, []).append((other, here))
    # Each kind is followed by itself: a bridge to a model that falls back to this one is no circle.
    circles = {problem.path: problem for one in edges.values() for problem in _cycles(one, places)}
    yield from circles.values()
    yield from routing_checks.check(config, places, catalog, extra)
    yield from _default(config, places, own, extra, catalog)


def _targets(
    config: Config, name: str, model: Model, places: Places, catalog: Catalog
) -> Iterator[Problem]:
    path: Path = ("models", name)
    if model.alias is not None:
        return
    if model.card and catalog.find(model.card) is None:
        hint = _near_cards(catalog, model.card) or "Write an id, or `card: null` for none."
        yield places.error((*path, "card"), f"the registry has no model `{model.card}`.", hint)
    elif not cards.targets_of(config, name, model, catalog):
        yield places.error(path, *_no_targets(config, name, model, catalog))
    for at, target in enumerate(cards.targets_of(config, name, model, catalog)):
        here = (*path, "targets", at)
        if target.engine is not None and target.engine not in config.engines:
            yield places.error((*here, "engine"), *missing("engine", target.engine, config.engines))
        if target.provider is None:
            continue
        if target.provider not in config.providers:
            yield places.error(
                (*here, "provider"), *missing("provider", target.provider, config.providers)
            )
        elif target.model is None:
            yield places.error(here, *_no_upstream(target, model.card or name))


def missing(kind: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """There is none of that name; one that is near, or all that there are."""
    known = list(known)
    listed = f"There are: {', '.join(known)}." if known else f"No {kind} is configured."
    return f"there is no {kind} `{name}`.", near(name, known) or listed


def _no_upstream(target: Target, name: str) -> tuple[str, str]:
    return (
        f"has no `model`, and the registry has no card of `{name}` at {target.provider}.",
        "Add `model`, the provider's own id.",
    )


def _no_targets(
    config: Config, name: str, model: Model, catalog: Catalog
) -> tuple[str, str | None]:
    card = cards.card_of(config, name, model, catalog)
    give = "give `targets` (a list of engines or providers) or `alias`."
    if card is None:
        if model.without_card:
            return "has no targets and no card.", f"{give[0].upper()}{give[1:]}"
        return (
            f"has no targets, and the registry has no model `{name}`.",
            _near_cards(catalog, name) or f"{give[0].upper()}{give[1:]}",
        )
    if card.access_method is AccessMethod.LOCAL:
        return (
            f"has no targets, and no provider has `{card.model_id}`: its card is of weights.",
            f"Serve them: add `{{weights: {card.model_id}}}` under engines, and that as a target.",
        )
    if cards.account_of(config, card.provider):
        return "has no targets, and its card has an id that nobody can be asked for.", None
    row = ROWS.get(card.provider)
    if row is None:
        return (
            f"has no targets, and its card's provider, {card.provider}, is not configured.",
            f"Write `targets`: any provider or engine that has `{card.model_id}`.",
        )
    key = f", {key_hint(row)}" if row.variables else ""
    return (
        f"has no targets, and its card's provider, {card.provider}, is not under providers.",
        f"Add `{card.provider}: {{}}` there{key}; or give `targets`.",
    )


def _near_cards(catalog: Catalog, name: str) -> str | None:
    near_it = catalog.near(name)
    return "Did you mean " + " or ".join(f"`{one}`" for one in near_it) + "?" if near_it else None


def _no_model(config: Config, name: str, names: list[str]) -> tuple[str, str]:
    if provider := provider_of(config, name):
        upstream = name.partition("/")[2]
        return (
            f"there is no entry `{name}` under models.",
            f"Add one: `{name}: {{targets: [{{provider: {provider}, model: {upstream}}}]}}`.",
        )
    return missing("model", name, names)


def _default(
    config: Config, places: Places, own: list[str], extra: Mapping[str, ModelInfo], catalog: Catalog
) -> Iterator[Problem]:
    name = config.default
    if name is None or (name == cards.DEFAULT and cards.DEFAULT in own):
        return
    if cards.DEFAULT in own:
        yield places.error(
            ("default",),
            "a model or an engine is named `default`, too.",
            "Give that another name, or take this key away.",
        )
    elif name not in own and name not in extra and provider_of(config, name) is None:
        text, hint = missing("model", name, own)
        if (card := catalog.find(name)) is not None:
            hint = _known(config, card)
        yield places.error(("default",), text, hint)


def _known(config: Config, card: ModelInfo) -> str:
    """How a model that the registry knows comes to be served here."""
    if card.status is Status.RETIRED:
        return f"{card.model_id} is retired; name another one."
    if card.access_method is AccessMethod.LOCAL:
        return f"Add an engine with `weights: {card.model_id}`."
    if cards.account_of(config, card.provider):
        return f"Add `{card.model_id}: {{}}` under models, or set `catalog: auto`."
    return f"It is {card.provider}'s: configure that provider and add it under models."


def _cycles(edges: Edges, places: Places) -> Iterator[Problem]:
    """One problem for each edge that closes a circle of aliases and of one kind of other
    models."""
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> Iterator[Problem]:
        for other, here in edges.get(name, ()):
            if other in way:
                circle = " → ".join([*way[way.index(other) :], other])
                yield places.error(here, f"goes round in a circle: {circle}.", "Take one out.")
            elif other not in done:
                yield from walk(other, (*way, other))
        done.add(name)

    for name in edges:
        if name not in done:
            yield from walk(name, (name,))


def advice(config: Config, places: Places, catalog: Catalog) -> Iterator[str]:
    """One sentence for each target whose provider stops, or has stopped, to answer for it."""
    if config.catalog == "auto" and not any(cards.offered(config, catalog)):
        where = places.of(("catalog",))
        yield f"{where}: `catalog: auto` adds nothing: there is no key of a provider with cards."
    for name, model in config.models.items():
        if model.alias is not None:
            continue
        for target in cards.targets_of(config, name, model, catalog):
            if target.provider is None or target.model is None:
                continue
            card = cards.card_at(config, catalog, target.provider, target.model)
            if card is not None and card.status is not Status.CURRENT:
                where = places.of(("models", name))
                yield f"{where}: model `{name}`: {outlook(card, catalog)}"
    yield from routing_checks.advice(config, places, catalog)


def outlook(card: ModelInfo, catalog: Catalog) -> str:
    """What becomes of a model that is not current, and what its provider advises instead."""
    if card.status is Status.RETIRED:
        since = f" since {card.retires}" if card.retires else ""
        text = f"`{card.model_id}` is retired{since}: {card.provider} answers no more for it."
    else:
        until = f": {card.provider} answers for it until {card.retires}" if card.retires else ""
        text = f"`{card.model_id}` is deprecated{until}."
    after = catalog.successor(card)
    return f"{text} Its successor is `{after.model_id}`." if after else text
