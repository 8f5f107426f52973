"""Changes of engines as they happen, for whoever wants to follow them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from server.engines.state import EngineView

_LONGEST: Final = 256


class Feed:
    """Changes of engines as they happen, beginning with all as they are.

    Bounded: a slow reader loses the oldest. Use as a context manager; iteration ends when the
    one that it is of closes.
    """

    def __init__(self, first: Iterable[EngineView], leave: Callable[[Feed], None]) -> None:
        self._views = deque(first, maxlen=_LONGEST)
        self._news = asyncio.Event()
        self._leave, self._ended = leave, False

    def put(self, view: EngineView) -> None:
        self._views.append(view)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> EngineView:
        while not self._views:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._views.popleft()
