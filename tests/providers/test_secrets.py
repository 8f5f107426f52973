"""What is an account's own stays here, though its upstream says it back: to no client, and of keys
not even to the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from server.serving import Roundhouse
from server.telemetry import logs
from tests.fakes.upstream import (
    Script,
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    sse,
)
from tests.providers.house import CHAT, Serve, ask, client_of

#: As the providers make them, and as somebody does who guards a server of his own.
KEYS: Final = {
    "openai": "sk-proj-4f9aXb7Qp2Lm8Rt6Wz",
    "anthropic": "sk-ant-api03-4f9aXb7Qp2Lm8Rt6",
    "mistral": "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY",
    "cohere": "Zx81kQpLmN0bVcXsDfGh72JkLqWeRtYuIoPaSdFg",
    "deepseek": "sk-1234567890abcdef1234567890abcdef",
    "huggingface": "hf_AbCdEfGhIjKlMnOpQrStUvWx0123456789",
    "azure": "0123456789abcdef0123456789abcdef",
    "lab": "open,sesame!of-the+lab/7",
}
OTHER: Final = "another-key-of-the-account-5521"
HEADER: Final = "header-secret-99"
NAMED: Final = {
    "openai": {"organization": "acme-research-lab", "project": "acme-bright-project"},
    "anthropic": {"workspace": "acme-workspace-one"},
    "huggingface": {"organization": "acme-research-lab"},
    "lab": {"dialect": "openai"},
}
REQUEST: Final = "req_011CaBcDeF123456"


def account(name: str, upstream: ScriptedUpstream) -> dict[str, Any]:
    return {
        "base_url": f"{upstream.url}/{'v2' if name == 'cohere' else 'v1'}",
        "api_keys": [KEYS[name], OTHER],
        "headers": {"x-extra": HEADER},
        **NAMED.get(name, {}),
    }


class Told:
    """A server with one account, and what comes out of it."""

    def __init__(self, name: str, server: Roundhouse, upstream: ScriptedUpstream) -> None:
        self.name, self.server, self.upstream = name, server, upstream
        self.address = upstream.url.removeprefix("http://")
        own = {k: v for k, v in NAMED.get(name, {}).items() if k != "dialect"}
        self.secrets = [KEYS[name], OTHER, HEADER, *own.values()]

    @property
    def words(self) -> str:
        """As an upstream may say it, with all that is not for others."""
        return " and ".join([*self.secrets, f"Bearer {KEYS[self.name]}", self.upstream.url])

    async def ask(self, script: Script, *, stream: bool = False) -> str:
        """The whole answer of the server."""
        self.upstream.default = script
        async with client_of(self.server) as http:
            answer = await http.post(CHAT, json=ask(stream=stream))
        self.clean(answer.text)
        self.clean(str(answer.headers))
        return answer.text

    async def read(self, *events: str, then: str) -> str:
        """The whole stream, whose last event comes when the first ones are read."""
        more = asyncio.Event()
        self.upstream.default = sse([*events, more, then])
        text = ""
        async with (
            client_of(self.server) as http,
            http.stream("POST", CHAT, json=ask(stream=True)) as answer,
        ):
            async for part in answer.aiter_text():
                text += part
                more.set()
        self.clean(text)
        return text

    def clean(self, text: str) -> None:
        assert self.address not in text
        assert REQUEST not in text
        self.without_keys(text)

    def without_keys(self, text: str) -> None:
        for secret in self.secrets:
            assert secret not in text
            assert secret[:12] not in text  # nor the half of it


Start = Callable[[str], Any]


@pytest.fixture
def start(serve: Serve, upstream: ScriptedUpstream) -> Start:
    async def started(name: str) -> Told:
        models = {"m": {"targets": [{"provider": name, "model": "theirs"}]}}
        server = await serve({name: account(name, upstream)}, models=models)
        return Told(name, server, upstream)

    return started


def error_of(name: str, message: str, **more: Any) -> Any:
    """An error as this provider writes it."""
    if name == "anthropic":
        said = {"type": "invalid_request_error", "message": message, **more}
        return {"type": "error", "error": said, "request_id": REQUEST}
    if name in ("cohere", "mistral"):
        return {"object": "error", "message": message, **more}
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize("name", KEYS)
async def test_in_the_words_of_a_refusal(start: Start, name: str) -> None:
    told = await start(name)
    said = f"The value is wrong: {told.words} (request {REQUEST})."
    for status in (400, 404, 409, 413, 422, 500, 503):
        text = await told.ask(answer_json(status, error_of(name, said)))
        assert ("The value is wrong: … and …" in text) is (status < 500)


@pytest.mark.parametrize("name", KEYS)
async def test_where_only_words_to_choose_by_stand(start: Start, name: str) -> None:
    told = await start(name)
    for secret in told.secrets:
        for more in ({"param": f"x.{secret}"}, {"code": secret}, {"type": f"{secret}_error"}):
            said = json.loads(await told.ask(answer_json(400, error_of(name, "No.", **more))))
            assert said["error"]["message"] == "No."
            assert said["error"]["type"] == "invalid_request_error"
            assert said["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("name", KEYS)
async def test_at_every_place_where_a_text_is_cut(start: Start, name: str) -> None:
    told = await start(name)
    key = KEYS[name]
    for before in range(2000 - len(key), 2001, 7):
        await told.ask(answer_json(400, error_of(name, "x" * (before - 2) + f": {key} is no key.")))


@pytest.mark.parametrize("name", KEYS)
async def test_in_what_pydantic_found(start: Start, name: str) -> None:
    told = await start(name)
    detail = {"loc": ["header", KEYS[name]], "msg": told.words, "input": told.words}
    assert "…" in await told.ask(answer_json(422, {"detail": [detail]}))


@pytest.mark.parametrize("name", KEYS)
async def test_in_a_stream(start: Start, name: str) -> None:
    """In its first event, in the middle, and in the clothes of a whole answer."""
    told = await start(name)
    error = error_of(name, told.words, code="400", param=KEYS[name])
    if name == "cohere":
        end = {"finish_reason": "ERROR", "error": told.words}
        events = [
            {"type": "message-start", "id": "a", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}},
        ]
        error = {"type": "message-end", "delta": end}
    elif name == "anthropic":
        begun = {"id": "a", "usage": {"input_tokens": 1, "output_tokens": 1}}
        text = {"type": "text_delta", "text": "a"}
        events = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {"type": "content_block_delta", "index": 0, "delta": text},
        ]
    else:
        delta = {"role": "assistant", "content": "a"}
        events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    assert '"error"' in await told.ask(sse([json.dumps(error)]), stream=True)
    text = await told.read(*map(json.dumps, events), then=json.dumps(error))
    assert '"content":"a"' in text.replace(" ", "")
    assert '"error"' in text
    assert '"error"' in await told.ask(answer_json(200, error_of(name, told.words, code=400)))


@pytest.mark.parametrize("name", KEYS)
async def test_in_the_log(start: Start, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Which has the rest of what the upstream said."""
    told = await start(name)
    logs.configure("info", "json")
    key = KEYS[name]
    await told.ask(answer_json(500, error_of(name, f"It broke: {told.words}")))
    for before in range(400, 510, 9):
        page = f"<p>{'It broke' + '.' * before} {key} <p>".encode()
        await told.ask(answer_bytes(500, page))
    await told.ask(answer_json(403, error_of(name, f"It broke: {told.words}", code=key)))
    logs.flush()
    text = capsys.readouterr().err
    assert "It broke: … and …" in text
    told.without_keys(text)


