"""What Helm prints after an install: where it is, how to ask it, and what is next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import helm_render
from tests.helm.policies import of_kind
from tests.helm.test_config import loaded

IMAGE = {"image": {"repository": "roundhouse", "tag": "dev"}}


def notes(values: dict[str, Any], release: str = helm_render.RELEASE) -> str:
    return helm_render.render(values, release)["roundhouse/templates/NOTES.txt"]


def named(values: dict[str, Any]) -> set[str]:
    return {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for each in helm_render.manifests(values)
    }


@pytest.mark.parametrize("name", helm_render.examples())
def test_what_they_say_to_ask_is_there(name: str, tmp_path: Path) -> None:
    values = helm_render.example(name)
    text = notes(values)
    (model,) = re.findall(r'"model": "(.+?)"', text)
    config = loaded(values, tmp_path).config
    assert model in {*config.models, *config.engines}
    (service,) = re.findall(r"port-forward (service/\S+)", text)
    assert service in named(values)
    (secret,) = re.findall(r"get secret (\S+)", text)
    given = values.get("secrets", {}).get("existingSecret")
    assert secret == given or f"secret/{secret}" in named(values)


def test_the_question_reaches_a_model_that_no_card_names() -> None:
    config = {"providers": {"lab": {"dialect": "openai", "base_url": "http://lab/v1"}}}
    assert '"model": "MODEL"' in notes({**IMAGE, "config": config})


def test_without_models_they_say_what_is_next(tmp_path: Path) -> None:
    text = notes(IMAGE)
    assert "has no models yet" in text
    assert "curl" not in text
    assert not loaded(IMAGE, tmp_path).config.models
    # What they tell to write down, as it stands there.
    wanted = re.findall(r"((?:engines|engineDefaults|config|secrets): [\[{].*[\]}])", text)
    assert len(wanted) == 4
    told = [yaml.safe_load(line.replace("VERSION", "v1")) for line in wanted]
    engines, image, config, secrets = told
    values = {**IMAGE, **engines, **image, **config, **secrets}
    served = loaded(values, tmp_path)
    assert set(served.config.engines) == {"qwen3-0-6b"}
    assert "openai" in served.config.providers
    assert "has no models yet" not in notes(values)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({}, "http://roundhouse.models.svc/v1"),
        ({"service": {"port": 8080}}, "http://roundhouse.models.svc:8080/v1"),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "and at http://a.example/v1"),
        (
            {"ingress": {"enabled": True, "hosts": ["a.example"], "tls": [{"secretName": "a"}]}},
            "and at https://a.example/v1",
        ),
    ],
)
def test_where_it_is(values: dict[str, Any], where: str) -> None:
    assert where in notes({**IMAGE, **values})


def test_engines_that_everybody_reaches_are_told() -> None:
    values = {**helm_render.example("one-gpu"), "networkPolicy": {"enabled": False}}
    assert "may use it without a key" in notes(values)
    assert not of_kind(helm_render.manifests(values), "NetworkPolicy")
    assert "without a key" not in notes(helm_render.example("one-gpu"))


def test_what_one_pod_is_told_is_not_told_to_all() -> None:
    for values in (IMAGE, helm_render.example("one-gpu")):
        assert "`roundhouse load`, `unload` and `default` change is one pod's" in notes(values)
