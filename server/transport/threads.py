"""What may take the system long, each in a thread of its own and one at a time for each key.

The loop's own few threads are everybody's, and the end of the server waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
_Asked = tuple[asyncio.AbstractEventLoop, str, Hashable]

#: What is under way. A thread takes its own out.
_running: Final[dict[_Asked, asyncio.Future[Any]]] = {}


def ask(name: str, key: Hashable, work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Have `work` done in a thread called `name`, or join who is at it for the same name and key.

    Raises RuntimeError when there can be no more threads.
    """
    loop = asyncio.get_running_loop()
    asked = loop, name, key
    if (running := _running.get(asked)) is None:
        running = _running[asked] = loop.create_future()
        running.add_done_callback(asyncio.Future.exception)  # nobody may be there to hear of it
        # A daemon: the end of the server does not wait for it.
        thread = threading.Thread(target=_work, args=(asked, running, work), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            del _running[asked]
            raise
    return running


async def answer(running: asyncio.Future[Result]) -> Result:
    """What the work gave or raised. Cancelling leaves it running: others may have joined."""
    try:
        await asyncio.wait((running,))
        return running.result()
    finally:
        del running  # it holds the error, whose traceback would hold it


def _work(asked: _Asked, running: asyncio.Future[Result], work: Callable[[], Result]) -> None:
    found: Result | None = None
    failed: Exception | None = None
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        failed = error.with_traceback(None)
    del _running[asked]
    with contextlib.suppress(RuntimeError):  # the loop is closed
        asked[0].call_soon_threadsafe(_tell, running, found, failed)


def _tell(running: asyncio.Future[Any], found: object, failed: Exception | None) -> None:
    if failed is not None:
        running.set_exception(failed)
    else:
        running.set_result(found)
