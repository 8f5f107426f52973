"""What the embedded model promises, asked through the server on vLLM."""

from __future__ import annotations

from scripts.guide.evaluate import evaluate
from tests.integration.conftest import KEY
from tests.integration.stack import ServerProcess


def test_questions_tools_and_endings(stack: ServerProcess) -> None:
    report = evaluate(f"{stack.url}/v1", "guide", api_key=KEY)
    print(f"matched {report.matched}/{report.total}, tools {report.tool_calls}/{report.tool_total}")
    assert report.total == 60
    assert report.matched >= 40
    assert report.tool_total == 10
    assert report.tool_calls >= 7
    assert report.ended == report.turns == 70
