"""What a config's sections become when the server acts on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.api.services import build_state, make_target
from server.config.load import load
from server.config.resolve import provider_target
from server.config.schema import Config
from server.engines.state import EngineView
from server.registry import Catalog
from server.targets import ProviderTarget


class NoEngines:
    """A supervisor without engines."""

    def view(self, name: str) -> EngineView | None:
        return None

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        raise NotImplementedError

    def want(self, name: str) -> None: ...

    def report_failure(self, name: str, generation: int) -> None: ...


def provider(**settings: object) -> ProviderTarget:
    config = Config.model_validate(
        {
            "version": 1,
            "providers": {"lab": {"dialect": "openai", "base_url": "http://x/v1", **settings}},
        }
    )
    resolved = provider_target(config, "lab/some")
    assert resolved is not None
    target = make_target(resolved, config, NoEngines())
    assert isinstance(target, ProviderTarget)
    return target


@pytest.mark.parametrize("proxy", [None, "http://u:hush@proxy.internal:3128"])
def test_a_providers_proxy_reaches_its_target(proxy: str | None) -> None:
    target = provider(api_key="k-hush", proxy=proxy)
    assert target.proxy == proxy
    assert target.headers == {"authorization": "Bearer k-hush"}
    assert "hush" not in repr(target)


def test_every_name_of_a_model_has_its_routes_once(tmp_path: Path) -> None:
    file = tmp_path / "roundhouse.yaml"
    file.write_text(
        "version: 1\n"
        'providers: {lab: {dialect: openai, base_url: "http://x/v1"}}\n'
        "models:\n"
        "  a: {targets: [{provider: lab, model: a}], fallbacks: [b]}\n"
        "  b: {targets: [{provider: lab, model: b}], fallbacks: [c]}\n"
        "  c: {targets: [{provider: lab, model: c}]}\n"
        "  other: {alias: a}\n"
        "  another: {alias: other}\n"
    )
    routes = build_state(load(file, environ={}, catalog=Catalog([])), NoEngines()).routes
    labels = {name: [route.target.label for route in found] for name, found in routes.items()}
    chain = ["lab/a", "lab/b", "lab/c"]
    assert labels == {"a": chain, "other": chain, "another": chain, "b": chain[1:], "c": chain[2:]}
