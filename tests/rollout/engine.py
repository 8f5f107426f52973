"""A replica that serves as vLLM does, on uvicorn: `python engine.py HOST PORT GATE DRAIN`.

Its answers name its address. What holds the word ``hold`` goes on once the file GATE is there. On
SIGTERM it listens no more, its requests have DRAIN seconds to finish, and `/health` stays green.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

HOST, PORT, GATE, DRAIN = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
COMMON = {"id": "chatcmpl-1", "created": 1, "model": "theirs"}
LOAD = b"vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\n"


async def health(request: Request) -> Response:
    return Response()


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "theirs", "object": "model"}]})


async def metrics(request: Request) -> Response:
    return Response(LOAD)


async def chat(request: Request) -> Response:
    body = await request.body()
    held = b"hold" in body
    if json.loads(body).get("stream"):
        return StreamingResponse(events(held), media_type="text/event-stream")
    if held:
        await gate()
    message = {"role": "assistant", "content": HOST}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return JSONResponse(
        {**COMMON, "object": "chat.completion", "choices": [choice], "usage": usage}
    )


async def events(held: bool) -> AsyncIterator[str]:
    yield event({"role": "assistant", "content": HOST})
    if held:
        await gate()
    yield event({"content": "the end"})
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


def event(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {**COMMON, "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


async def gate() -> None:
    while not GATE.exists():
        await asyncio.sleep(0.01)


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/v1/models", models),
        Route("/metrics", metrics),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=PORT, log_level="warning", timeout_graceful_shutdown=DRAIN)
