"""What goes out as a head, and where to; what an answer that is all in is worth."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import UpstreamError, UpstreamProtocol
from server.transport import Transport
from server.transport.head import Address, Framing, address, framing, request_head
from tests.transport.asking import answer, ask, raw, whole


def head(headers: dict[str, str], url: str = "http://x/v1", path: str = "/chat") -> bytes:
    return request_head("POST", url, None, path, headers, 5)


def test_a_head() -> None:
    assert head({"content-type": "a", "authorization": "Bearer k"}) == (
        b"POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-type: a\r\nauthorization: Bearer k\r\n"
        b"user-agent: roundhouse\r\naccept-encoding: identity\r\ncontent-length: 5\r\n\r\n"
    )


def test_what_a_target_says_itself_is_not_said_twice() -> None:
    made = head({"user-agent": "mine", "accept-encoding": "br"})
    assert made.count(b"user-agent") == made.count(b"accept-encoding") == 1
    assert b"mine" in made


def test_the_numbers_of_requests_are_their_own() -> None:
    for number in ("req-1", "req-2"):
        made = head({"content-type": "a", "x-request-id": number})
        assert b"x-request-id: " + number.encode() + b"\r\n" in made
        assert made.endswith(b"content-length: 5\r\n\r\n")
        assert made.count(b"req-") == 1
    assert b"req-" not in head({"content-type": "a"})


@pytest.mark.parametrize("name", ["x", "x-request-id"])
@pytest.mark.parametrize("sign", ["\n", "\r", "\r\n", "\r\na: b", "\0"])
def test_no_value_adds_a_line(name: str, sign: str) -> None:
    for headers in ({name: f"a{sign}"}, {name: f"{sign}b"}, {f"{name}{sign}": "a"}):
        with pytest.raises(UpstreamProtocol) as caught:
            head(headers)
        assert caught.value.detail == "a header holds a line end"
    with pytest.raises(UpstreamProtocol):
        head({name: "a"}, path=f"/x{sign}")


@pytest.mark.parametrize("name", ["x", "x-request-id"])
def test_headers_are_latin_1(name: str) -> None:
    assert b": caf\xe9\r\n" in head({name: "café"})
    with pytest.raises(UpstreamProtocol) as caught:
        head({name: "日本"})
    assert "日本" not in str(caught.value.detail)


@pytest.mark.parametrize(
    ("url", "place", "shown", "before"),
    [
        ("http://x", Address("x", 80, False), "x", ""),
        ("https://x/", Address("x", 443, True), "x", ""),
        ("http://x:80/v1/", Address("x", 80, False), "x", "/v1"),
        ("https://x:443", Address("x", 443, True), "x", ""),
        ("http://x:443", Address("x", 443, False), "x:443", ""),
        ("https://X.Example:8443/a/b", Address("x.example", 8443, True), "x.example:8443", "/a/b"),
        ("http://[::1]:8000/v1", Address("::1", 8000, False), "[::1]:8000", "/v1"),
        ("http://[::1]", Address("::1", 80, False), "[::1]", ""),
        ("http://bücher.example", Address("xn--bcher-kva.example", 80, False), None, ""),
    ],
)
def test_addresses(url: str, place: Address, shown: str | None, before: str) -> None:
    assert address(url, None) == (place, shown or place.host, before)


def test_an_address_on_a_socket() -> None:
    assert address("http://engine", "/run/e")[0] == Address("engine", 80, False, "/run/e")


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "http://", "ftp://x", "http://x:0x1", "http://x:99999", "http://[::1"),
        *("unix:/x", "http://" + "a" * 64 + ".example", "http://a..b"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UpstreamProtocol) as caught:
        address(url, None)
    assert caught.value.message == "The upstream's address is none."


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(b"content-length", b"5")], Framing.LENGTH),
        ([(b"content-length", b"5"), (b"content-length", b"5")], Framing.LENGTH),
        ([(b"content-length", b"5"), (b"content-length", b"6")], None),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], None),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], None),
        ([(b"content-length", b"\xb2")], None),
        ([(b"content-length", b"")], None),
        ([(b"transfer-encoding", b"CHUNKED")], Framing.CHUNKED),
        ([], Framing.CLOSE),
    ],
)
def test_framing_is_judged_without_the_parser_too(
    headers: list[tuple[bytes, bytes]], found: int | None
) -> None:
    """httptools refuses most of these itself; a version of it that does not changes nothing."""
    if found is None:
        with pytest.raises(UpstreamError):
            framing(200, headers)
    else:
        assert framing(200, headers) == found
    assert framing(204, []) == framing(304, []) == Framing.LENGTH


# --- an answer that is all in


async def test_an_answer_that_is_all_in(transport: Transport) -> None:
    for body in (b"", b"abc", b"x" * 100_000):
        async with raw([answer(body)]) as server:
            response = await ask(transport, server.url)
            while (got := response.complete()) is None:
                await asyncio.sleep(0)
            assert got == body
            assert response.complete() is None
            assert await response.read() == b""
            response.close()
            assert await whole(transport, server.url) == b"own"
            assert len(server.peers) == 1


async def test_an_answer_that_is_not_all_in(transport: Transport) -> None:
    async with raw([answer(b"abc")[:-1], "turn", "close"]) as server:
        response = await ask(transport, server.url)
        assert response.complete() is None
        await server.peers[0].gone.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert response.complete() is None  # it never will be
        with pytest.raises(UpstreamError):
            await response.read_all(9)
        response.close()
        assert response.complete() is None
