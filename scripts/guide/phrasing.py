"""Many ways to say one thing: choices, question frames, slips of the keyboard.

A pattern is text with ``{a|b}`` for a choice, ``[a]`` for something that may be left out and
``<name>`` for a macro. Everything draws from one ``random.Random``, so a seed fixes the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MACROS = {
    "rh": "{roundhouse|roundhouse|the server|this server|the gateway|it|this|this thing|the proxy"
    "|the whole thing|the router|your server}",
}

DO_FRAMES = (
    "how {do|can|would|should|could|must} {i|we|one} X",
    "how to X",
    "{what's|what is|is there} {the best|the right|the easiest|a|an easy|the} way to X",
    "{tell|show|teach} me how to X",
    "{i|we} {want|need|would like|have|am trying|are trying|wish|hope|intend} to X",
    "i'd {like|love} to X",
    "what {do|must|should|can} i {run|type|do|enter|use} to X",
    "{which|what} command {will|can|do i need to|lets me|should i use to} X",
    "can {i|you|we|it} X",
    "could {i|you|we} X",
    "is it possible to X",
    "how is it possible to X",
    "{steps|instructions|commands|a guide|a recipe} to X",
    "help me X",
    "help me to X",
    "X",
    "X how",
    "any {idea|hint|tip|advice} how to X",
    "explain how to X",
    "i have no {idea|clue} how to X",
    "what does it take to X",
    "how does one X",
    "what is needed to X",
    "i {fail|struggle|forgot how} to X",
    "let me X",
    "is there {a command|something|an option|a trick|support} to X",
    "my {boss|team|colleague} wants to X",
    "what if i want to X",
    "do you know how to X",
    "where do i X",
)
NOUN_FRAMES = (
    "what {is|are} N",
    "what's N",
    "tell me {about|more about|something about} N",
    "explain N [to me]",
    "where {is|are} N",
    "where {do|can|could|would|should} {i|we} {find|get|see|look for} N",
    "N",
    "N",
    "{give|show|send} me N",
    "i {need|want|am looking for|search|would like|'d like} N",
    "can you {tell me|explain|show me|give me} N",
    "do you {know|have|support} N",
    "what about N",
    "and N",
    "info on N",
    "{a word|some words|details} {on|about} N",
    "how {does|do} N work",
    "how {is|are} N done",
    "{question|a question} about N",
    "i {have a question|wonder|am curious} about N",
    "i do not understand N",
    "{is|are} there N",
    "which {is|are} N",
    "could you {describe|name|state} N",
    "i heard of N",
    "how do i use N",
    "what can you say about N",
    "remind me of N",
)
OPENERS = (
    "please",
    "hi,",
    "hello,",
    "hey,",
    "hey guide,",
    "quick question:",
    "question:",
    "sorry,",
    "um,",
    "so",
    "ok,",
    "ok so",
    "well,",
    "now",
    "and",
    "also,",
    "but",
    "dear guide,",
    "excuse me,",
    "just wondering:",
    "tell me,",
    "say,",
    "one more thing:",
    "next question:",
    "i was wondering,",
    "in roundhouse,",
    "with roundhouse,",
    "about roundhouse:",
    "can you tell me",
    "could you say",
    "i'm new here,",
    "look,",
    "actually,",
    "oh,",
    "alright,",
    "my question is",
    "dumb question:",
)
CLOSERS = (
    "please",
    "thanks",
    "in roundhouse",
    "with roundhouse",
    "here",
    "exactly",
    "then",
    "again",
    "by the way",
    "for me",
    "thank you",
    "actually",
    "on my machine",
    "right now",
    "today",
    "in this project",
    "at all",
    "anyway",
    "if i may ask",
    "in short",
    "quickly",
    "somehow",
    "nowadays",
    "for roundhouse",
    "with this server",
    "though",
)
# Said before a question; tells nothing about what is asked.
SETTINGS = (
    "i am {a student|a developer|an admin|new here|the admin|a beginner|an intern|curious}",
    "we are a {small|big|young} {team|company|startup|lab}",
    "my {boss|colleague|friend|teacher|customer} {asks|wants to know|wonders}",
    "i {tried|read|looked at} {a lot|everything|it|the web|the code} but",
    "i have been {wondering|thinking|reading} [about this]",
    "{honestly|frankly|seriously|basically|first|second|finally}",
    "for a {project|demo|course|talk|customer|paper}",
    "it is {late|my first day|urgent|not clear to me}",
    "i {forgot|am not sure|am confused|do not get it|am stuck}",
    "{yesterday|today|last week|this morning} it worked",
    "{before|while|when} i {start|go on|continue|work with it}",
)
EXTRA_WORDS = (
    "please",
    "really",
    "just",
    "actually",
    "maybe",
    "also",
    "now",
    "still",
    "ever",
    "even",
)
CONTRACTIONS = (
    ("what is", "what's"),
    ("where is", "where's"),
    ("how is", "how's"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("i am", "i'm"),
    ("i would", "i'd"),
    ("is not", "isn't"),
    ("it is", "it's"),
    ("can not", "can't"),
    ("i have", "i've"),
    ("who is", "who's"),
    ("that is", "that's"),
    ("you are", "you're"),
    ("we are", "we're"),
    ("will not", "won't"),
)
_CHOICE = re.compile(r"\{([^{}]*)\}")
_OPTION = re.compile(r"\[([^\[\]{}]*)\]")
# Written in patterns as they are, and not to be taken for choices.
_LITERALS = {"${VAR}": "\x00", "[DONE]": "\x01", "{alias: qwen3-8b}": "\x02"}


Stray = Callable[[random.Random], str]


@dataclass
class Topic:
    """One thing the guide knows: its answers and the patterns of its questions."""

    name: str
    answers: list[str] = field(default_factory=list)
    do: list[str] = field(default_factory=list)
    noun: list[str] = field(default_factory=list)
    ask: list[str] = field(default_factory=list)
    kw: list[str] = field(default_factory=list)


def load_topics(*paths: Path) -> list[Topic]:
    """The topics of fact files; a line that fits no rule is an error."""
    topics: list[Topic] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.startswith("# ") or line == "#":
                continue
            if line.startswith("== "):
                # A later file may open a topic again, to ask for it in more ways.
                name = line[3:].strip()
                again = [topic for topic in topics if topic.name == name]
                topics = [topic for topic in topics if topic.name != name]
                topics.append(again[0] if again else Topic(name))
            elif line.startswith("> "):
                topics[-1].answers.append(line[2:].strip())
            else:
                key, _, rest = line.partition(": ")
                if key == "kw":
                    topics[-1].kw += rest.split()
                else:
                    entries = [entry.strip() for entry in _split(rest)]
                    getattr(topics[-1], key).extend(entry for entry in entries if entry)
    return topics


def _split(text: str) -> list[str]:
    for literal, mark in _LITERALS.items():
        text = text.replace(literal, mark)
    return text.split(";")


def expand(rng: random.Random, pattern: str) -> str:
    """One drawing of a pattern."""
    for literal, mark in _LITERALS.items():
        pattern = pattern.replace(literal, mark)
    for name, body in MACROS.items():
        pattern = pattern.replace(f"<{name}>", body)
    while True:
        changed = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), pattern, count=1)
        if changed == pattern:
            changed = _OPTION.sub(
                lambda m: m.group(1) if rng.random() < 0.5 else "", pattern, count=1
            )
            if changed == pattern:
                break
        pattern = changed
    for literal, mark in _LITERALS.items():
        pattern = pattern.replace(mark, literal)
    return " ".join(pattern.split())


def draw(rng: random.Random, topic: Topic) -> str:
    """A question about a topic, lower-case, without a mark at its end."""
    kinds: list[tuple[str, float]] = [("ask", 3.0 if topic.ask else 0.0)]
    kinds += [("do", 2.0 if topic.do else 0.0), ("noun", 1.6 if topic.noun else 0.0)]
    kinds += [("kw", 0.6 if len(topic.kw) > 2 else 0.0)]
    kind = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
    if kind == "kw":
        most = min(4, len(topic.kw))
        words = rng.sample(topic.kw, rng.randint(2 if most > 1 else 1, most))
        if rng.random() < 0.3:
            words.insert(rng.randrange(len(words) + 1), "roundhouse")
        return " ".join(words)
    pattern = rng.choice(getattr(topic, kind))
    if kind == "do":
        pattern = rng.choice(DO_FRAMES).replace("X", pattern)
    elif kind == "noun":
        pattern = rng.choice(NOUN_FRAMES).replace("N", pattern, 1)
    return expand(rng, pattern)


def _slip(rng: random.Random, word: str) -> str:
    """A word with one slip of the keyboard."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]


