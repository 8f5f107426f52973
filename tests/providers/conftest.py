"""A whole server in front of upstreams that answer as providers do, and OpenAI's SDK before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from server.serving import Roundhouse
from tests.providers.house import KEY, Serve, start

Sdk = Callable[..., openai.AsyncOpenAI]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers; when they are stopped, nothing of any request is left."""
    async with AsyncExitStack() as stack:

        async def started(providers: dict[str, Any], **more: Any) -> Roundhouse:
            return await stack.enter_async_context(start(tmp_path, providers, **more))

        yield started


@pytest.fixture
async def sdk() -> AsyncIterator[Sdk]:
    """Makes clients of a server: strict ones, which refuse what OpenAI would not send, and never
    ask twice."""
    async with AsyncExitStack() as stack:
        opened: list[openai.AsyncOpenAI] = []

        def client(server: Roundhouse, *, strict: bool = True) -> openai.AsyncOpenAI:
            made = openai.AsyncOpenAI(
                base_url=f"{server.url}/v1",
                api_key=KEY,
                organization="org-of-the-client",
                max_retries=0,
                timeout=20,
                _strict_response_validation=strict,
            )
            opened.append(made)
            return made

        yield client
        for made in opened:
            await stack.enter_async_context(made)
