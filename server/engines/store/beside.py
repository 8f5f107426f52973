"""Work in a thread that nobody waits for: a silent hub must hold neither Ctrl-C nor a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from server.engines.store.errors import Cancelled

T = TypeVar("T")

#: Seconds between two looks at whether somebody wants no more of it.
LOOK = 0.2


def beside(
    work: Callable[[], T], stop: threading.Event, tick: Callable[[], None], *, name: str
) -> T:
    """What `work` returns or raises. Raises Cancelled once `stop` is set; the thread then ends
    when it can, and what it finds is dropped. So it is when `tick`, called meanwhile, raises."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    while True:
        thread.join(LOOK)
        if not thread.is_alive():
            break
        if stop.is_set():
            raise Cancelled
        tick()
    if errors:
        raise errors[0]
    return results[0]
