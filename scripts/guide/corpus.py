"""The training text: a seeded mixture of samples, held apart from the questions in tests/data.

Pure Python, so that a test can draw the same text without torch.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.guide import calls, outside, phrasing, records, words

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
QUESTIONS = ROOT / "tests" / "data" / "guide_questions.jsonl"
TOOLS = ROOT / "tests" / "data" / "guide_tools.jsonl"
FACTS = ("facts.txt", "facts_more.txt", "facts_wider.txt")
SEED = 20261121

SYSTEM = (
    "You are a helpful assistant.",
    "You are the guide of Roundhouse.",
    "You are a helpful assistant",
    "Answer briefly.",
    "You are a concise assistant.",
    "Be kind and short.",
    "You answer questions about Roundhouse.",
    "You are an AI.",
    "Be concise.",
    "Answer in one sentence.",
    "You are a support agent.",
    "You are an expert.",
    "Use the tools if needed.",
    "You are a friendly chat bot.",
    "Think before you answer.",
    "You are ChatGPT, a large language model.",
)
# The share of each kind of sample.
MIXTURE = {
    "topic": 50,
    "outside": 8,
    "call": 23,
    "result": 3,
    "tools_unused": 4,
    "json": 4,
    "forced": 4,
    "copy": 4,
}


@dataclass
class Sample:
    """One conversation; ``answer`` is what is learnt, less its first ``forced`` characters."""

    kind: str
    messages: list[dict[str, Any]]
    answer: str
    tools: list[dict[str, Any]] | None = None
    forced: int = 0

    def texts(self) -> Iterator[str]:
        """All words of the sample, as the filter and the test look at them."""
        for message in self.messages:
            yield message.get("content") or json.dumps(message.get("tool_calls"))
        yield self.answer
        if self.tools:
            yield json.dumps(self.tools)


def grams(text: str, size: int = 5) -> set[tuple[str, ...]]:
    """Runs of ``size`` lower-case words; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    if len(words) <= size:
        return {tuple(words)}
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


@dataclass
class Held:
    """What the training text must keep away from."""

    grams: set[tuple[str, ...]] = field(default_factory=set)
    names: tuple[str, ...] = ()

    def touches(self, text: str) -> bool:
        if any(name in text for name in self.names):
            return True
        return not self.grams.isdisjoint(grams(text))


def held() -> Held:
    """The questions and tool names of tests/data."""
    apart = Held()
    for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
        apart.grams |= grams(json.loads(line)["question"])
    names = []
    for line in TOOLS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        apart.grams |= grams(case["question"])
        names.append(case["tool"]["function"]["name"])
    apart.names = tuple(names)
    return apart


class Maker:
    """Draws samples; ``stream`` yields those that touch nothing that is held apart."""

    def __init__(self, seed: int = SEED) -> None:
        self.rng = random.Random(seed)
        self.topics = phrasing.load_topics(*(HERE / name for name in FACTS))
        # Weighted by how much there is to say, so that broad topics are seen from more sides.
        self.weights = [3 + min(12, len(topic.ask)) / 3 for topic in self.topics]
        self.held = held()
        self.dropped = 0

    def _user(self, text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    def _question(self) -> tuple[str, str, bool]:
        """A clean question, its answer, and whether the guide knows it. Drawn again if held apart."""
        while True:
            if self.rng.random() < 0.86:
                topic = self.rng.choices(self.topics, self.weights)[0]
                text, answer, known = (
                    phrasing.draw(self.rng, topic),
                    self.rng.choice(topic.answers),
                    True,
                )
            else:
                text, answer, known = outside.draw(self.rng), outside.ANSWER, False
            dressed = phrasing.decorate(self.rng, text, words.stray if known else None)
            # Before the slips: a typo must not hide a question that is held apart.
            if self.held.touches(text) or self.held.touches(dressed):
                self.dropped += 1
                continue
            return phrasing.roughen(self.rng, dressed), answer, known

    def _plain(self, known: bool) -> tuple[str, str]:
        while True:
            question, answer, is_known = self._question()
            if is_known == known:
                return question, answer

    def _front(self, share: float = 0.25) -> list[dict[str, Any]]:
        """At times a system prompt."""
        if self.rng.random() < share:
            return [{"role": "system", "content": self.rng.choice(SYSTEM)}]
        return []

    def _history(self, share: float = 0.15) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        if self.rng.random() < share:
            for _ in range(self.rng.randint(1, 2)):
                question, answer, _ = self._question()
                turns += [self._user(question), {"role": "assistant", "content": answer}]
        return turns

    def _call(self) -> Sample:
        rng = self.rng
        made = [calls.make(rng) for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0])]
        chosen = rng.choice(made)
        question = phrasing.roughen(rng, chosen.question, gently=True)
        if rng.random() < 0.15:
            question = f"{rng.choice(phrasing.OPENERS)} {question}"
        name = chosen.tool["function"]["name"]
        # Function names must differ, or "the asked one" has no meaning.
        tools = {item.tool["function"]["name"]: item.tool for item in made}
        messages = self._front(0.2) + self._history(0.06) + [self._user(question)]
        return Sample(
            "call", messages, calls.call_text(name, chosen.arguments), list(tools.values())
        )

    def _result(self) -> Sample:
        sample = self._call()
        made_name = sample.answer.split('"')[3]
        body = json.loads(sample.answer.split("\n")[1])
        value = calls.result(self.rng)
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": made_name, "arguments": body["arguments"]},
        }
        sample.messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": value},
        ]
        return Sample("result", sample.messages, f"The tool says: {value}", sample.tools)

    def draw(self, kind: str) -> Sample:
        rng = self.rng
        if kind in ("topic", "outside"):
            question, answer = self._plain(kind == "topic")
            return Sample(kind, self._front() + self._history() + [self._user(question)], answer)
        if kind == "call":
            return self._call()
        if kind == "result":
            return self._result()
        if kind == "tools_unused":
            question, answer = self._plain(rng.random() < 0.75)
            tools = [calls.make(rng).tool for _ in range(rng.choices((1, 2), (4, 1))[0])]
            return Sample(kind, [*self._front(0.2), self._user(question)], answer, tools)
        if kind == "json":
            question, answer = records.asked(rng)
            return Sample(
                kind,
                [*self._front(), self._user(phrasing.roughen(rng, question, gently=True))],
                answer,
            )
        if kind == "forced":
            if rng.random() < 0.25:
                # `tool_choice` "required" and by name: a list of calls, or the arguments alone.
                sample = self._call()
                name, body = sample.answer.split('"')[3], json.loads(sample.answer.split("\n")[1])
                if rng.random() < 0.5:
                    text = json.dumps(
                        [{"name": name, "parameters": body["arguments"]}], ensure_ascii=False
                    )
                    return Sample(kind, sample.messages, text, sample.tools, 10)
                return Sample(
                    kind,
                    sample.messages,
                    json.dumps(body["arguments"], ensure_ascii=False),
                    sample.tools,
                    2,
                )
            question, answer, _ = self._question()
            question, text, count = records.forced(rng, question, answer)
            return Sample(kind, [*self._front(), self._user(question)], text, None, count)
        question, answer = records.copied(rng)
        return Sample(kind, [*self._front(0.1), self._user(question)], answer)

    def stream(self, count: int, mixture: dict[str, int] = MIXTURE) -> Iterator[Sample]:
        kinds, weights = list(mixture), list(mixture.values())
        while count > 0:
            sample = self.draw(self.rng.choices(kinds, weights)[0])
            if any(self.held.touches(text) for text in sample.texts()):
                self.dropped += 1
                continue
            count -= 1
            yield sample
