"""The two loads: conversations with long beginnings, and a crowd too large for one engine."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.load import prompt
from benchmarks.engine.stats import quantile
from benchmarks.routing.client import Answered, Door, ask

Row = dict[str, Any]
Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Talks:
    """Conversations, each with a system text of its own, which ask in turn, `at_once` at a time."""

    conversations: int = 24
    questions: int = 4
    system_words: int = 280
    question_words: int = 24
    tokens: int = 16
    at_once: int = 6


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many who each ask again when they have their answer."""

    people: int = 16
    words: int = 40
    tokens: int = 160
    warm_up_s: float = 2.0
    seconds: float = 10.0


def conversation(talks: Talks, turn: int, number: int, questions: int) -> Messages:
    """Conversation `number` of a turn up to and with its question of this number (from 1).

    The assistant's part is not what the engine said but words of the same length: so all policies
    ask the very same. Turns share no prefix: what one has left in the caches is of no use to the
    next.
    """
    said: Messages = [
        {"role": "system", "content": prompt(turn, number, talks.system_words)},
    ]
    for at in range(1, questions + 1):
        index = number * talks.questions + at
        said.append({"role": "user", "content": prompt(turn, index, talks.question_words)})
        if at < questions:
            said.append({"role": "assistant", "content": prompt(turn, index, talks.tokens)})
    return said


def asking_order(talks: Talks, seed: int) -> list[tuple[int, int]]:
    """(conversation, question) in the order of asking: all have their first question, then all
    their second, each time shuffled."""
    chance = random.Random(seed)
    order: list[tuple[int, int]] = []
    for question in range(1, talks.questions + 1):
        numbers = list(range(talks.conversations))
        chance.shuffle(numbers)
        order += [(number, question) for number in numbers]
    return order


async def talk(door: Door, model: str, talks: Talks, turn: int, seed: int) -> Row:
    """One turn of conversations. `turn` makes their texts its own, `seed` the order."""
    left = iter(asking_order(talks, seed))
    locks = [asyncio.Lock() for _ in range(talks.conversations)]
    answered: list[Answered] = []

    async def worker() -> None:
        for number, question in left:
            async with locks[number]:  # nobody asks on before the answer is there
                messages = conversation(talks, turn, number, question)
                answered.append(await ask(door, model, messages, talks.tokens))

    began = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(talks.at_once)))
    return told(answered, time.monotonic() - began)


async def throng(
    door: Door, model: str, crowd: Crowd, turn: int, clock: Callable[[], float] = time.monotonic
) -> Row:
    """One turn of the crowd. Requests sent after the warm-up count."""
    begin = clock() + crowd.warm_up_s
    end = begin + crowd.seconds
    counted: list[Answered] = []
    problems: list[Answered] = []
    index = 0

    async def person() -> None:
        nonlocal index
        while (sent := clock()) < end:
            index += 1
            messages = [{"role": "user", "content": prompt(turn, index, crowd.words)}]
            answered = await ask(door, model, messages, crowd.tokens)
            if sent >= begin:
                counted.append(answered)
            elif answered.problem:
                problems.append(answered)

    await asyncio.gather(*(person() for _ in range(crowd.people)))
    return told(counted, clock() - begin, problems)


def told(answered: Sequence[Answered], seconds: float, others: Sequence[Answered] = ()) -> Row:
    """A turn's figures; `others` count only when they have a problem."""
    problems = [one.problem for one in (*answered, *others) if one.problem]
    firsts = [one.first_s for one in answered if not one.problem]
    where = Counter(one.target.removeprefix("engine/") for one in answered)
    return {
        "seconds": seconds,
        "answers": len(answered),
        "answers_per_s": len(answered) / seconds,
        "first_p50_s": quantile(firsts, 0.5),
        "first_p95_s": quantile(firsts, 0.95),
        "where": dict(sorted(where.items())),
        "problems": len(problems),
        "first_problem": next(iter(problems), ""),
    }
