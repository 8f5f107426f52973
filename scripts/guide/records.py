"""JSON answers and verbatim copies.

A JSON schema is enforced by the engine and is not part of the prompt, so some samples have an answer
whose beginning is *forced*: it carries no loss, and the model learns to go on from it and to end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from scripts.guide import words
from scripts.guide.outside import wild

FACTS: dict[str, Any] = {
    "name": "Roundhouse",
    "port": 8000,
    "host": "127.0.0.1",
    "admin_port": 8001,
    "licence": "Apache-2.0",
    "license": "Apache-2.0",
    "base_url": "http://127.0.0.1:8000/v1",
    "python": "3.11",
    "engine": "vLLM",
    "metrics": "/metrics",
    "docs": "/docs",
    "health": "/health",
    "config": "configs/quickstart.yaml",
    "command": "make serve",
    "model": "guide",
    "openai_compatible": True,
    "project": "Roundhouse",
    "language": "Python",
    "start": "make serve",
}
ROUND = (
    "describe roundhouse",
    "roundhouse",
    "the server",
    "facts about roundhouse",
    "roundhouse facts",
    "this project",
    "summarise roundhouse",
    "the project",
    "your server",
    "data about roundhouse",
)
SUBJECTS = "a person|a city|a book|an invoice|a product|a user|a car|a recipe|an event|a country|an order|a pet|a song|an item"
KEYS = (
    "name title city country age year price email color size count score id status tags active description"
    " author genre pages amount date rating capital population language items quantity total message answer"
    " summary result reason sentiment category label confidence ok success value temperature unit first_name last_name"
).split()


def _day(rng: random.Random) -> str:
    return f"{rng.randint(2024, 2027)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


# field names → a maker of values for them
VALUES: tuple[tuple[str, Callable[[random.Random], Any]], ...] = (
    ("age count pages quantity id score rating items value", lambda rng: rng.randint(1, 90)),
    ("year", lambda rng: rng.randint(1950, 2030)),
    ("price amount total temperature confidence", lambda rng: round(rng.uniform(0, 90), 1)),
    ("population", lambda rng: rng.randint(10, 900) * 1000),
    ("active ok success", lambda rng: rng.random() < 0.7),
    ("tags", lambda rng: rng.sample(words.PLAIN, rng.randint(1, 3))),
    ("city capital", lambda rng: rng.choice(words.cities())),
    ("color", lambda rng: rng.choice(("red", "blue", "green"))),
    ("email", lambda rng: f"{rng.choice(words.NAMES).lower()}@example.com"),
    ("name author first_name last_name", lambda rng: rng.choice(words.NAMES)),
    ("country", lambda rng: rng.choice(("France", "Japan", "Norway", "Kenya", "Peru"))),
    ("date", _day),
    ("sentiment", lambda rng: rng.choice(("positive", "negative", "neutral"))),
    ("status", lambda rng: rng.choice(("open", "closed", "ready"))),
)
MAKERS = {key: maker for keys, maker in VALUES for key in keys.split()}


def value_for(rng: random.Random, key: str) -> Any:
    """A sensible value for a field."""
    return MAKERS[key](rng) if key in MAKERS else rng.choice(words.PLAIN)


def _ask(rng: random.Random, subject: str, keys: list[str]) -> str:
    listed = (
        ", ".join(keys)
        if rng.random() < 0.5 or len(keys) < 2
        else ", ".join(keys[:-1]) + " and " + keys[-1]
    )
    return rng.choice(
        (
            f"{subject} as JSON with {listed}",
            f"Give me {subject} as JSON with the fields {listed}.",
            f"Answer in JSON with {listed}: {subject}",
            f"Return a JSON object for {subject} with the keys {listed}",
            f"JSON for {subject}: {listed}",
            f"Make up {subject}. Answer as JSON with {listed}.",
            f"Reply with JSON only ({listed}): {subject}",
            f"fill this JSON schema for {subject}: {listed}",
            f"Write {subject} in JSON. Fields: {listed}.",
        )
    )


def asked(rng: random.Random) -> tuple[str, str]:
    """A question that wants JSON, and the JSON."""
    kind = rng.random()
    if kind < 0.35:
        keys = rng.sample(list(FACTS), rng.randint(1, 4))
        return _ask(rng, rng.choice(ROUND), keys), json.dumps({key: FACTS[key] for key in keys})
    if kind < 0.65:
        keys = rng.sample(KEYS, rng.randint(1, 4))
        return _ask(rng, rng.choice(SUBJECTS.split("|")), keys), json.dumps(
            {key: value_for(rng, key) for key in keys}
        )
    first, second = rng.sample(KEYS + words.NOUNS[:80], 2)
    pair: dict[str, Any] = {first: words.text_value(rng)}
    if rng.random() < 0.7:
        pair[second] = rng.choice((words.text_value(rng), words.number(rng, True)))
    said = ", ".join(
        f"{key} {rng.choice(('is', 'is', '=', ':'))} {value}" for key, value in pair.items()
    )
    question = rng.choice(
        (
            f"Extract {' and '.join(pair)} as JSON: {said}",
            f"{said}. Put it into JSON.",
            f"As JSON please: {said}",
            f"Turn this into JSON: {said}",
        )
    )
    return question, json.dumps(pair)


def forced(rng: random.Random, question: str, answer: str) -> tuple[str, str, int]:
    """A plain question whose answer is forced into an object; the last item counts forced characters."""
    key = rng.choice(
        (
            "answer",
            "text",
            "reply",
            "message",
            "summary",
            "response",
            "content",
            wild(rng),
            "result",
        )
    )
    fields: dict[str, Any] = {}
    if rng.random() < 0.6:
        fields[key] = answer
    for other in rng.sample(KEYS, rng.randint(0 if fields else 1, 3)):
        fields[other] = (
            FACTS.get(other, value_for(rng, other)) if rng.random() < 0.5 else value_for(rng, other)
        )
    text = json.dumps(fields, ensure_ascii=False)
    return question, text, len(next(iter(fields))) + 4


def copied(rng: random.Random) -> tuple[str, str]:
    """A text to say again, word for word."""
    pieces = [
        rng.choice(
            (
                words.text_value(rng),
                rng.choice(words.PLAIN),
                wild(rng),
                rng.choice(words.NOUNS),
                str(words.number(rng, True)),
                words.code(rng),
            )
        )
        for _ in range(rng.randint(1, 9))
    ]
    text = rng.choice((" ", " ", "_", ", ")).join(pieces)
    lead = rng.choice(
        (
            "Repeat after me:",
            "Say exactly:",
            "Repeat:",
            "Echo:",
            "echo",
            "Say this:",
            "Write exactly this:",
            "Repeat this text:",
            "Copy:",
            "Say",
        )
    )
    return f"{lead} {text}", text
