"""What a config's models become when the server acts on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from server.api.services import State, build_state
from server.config.load import load
from server.engines.fleet import Fleet, settings_of
from server.engines.state import EngineState, EngineView, Instance
from server.errors import EngineNotReady
from server.registry import Catalog
from server.routing.chain import Chain, Loading
from server.routing.policies import Policy
from server.routing.standing import Standings
from server.targets import Engines, EngineTarget, ProviderTarget
from server.telemetry.metrics import Metrics

HEAD = 'version: 1\nproviders: {lab: {dialect: openai, base_url: "http://x/v1"}}\n'


class NoEngines:
    """A supervisor without engines."""

    def view(self, name: str) -> EngineView | None:
        return None

    def instances(self, name: str) -> tuple[Instance, ...]:
        return ()

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None: ...

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        raise NotImplementedError

    def want(self, name: str) -> None: ...

    def report_failure(self, name: str, generation: int) -> None: ...

    def eta(self, name: str) -> float | None:
        return None

    def hopeless(self, name: str) -> EngineNotReady | None:
        return None


def state_of(
    tmp_path: Path, text: str, standings: Standings | None = None, *, head: str = HEAD
) -> State:
    file = tmp_path / "roundhouse.yaml"
    file.write_text(head + text)
    loaded = load(file, environ={}, catalog=Catalog([]))
    fleet = Fleet(settings_of(loaded.config.engines), metrics=Metrics())
    return build_state(loaded, NoEngines(), fleet, standings or Standings())


def labels(chain: Chain) -> list[list[str]]:
    """Of the model's own targets, then of each of its fallbacks."""
    return [[r.target.label for r in g.routes()] for g in (chain.own, *chain.fallbacks)]


@pytest.mark.parametrize("proxy", [None, "http://u:hush@proxy.internal:3128"])
def test_a_providers_settings_reach_its_target(tmp_path: Path, proxy: str | None) -> None:
    head = (
        "version: 1\nproviders:\n"
        '  lab: {dialect: openai, base_url: "http://x/v1", api_key: k-hush, '
        f"proxy: {(proxy and repr(proxy)) or 'null'}}}\n"
    )
    state = state_of(tmp_path, "models: {a: {targets: [{provider: lab, model: a}]}}", head=head)
    target = state.chains["a"].own.routes()[0].target
    assert isinstance(target, ProviderTarget)
    assert target.proxy == proxy
    assert target.headers == {"authorization": "Bearer k-hush"}
    assert "hush" not in repr(target)


def test_every_name_of_a_model_has_its_chain_once(tmp_path: Path) -> None:
    state = state_of(
        tmp_path,
        "models:\n"
        "  a: {targets: [{provider: lab, model: a}], fallbacks: [b, d]}\n"
        "  b: {targets: [{provider: lab, model: b}], fallbacks: [c]}\n"
        "  c: {targets: [{provider: lab, model: c}], fallbacks: [d]}\n"
        "  d: {targets: [{provider: lab, model: d}]}\n"
        "  other: {alias: a}\n"
        "  another: {alias: other}\n",
    )
    found = {name: labels(chain) for name, chain in state.chains.items()}
    every = [["lab/a"], ["lab/b"], ["lab/c"], ["lab/d"]]
    expected = {"a": every, "b": every[1:], "c": every[2:], "d": every[3:]}
    assert found == {**expected, "other": every, "another": every}
    assert state.chains["other"] is state.chains["a"]


def test_what_a_model_says_of_its_routing(tmp_path: Path) -> None:
    state = state_of(
        tmp_path,
        "engines: {e: {weights: ./w, max_in_flight: 4, max_waiting: 9}}\n"
        "models:\n"
        "  a:\n"
        "    balance: weighted\n"
        "    targets:\n"
        "      - {engine: e, weight: 3}\n"
        "      - {provider: lab, model: x, max_in_flight: 2, max_waiting: 1, drop: [logprobs]}\n"
        "    abilities: {tools: false}\n"
        "    context_window: 100\n"
        "    context_fallbacks: [long]\n"
        "    content_fallbacks: [mild]\n"
        "    bridge: mild\n"
        "    while_loading: wait\n"
        "  long: {targets: [{provider: lab, model: l}], context_window: 1000}\n"
        "  mild: {targets: [{provider: lab, model: m}]}\n",
    )
    chain = state.chains["a"]
    assert chain.own.policy is Policy.WEIGHTED
    assert (chain.own.window, chain.loading) == (100, Loading.WAIT)
    engine, provider = chain.own.routes()
    assert (engine.weight, engine.slots, engine.bound) == (3, 4, 9)
    assert (provider.weight, provider.slots, provider.bound) == (1, 2, 1)
    assert provider.able.drop == {"logprobs", "top_logprobs"}
    assert provider.able.lacks == ("tools",)
    assert [group.model for group in chain.context] == ["long"]
    assert [group.model for group in chain.content] == ["mild"]
    assert chain.bridge is chain.content[0]
    assert [group.model for group in chain.groups()] == ["a", "mild", "long"]
    alone = chain.alone()
    assert (alone.own, alone.loading, alone.groups()) == (chain.own, Loading.WAIT, (chain.own,))


