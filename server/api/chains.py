"""From the models of a config to the chains that routing follows: targets that act, each with its
standing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from server.api.accounts import Accounts
from server.config.resolve import (
    ResolvedModel,
    ResolvedTarget,
    external_engines,
    provider_target,
)
from server.config.schema import Config
from server.dialects.openai import ENGINE_ONLY
from server.engines.fleet import Fleet
from server.engines.replicas import Replica
from server.engines.state import Instance
from server.protocol.parameters import LONGEST, NOT_OPENAI, Ceilings, Fill, fill_of
from server.registry.catalog import Catalog
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing, Group, Keys, Loading, Route
from server.routing.policies import Policy
from server.routing.standing import Standing, Standings
from server.targets import Engines, EngineTarget, ExternalTarget, InstanceTarget, ReplicaTarget
from server.targets import Target as ActingTarget
from server.transport import AttemptTimeouts

#: Ends the label of a provider's models that no entry names.
_ANY_ID: Final = "/*"
#: Names that no entry has and whose chains are kept.
_UNLISTED: Final = 512
#: Whose API knows what OpenAI's own does, and nothing else.
_OPENAIS: Final = frozenset({"openai", "azure"})


class Builder:
    """Builds chains for one config. `forget` is told the keys of replicas that are gone."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        engines: Engines,
        fleet: Fleet,
        standings: Standings,
        forget: Callable[[list[str]], None] = lambda keys: None,
        *,
        folder: Path,
    ) -> None:
        self._config, self._catalog = config, catalog
        self._engines, self._fleet = engines, fleet
        self._standings, self._forget = standings, forget
        self._external = external_engines(config)
        self._accounts = Accounts(config, catalog, folder)
        #: Of the config's targets at providers.
        self._labels: set[str] = set()
        #: Of names that clients gave, so that not each request looks for a card.
        self._unlisted: dict[str, Chain] = {}

    def chains(self, models: Mapping[str, ResolvedModel]) -> dict[str, Chain]:
        """The chain of every name that clients may send; aliases share one."""
        groups = {model.name: self._group(model) for model in models.values()}
        self._labels = {
            _label(target)
            for model in models.values()
            for target in model.targets
            if target.provider is not None
        }
        own = {model.name: model for model in models.values()}
        chains = {
            name: Chain(
                groups[name],
                fallbacks=tuple(groups[other] for other in _deep(name, own)),
                context=tuple(groups[other] for other in model.context_fallbacks),
                content=tuple(groups[other] for other in model.content_fallbacks),
                bridge=None if model.bridge is None else groups[model.bridge],
                loading=Loading(model.while_loading),
            )
            for name, model in own.items()
        }
        return {name: chains[model.name] for name, model in models.items()}

    def accounts(self) -> dict[tuple[str, int], str | None]:
        """The keys of all accounts; see `Accounts.keys`."""
        return self._accounts.keys()

    def keys(self, chains: Iterable[Chain]) -> set[str]:
        """The keys of all targets that these have, and of providers' unlisted models."""
        found: set[str] = set()
        for chain in chains:
            for group in chain.groups():
                found.update(route.standing.key for route in group.routes())
        return found

    def unlisted(self, name: str) -> Chain | None:
        """The chain of `provider/any-upstream-id`; None for other names. The id is the client's
        word: it must become no label, nor a key of what is kept, unless the config has it, too."""
        chain = self._unlisted.get(name)
        if chain is None:
            target = provider_target(self._config, name, self._catalog)
            if target is None:
                return None
            if _label(target) in self._labels:
                part = self._part(name, target)
            else:  # one id that is rate limited, or fails, is not all of them
                label = f"{target.provider}{_ANY_ID}"
                part = self._part(name, target, label=label, key=f"{label}\0{target.model}")
            chain = Chain(Group(name, (part,)))
            if len(self._unlisted) >= _UNLISTED:
                self._forget_one(self._unlisted.pop(next(iter(self._unlisted))))
            self._unlisted[name] = chain
        return chain

    def _forget_one(self, unlisted: Chain) -> None:
        """The config's own stay."""
        standings = [route.standing for route in unlisted.own.routes()]
        self._forget([one.key for one in standings if one.label.endswith(_ANY_ID)])

    # --- parts --------------------------------------------------------------------------------

    def _group(self, model: ResolvedModel) -> Group:
        """A model's own targets, each with the model's defaults and ceilings as it takes them."""
        ceilings = Ceilings.of(model.ceilings, clamp=model.clamp)
        parts = [
            self._part(model.name, t, self._fill(model, ceilings, t), ceilings)
            for t in model.targets
        ]
        return Group(
            model.name,
            tuple(parts),
            Policy(model.balance),
            window=model.about.context_window,
            ceilings=ceilings,
        )

    def _part(
        self,
        model: str,
        target: ResolvedTarget,
        fill: Fill | None = None,
        ceilings: Ceilings | None = None,
        *,
        label: str = "",
        key: str = "",
    ) -> Route | Changing | Keys:
        """`label`, `key`: of a provider's id that no entry names; see `unlisted`."""
        make = _Making(model, target, ceilings, _able(target, self._accounts))
        if target.provider is not None:
            seats, name = self._accounts.seats(target.provider), key or _label(target)
            every = list(
                self._accounts.targets(
                    target, make.times, fill=fill, drop=make.able.drop, label=label
                )
            )
            beside = [keyed.credential for keyed in every]
            routes = [
                make.route(
                    keyed.target,
                    self._standings.of(
                        name + keyed.suffix, keyed.credential, keyed.target.label, name, beside
                    ),
                    account=seats,
                )
                for keyed in every
            ]
            return routes[0] if len(routes) == 1 else Keys(tuple(routes))
        assert target.engine is not None
        engine = self._config.engines[target.engine]
        if target.engine not in self._external:
            local = EngineTarget(
                target.engine,
                self._engines,
                make.times,
                max_wait=engine.wait,
                fill=fill,
                drop=make.able.drop,
                model=engine.model or "",
                suspects=self._standings.suspects,
            )
            route = make.route(local, self._standings.of(local.label))
            return route if engine.replicas == 1 else self._instances(make, route, local)
        nobody = ExternalTarget(target.engine, self._fleet, make.times, max_wait=engine.wait)
        return self._replicas(make, make.route(nobody, self._standings.of(nobody.label)), fill)

    def _fill(
        self, model: ResolvedModel, ceilings: Ceilings | None, target: ResolvedTarget
    ) -> Fill | None:
        """What only an engine's owner may set is the operator's to set, but not at a provider; and
        no default brings back what the target is spared."""
        without = target.drop | (LONGEST if target.drop & LONGEST else frozenset())
        if target.provider is None:
            return fill_of(model.defaults, ceilings, without=without)
        without |= ENGINE_ONLY
        if self._accounts.like(target.provider) in _OPENAIS:
            without |= NOT_OPENAI
            longest = "max_completion_tokens"
            return fill_of(model.defaults, ceilings, without=without, chat_longest=longest)
        return fill_of(model.defaults, ceilings, without=without)

    def _replicas(self, making: _Making, stand_in: Route, fill: Fill | None) -> Changing:
        engine, fleet = making.target.engine, self._fleet
        assert engine is not None

        def make(replica: Replica) -> Route:
            acting = ReplicaTarget(
                engine, replica, fleet, making.times, fill=fill, drop=making.able.drop
            )
            key = replica_key(engine, replica.address)
            return making.route(
                acting,
                self._standings.of(key, label=acting.label),
                load=replica.load,
                load_ours=replica.load_ours,
            )

        return Changing(_Replicas(engine, fleet, stand_in, make, self._forget).now)

    def _instances(self, making: _Making, stand_in: Route, local: EngineTarget) -> Changing:
        name, engines = local.engine, self._engines

        def make(instance: Instance) -> Route:
            acting = InstanceTarget(
                name,
                engines,
                making.times,
                fill=local.fill,
                drop=local.drop,
                model=local.model,
                suspects=local.suspects,
                instance=instance,
            )
            key = replica_key(name, str(instance.replica))
            return making.route(acting, self._standings.of(key, label=acting.label))

        return Changing(_Instances(name, engines, stand_in, make).now)


