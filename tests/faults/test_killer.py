"""A whole server under load while its upstreams fall ill, one every second: the invariants.

`KILLER_SECONDS=180 KILLER_SEED=2 pytest -s tests/faults/test_killer.py` runs for longer, with
another seed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import httpx
import pytest

from tests.fakes.tls import make_tls
from tests.faults.checked import End, Load, Outcome, Question, counts, loading
from tests.faults.conftest import read_metric
from tests.faults.killer import SERVER, ZONE, Fault, Killer, Patient, config_for
from tests.faults.process import Served, served

SECONDS: Final = int(os.environ.get("KILLER_SECONDS") or 15)
SEED: Final = int(os.environ.get("KILLER_SEED") or 1)
#: Requests a second.
RATE: Final = 40.0
#: Seconds for everything to be as it was.
CALM: Final = 60.0
#: Runs that are shorter than this do not wait for idle connections to be given up.
SHORT: Final = 60
#: What all the faults look like from inside. In less time some fall on targets that nobody asks.
OUTCOMES: Final = (
    *("refused", "dns", "tls", "reset", "first_byte_timeout", "stall", "truncated", "protocol"),
    *("http_5xx", "http_429", "http_auth"),
)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a server that has nothing to do holds."""

    descriptors: int
    sockets: int
    tasks: int
    in_flight: int
    waiting: int


@dataclass(slots=True)
class Books:
    """The server's own: what it counted."""

    text: str

    def __call__(self, name: str, **labels: str) -> int:
        return int(read_metric(self.text, name, **labels))


async def books_of(server: Served) -> Books:
    async with httpx.AsyncClient() as http:
        return Books((await http.get(f"{server.admin_url}/metrics")).text)


async def at_rest(server: Served) -> Rest:
    """As it is once the scrape's own connection is gone."""
    books = await books_of(server)
    before = -1
    while before != (before := server.open_files):
        await asyncio.sleep(0.05)
    return Rest(
        before,
        server.sockets,
        books("tasks"),
        books("requests_in_flight"),
        books("queue_depth"),
    )


async def calm(server: Served, before: Rest) -> tuple[Rest, float]:
    """As it is when it is as before, or after CALM seconds; and how long that took."""
    start = time.monotonic()
    while (now := await at_rest(server)) != before and time.monotonic() - start < CALM:
        await asyncio.sleep(0.5)
    return now, time.monotonic() - start


def draw(random: Random, number: int) -> Question:
    model = random.choice(["alpha", "beta"])
    stream = random.random() < 0.6
    return Question(
        number,
        model,
        pieces=random.randint(2, 12),
        stream=stream,
        leaves=stream and random.random() < 0.05,
        more={"fallbacks": ["alpha"]} if model == "beta" and random.random() < 0.5 else {},
    )


def untrue(killer: Killer, outcomes: list[Outcome]) -> list[str]:
    """Errors that no fault explains, and those that do not say whether to come again."""
    found = []
    for each in outcomes:
        if each.end not in (End.ERROR, End.BROKEN):
            continue
        if not killer.explains(each.word, each.began, each.ended):
            began, ended = killer.since(each.began), killer.since(each.ended)
            found.append(f"unexplained, from {began:.2f} to {ended:.2f} s: {each}")
        # The SDKs are told when to come again, or not to.
        head = each.head
        if each.end is End.ERROR and (
            head is None
            or (head.header("retry-after") is None) == (head.header("x-should-retry") is None)
        ):
            found.append(f"without Retry-After and x-should-retry, or with both: {each}")
    return found