def test_standings_outlive_a_reload_and_a_new_key_begins_anew(tmp_path: Path) -> None:
    def text(key: str) -> tuple[str, str]:
        head = (
            "version: 1\nproviders:\n"
            f'  lab: {{dialect: openai, base_url: "http://x/v1", api_key: {key}}}\n'
        )
        return head, (
            "models:\n  a: {targets: [{provider: lab, model: a}]}\n"
            "  b: {targets: [{provider: lab, model: b}]}\n"
        )

    standings = Standings()
    head, models = text("k-one")
    before = state_of(tmp_path, models, standings, head=head)
    a, b = (before.chains[name].own.routes()[0].standing for name in "ab")
    assert a is not b
    assert a.credential is b.credential is not None
    old = a.credential
    same = state_of(tmp_path, models, standings, head=head).chains["a"].own.routes()[0]
    assert same.standing is a
    head, models = text("k-two")
    after = state_of(tmp_path, models, standings, head=head)
    standings.retain(after.builder.keys(after.chains.values()))
    assert after.chains["a"].own.routes()[0].standing is a
    assert a.credential is not old
    assert len(list(standings.credentials())) == 1
    less = state_of(tmp_path, "models: {}\n", standings, head=head)
    standings.retain(less.builder.keys(less.chains.values()))
    assert list(standings) == []


# --- engines that run several times


class Instances(NoEngines):
    """A supervisor whose engine `e` runs as often as the test says."""

    ready: tuple[Instance, ...] = ()

    def instances(self, name: str) -> tuple[Instance, ...]:
        assert name == "e"
        return self.ready


def several(tmp_path: Path, engines: Engines, replicas: int, **engine: object) -> State:
    file = tmp_path / "roundhouse.yaml"
    config = {
        "version": 1,
        "engines": {"e": {"weights": "./w", "replicas": replicas, **engine}},
        "models": {
            "a": {"targets": [{"engine": "e"}], "balance": "least_busy"},
            "b": {"targets": [{"engine": "e"}]},
        },
    }
    file.write_text(yaml.safe_dump(config))
    loaded = load(file, environ={}, catalog=Catalog([]))
    return build_state(loaded, engines, Fleet({}, metrics=Metrics()), Standings())


def test_one_instance_is_the_engine_itself(tmp_path: Path) -> None:
    chain = several(tmp_path, Instances(), 1).chains["a"]
    assert chain.first is not None
    assert isinstance(chain.first.target, EngineTarget)
    assert chain.first.standing.key == "engine/e"


def test_each_instance_that_is_ready_is_a_target(tmp_path: Path) -> None:
    engines = Instances()
    state = several(tmp_path, engines, 3, max_in_flight=2)
    chain, same = state.chains["a"], state.chains["b"]
    assert chain.first is None
    (waited_for,) = chain.own.routes()
    assert isinstance(waited_for.target, EngineTarget)
    assert waited_for.standing.key == "engine/e"

    def instance(replica: int, generation: int) -> Instance:
        return Instance(replica, EngineState.READY, socket=f"/s{generation}", generation=generation)

    engines.ready = (instance(0, 1), instance(2, 2))
    routes = chain.own.routes()
    assert [route.standing.key for route in routes] == ["engine/e@0", "engine/e@2"]
    assert [(route.target.label, route.slots) for route in routes] == [("engine/e", 2)] * 2
    assert [route.target.mark() for route in routes] == [1, 2]
    assert chain.own.routes() == routes
    assert chain.own.by_part() == [(routes[0],), (routes[1],)]  # the policy chooses among them
    assert len(same.own.by_part()) == 1  # or they have the engine's place
    engines.ready = (instance(0, 1), instance(2, 2))  # as good as the same
    assert chain.own.routes()[0] is routes[0]
    engines.ready = (instance(0, 3), instance(2, 2))
    again = chain.own.routes()
    assert [route.target.mark() for route in again] == [3, 2]
    assert again[0].standing is routes[0].standing is same.own.routes()[0].standing
    engines.ready = ()
    assert chain.own.routes() == (waited_for,)


def test_a_command_may_call_its_model_as_it_likes(tmp_path: Path) -> None:
    head = (
        "version: 1\nengines:\n"
        "  c: {runtime: command, cmd: 'serve --port ${PORT}', model: theirs}\n"
        "  d: {runtime: command, cmd: 'serve --port ${PORT}'}\n"
    )
    state = state_of(tmp_path, "", head=head)
    found = {name: state.chains[name].own.routes()[0].target for name in ("c", "d")}
    models = {n: t.model for n, t in found.items() if isinstance(t, EngineTarget)}
    assert models == {"c": "theirs", "d": "d"}
