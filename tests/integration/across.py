"""Three places that answer for one model, each in a dialect of its own: OpenAI and Anthropic as
scripts, a real vLLM behind them; and everything that may go wrong at the first two."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from openai import AsyncOpenAI

from server.config.load import load
from server.serving import Roundhouse
from tests.fakes import messages
from tests.fakes.exchange import Script, Step
from tests.fakes.scripts import encode
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    chat_events,
    close_before_head,
    error,
    garbage,
    hang,
    hang_before_head,
    hang_in_head,
    reset,
    reset_before_head,
    reset_in_head,
    sse,
)
from tests.integration.second import KEY, MODEL, Heard, Second, heard_in, heard_of

GPT, CLAUDE, LOCAL = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "engine/local"
MODELS: Final = (GPT, CLAUDE)
#: Seconds until a target that says nothing is given up.
FIRST_BYTE: Final = "1s"


@dataclass(frozen=True)
class Across:
    """`ask` is a client, strict, of a server whose model `across` has all three, in this order."""

    openai: ScriptedUpstream
    anthropic: ScriptedUpstream
    server: Roundhouse
    client: AsyncOpenAI

    async def ask(self, body: dict[str, Any]) -> tuple[Heard, Any]:
        """What is heard, and the headers of the answer."""
        said: Any = dict(body)
        if body.get("stream"):
            said["stream_options"] = {"include_usage": True}
        raw = await self.client.chat.completions.with_raw_response.create(model="across", **said)
        answer: Any = raw.parse()
        if body.get("stream"):
            return heard_in([chunk.model_dump() async for chunk in answer]), raw.headers
        return heard_of(answer.model_dump()), raw.headers


@asynccontextmanager
async def across(second: Second, folder: Path) -> AsyncIterator[Across]:
    """Everything fresh: no breaker knows anything."""
    async with ScriptedUpstream() as first, ScriptedUpstream() as other:
        # Whoever may have done the work and been paid for it is passed over all the same.
        account = {"retry_ambiguous": True, "timeouts": {"first_byte": FIRST_BYTE}}
        config = {
            "version": 1,
            "server": {"port": 0, "admin": "127.0.0.1:0", "home": str(folder / "home")},
            "providers": {
                "openai": {"base_url": f"{first.url}/v1", "api_key": "sk-openai", **account},
                "anthropic": {"base_url": f"{other.url}/v1", "api_key": "sk-ant", **account},
            },
            "engines": {
                "local": {
                    "runtime": "external",
                    "urls": [second.url],
                    "model": MODEL,
                    "api_key": KEY,
                }
            },
            "models": {
                "across": {
                    "targets": [
                        *(
                            dict(zip(("provider", "model"), m.split("/"), strict=True))
                            for m in MODELS
                        ),
                        {"engine": "local"},
                    ]
                },
                "local": {"targets": [{"engine": "local"}]},
            },
        }
        path = folder / "roundhouse.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        async with (
            Roundhouse(load(path, environ={})) as server,
            AsyncOpenAI(
                base_url=f"{server.url}/v1",
                api_key="-",
                max_retries=0,
                _strict_response_validation=True,
            ) as client,
        ):
            yield Across(first, other, server, client)


# --- answers


def openai_calls(city: str, *, stream: bool) -> Script:
    """As OpenAI calls the weather's tool."""
    arguments = json.dumps({"city": city})
    if stream:
        tools = [("get_weather", (arguments[:6], arguments[6:]))]
        return sse(chat_events((), usage="chunk", finish="tool_calls", tools=tools))
    call = {
        "id": "call_theirs",
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    return chat_answer("", tool_calls=[call], finish="tool_calls")


def anthropic_calls(city: str, *, stream: bool) -> Script:
    """As Anthropic calls it, with a word before."""
    arguments = json.dumps({"city": city})
    if not stream:
        block = {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "get_weather",
            "input": {"city": city},
        }
        return messages.message_answer("I look.", block, reason="tool_use")
    pieces = (arguments[:6], arguments[6:])
    return sse(
        [
            messages.start(),
            messages.event("ping"),
            *messages.text_events("I ", "look."),
            *messages.call_events("toolu_1", "get_weather", *pieces, index=1),
            *messages.end("tool_use"),
        ]
    )


# --- faults

Fault = Script | Step | None

#: Before there is any answer: what OpenAI does, and what Anthropic. None: nobody listens.
EITHER_WAY: Final[dict[str, tuple[Fault, Fault]]] = {
    "refused": (None, None),
    "401": (
        answer_json(401, error("Incorrect API key", "invalid_request_error", "invalid_api_key")),
        messages.refusal(401, "authentication_error", "invalid x-api-key"),
    ),
    "402": (
        answer_json(402, error("Pay", "billing_error")),
        messages.refusal(402, "billing_error", "Pay"),
    ),
    "money": (
        answer_json(
            429, error("You exceeded your quota", "insufficient_quota", "insufficient_quota")
        ),
        messages.refusal(400, "invalid_request_error", "Your credit balance is too low"),
    ),
    "403": (
        answer_json(403, error("Not for you", "permission_error")),
        messages.refusal(403, "permission_error", "Not for you"),
    ),
    "408": (
        answer_json(408, error("Too slow", "timeout")),
        messages.refusal(408, "timeout_error", "Too slow"),
    ),
    "429": (
        answer_json(429, error("Slow down", "requests", "rate_limit_exceeded")),
        messages.refusal(429, "rate_limit_error", "Slow down"),
    ),
    "429 with a time": (
        answer_json(429, error("Slow down", "requests"), {"retry-after": "7"}),
        messages.refusal(429, "rate_limit_error", "Slow down", **{"retry-after": "7"}),
    ),
    "500": (answer_json(500, error("Oh")), messages.refusal(500, "api_error")),
    "502": (answer_bytes(502, b"<html>", content_type="text/html"),) * 2,
    "503": (answer_json(503, error("Busy")), messages.refusal(503, "api_error")),
    "504": (answer_json(504, error("Late")), messages.refusal(504, "timeout_error")),
    "529": (answer_json(529, error("Full")), messages.refusal(529, "overloaded_error")),
    "no first byte": (hang_before_head(), hang_before_head()),
    "reset": (reset_before_head(), reset_before_head()),
    "closed": (close_before_head(), close_before_head()),
    "no HTTP": (garbage(), garbage()),
    "no JSON": (answer_bytes(200, b"<html>hi</html>"),) * 2,
}
_ROLE: Final[Any] = chat_events(())[0]
_OVERLOADED = messages.overloaded()
_BEGUN = messages.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
#: In a stream, before anything is said. OpenAI's bytes pass, so that its opening is the client's as
#: soon as it is there; of the others' an opening alone is held back for a while.
STREAMED: Final[dict[str, tuple[Fault, Fault]]] = {
    "an error event": (sse([error("Oh", code=500), "[DONE]"]), sse([_OVERLOADED])),
    "an error event behind the opening": (
        sse([encode(_ROLE) + encode(error("Oh", code=500))]),
        sse([messages.start(), messages.event("ping"), _BEGUN, _OVERLOADED]),
    ),
    "a reset behind the opening": (
        reset_in_head(),
        sse([messages.start(), _BEGUN], then=reset),
    ),
    "silence behind the opening": (
        hang_in_head(),
        sse([messages.start(), messages.event("ping")], then=hang),
    ),
    "an end without a word": (sse(["[DONE]"]), sse([messages.event("message_stop")])),
    "an end before the answer's": (sse([]), sse([messages.start()])),
    "no event": (sse(["oops"]), sse(["oops"])),
}
#: In a whole answer.
WHOLE: Final[dict[str, tuple[Fault, Fault]]] = {
    "an error that says 200": (
        answer_json(200, error("Oh", code=500)),
        answer_json(200, {"type": "error", "error": {"type": "api_error", "message": "Oh"}}),
    ),
    "an answer that was given up": (
        chat_answer("Wel", finish="abort"),
        messages.message_answer("Wel", stop_reason=None),
    ),
}
#: Every fault by its name and whether it is one of a stream.
FAULTS: Final = [
    *((name, stream, fault) for name, fault in EITHER_WAY.items() for stream in (False, True)),
    *((name, True, fault) for name, fault in STREAMED.items()),
    *((name, False, fault) for name, fault in WHOLE.items()),
]


async def breaks(upstream: ScriptedUpstream, fault: Fault) -> None:
    """Whatever this upstream is asked, this goes wrong."""
    if fault is None:
        await upstream.stop()
    else:
        upstream.default = fault