def decorate(rng: random.Random, text: str, stray: Stray | None = None) -> str:
    """Polite words before and after, short forms, and at times a word from ``stray``."""
    for long, short in CONTRACTIONS:
        if long in text and rng.random() < 0.35:
            text = text.replace(long, short)
    if rng.random() < 0.22:
        text = f"{rng.choice(OPENERS)} {text}"
    if rng.random() < 0.15:
        text = f"{text} {rng.choice(CLOSERS)}"
    if rng.random() < 0.07:
        said = expand(rng, rng.choice(SETTINGS))
        text = f"{said}{rng.choice((' ', ', ', '. ', ': '))}{text}"
    words = text.split()
    if rng.random() < 0.06:
        words.insert(rng.randrange(len(words) + 1), rng.choice(EXTRA_WORDS))
    if stray and len(words) > 3 and rng.random() < 0.1:
        # A word from elsewhere: one unknown word must not make a question unknown.
        at = rng.randrange(len(words))
        words[at : at + rng.randrange(2)] = [stray(rng)]
    if len(words) > 4 and rng.random() < 0.12:
        del words[rng.randrange(len(words))]
    return " ".join(words)


def roughen(rng: random.Random, text: str, *, gently: bool = False) -> str:
    """Capital letters, marks at the end, slips: as people type. Gently: values stay as they are."""
    words = text.split()
    if rng.random() < 0.06 and words and not gently:
        at = rng.randrange(len(words))
        words[at] = _slip(rng, words[at])
    text = " ".join(words)
    text = re.sub(r"\bi\b", "I", text) if rng.random() < 0.7 else text
    if rng.random() < 0.6:
        text = re.sub(r"\broundhouse\b(?! [a-z]+$)", "Roundhouse", text)
    style = rng.random()
    if style < 0.66:
        text = text[:1].upper() + text[1:]
    elif style < 0.68 and not gently:
        text = text.upper()
    asks = re.match(
        r"(?i)(what|where|who|how|why|which|when|is|are|do|does|can|could|will|may)\b", text
    )
    marks = (
        ("?", "?", "?", "?", "", "", "??", "?!") if asks else (".", ".", "", "", "!", "?", "...")
    )
    return text + rng.choice(marks)
