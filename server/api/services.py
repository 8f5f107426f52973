"""What the endpoints share: one immutable snapshot of the config, and the things that act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from server.access.admission import Admission
from server.access.keys import KeyInfo, Keyring
from server.api import unknown
from server.api.chains import Builder
from server.api.intake import BodyBudget
from server.api.kinds import Kinds
from server.config.cards import DEFAULT
from server.config.load import Loaded
from server.config.resolve import ResolvedModel, resolve_models
from server.config.schema import Config, Timeouts
from server.engines.fleet import Fleet
from server.engines.store.service import StoreService
from server.engines.supervisor import Supervisor
from server.errors import InvalidRequest, ModelNotFound, NotAllowed
from server.protocol.envelope import Surface
from server.registry.catalog import Catalog
from server.routing.attempt import Pace
from server.routing.chain import Chain
from server.routing.dispatch import Dispatcher
from server.routing.standing import Standings
from server.targets import Engines
from server.telemetry.metrics import Metrics
from server.transport import Transport

#: Models that an error names.
_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class State:
    """All that a request reads of the config. A reload swaps the whole of it."""

    config: Config
    models: dict[str, ResolvedModel]
    chains: dict[str, Chain]
    #: Makes the chains of models that no entry names.
    builder: Builder
    keyring: Keyring
    pace: Pace
    catalog: Catalog
    kinds: Kinds
    #: Places of the whole server; None: it takes all. `limited`: it has a limit, or a model has.
    slots: int | None = None
    limited: bool = False
    #: The model of a request that names none; None: it must.
    default: str | None = None

    @property
    def timeouts(self) -> Timeouts:
        return self.config.server.timeouts


def build_state(
    loaded: Loaded,
    engines: Engines,
    fleet: Fleet,
    standings: Standings,
    forget: Callable[[list[str]], None] = lambda keys: None,
) -> State:
    """The snapshot of a config that has passed its checks."""
    config = loaded.config
    models = resolve_models(config, loaded.catalog)
    builder = Builder(
        config, loaded.catalog, engines, fleet, standings, forget, folder=loaded.folder
    )
    limits, times = config.server.limits, config.server.timeouts
    return State(
        config=config,
        models=models,
        chains=builder.chains(models),
        builder=builder,
        keyring=Keyring.from_config(config),
        pace=Pace(
            waiting=times.waiting,
            write=times.write,
            event_limit=limits.event,
            answer_limit=limits.answer,
        ),
        catalog=loaded.catalog,
        kinds=Kinds(config, models, loaded.catalog),
        slots=limits.in_flight,
        limited=limits.in_flight is not None
        or any(model.max_in_flight is not None for model in models.values()),
        default=DEFAULT if DEFAULT in models else None,
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
    fleet: Fleet
    admission: Admission
    dispatcher: Dispatcher
    budget: BodyBudget
    version: str
    #: Weights on this machine; None where nothing is served.
    store: StoreService | None = None
    #: To be sent new work: false from the first signal to stop.
    ready: bool = True
    #: Answering requests that come in: false once the drain is over. Then they get a 503.
    accepting: bool = True
    #: Open exchanges, so that a drain can end them.
    open: set[Open] = field(default_factory=set)

    def find(self, name: str, key: KeyInfo, param: str = "model") -> Chain:
        """The chain of a model this key may use. Raises ModelNotFound, NotAllowed. `param`: the
        member that names it."""
        state = self.state
        chain = state.chains.get(name)
        if chain is None:
            chain = state.builder.unlisted(name)
            if chain is None:
                raise self._unknown(name, key, param)
        if not (key.allows(name) or (name in state.models and key.allows(state.models[name].name))):
            raise NotAllowed(
                f"The key `{key.name}` may not use the model `{name[:200]}`. "
                "GET /v1/models lists those it may use.",
                param=param,
            )
        return chain

    def who_can(self, ability: str, key: KeyInfo) -> list[str]:
        """Models this key may use that are known to have the ability; a few of them."""
        known = [
            name
            for name in self.visible(key)
            if self.state.models[name].about.abilities.get(ability) is True
        ]
        return known[:_NAMED]

    def unfit(self, name: str, surface: Surface, key: KeyInfo) -> InvalidRequest | None:
        """Why the model of this name, which there is, is not for such calls; None: it may try."""
        return self.state.kinds.refusal(name, surface, lambda: self.visible(key))

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

    def _unknown(self, name: str, key: KeyInfo, param: str) -> ModelNotFound:
        state = self.state
        text = unknown.text(name, state.models, self.visible(key), state.catalog, state.config)
        return ModelNotFound(text, param=param)
