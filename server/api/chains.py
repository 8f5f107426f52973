"""From the models of a config to the chains that routing follows: targets that act, each with its
standing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from server.config.providers_table import account
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
from server.protocol.parameters import LONGEST, NOT_OPENAI, Ceilings, Fill, fill_of
from server.registry.catalog import Catalog
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing, Group, Loading, Route
from server.routing.policies import Policy
from server.routing.standing import UNLISTED, Standings
from server.targets import Engines, EngineTarget, ExternalTarget, ProviderTarget, ReplicaTarget
from server.targets import Target as ActingTarget
from server.transport import AttemptTimeouts

#: Ends the label of a provider's models that no entry names.
_ANY_ID: Final = "/*"
#: Names that no entry has and whose chains are kept.
_UNLISTED: Final = 512


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
    ) -> None:
        self._config, self._catalog = config, catalog
        self._engines, self._fleet = engines, fleet
        self._standings, self._forget = standings, forget
        self._external = external_engines(config)
        #: Of the config's targets at providers.
        self._labels: set[str] = set()
        #: Of names that clients gave, so that not each request looks for a card.
        self._unlisted: dict[str, Chain] = {}

    def chains(self, models: Mapping[str, ResolvedModel]) -> dict[str, Chain]:
        """The chain of every name that clients may send; aliases share one."""
        groups = {model.name: self._group(model) for model in models.values()}
        self._labels = {
            f"{target.provider}/{target.model}"
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
            known = f"{target.provider}/{target.model}"
            if known in self._labels:
                route = self._route(name, target)
            else:  # one id that is rate limited, or fails, is not all of them
                label = f"{target.provider}{_ANY_ID}"
                key = f"{label}{UNLISTED}{target.model}"
                route = self._route(name, target, label=label, key=key)
            chain = Chain(Group(name, (route,)))
            if len(self._unlisted) >= _UNLISTED:
                oldest = self._unlisted.pop(next(iter(self._unlisted)))
                key = oldest.own.routes()[0].standing.key
                self._forget([key] if UNLISTED in key else [])  # the config's own stay
            self._unlisted[name] = chain
        return chain

    # --- parts --------------------------------------------------------------------------------

    def _group(self, model: ResolvedModel) -> Group:
        """A model's own targets, each with the model's defaults and ceilings as it takes them."""
        ceilings = Ceilings.of(model.ceilings, clamp=model.clamp)
        parts: list[Route | Changing] = []
        for target in model.targets:
            fill = _fill(model, ceilings, target)
            route = self._route(model.name, target, fill=fill, ceilings=ceilings)
            if target.engine in self._external:
                parts.append(self._replicas(route, target, fill))
            else:
                parts.append(route)
        return Group(
            model.name,
            tuple(parts),
            Policy(model.balance),
            window=model.about.context_window,
            ceilings=ceilings,
        )

    def _route(
        self,
        model: str,
        target: ResolvedTarget,
        *,
        fill: Fill | None = None,
        ceilings: Ceilings | None = None,
        label: str = "",
        key: str = "",
    ) -> Route:
        able = Able.of(target.abilities, window=target.window, drop=target.drop)
        acting, credential = self._acting(target, fill, able.drop, label)
        return Route(
            model,
            acting,
            self._standings.of(key or acting.label, credential),
            prices=target.prices,
            ceilings=ceilings,
            weight=target.weight,
            able=able,
            slots=target.max_in_flight,
            bound=target.max_waiting,
            free=target.engine is not None,
        )

    def _acting(
        self, target: ResolvedTarget, fill: Fill | None, drop: frozenset[str], label: str
    ) -> tuple[ActingTarget, tuple[str, str] | None]:
        """The target, and what stands for the secret that it sends."""
        times = _times(target)
        if target.engine is not None:
            engine = self._config.engines[target.engine]
            if target.engine in self._external:
                return ExternalTarget(target.engine, self._fleet, times, max_wait=engine.wait), None
            local = EngineTarget(
                target.engine, self._engines, times, max_wait=engine.wait, fill=fill, drop=drop
            )
            return local, None
        assert target.provider is not None
        assert target.model is not None
        provider = self._config.providers[target.provider]
        row = account(target.provider, provider)
        first = row.credentials[0]
        headers = {**row.headers, **first.headers}
        credential = (target.provider, first.digest) if first.digest is not None else None
        acting = ProviderTarget(
            target.provider,
            target.model,
            row.base_url,
            headers,
            times,
            retry_ambiguous=row.retry_ambiguous,
            label=label,
            proxy=row.proxy,
            fill=fill,
            drop=drop,
        )
        return acting, credential

    def _replicas(self, stand_in: Route, target: ResolvedTarget, fill: Fill | None) -> Changing:
        assert target.engine is not None
        engine, fleet, times = target.engine, self._fleet, _times(target)

        def make(replica: Replica) -> Route:
            acting = ReplicaTarget(
                engine, replica, fleet, times, fill=fill, drop=stand_in.able.drop
            )
            return Route(
                stand_in.model,
                acting,
                self._standings.of(replica_key(engine, replica.address)),
                prices=stand_in.prices,
                ceilings=stand_in.ceilings,
                weight=stand_in.weight,
                able=stand_in.able,
                slots=stand_in.slots,
                bound=stand_in.bound,
                load=replica.load,
                load_ours=replica.load_ours,
                free=True,
            )

        return Changing(_Replicas(engine, fleet, stand_in, make, self._forget).now)


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


def replica_key(engine: str, address: str) -> str:
    """What is kept of a replica is kept by this."""
    return f"engine/{engine}@{address}"


def _times(target: ResolvedTarget) -> AttemptTimeouts:
    times = target.timeouts
    return AttemptTimeouts(
        connect=times.connect, first_byte=times.first_byte, inter_chunk=times.inter_chunk
    )


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


def _fill(model: ResolvedModel, ceilings: Ceilings | None, target: ResolvedTarget) -> Fill | None:
    """What only an engine's owner may set is the operator's to set, but not at a provider; and no
    default brings back what the target is spared."""
    without = target.drop | (LONGEST if target.drop & LONGEST else frozenset())
    if target.provider is None:
        return fill_of(model.defaults, ceilings, without=without)
    without |= ENGINE_ONLY
    if target.provider == "openai":
        without |= NOT_OPENAI
        longest = "max_completion_tokens"
        return fill_of(model.defaults, ceilings, without=without, chat_longest=longest)
    return fill_of(model.defaults, ceilings, without=without)
