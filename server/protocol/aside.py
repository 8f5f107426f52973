"""What long bodies cost, beside the loop: in few threads that are there for nothing else.

The loop's own threads are everybody's (a reload, the engines' starts), and the end of the server
waits for them. These it does not wait for, and who left before his turn is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

#: Bytes from which translating a body is no work for the loop: it takes a millisecond or so.
LONG: Final = 256 * 1024
#: More would not be faster: they share one interpreter.
THREADS: Final = 2

Given = ParamSpec("Given")
Result = TypeVar("Result")
_Job = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]

_jobs: Final[queue.SimpleQueue[_Job]] = queue.SimpleQueue()
_started: Final[list[threading.Thread]] = []


async def aside(work: Callable[Given, Result], *given: Given.args, **more: Given.kwargs) -> Result:
    """What `work` gives or raises, done in a thread. Cancelling before its turn takes it back;
    what has begun goes on, and nobody hears of it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    while len(_started) < THREADS:
        thread = threading.Thread(target=_work, name=f"aside-{len(_started)}", daemon=True)
        thread.start()
        _started.append(thread)
    _jobs.put((loop, future, lambda: work(*given, **more)))
    try:
        return await future
    finally:
        del future  # it holds the error, whose traceback would hold it


def _work() -> None:
    while True:
        _do(*_jobs.get())


def _do(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], work: Callable[[], Any]
) -> None:
    if future.cancelled():
        return
    found, failed = None, None
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        failed = error.with_traceback(None)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_tell, future, found, failed)


def _tell(future: asyncio.Future[Any], found: object, failed: Exception | None) -> None:
    if future.cancelled():
        return
    if failed is not None:
        future.set_exception(failed)
    else:
        future.set_result(found)
