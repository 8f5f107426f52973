"""vLLM as a second implementation of other providers' APIs: it speaks Anthropic's and Cohere's as
well as OpenAI's, so that one model says the same thing in three.

Cohere's is off unless `VLLM_ENABLE_COHERE_API` is set and Cohere's SDK can be imported where vLLM
runs. The engines' environment has none; the tests' has, and the SDK is Python alone.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from server.dialects.anthropic import Anthropic
from server.dialects.base import Dialect
from server.dialects.cohere import Cohere
from tests.dialects.replay import ASKED, chunks, read, sent, strict, strict_chunks
from tests.integration.unsupervised import Unsupervised

MODEL: Final = "their/guide"
KEY: Final = "sk-second-0123456789abcdef0123456789abcdef"
BEARER: Final = {"authorization": f"Bearer {KEY}"}
CONTEXT: Final = 2048
_THOUGHTS: Final = Path(__file__).with_name("thoughts.py")


@dataclass(frozen=True)
class Speaker:
    """A dialect of ours, and where vLLM speaks it."""

    dialect: Dialect
    base: str


SPEAKERS: Final = {
    "anthropic": Speaker(Anthropic(), "/v1"),
    "cohere": Speaker(Cohere(), "/cohere/v2"),
}


@dataclass(frozen=True)
class Heard:
    """What one answer says, whoever said it. `usage` is of the prompt and of the answer."""

    text: str
    calls: tuple[tuple[str, Any], ...]
    finish: str
    usage: tuple[int, int]
    thoughts: str = ""
    cached: int = field(default=0, compare=False)
    ids: tuple[str, ...] = field(default=(), compare=False)
    details: list[Any] = field(default_factory=list, compare=False)


class Second(Unsupervised):
    """One vLLM with a key of its own that speaks them all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            MODEL,
            *("--api-key", KEY, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--reasoning-parser", "colon", "--reasoning-parser-plugin", str(_THOUGHTS)),
            # A template that does not know of reasoning makes vLLM take `none` for `low`.
            *("--anthropic-disabled-thinking-effort", "none", "--enable-prompt-tokens-details"),
            context=CONTEXT,
            environment={
                "VLLM_ENABLE_COHERE_API": "1",
                "VLLM_SERVER_DEV_MODE": "1",  # for /abort_requests
                "PYTHONPATH": str(_with_cohere(folder / "lib")),
            },
        )
        self.http = httpx.Client(base_url=self.url, headers=BEARER, timeout=60)

    def tidy(self) -> None:
        self.http.close()
        super().tidy()

    # --- asked in OpenAI's words

    def post(self, body: Mapping[str, Any]) -> httpx.Response:
        """`POST /v1/chat/completions`, with the usage of streams."""
        more = {"stream_options": {"include_usage": True}} if body.get("stream") else {}
        return self.http.post("/v1/chat/completions", json={"model": MODEL, **body, **more})

    def says(self, body: Mapping[str, Any]) -> Heard:
        answer = self.post(body)
        assert answer.status_code == 200, answer.text
        if body.get("stream"):
            return heard_in(chunks(answer.content))
        return heard_of(answer.json())

    # --- and in theirs

    def post_as(
        self, speaker: Speaker, body: dict[str, Any], *, model: str = MODEL, **settings: Any
    ) -> httpx.Response:
        """What the dialect sends for a client's body. None of it may have got lost."""
        outgoing = sent(speaker.dialect, body, model=model, **settings)
        assert (outgoing.dropped, outgoing.lowered) == ((), ())
        headers = {"content-type": "application/json", **outgoing.headers}
        return self.http.post(speaker.base + outgoing.path, content=outgoing.body, headers=headers)

    def says_as(self, speaker: Speaker, body: dict[str, Any], **settings: Any) -> Heard:
        """What the dialect makes of the answer, once the OpenAI SDK, in its strict mode, has
        nothing to say against it."""
        answer = self.post_as(speaker, body, **settings)
        assert answer.status_code == 200, answer.text
        if body.get("stream"):
            reader = speaker.dialect.reader(ASKED)
            made = read(reader, answer.content, seed=len(answer.content))
            assert reader.done
            strict_chunks(made)
            heard = heard_in(chunks(made))
            used = reader.usage
        else:
            whole, facts = speaker.dialect.answer_in(answer.content, ASKED)
            strict(whole)
            heard = heard_of(json.loads(whole))
            used = facts.usage
        assert used is not None
        assert (used.prompt, used.completion, used.cached) == (*heard.usage, heard.cached)
        assert not used.partly
        return heard


def _with_cohere(folder: Path) -> Path:
    """A folder to import from that holds Cohere's SDK and nothing else of ours."""
    spec = importlib.util.find_spec("cohere")
    assert spec is not None
    assert spec.submodule_search_locations
    folder.mkdir()
    (folder / "cohere").symlink_to(spec.submodule_search_locations[0])
    return folder


def heard_of(answer: Mapping[str, Any]) -> Heard:
    """A whole answer in OpenAI's shape."""
    choice, usage = answer["choices"][0], answer["usage"]
    message = choice["message"]
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or []]
    return _heard(
        message.get("content") or "",
        message.get("reasoning_content") or message.get("reasoning") or "",
        [(i, function["name"], function["arguments"]) for i, function in calls],
        choice["finish_reason"],
        usage,
        message.get("reasoning_details") or [],
    )


def heard_in(found: Sequence[Mapping[str, Any]]) -> Heard:
    """A stream in OpenAI's shape, which says each thing once."""
    *told, last = found
    assert not last["choices"]
    text, thoughts, finish = "", "", []
    calls: list[list[str]] = []
    details: list[Any] = []
    for chunk in told:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        text += delta.get("content") or ""
        thoughts += delta.get("reasoning_content") or delta.get("reasoning") or ""
        details += delta.get("reasoning_details") or []
        for call in delta.get("tool_calls") or []:
            if call.get("id"):
                assert call["index"] == len(calls)
                calls.append([call["id"], call["function"]["name"], ""])
            calls[call["index"]][2] += call["function"].get("arguments") or ""
        if choice["finish_reason"]:
            finish.append(choice["finish_reason"])
    (reason,) = finish
    return _heard(text, thoughts, calls, reason, last["usage"], details)


def _heard(
    text: str,
    thoughts: str,
    calls: Sequence[Sequence[str]],
    finish: str,
    usage: Any,
    details: list[Any],
) -> Heard:
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert usage["total_tokens"] == prompt + completion
    return Heard(
        text=text,
        thoughts=thoughts,
        calls=tuple((name, _argued(arguments)) for _, name, arguments in calls),
        finish=finish,
        usage=(prompt, completion),
        cached=(usage["prompt_tokens_details"] or {}).get("cached_tokens", 0),
        ids=tuple(identity for identity, _, _ in calls),
        details=details,
    )


def _argued(arguments: str) -> Any:
    """What was given to a tool; of a call that was cut short, as far as it went."""
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments
