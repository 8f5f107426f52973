"""The config that the chart makes is one that the server takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts import helm_render
from server.config.load import load
from server.config.loaded import Loaded
from server.config.units import seconds
from tests.helm.policies import Manifest, of_kind, pods

# What the secrets of the examples have.
ENVIRONMENT = {
    "ROUNDHOUSE_API_KEY": "a-key-of-the-clients",
    "ROUNDHOUSE_ADMIN_KEY": "a-key-of-the-operator",
    "OPENAI_API_KEY": "a-key-of-one-provider",
    "ANTHROPIC_API_KEY": "a-key-of-another",
}
IMAGE = {"image": {"repository": "roundhouse", "tag": "dev"}}
VLLM = {"engineDefaults": {"image": {"tag": "v1"}}}


def config_of(manifests: list[Manifest]) -> str:
    text: str = of_kind(manifests, "ConfigMap")[0]["data"]["roundhouse.yaml"]
    return text


def loaded(values: dict[str, Any], folder: Path) -> Loaded:
    file = folder / "roundhouse.yaml"
    file.write_text(config_of(helm_render.manifests(values)), "utf-8")
    return load(file, environ=ENVIRONMENT, cwd=folder)


def grace(values: dict[str, Any]) -> int:
    pod = next(pod for pod in pods(helm_render.manifests(values)) if not pod.role)
    period: int = pod.spec["terminationGracePeriodSeconds"]
    return period


@pytest.mark.parametrize("name", helm_render.examples())
def test_the_server_takes_it(name: str, tmp_path: Path) -> None:
    values = helm_render.example(name)
    config = loaded(values, tmp_path).config
    assert (config.server.host, config.server.port) == ("0.0.0.0", 8000)
    assert config.server.admin == "0.0.0.0:8001"
    assert set(config.engines) == {engine["name"] for engine in values.get("engines", [])}
    for name, engine in config.engines.items():
        assert engine.runtime == "external"
        assert engine.discover == f"dns://roundhouse-engine-{name}.models.svc:8000"


@pytest.mark.parametrize("name", helm_render.examples())
def test_each_engine_is_found_at_a_headless_service(name: str, tmp_path: Path) -> None:
    manifests = helm_render.manifests(helm_render.example(name))
    services = {
        f"dns://{each['metadata']['name']}.models.svc:{port['port']}"
        for each in of_kind(manifests, "Service")
        if each["spec"].get("clusterIP") == "None"
        for port in each["spec"]["ports"]
    }
    engines = loaded(helm_render.example(name), tmp_path).config.engines
    assert {engine.discover for engine in engines.values()} == services


def test_numbers_false_and_nothing_come_through(tmp_path: Path) -> None:
    limits = {"in_flight": 5_000_000, "waiting": 0}
    values = {
        **IMAGE,
        "config": {"server": {"docs": False, "limits": limits}},
        "engineDefaults": {"image": {"tag": "v1"}, "config": {"max_waiting": 5}},
        "engines": [{"name": "a", "model": "b/c", "config": {"max_waiting": 0}}],
    }
    config = loaded(values, tmp_path).config
    assert config.server.docs is False
    assert config.server.limits.in_flight == 5_000_000
    assert config.server.limits.waiting == 0
    assert config.engines["a"].max_waiting == 0


def test_an_engines_card_is_that_of_its_weights(tmp_path: Path) -> None:
    engines = [
        {"name": "hub", "model": "Qwen/Qwen3-8B"},
        {"name": "own", "model": "/models/mine"},
        {"name": "named", "model": "/models/mine", "servedName": "Qwen/Qwen3-8B"},
    ]
    config = loaded({**IMAGE, **VLLM, "engines": engines}, tmp_path).config
    assert [config.engines[name].model for name in ("hub", "own", "named")] == [
        "Qwen/Qwen3-8B",
        "own",
        "Qwen/Qwen3-8B",
    ]


@pytest.mark.parametrize("drain", [0, 25, 1.5, "30", "500ms", "30s", "1h30m", "2 m", "0.5h", "1d"])
def test_a_pod_has_longer_than_its_drain(drain: float | str) -> None:
    timeouts = {"drain": drain, "unready": "3s"}
    values = {**IMAGE, "config": {"server": {"timeouts": timeouts}}}
    needed = seconds(drain) + 3 + 10
    assert needed + 15 <= grace(values) <= needed + 16


def test_a_config_that_says_no_drain_has_the_servers() -> None:
    assert grace({**IMAGE, "config": {"server": None}}) == 10 + 25 + 15
    assert grace({**IMAGE, "gateway": {"preStopSeconds": 0}}) == 120 + 15
    assert grace({**IMAGE, "gateway": {"terminationGracePeriodSeconds": 600}}) == 600


def test_only_the_switch_replaces_pods_when_the_config_changes() -> None:
    def annotations(models: dict[str, Any], switch: bool) -> Any:
        values = {
            **IMAGE,
            "config": {"models": models},
            "gateway": {"rolloutOnConfigChange": switch},
        }
        deployment = of_kind(helm_render.manifests(values), "Deployment")[0]
        return deployment["spec"]["template"]

    more = {"fast": {"alias": "gpt-6-luna"}}
    assert annotations({}, False) == annotations(more, False)
    assert annotations({}, True) != annotations(more, True)