class _Making:
    """What all routes of one target have in common."""

    def __init__(
        self, model: str, target: ResolvedTarget, ceilings: Ceilings | None, able: Able
    ) -> None:
        self.model, self.target, self.ceilings, self.able = model, target, ceilings, able
        times = target.timeouts
        self.times = AttemptTimeouts(
            connect=times.connect, first_byte=times.first_byte, inter_chunk=times.inter_chunk
        )

    def route(self, acting: ActingTarget, standing: Standing, **more: Any) -> Route:
        target = self.target
        return Route(
            self.model,
            acting,
            standing,
            prices=target.prices,
            ceilings=self.ceilings,
            weight=target.weight,
            able=self.able,
            slots=target.max_in_flight,
            bound=target.max_waiting,
            free=target.engine is not None,
            **more,
        )


def _able(target: ResolvedTarget, accounts: Accounts) -> Able:
    """With what its dialect has no words for, whatever the model could."""
    abilities: dict[str, bool | None] = dict(target.abilities)
    if target.provider is not None:
        abilities |= dict.fromkeys(accounts.lacks(target.provider), False)
    return Able.of(abilities, window=target.window, drop=target.drop)


class _Replicas:
    """The routes of one external engine, made anew when its fleet has changed."""

    def __init__(
        self,
        engine: str,
        fleet: Fleet,
        stand_in: Route,
        make: Callable[[Replica], Route],
        forget: Callable[[list[str]], None],
    ) -> None:
        self._engine, self._fleet, self._stand_in = engine, fleet, stand_in
        self._make, self._forget = make, forget
        self._seen: tuple[Replica, ...] | None = None
        self._known: set[str] = set()
        self._routes: tuple[Route, ...] = ()

    def now(self) -> tuple[Route, ...]:
        replicas = self._fleet.replicas(self._engine)
        if replicas is not self._seen:
            self._seen = replicas
            self._routes = tuple(map(self._make, replicas)) or (self._stand_in,)
            members = {address for address, _ in self._fleet.members(self._engine)}
            if gone := self._known - members:
                self._forget([replica_key(self._engine, address) for address in gone])
            self._known = members
        return self._routes