async def test_of_a_proxy(serve: Serve, upstream: ScriptedUpstream) -> None:
    """Its address and its password, which the config has, too."""
    host = upstream.url.removeprefix("http://")
    lab = {
        "dialect": "openai",
        "base_url": "http://api.lab.example/v1",
        "proxy": f"http://the-user-name:pass%20word%20of%20it@{host}",
    }
    upstream.default = answer_json(
        400, {"error": "the-user-name, pass word of it, api.lab.example"}
    )
    models = {"m": {"targets": [{"provider": "lab", "model": "theirs"}]}}
    async with client_of(await serve({"lab": lab}, models=models)) as http:
        answer = await http.post(CHAT, json=ask())
    assert answer.json()["error"]["message"] == "…, …, …"


async def test_short_ones_are_words(serve: Serve, upstream: ScriptedUpstream) -> None:
    lab = {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": "none"}
    upstream.default = answer_json(400, {"error": "There is none."})
    models = {"m": {"targets": [{"provider": "lab", "model": "theirs"}]}}
    async with client_of(await serve({"lab": lab}, models=models)) as http:
        answer = await http.post(CHAT, json=ask())
        assert answer.json()["error"]["message"] == "There is none."
        upstream.default = chat_answer()
        assert (await http.post(CHAT, json=ask())).status_code == 200
