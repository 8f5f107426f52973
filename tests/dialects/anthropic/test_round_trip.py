"""For any valid conversation: there and back is the same, but for the losses that have names."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from tests.dialects.anthropic.back import back
from tests.dialects.anthropic.conversations import bodies
from tests.dialects.anthropic.helpers import SETTINGS, checked, sent
from tests.dialects.anthropic.losses import THINKING, normalise

Body = dict[str, Any]


@given(bodies)
def test_there_and_back(body: Body) -> None:
    outgoing = sent(body)
    told = checked(json.loads(outgoing.body))
    assert _plain(back(told)) == _plain(normalise(body, SETTINGS["max_tokens"]))
    assert set(outgoing.dropped) == _named(body)
    assert set(outgoing.lowered) == _lowered(body)


def _plain(body: Body) -> Any:
    """Numbers compare as JSON has them: 1 is 1.0."""
    return json.loads(json.dumps(body))


def _named(body: Body) -> set[str]:
    """The losses that a header has to name."""
    found = {"prompt_cache_key"} & body.keys()
    by_both = body.get("user"), body.get("safety_identifier")
    if all(by_both) and by_both[0] != by_both[1]:
        found.add("user")
    for message in body["messages"]:
        details = message.get("reasoning_details", [])
        signed = [detail for detail in details if detail["type"] in THINKING]
        content = message["content"]
        images = [
            part["image_url"]
            for part in (content if isinstance(content, list) else [])
            if part["type"] == "image_url"
        ]
        for name, is_lost in (
            ("messages.name", "name" in message),
            ("messages.audio", message.get("audio")),
            ("messages.reasoning_details", len(signed) < len(details)),
            ("messages.reasoning_content", message.get("reasoning_content") and not signed),
            ("messages.detail", any(i.get("detail", "auto") != "auto" for i in images)),
        ):
            if is_lost:
                found.add(name)
    return found


def _lowered(body: Body) -> set[str]:
    found = set()
    if (body.get("temperature") or 0) > 1:
        found.add("temperature")
    stop = body.get("stop")
    texts = [stop] if stop and isinstance(stop, str) else stop or []
    if any(not text.strip() for text in texts):
        found.add("stop")
    if body.get("reasoning_effort") == "minimal":
        found.add("reasoning_effort")
    return found