class _Instances:
    """The routes of an engine of ours that runs several times: those that are ready."""

    def __init__(
        self, engine: str, engines: Engines, stand_in: Route, make: Callable[[Instance], Route]
    ) -> None:
        self._engine, self._engines, self._make = engine, engines, make
        self._stand_in: tuple[Route, ...] = (stand_in,)
        self._seen: tuple[Instance, ...] = ()
        self._routes: tuple[Route, ...] = self._stand_in

    def now(self) -> tuple[Route, ...]:
        ready = self._engines.instances(self._engine)
        if ready is not self._seen and ready != self._seen:
            self._routes = tuple(map(self._make, ready)) or self._stand_in
        self._seen = ready
        return self._routes


def replica_key(engine: str, address: str) -> str:
    """What is kept of a replica is kept by this: of an external engine's by its address, of ours by
    its number."""
    return f"engine/{engine}@{address}"


def _label(target: ResolvedTarget) -> str:
    """Of a target at a provider."""
    return f"{target.provider}/{target.model}"


def _deep(name: str, models: Mapping[str, ResolvedModel]) -> list[str]:
    """The fallbacks depth first: each before the next, with its own behind it. Each once."""
    found: dict[str, None] = {}

    def walk(one: str) -> None:
        for other in models[one].fallbacks:
            if other != name and other not in found:
                found[other] = None
                walk(other)

    walk(name)
    return list(found)
