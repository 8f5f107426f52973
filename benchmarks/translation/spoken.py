"""The same answer as each provider says it, in the shape that recorded traffic has.

Events of a text differ in nothing but their text, so a long stream is a short one with more of
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.upstream import event as chunk

#: Stands in every piece of a text and nowhere else.
MARK: Final = b"word"
#: The dialect whose bytes pass.
PASSED: Final = "openai"


def words(count: int) -> list[str]:
    """The pieces of a text."""
    return [f"word{number:03d} " for number in range(count)]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A provider's way to say it. `base` is the path of its base URL; `begin` stands before the
    pieces of a stream, `end` behind them."""

    base: str
    begin: bytes
    piece: Callable[[str], bytes]
    end: bytes
    whole: Callable[[str], bytes]

    def stream(self, pieces: list[str]) -> list[bytes]:
        """The events, of which the first begins the stream, too, and a last one ends it."""
        events = [self.piece(text) for text in pieces]
        return [self.begin + events[0], *events[1:], self.end]


def _named(name: str, payload: str) -> bytes:
    return f"event: {name}\ndata: {payload}\n\n".encode()


def _data(payload: str) -> bytes:
    return f"data: {payload}\n\n".encode()


_DONE: Final = b"data: [DONE]\n\n"
_COUNTS: Final = '"prompt_tokens":9,"completion_tokens":32,"total_tokens":41'


# --- OpenAI, and those who speak nearly like it


def _whole(text: str, about: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return (
        f'{{{about},"object":"chat.completion","choices":[{{"index":0,"message":'
        f'{json.dumps(message)},"logprobs":null,"finish_reason":"stop"}}],"usage":{{{_COUNTS}}}}}'
    ).encode()


def _like_openai(
    base: str, about: str, behind: str, *, first: str, delta: str, choice: str = ""
) -> Spoken:
    """`about` stands before the choices and `behind` after them; `delta` has `%s` for the text."""

    def said(delta: str, finish: str, behind: str = behind) -> bytes:
        return _data(
            f'{{{about},"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta}'
            f'{choice},"finish_reason":{finish}}}]{behind}}}'
        )

    return Spoken(
        base,
        begin=said(first, "null"),
        piece=lambda text: said(delta % text, "null"),
        end=said('{"content":""}', '"stop"', f',"usage":{{{_COUNTS}}}') + _DONE,
        whole=lambda text: _whole(text, about),
    )


_OPENAI: Final = Spoken(
    "/v1",
    begin=chunk('{"role":"assistant","content":""}'),
    piece=lambda text: chunk(f'{{"content":"{text}"}}'),
    end=chunk("{}", '"stop"') + _DONE,
    whole=lambda text: _whole(text, '"id":"chatcmpl-1","created":1700000000,"model":"mock"'),
)
_MISTRAL: Final = _like_openai(
    "/v1",
    '"id":"f5edd68bc31641f7a74d8d419da04b62","created":1700000000,"model":"mistral-tiny"',
    ',"p":"abcdefghijklmnopqrstu"',
    first='{"role":"assistant","content":""}',
    delta='{"content":"%s"}',
)
_DEEPSEEK: Final = _like_openai(
    "",
    '"id":"33be18fc-3842-486c-8c29-dd8e578f7f20","created":1700000000,'
    '"model":"deepseek-reasoner","system_fingerprint":"fp_393bca965e_prod0623_fp8_kvcache"',
    ',"usage":null',
    first='{"role":"assistant","content":null,"reasoning_content":""}',
    delta='{"content":"%s","reasoning_content":null}',
    choice=',"logprobs":null',
)
# Of those behind the router, one that adds something to every chunk, which is to go.
_HUGGINGFACE: Final = _like_openai(
    "/v1",
    '"id":"ebafdc26c3296ed027c5cd6565fa1bce","created":1700000000,'
    '"model":"meta-llama/llama-3.1-8b-instruct"',
    ',"system_fingerprint":"","sla_metrics":{"ttft_ms":274,"ts_us":1700000000308637}',
    first='{"role":"assistant"}',
    delta='{"content":"%s"}',
)


# --- Anthropic, Cohere

_ANTHROPIC: Final = Spoken(
    "/v1",
    begin=_named(
        "message_start",
        '{"type":"message_start","message":{"model":"claude","id":"msg_01E3Wn1NynZw9FALZ68znj9S",'
        '"type":"message","role":"assistant","content":[],"stop_reason":null,'
        '"stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":0,'
        '"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}      }',
    )
    + _named(
        "content_block_start",
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}     }',
    )
    + _named("ping", '{"type": "ping"}'),
    piece=lambda text: _named(
        "content_block_delta",
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
        + text
        + '"}    }',
    ),
    end=_named("content_block_stop", '{"type":"content_block_stop","index":0               }')
    + _named(
        "message_delta",
        '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        '"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
        '"output_tokens":32}   }',
    )
    + _named("message_stop", '{"type":"message_stop"    }'),
    whole=lambda text: json.dumps(
        {
            "id": "msg_01E3Wn1NynZw9FALZ68znj9S",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 32},
        }
    ).encode(),
)
_COHERE: Final = Spoken(
    "/v2",
    begin=_named(
        "message-start",
        '{"id":"6cd6ce61-bb3b-46f6-907e-fcfab45e51b6","type":"message-start","delta":{"message":'
        '{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}',
    )
    + _named(
        "content-start",
        '{"type":"content-start","index":0,"delta":{"message":{"content":'
        '{"type":"text","text":""}}}}',
    ),
    piece=lambda text: _named(
        "content-delta",
        '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"'
        + text
        + '"}}}}',
    ),
    end=_named("content-end", '{"type":"content-end","index":0}')
    + _named(
        "message-end",
        '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":'
        '{"input_tokens":9,"output_tokens":32},"tokens":{"input_tokens":9,"output_tokens":32}}}}',
    ),
    whole=lambda text: json.dumps(
        {
            "id": "6cd6ce61-bb3b-46f6-907e-fcfab45e51b6",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
            "usage": {
                "billed_units": {"input_tokens": 9, "output_tokens": 32},
                "tokens": {"input_tokens": 9, "output_tokens": 32},
            },
        }
    ).encode(),
)

#: By dialect, in the order of a report.
SPOKEN: Final = {
    PASSED: _OPENAI,
    "anthropic": _ANTHROPIC,
    "cohere": _COHERE,
    "mistral": _MISTRAL,
    "deepseek": _DEEPSEEK,
    "huggingface": _HUGGINGFACE,
}
