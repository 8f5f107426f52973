"""Ask a running OpenAI-compatible server the questions of tests/data, greedily.

    python -m scripts.guide.evaluate http://127.0.0.1:8000/v1 guide

``base_url`` ends in ``/v1``. Needs nothing beyond the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
TIMEOUT = 120.0
LONGEST = 200


@dataclass
class Answer:
    """One question and what came back."""

    kind: str
    question: str
    got: str
    matched: bool
    ended: bool
    exact: bool = False


@dataclass
class Report:
    answers: list[Answer] = field(default_factory=list)

    def _of(self, kind: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.kind == kind]

    @property
    def matched(self) -> int:
        """Questions whose answer holds every required fact."""
        return sum(answer.matched for answer in self._of("question"))

    @property
    def total(self) -> int:
        return len(self._of("question"))

    @property
    def tool_calls(self) -> int:
        """Tool cases that ended in a call of the given tool, with a JSON object for arguments."""
        return sum(answer.matched for answer in self._of("tool"))

    @property
    def tool_exact(self) -> int:
        """Tool cases whose arguments were the perfect ones, too."""
        return sum(answer.exact for answer in self._of("tool"))

    @property
    def tool_total(self) -> int:
        return len(self._of("tool"))

    @property
    def ended(self) -> int:
        """Turns, of questions and tool cases together, that the model ended by itself."""
        return sum(answer.ended for answer in self.answers)

    @property
    def turns(self) -> int:
        return len(self.answers)

    def table(self) -> str:
        lines = []
        for answer in self.answers:
            mark = "ok  " if answer.matched else "MISS"
            if answer.kind == "tool" and answer.matched and not answer.exact:
                mark = "name"
            lines.append(
                f"{mark} {'' if answer.ended else '(cut) '}{answer.question}\n       {answer.got}"
            )
        lines.append(
            f"questions {self.matched}/{self.total}  tools called {self.tool_calls}/{self.tool_total}"
            f" (arguments right {self.tool_exact})  turns ended {self.ended}/{self.turns}"
        )
        return "\n".join(lines)


def _lines(name: str, data: Path) -> list[dict[str, Any]]:
    text = (data / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def matches(patterns: list[str], text: str) -> bool:
    return all(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def _post(base_url: str, body: dict[str, Any], api_key: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    request = urllib.request.Request(
        f"{base_url.rstrip('/')}/chat/completions",
        json.dumps(body).encode(),
        headers,
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def score_question(case: dict[str, Any], text: str, ended: bool) -> Answer:
    return Answer("question", case["question"], text, matches(case["patterns"], text), ended)


def score_tool(case: dict[str, Any], calls: list[dict[str, Any]], text: str, ended: bool) -> Answer:
    """``calls`` are OpenAI's: ``{"function": {"name": …, "arguments": "<JSON>"}}``."""
    wanted = case["tool"]["function"]["name"]
    called, exact = False, False
    if calls and calls[0]["function"]["name"] == wanted:
        try:
            arguments = json.loads(calls[0]["function"]["arguments"])
        except ValueError:
            arguments = None
        called, exact = isinstance(arguments, dict), arguments == case["arguments"]
    got = "; ".join(f"{c['function']['name']}({c['function']['arguments']})" for c in calls) or text
    return Answer("tool", case["question"], got, called, ended, exact)


def evaluate(base_url: str, model: str, api_key: str | None = None, data: Path = DATA) -> Report:
    """Ask everything, one request after another, and score it."""
    report = Report()
    common = {"model": model, "temperature": 0, "max_tokens": LONGEST}
    for case in _lines("guide_questions.jsonl", data):
        message = {"role": "user", "content": case["question"]}
        choice = _post(base_url, {**common, "messages": [message]}, api_key)["choices"][0]
        text = choice["message"].get("content") or ""
        report.answers.append(score_question(case, text, choice["finish_reason"] == "stop"))
    for case in _lines("guide_tools.jsonl", data):
        message = {"role": "user", "content": case["question"]}
        body = {**common, "messages": [message], "tools": [case["tool"]], "tool_choice": "auto"}
        choice = _post(base_url, body, api_key)["choices"][0]
        calls = choice["message"].get("tool_calls") or []
        ended = choice["finish_reason"] in ("stop", "tool_calls")
        report.answers.append(
            score_tool(case, calls, choice["message"].get("content") or "", ended)
        )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("base_url")
    parser.add_argument("model", nargs="?", default="guide")
    parser.add_argument("--api-key", default=os.environ.get("ROUNDHOUSE_API_KEY"))
    options = parser.parse_args()
    print(evaluate(options.base_url, options.model, options.api_key).table())


if __name__ == "__main__":
    main()
