"""The way to a provider: headers of the account's own, its authorities, its proxy."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.messages import message_answer
from tests.fakes.tls import Tls, make_tls
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream
from tests.providers.house import CHAT, Serve, ask, client_of, lab, metrics_of, models
from tests.transport.proxies import proxy

KEY_OF_LAB = "sk-lab-key-number-a1"


@pytest.fixture(scope="module")
def tls() -> Tls:
    return make_tls()


def headers_of(upstream: ScriptedUpstream) -> dict[str, str]:
    """Of the last request; no header stands twice."""
    sent = upstream.requests[-1].headers
    found = {name.lower(): value for name, value in sent}
    assert len(found) == len(sent)
    return found


async def test_headers_of_the_account_come_last(serve: Serve, upstream: ScriptedUpstream) -> None:
    """Also before what its dialect would say."""
    upstream.default = message_answer("Hello")
    headers = {
        "Anthropic-Version": "2099-01-01",
        "anthropic-beta": "a, b",
        "User-Agent": "house/1",
        "x-api-key": "key-in-a-header",
    }
    account = {"dialect": "anthropic", "base_url": f"{upstream.url}/v1", "headers": headers}
    server = await serve({"lab": account}, models=models("m"))
    async with client_of(server) as http:
        answer = await http.post(
            CHAT, json=ask(), headers={"anthropic-version": "of-the-client", "x-team": "theirs"}
        )
    assert answer.status_code == 200
    found = headers_of(upstream)
    assert {name: found.get(name) for name in map(str.lower, headers)} == {
        name.lower(): value for name, value in headers.items()
    }
    assert not {"x-team", "authorization"} & found.keys()


@pytest.mark.parametrize("stream", [True, False])
async def test_authorities_of_its_own(serve: Serve, tmp_path: Path, tls: Tls, stream: bool) -> None:
    (tmp_path / "lab-ca.pem").write_bytes(tls.ca_pem)
    async with ScriptedUpstream(ssl=tls.server) as upstream:
        upstream.default = chat_stream() if stream else chat_answer()
        trusting = lab(upstream, KEY_OF_LAB, ca="lab-ca.pem")
        server = await serve(
            {"lab": trusting, "stranger": lab(upstream, KEY_OF_LAB)}, models=models("m")
        )
        async with client_of(server) as http:
            answer = await http.post(CHAT, json=ask(stream=stream))
            assert answer.status_code == 200
            strange = await http.post(CHAT, json=ask("stranger/m", stream=stream))
            assert strange.status_code == 502
            assert strange.json()["error"]["code"] == "upstream_unreachable"
        # It was never told a key or a prompt.
        assert len(upstream.requests) == 1
        shown = await metrics_of(server)
        outcomes = [line for line in shown.text.splitlines() if 'target="stranger/*"' in line]
        assert any('outcome="tls"' in line for line in outcomes)


@pytest.mark.parametrize("secure", [True, False])
async def test_through_a_proxy(serve: Serve, tmp_path: Path, tls: Tls, secure: bool) -> None:
    (tmp_path / "lab-ca.pem").write_bytes(tls.ca_pem)
    more: dict[str, Any] = {"ca": "lab-ca.pem"} if secure else {}
    async with (
        ScriptedUpstream(ssl=tls.server if secure else None) as upstream,
        proxy() as between,
    ):
        upstream.default = chat_stream()
        url = between.url.replace("http://", "http://house:pass%40word@")
        server = await serve(
            {"lab": lab(upstream, KEY_OF_LAB, proxy=url, **more)}, models=models("m")
        )
        async with client_of(server) as http:
            for _ in range(2):
                answer = await http.post(CHAT, json=ask(stream=True))
                assert answer.status_code == 200
                assert b"Hel" in answer.content
        (head,) = between.heads  # the second went the same way
        said = base64.b64encode(b"house:pass@word")
        assert b"\r\nproxy-authorization: basic " + said.lower() in head.lower()
        if secure:
            assert head.startswith(b"CONNECT 127.0.0.1:%d " % upstream.port)
            assert KEY_OF_LAB.encode() not in head
            assert "proxy-authorization" not in headers_of(upstream)
        else:
            assert head.startswith(b"POST %s/v1/chat/completions " % upstream.url.encode())
        assert headers_of(upstream)["authorization"] == f"Bearer {KEY_OF_LAB}"


async def test_a_proxy_that_refuses_is_a_provider_out_of_reach(
    serve: Serve, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    async with proxy(refuse=407) as between:
        url = between.url.replace("http://", "http://house:pass%40word@")
        secret = lab(upstream, KEY_OF_LAB, proxy=url)
        secret["base_url"] = f"https://127.0.0.1:{upstream.port}/v1"
        server = await serve({"lab": secret}, models=models("m"))
        async with client_of(server) as http:
            answer = await http.post(CHAT, json=ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    said = capsys.readouterr()
    for text in (answer.text, str(answer.headers), said.out, said.err):
        assert "word" not in text
        assert KEY_OF_LAB not in text
    assert upstream.requests == []