@dataclass(slots=True)
class Run:
    """What there was to see."""

    load: Load
    killer: Killer
    patients: list[Patient]
    books: Books
    before: Rest
    after: Rest
    took: float

    def figures(self) -> str:
        offered = len(self.load.outcomes)
        ends = Counter(outcome.end for outcome in self.load.outcomes)
        seen = sum(patient.seen for patient in self.patients)
        spent, free, refused = (
            self.books("retries_total", result=result) for result in ("spent", "free", "refused")
        )
        lines = [
            f"seed {SEED}, {SECONDS} s: {offered} offered, "
            + ", ".join(f"{count} {end}" for end, count in ends.most_common()),
            f"  {seen} attempts came to upstreams, {seen / offered:.3f} of offered",
            f"  extra attempts: {spent} on the budget, {free} free, {refused} refused",
            f"  {self.books('fallbacks_total')} fallbacks",
            f"  calm after {self.took:.1f} s: {self.before} → {self.after}",
            f"  faults {dict(Counter(str(blow.fault) for blow in self.killer.blows))}",
        ]
        lines += [f"  {count:6} {end}" for end, count in counts(self.load.outcomes).most_common()]
        return "\n".join(lines)


async def run(folder: Path) -> Run:
    random = Random(SEED)
    tls = make_tls(f"four{ZONE}")
    stranger = make_tls(f"four{ZONE}").server
    (folder / "authority.pem").write_bytes(tls.ca_pem)
    (folder / "graves").mkdir()
    patients = [Patient(name) for name in ("one", "two", "three")]
    patients.append(Patient("four", tls.server))
    killer = Killer(patients, folder / "graves", Random(SEED + 1), stranger)
    config = config_for(patients, random)
    async with AsyncExitStack() as stack:
        for patient in patients:
            await patient.start()
            stack.push_async_callback(patient.close)
        environment = {"SSL_CERT_FILE": str(folder / "authority.pem")}
        server = await stack.enter_async_context(
            served(folder, config, program=SERVER, environment=environment)
        )
        before = await at_rest(server)
        async with loading(server.port) as load, asyncio.TaskGroup() as group:
            group.create_task(load.run(SECONDS, RATE, lambda number: draw(random, number)))
            group.create_task(killer.run(SECONDS))
        if SECONDS < SHORT:
            for patient in patients:
                patient.hang_up_idle()
        after, took = await calm(server, before)
        books = await books_of(server)
        server.signal()
        assert await server.process.wait() == 0
    return Run(load, killer, patients, books, before, after, took)


@pytest.mark.timeout(SECONDS + 240)
async def test_the_killer(tmp_path: Path) -> None:
    seen = await run(tmp_path)
    print(seen.figures())
    outcomes, books = seen.load.outcomes, seen.books
    ends = Counter(outcome.end for outcome in outcomes)
    offered = len(outcomes)
    # Every request ends once, and rightly.
    assert offered == int(SECONDS * RATE)
    assert [str(each) for each in outcomes if each.end is End.WRONG] == []
    assert untrue(seen.killer, outcomes) == []
    assert ends[End.ANSWERED] > ends[End.ERROR] + ends[End.BROKEN]
    if SECONDS >= 15:  # they come by turns
        assert {blow.fault for blow in seen.killer.blows} == set(Fault)
    if SECONDS >= SHORT:
        for outcome in OUTCOMES:
            assert books("attempts_total", outcome=outcome), outcome
    # The server's books say the same.
    assert books("requests_total", endpoint="chat") == offered
    for status, count in Counter(each.status for each in outcomes if each.status != 200).items():
        assert books("requests_total", status=str(status)) == count
    answered = ends[End.ANSWERED]
    assert answered <= books("attempts_total", outcome="ok") <= answered + ends[End.LEFT]
    streams = sum(outcome.question.stream for outcome in outcomes)
    assert books("stream_end_total") == streams
    done = sum(each.question.stream and each.end is End.ANSWERED for each in outcomes)
    assert done <= books("stream_end_total", reason="done") <= done + ends[End.LEFT]
    # Nothing is asked twice but by the one layer that counts it.
    came = sum(patient.seen for patient in seen.patients)
    assert came <= books("attempts_total")
    extra = books("retries_total", result="spent") + books("retries_total", result="free")
    assert books("attempts_total") <= offered + extra
    assert books("retries_total", result="spent") <= 0.2 * offered + 10
    # And afterwards nothing is left of it.
    assert seen.after == seen.before
    assert (seen.after.in_flight, seen.after.waiting) == (0, 0)
