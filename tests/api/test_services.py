"""What a config's sections become when the server acts on them."""

from __future__ import annotations

import pytest

from server.api.services import make_target
from server.config.links import provider_target
from server.config.schema import Config
from server.engines.state import EngineView
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
