"""All targets answer 500 for five seconds, under load: no storm of ours on top of it, and the way
back.

The model `all` has two targets, both in the storm; `half` has one in it and one that is well, so
that its share shows the ramp.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from server.routing.breaker import State
from tests.fakes.upstream import (
    Exchange,
    Script,
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
)
from tests.faults.checked import End, Outcome, Question, counts, loading, pieces_for
from tests.faults.conftest import read_metric
from tests.faults.process import Served, served

#: Seconds: of the storm, and of the load from its beginning until all is as before.
STORM: Final = 5.0
LOAD: Final = 26.0
#: Requests a second to each model.
ALL, HALF = 40.0, 60.0
#: Attempts beyond the first that are always allowed.
FLOOR: Final = 10
TARGETS: Final = ("one/x", "two/x", "three/x")
#: Seconds of each step of a breaker's ramp, and the least and the most of its share; in between is
#: what it lets through, give or take five deviations.
STEP: Final = 5.0
SHARES: Final = ((0.0, 0.2), (0.12, 0.4), (0.35, 0.65))


class Weather:
    """Upstreams that do not answer in a storm. Times are those of the loop."""

    def __init__(self) -> None:
        self.over: float | None = None
        #: When requests came in, to whomever.
        self.came: list[float] = []

    def under(self, name: str) -> Script:
        async def answer(exchange: Exchange) -> None:
            self.came.append(now())
            pieces, stream = pieces_for(exchange, name)
            if self.over is None and name != "well":
                await answer_json(500, error("inside"))(exchange)
            else:
                await (chat_stream(pieces) if stream else chat_answer("".join(pieces)))(exchange)

        return answer

    async def blow_over(self) -> None:
        await asyncio.sleep(STORM)
        self.over = now()


def now() -> float:
    return asyncio.get_running_loop().time()


def config_for(upstreams: dict[str, ScriptedUpstream]) -> dict[str, Any]:
    def on(*names: str) -> dict[str, Any]:
        return {"targets": [{"provider": name, "model": "x"} for name in names]}

    return {
        "version": 1,
        "server": {"port": 0, "admin": "127.0.0.1:0"},
        "routing": {"breaker": {"open_first": "1s", "open_cap": "2s"}},
        "providers": {
            name: {"dialect": "openai", "base_url": f"{upstream.url}/v1"}
            for name, upstream in upstreams.items()
        },
        "models": {"all": on("one", "two"), "half": on("three", "well")},
    }


async def states(server: Served, http: httpx.AsyncClient) -> dict[str, str]:
    """Of each target's breaker, as a scraper reads it."""
    text = (await http.get(f"{server.admin_url}/metrics")).text
    return {
        target: state.value
        for target in TARGETS
        for state in State
        if read_metric(text, "breaker_state", target=target, state=state.value)
    }


async def follow(
    server: Served, http: httpx.AsyncClient, seen: dict[str, list[str]], over: asyncio.Event
) -> None:
    """Every state that each breaker is in, in turn, until the load is over and all are closed."""
    found = {"": ""}
    while not over.is_set() or set(found.values()) != {"closed"}:
        found = await states(server, http)
        for target, state in found.items():
            if seen.setdefault(target, ["closed"])[-1] != state:
                seen[target].append(state)
        await asyncio.sleep(0.1)


def shares(outcomes: list[Outcome], since: float) -> list[float]:
    """Of the requests to `half`, those that came to its first target, step by step."""
    steps: list[list[bool]] = [[] for _ in (*SHARES, "all")]
    for outcome in outcomes:
        step = int((outcome.began - since) // STEP)
        if 0 <= step < len(steps) and outcome.question.model == "half":
            assert outcome.head is not None
            steps[step].append(outcome.head.header("x-roundhouse-target") == "three/x")
    return [sum(step) / len(step) for step in steps]


async def test_a_storm(tmp_path: Path) -> None:
    weather, seen, over = Weather(), dict[str, list[str]](), asyncio.Event()
    async with AsyncExitStack() as stack:
        upstreams = {
            name: await stack.enter_async_context(ScriptedUpstream(weather.under(name)))
            for name in ("one", "two", "three", "well")
        }
        server = await stack.enter_async_context(served(tmp_path, config_for(upstreams)))
        http = await stack.enter_async_context(httpx.AsyncClient())
        load = await stack.enter_async_context(loading(server.port))
        async with asyncio.TaskGroup() as group:
            group.create_task(weather.blow_over())
            group.create_task(follow(server, http, seen, over))
            async with asyncio.TaskGroup() as asking:
                asking.create_task(load.run(LOAD, ALL, lambda n: Question(n, "all", 3, n % 2 == 0)))
                asking.create_task(
                    load.run(LOAD, HALF, lambda n: Question(n, "half", 3, n % 2 == 0), first=10**6)
                )
            over.set()
        retries = [
            await server.metric("retries_total", http, result=result)
            for result in ("spent", "refused")
        ]
    assert weather.over is not None
    outcomes = load.outcomes
    offered = sum(outcome.began <= weather.over for outcome in outcomes)
    came = sum(moment <= weather.over for moment in weather.came)
    back = min(
        outcome.ended
        for outcome in outcomes
        if outcome.end is End.ANSWERED
        and outcome.head is not None
        and outcome.head.header("x-roundhouse-target") == "three/x"
    )
    ramp = shares(outcomes, back)
    print(
        f"{offered} offered in the storm, {came} came to upstreams: {came / offered:.3f} of them;"
        f" retries {retries[0]:g}, refused {retries[1]:g}\n"
        f"{counts(outcomes)}\nback after {back - weather.over:.2f} s, then {ramp}\n{seen}"
    )
    assert [str(each) for each in outcomes if each.end is End.WRONG] == []
    # No storm of ours on top of it.
    assert came <= 1.2 * offered + FLOOR
    assert retries[1] > 0
    # While some target is well it answers; behind the storm all do.
    after = [outcome for outcome in outcomes if outcome.began > weather.over]
    assert {outcome.end for outcome in after} == {End.ANSWERED}
    half = Counter(each.end for each in outcomes if each.question.model == "half")
    assert half[End.ERROR] <= FLOOR
    # Breakers open, and close again after a ramp.
    for target in TARGETS:
        assert "open" in seen[target]
        assert seen[target][-2:] == ["ramp", "closed"]
    for share, (least, most) in zip(ramp, SHARES, strict=False):
        assert least < share < most, ramp
    assert ramp == sorted(ramp)
    assert ramp[-1] == 1.0
