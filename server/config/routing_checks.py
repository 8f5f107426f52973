"""What is wrong with, and what is odd about, the way that a model's requests go: its order of
targets, its other models, its places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from server.config import cards
from server.config.model import Model, Target
from server.config.places import Path, Places, Problem
from server.config.resolve import limited, seats
from server.config.schema import Config
from server.registry.cards import ModelInfo
from server.registry.catalog import Catalog

#: The fields of a model that name others.
LISTS: Final = ("fallbacks", "context_fallbacks", "content_fallbacks")
#: The policies that `weight` has a part in.
_WEIGHING: Final = frozenset({"weighted", "affinity"})


def references(name: str, model: Model) -> Iterator[tuple[str, str, Path]]:
    """(field, the other model's name, where it stands)."""
    path: Path = ("models", name)
    for field in ("alias", "bridge"):
        if (other := getattr(model, field)) is not None:
            yield field, other, (*path, field)
    for field in LISTS:
        for at, other in enumerate(getattr(model, field)):
            yield field, other, (*path, field, at)


def check(
    config: Config, places: Places, catalog: Catalog, offered: Mapping[str, ModelInfo]
) -> Iterator[Problem]:
    """`offered`: the names that the catalog adds, with their cards."""
    for name, model in config.models.items():
        if _weightless(model):
            yield places.error(
                ("models", name, "targets"),
                f"have the weight 0, all of them, and `balance: {model.balance}` goes by weight.",
                "Give one of them a weight.",
            )
        if model.context_fallbacks:
            yield from _windows(config, name, model, places, catalog, offered)
    yield from _seats(config, places, catalog)


def _weightless(model: Model) -> bool:
    weights = [target.weight for target in model.targets]
    return model.balance in _WEIGHING and bool(weights) and not any(weights)


# --- context windows ----------------------------------------------------------------------------


def _windows(
    config: Config,
    name: str,
    model: Model,
    places: Places,
    catalog: Catalog,
    offered: Mapping[str, ModelInfo],
) -> Iterator[Problem]:
    path: Path = ("models", name, "context_fallbacks")
    own = _window(config, name, catalog, offered)
    if own is None:
        yield places.error(
            path,
            f"the context window of `{name}` is not known, so nobody can tell which is larger.",
            _say_window(config, name),
        )
        return
    for at, other in enumerate(model.context_fallbacks):
        if not _known(config, other, offered):
            continue  # that there is no such model is told elsewhere
        window = _window(config, other, catalog, offered)
        if window is None:
            yield places.error(
                (*path, at),
                f"the context window of `{other}` is not known.",
                _say_window(config, _own_name(config, other)),
            )
        elif window <= own:
            yield places.error(
                (*path, at),
                f"the context window of `{other}` is {window} tokens, not more than the {own} of "
                f"`{name}`.",
                "Name a model with a larger one, or correct it with `context_window: …`.",
            )


def _say_window(config: Config, name: str) -> str:
    if name in config.models:
        return f"Write `context_window: …` (tokens) under models.{name}."
    targets = f"targets: [{{engine: {name}}}], " if name in config.engines else ""
    return f"Give it an entry under models: `{name}: {{{targets}context_window: …}}` (tokens)."


def _known(config: Config, name: str, offered: Mapping[str, ModelInfo]) -> bool:
    return name in config.models or name in config.engines or name in offered


def _own_name(config: Config, name: str) -> str:
    """At the end of its aliases, of which some may still go round in a circle."""
    seen: set[str] = set()
    while name not in seen and (found := config.models.get(name)) and found.alias is not None:
        seen.add(name)
        name = found.alias
    return name


def _window(
    config: Config, name: str, catalog: Catalog, offered: Mapping[str, ModelInfo]
) -> int | None:
    name = _own_name(config, name)
    model = config.models.get(name)
    if model is not None:
        target = model.targets[0] if model.targets else None
        card = cards.card_of(config, name, model, catalog)
        return cards.about(card, model, cards.window_of(config, target)).context_window
    engine = config.engines.get(name)
    if engine is None:
        return cards.about(offered.get(name)).context_window
    own = cards.window_of(config, Target(engine=name))
    return cards.about(cards.engine_card(engine, catalog), None, own).context_window


# --- places -------------------------------------------------------------------------------------


def _seats(config: Config, places: Places, catalog: Catalog) -> Iterator[Problem]:
    """A provider's id of a model has one number of places, also where two models name it."""
    first = seats(config, catalog)
    for name, model in config.models.items():
        for at, target in enumerate(cards.targets_of(config, name, model, catalog)):
            said = first.get((target.provider or "", target.model or ""))
            if said is None or not limited(target):
                continue
            one = (said.max_in_flight, said.max_waiting)
            if one != (target.max_in_flight, target.max_waiting):
                yield places.error(
                    ("models", name, "targets", at),
                    f"has other limits than another target that is `{target.model}` at "
                    f"{target.provider}, too.",
                    "Say them at one of the two: they hold for both.",
                )


# --- advice -------------------------------------------------------------------------------------


def advice(config: Config, places: Places, catalog: Catalog) -> Iterator[str]:
    """What has no effect, one sentence each."""
    for name, model in config.models.items():
        if model.alias is None:
            targets = cards.targets_of(config, name, model, catalog)
            for sentence in _idle(config, model, targets, catalog):
                yield f"{places.of(('models', name))}: model `{name}`: {sentence}"


def _idle(
    config: Config, model: Model, targets: tuple[Target, ...], catalog: Catalog
) -> Iterator[str]:
    if model.balance not in _WEIGHING and any(target.weight != 1 for target in targets):
        yield (
            f"`weight` has no part in `balance: {model.balance}`. Write `balance: weighted`, or "
            "leave it out."
        )
    if model.balance == "cheapest" and not any(
        cards.prices_of(config, target, model, catalog) for target in targets
    ):
        yield "`balance: cheapest`, but the price of no target is known. Write `prices`."
    if not any(target.engine for target in targets):
        if model.bridge is not None:
            yield "`bridge` has no effect: no target of it is an engine that could be loading."
        if model.while_loading != "fallback":
            yield (
                f"`while_loading: {model.while_loading}` has no effect: no target of it is an "
                "engine that could be loading."
            )
