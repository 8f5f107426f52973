"""What the endpoints share: one immutable snapshot of the config, and the things that act."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from server.access.keys import KeyInfo, Keyring
from server.api import unknown
from server.api.intake import BodyBudget
from server.config.cards import DEFAULT, Prices, card_prices
from server.config.load import Loaded
from server.config.providers_table import account
from server.config.resolve import (
    ResolvedModel,
    ResolvedTarget,
    provider_target,
    resolve_models,
)
from server.config.schema import Config, Timeouts
from server.dialects.openai import ENGINE_ONLY
from server.engines.supervisor import Supervisor
from server.errors import ModelNotFound, NotAllowed
from server.protocol.parameters import NOT_OPENAI, Ceilings, Fill, fill_of
from server.registry.catalog import Catalog
from server.routing.dispatch import Dispatcher, Pace, Route
from server.targets import Engines, EngineTarget, ProviderTarget, Target
from server.telemetry.metrics import Metrics
from server.transport import AttemptTimeouts, Transport


@dataclass(frozen=True, slots=True)
class State:
    """All that a request reads of the config. A reload swaps the whole of it."""

    config: Config
    models: dict[str, ResolvedModel]
    routes: dict[str, tuple[Route, ...]]
    keyring: Keyring
    pace: Pace
    #: Of `provider/upstream-id` where a card says so, so that no request looks for its card.
    prices: dict[str, Prices]
    catalog: Catalog
    #: The model of a request that names none; None: it must.
    default: str | None = None

    @property
    def timeouts(self) -> Timeouts:
        return self.config.server.timeouts


def build_state(loaded: Loaded, engines: Engines) -> State:
    """The snapshot of a config that has passed its checks."""
    config = loaded.config
    models = resolve_models(config, loaded.catalog)
    routes: dict[str, list[Route]] = {}

    def own(name: str) -> list[Route]:
        model = models[name]
        if model.name not in routes:
            routes[model.name] = _routes(model, config, engines)
        return routes[model.name]

    def chain(name: str, seen: set[str]) -> list[Route]:
        """The model's own targets, then depth first those of its fallbacks."""
        model = models[name]
        if model.name in seen:
            return []
        seen.add(model.name)
        found = list(own(name))  # which is shared with the model's aliases
        for fallback in model.fallbacks:
            found += chain(fallback, seen)
        return found

    limits, times = config.server.limits, config.server.timeouts
    return State(
        config=config,
        models=models,
        routes={name: tuple(chain(name, set())) for name in models},
        keyring=Keyring.from_config(config),
        pace=Pace(
            waiting=times.waiting,
            write=times.write,
            event_limit=limits.event,
            answer_limit=limits.answer,
        ),
        prices=_prices(config, loaded.catalog),
        catalog=loaded.catalog,
        default=DEFAULT if DEFAULT in models else None,
    )


def _routes(model: ResolvedModel, config: Config, engines: Engines) -> list[Route]:
    """A model's own targets, each with the model's defaults and ceilings as it takes them."""
    ceilings = Ceilings.of(model.ceilings, clamp=model.clamp)
    return [
        Route(
            model.name,
            make_target(target, config, engines, _fill(model, ceilings, target.provider)),
            target.prices,
            ceilings,
        )
        for target in model.targets
    ]


def _fill(model: ResolvedModel, ceilings: Ceilings | None, provider: str | None) -> Fill | None:
    """What only an engine's owner may set is the operator's to set, but not at a provider."""
    if provider is None:
        return fill_of(model.defaults, ceilings)
    if provider == "openai":
        without, longest = ENGINE_ONLY | NOT_OPENAI, "max_completion_tokens"
        return fill_of(model.defaults, ceilings, without=without, chat_longest=longest)
    return fill_of(model.defaults, ceilings, without=ENGINE_ONLY)


def _prices(config: Config, catalog: Catalog) -> dict[str, Prices]:
    found: dict[str, Prices] = {}
    aliases: dict[str, Prices] = {}
    for card in catalog.values():
        if card.provider in config.providers and (prices := card_prices(card)) is not None:
            found[f"{card.provider}/{card.model_id}"] = prices
            aliases |= dict.fromkeys((f"{card.provider}/{alias}" for alias in card.aliases), prices)
    return {**aliases, **found}  # an id beats an alias


def make_target(
    target: ResolvedTarget, config: Config, engines: Engines, fill: Fill | None = None
) -> Target:
    """The acting target of a resolved one."""
    times = AttemptTimeouts(
        connect=target.timeouts.connect,
        first_byte=target.timeouts.first_byte,
        inter_chunk=target.timeouts.inter_chunk,
    )
    if target.engine is not None:
        return EngineTarget(
            target.engine, engines, times, max_wait=config.engines[target.engine].wait, fill=fill
        )
    assert target.provider is not None
    assert target.model is not None
    provider = config.providers[target.provider]
    row = account(target.provider, provider)
    headers = {name.lower(): value.get_secret_value() for name, value in provider.headers.items()}
    if row.api_key is not None:
        headers["authorization"] = f"Bearer {row.api_key}"
    return ProviderTarget(
        target.provider,
        target.model,
        row.base_url,
        headers,
        times,
        retry_ambiguous=provider.retry_ambiguous,
        proxy=provider.proxy.get_secret_value() if provider.proxy else None,
        fill=fill,
    )


class Open(Protocol):
    """An exchange under way."""

    def stop(self) -> None: ...


@dataclass(slots=True)
class Services:
    """Made once by the app. `state` is replaced as a whole, never changed."""

    state: State
    metrics: Metrics
    transport: Transport
    supervisor: Supervisor
    dispatcher: Dispatcher
    budget: BodyBudget
    version: str
    #: Accepting new work: false from the first signal to stop.
    accepting: bool = True
    #: Open exchanges, so that a drain can end them.
    open: set[Open] = field(default_factory=set)

    def find(self, name: str, key: KeyInfo) -> tuple[Route, ...]:
        """The routes of a model this key may use. Raises ModelNotFound, NotAllowed."""
        state = self.state
        routes = state.routes.get(name)
        if routes is None:
            target = provider_target(state.config, name)
            if target is None:
                raise self._unknown(name, key)
            acting = make_target(target, state.config, self.supervisor)
            # The upstream id is the client's word: it must not become a label.
            acting.label = f"{target.provider}/*"
            routes = (Route(name, acting, state.prices.get(name)),)
        if not (key.allows(name) or (name in state.models and key.allows(state.models[name].name))):
            raise NotAllowed(
                f"The key `{key.name}` may not use the model `{name[:200]}`. "
                "GET /v1/models lists those it may use.",
                param="model",
            )
        return routes

    def label(self, name: str) -> str:
        """The metric label of a model's name: that of the card for a card's alias."""
        model = self.state.models.get(name)
        return self.metrics.model(name if model is None or model.listed else model.name)

    def visible(self, key: KeyInfo) -> list[str]:
        """Names of the models this key may use, in the config's order; a catalog's alias only if
        the key may not use what it stands for by its own name."""
        return [
            name
            for name, model in self.state.models.items()
            if (key.allows(model.name) and model.listed)
            or (key.allows(name) and (model.listed or not key.allows(model.name)))
        ]

    def _unknown(self, name: str, key: KeyInfo) -> ModelNotFound:
        state = self.state
        text = unknown.text(name, state.models, self.visible(key), state.catalog)
        return ModelNotFound(text, param="model")
