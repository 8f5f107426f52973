"""Asking what may never answer, such as a driver that hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Seconds. A driver that has to wake up takes some, the tool that is asked instead of it 15.
LIMIT: Final = 30.0


def in_time(question: Callable[[], T], limit: float = LIMIT) -> T:
    """The answer, where no loop is. Raises TimeoutError, and what the question does."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except Exception as fault:  # noqa: BLE001 - it is raised where it was asked
            answer.set_exception(fault)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(limit)


class Patience(Generic[T]):
    """One question, in a thread of its own: not in one of the loop's, which are few, and which a
    server that ends waits for. Who asks while it is under way shares the answer, so that what hangs
    takes one thread, however often it is asked; and who asks after somebody has waited in vain is
    told so at once.
    """

    def __init__(self, name: str, limit: float = LIMIT) -> None:
        self.name, self.limit = name, limit
        self._asked: asyncio.Future[T] | None = None
        #: The question under way has had all its time.
        self.late = False

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises TimeoutError after `limit` seconds, and what the question does."""
        if self.late:
            raise TimeoutError
        asked = self._asked or self._begin(question)
        try:
            async with asyncio.timeout(self.limit):
                return await asyncio.shield(asked)
        except TimeoutError:
            self.late = not asked.done()
            raise

    def _begin(self, question: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[T] = loop.create_future()
        self._asked = asked

        def over(tell: Callable[[], None]) -> None:
            self._asked, self.late = None, False
            tell()
            asked.exception()  # who asked may be gone

        def run() -> None:
            try:
                tell = partial(asked.set_result, question())
            except Exception as fault:  # noqa: BLE001 - it is raised where it was asked
                tell = partial(asked.set_exception, fault)
            try:
                loop.call_soon_threadsafe(over, tell)
            except RuntimeError:  # the loop has ended
                return

        threading.Thread(target=run, name=self.name, daemon=True).start()
        return asked
