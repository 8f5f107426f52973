"""Tool calls in Hermes form. Names and values are drawn from so many that only copying can be right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripts.guide import words
from scripts.guide.outside import wild

# parameter names, description, type, phrases ("V" is the value)
Slot = tuple[str, str, str, str]
SLOTS: tuple[Slot, ...] = (
    (
        "city|location|place|town|destination|where",
        "Name of the {city|place|town}|City|The place|Where",
        "place",
        "in V|for V|at V|near V|to V|from V",
    ),
    (
        "name|person|user|customer|guest|employee|owner|who|recipient|patient",
        "Name of the {person|guest|user}|Who|The person|Full name",
        "name",
        "for V|of V|to V|by V|called V|named V|from V",
    ),
    (
        "id|code|number|ref|key|serial|ticket|item_id|unit_id|pack_id",
        "Id of the item|The id|Code|Serial number",
        "code",
        "V|with id V|for V|number V|of V|with the code V|no V",
    ),
    (
        "percent|level|brightness|value|amount_percent",
        "In percent|The level|Percent",
        "int",
        "to V percent|at V percent|by V percent|to V|to level V",
    ),
    (
        "hour|time|start|at",
        "Hour of the day|The hour|Start hour",
        "int",
        "at V|at V o'clock|from V|for V o'clock",
    ),
    (
        "year|calendar_year",
        "The year|Calendar year|Year",
        "year",
        "in V|for V|of V|for the year V|in the year V",
    ),
    (
        "weight|kilos|mass",
        "Weight in {kilos|kilograms|kg}|The weight",
        "int",
        "of V kilos|with V kg|weighing V kilograms|for V kilograms",
    ),
    (
        "count|quantity|amount|people|guests|copies|n",
        "How many|Number of pieces|The count",
        "int",
        "V times|for V people|V pieces|with V copies|for V",
    ),
    ("size|format", "The size|Size", "int", "in size V|of size V|size V"),
    (
        "days|hours|minutes|duration",
        "How long|Length|Duration",
        "int",
        "for V {days|hours|minutes}|over V {days|hours}",
    ),
    (
        "amount|price|total|sum|cost",
        "Amount in {euros|dollars}|Total|The price",
        "float",
        "of V euros|for V dollars|over V euros|with V euros|of V",
    ),
    ("date|day|when|due", "Date|Which day|The day", "date", "on V|for V|by V|from V"),
    ("email|to|address", "Email address|Mail address|Address", "email", "to V|for V|from V"),
    (
        "path|file|filename|document",
        "Path of the file|File name|The file",
        "file",
        "from V|to V|in V|of V|V",
    ),
    ("color|colour|shade", "The colour|Colour", "color", "in V|to V|with colour V"),
    (
        "unit|units|system|mode|kind|type|language|scale",
        "Which one|The kind|Unit",
        "enum",
        "in V|as V|with V|in the V system|in V mode|to V",
    ),
    ("urgent|force|notify|dry_run|all", "Whether it is so|Yes or no", "bool", "|FLAG"),
    (
        "query|text|topic|q|title|subject",
        "What to look for|The text|Search words",
        "words",
        'for V|about V|on V|"V"',
    ),
)
COLORS = (
    "red blue green yellow white black orange purple pink grey brown teal silver golden".split()
)
SYSTEMS = (
    "metric imperial UK US EU celsius fahrenheit kelvin fast slow eco quiet auto manual full short long json csv"
    " english german french spanish small medium large euro dollar economy business"
).split()
ASKS = (
    "please VERB the NOUN ARGS",
    "VERB the NOUN ARGS",
    "can you VERB the NOUN ARGS",
    "could you VERB the NOUN ARGS please",
    "i want to VERB the NOUN ARGS",
    "VERB NOUN ARGS",
    "what is the NOUN ARGS",
    "what's the NOUN ARGS",
    "what NOUN is it ARGS",
    "i need the NOUN ARGS",
    "give me the NOUN ARGS",
    "show me the NOUN ARGS",
    "tell me the NOUN ARGS",
    "NOUN ARGS",
    "which NOUN is there ARGS",
    "when is the NOUN ARGS",
    "where is the NOUN ARGS",
    "how is the NOUN ARGS",
    "how many NOUNs are there ARGS",
    "how much is the NOUN ARGS",
    "is there a NOUN ARGS",
    "are there any NOUNs ARGS",
    "would you VERB a NOUN ARGS",
    "VERB a NOUN ARGS for me",
    "do VERB the NOUN ARGS",
    "let us VERB the NOUN ARGS",
    "i would like a NOUN ARGS",
    "will there be NOUNs ARGS",
    "what does the NOUN say ARGS",
    "how high is the NOUN ARGS",
    "which NOUNs will there be ARGS",
    "how much would a NOUN cost ARGS",
    "how many NOUNs are left ARGS",
    "what NOUN does it have ARGS",
    "ARGS what is the NOUN",
    "ARGS please VERB the NOUN",
    "the NOUN ARGS please",
    "use TOOL ARGS",
    "call TOOL ARGS",
    "run TOOL ARGS please",
    "please use the tool TOOL ARGS",
    "VERB it with TOOL ARGS",
    "hey VERB my NOUN ARGS",
    "i'd like to VERB my NOUN ARGS",
    "we have to VERB our NOUN ARGS now",
    "VERB NOUNs ARGS",
)


@dataclass
class Made:
    tool: dict[str, Any]
    question: str
    arguments: dict[str, Any]


def _one(rng: random.Random, text: str) -> str:
    while "{" in text:
        start, end = text.index("{"), text.index("}")
        text = (
            text[:start]
            + rng.choice(text[start + 1 : end].split("|")).replace("|", "/")
            + text[end + 1 :]
        )
    return rng.choice(text.split("|"))


def tool_name(rng: random.Random, verb: str, noun: str) -> str:
    nouns = noun.split()
    kind = rng.random()
    if kind < 0.45:
        parts = [verb, *nouns]
    elif kind < 0.55:
        parts = [*nouns, verb]
    elif kind < 0.65:
        parts = [wild(rng), nouns[-1]]
    elif kind < 0.75:
        parts = [verb, wild(rng)]
    elif kind < 0.83:
        parts = [*nouns, rng.choice(words.NOUNS + words.PLAIN)]
    elif kind < 0.92:
        parts = [rng.choice(words.VERBS), rng.choice(words.PLAIN), nouns[-1]]
    else:
        parts = [wild(rng)] + ([wild(rng)] if rng.random() < 0.5 else [])
    style = rng.random()
    if style < 0.62:
        return "_".join(parts)
    if style < 0.9:
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    if style < 0.95:
        return "".join(part.capitalize() for part in parts)
    return "-".join(parts) if rng.random() < 0.6 else "".join(parts)


def _date(rng: random.Random) -> str:
    named = rng.choice(("monday", "tuesday", "friday", "sunday", "today", "tomorrow", ""))
    return named or (f"{rng.randint(2024, 2032)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}")


def _file(rng: random.Random) -> str:
    folder = f"{rng.choice(words.PLAIN)}/" if rng.random() < 0.4 else ""
    stem = rng.choice(words.PLAIN + words.NOUNS)
    return f"{folder}{stem}.{rng.choice(('txt', 'pdf', 'csv', 'md', 'py'))}"


def _email(rng: random.Random) -> str:
    ends = ("com", "org", "net", "example")
    return f"{wild(rng)}@{rng.choice(words.PLAIN)}.{rng.choice(ends)}"


def _full_name(rng: random.Random) -> str:
    return words.proper(rng) + (f" {wild(rng).capitalize()}" if rng.random() < 0.25 else "")


def _search(rng: random.Random) -> str:
    return " ".join(
        rng.choice((rng.choice(words.PLAIN), rng.choice(words.NOUNS), wild(rng)))
        for _ in range(rng.randint(1, 3))
    )


STRINGS: dict[str, Callable[[random.Random], str]] = {
    "place": words.proper,
    "name": _full_name,
    "code": words.code,
    "date": _date,
    "email": _email,
    "file": _file,
    "color": lambda rng: rng.choice(COLORS),
    "words": _search,
    "text": words.text_value,
}


def _value(rng: random.Random, kind: str) -> tuple[Any, dict[str, Any], str]:
    """A value, the schema of its parameter, and how a person writes it."""
    if kind in ("int", "year"):
        value: Any = rng.randint(1900, 2060) if kind == "year" else words.number(rng, whole=True)
        return value, {"type": "integer"}, str(value)
    if kind == "float":
        value = words.number(rng, whole=rng.random() < 0.3)
        return value, {"type": "number"}, str(value)
    if kind == "enum":
        options = rng.sample(SYSTEMS, rng.randint(2, 3))
        value = rng.choice(options)
        return value, {"type": "string", "enum": options}, value
    if kind == "bool":
        return rng.random() < 0.6, {"type": "boolean"}, ""
    value = STRINGS[kind](rng)
    return value, {"type": "string"}, value


def make(rng: random.Random, noun: str | None = None) -> Made:
    """A tool, a question that asks for it and the call that answers."""
    verb, noun = rng.choice(words.VERBS), noun or words.thing(rng)
    name = tool_name(rng, verb, noun)
    properties: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    phrases: list[str] = []
    about: list[str] = []
    for _ in range(rng.choices((0, 1, 2, 3), (1, 5, 4, 1.2))[0]):
        if rng.random() < 0.25:
            key = rng.choice((rng.choice(words.NOUNS), rng.choice(words.PLAIN), wild(rng)))
            kind = rng.choice(("text", "int", "code", "float"))
            texts = f"The {key}|Which {key}|{key.capitalize()}"
            phrase = rng.choice(
                (
                    f"with {key} V",
                    f"with the {key} V",
                    f"{key} V",
                    f"of the {key} V",
                    f"for {key} V",
                    f"for the {key} V",
                    f"where {key} is V",
                    f"on {key} V",
                    "of the V " + key,
                    "V",
                )
            )
        else:
            names, texts, kind, options = rng.choice(SLOTS)
            key = rng.choice(names.split("|"))
            phrase = _one(rng, options)
        if key in properties:
            continue
        value, schema, written = _value(rng, kind)
        if kind == "bool":
            phrase = key.replace("_", " ") if value else f"not {key.replace('_', ' ')}"
        description = _one(rng, texts)
        properties[key] = {**schema, "description": description} if rng.random() < 0.7 else schema
        arguments[key] = value
        phrases.append(phrase.replace("V", written, 1))
        about.append(key.replace("_", " "))
    tail = (
        f" {rng.choice(('of a', 'for a', 'by', 'in a', 'with'))} {' and '.join(about)}"
        if about and rng.random() < 0.5
        else ""
    )
    description = rng.choice(
        (
            f"{verb.capitalize()} the {noun}{tail}",
            f"{verb.capitalize()} a {noun}{tail}",
            f"{verb.capitalize()} {noun}s{tail}",
            f"Returns the {noun}{tail}",
            f"{noun.capitalize()}{tail}",
            f"{rng.choice(words.VERBS).capitalize()} the {noun}{tail}.",
            f"{verb}s the {noun}{tail}",
            f"Use this to {verb} the {noun}",
        )
    )
    function: dict[str, Any] = {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties},
    }
    if rng.random() < 0.8:
        function["parameters"]["required"] = list(properties)
    rng.shuffle(phrases)
    question = rng.choice(ASKS)
    question = (
        question.replace("ARGS", " ".join(phrases))
        .replace("VERB", verb)
        .replace("NOUN", noun)
        .replace("TOOL", name)
    )
    return Made({"type": "function", "function": function}, " ".join(question.split()), arguments)


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """The call as the model writes it and as the chat template renders it in a history."""
    body = json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {body}}}\n</tool_call>'


def result(rng: random.Random) -> str:
    """What a tool gives back."""
    kind = rng.random()
    if kind < 0.4:
        count = rng.randint(1, 2)
        keys = rng.sample(words.NOUNS, count)
        return json.dumps(
            {
                key: rng.choice(
                    (words.text_value(rng), words.number(rng, True), words.number(rng, False))
                )
                for key in keys
            }
        )
    if kind < 0.7:
        return f"{words.number(rng, rng.random() < 0.6)} {rng.choice(words.UNITS)}"
    return rng.choice(
        (
            words.text_value(rng),
            "ok",
            "done",
            f"{rng.choice(words.ADJECTIVES)} {words.thing(rng)}",
            f"{rng.choice(words.PLAIN)}, {words.number(rng, True)} {rng.choice(words.UNITS)}",
        )
    )
