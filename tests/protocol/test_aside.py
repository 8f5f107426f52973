"""Threads for long bodies."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.protocol.aside import THREADS, aside


async def test_what_it_gives_and_raises() -> None:
    main = threading.get_ident()
    assert await aside(threading.get_ident) != main

    def broken(text: str, *, code: int) -> None:
        raise ValueError(text, code)

    with pytest.raises(ValueError, match="no") as caught:
        await aside(broken, "no", code=3)
    assert caught.value.args == ("no", 3)


async def test_its_threads_are_few_and_end_with_the_process() -> None:
    begun, release = threading.Semaphore(0), threading.Event()

    def hold() -> str:
        begun.release()
        release.wait()
        return threading.current_thread().name

    tasks = [asyncio.create_task(aside(hold)) for _ in range(3 * THREADS)]
    for _ in range(THREADS):
        await asyncio.to_thread(begun.acquire)
    assert not begun.acquire(blocking=False)
    release.set()
    assert len(set(await asyncio.gather(*tasks))) <= THREADS
    ours = [one for one in threading.enumerate() if one.name.startswith("aside-")]
    assert len(ours) == THREADS
    assert all(one.daemon for one in ours)


async def test_who_left_is_passed_over() -> None:
    done: list[int] = []
    release = threading.Event()
    holders = [asyncio.create_task(aside(release.wait)) for _ in range(THREADS)]
    gone = asyncio.create_task(aside(done.append, 1))
    stays = asyncio.create_task(aside(done.append, 2))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    release.set()
    await asyncio.gather(*holders, stays)
    assert done == [2]


async def test_who_leaves_while_it_is_done_hears_nothing() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()
        raise ValueError("nobody hears this")

    task = asyncio.create_task(aside(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await aside(int, "7") == 7
