"""Heads of requests as bytes, and what the head of an answer says of its body."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from server.errors import UpstreamProtocol

#: Sent unless a target's own headers say otherwise. Answers are passed on as they are, so none
#: may come packed.
_OURS: Final = {"user-agent": "roundhouse", "accept-encoding": "identity"}
_NUMBER: Final = "x-request-id"
_NO_ANSWER: Final = "The upstream sent something that is no answer."


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect: a host and port, or the path of a Unix socket; `tls` on top, trusting the
    authorities of the file `ca` if one is named."""

    host: str
    port: int
    tls: bool
    uds: str | None = None
    ca: str | None = None


@functools.lru_cache(maxsize=1024)
def address(base_url: str, uds: str | None, ca: str | None = None) -> tuple[Address, str, str]:
    """(where to connect, the Host header, the path before the request's own) of a base URL.

    Raises UpstreamProtocol for what is no http or https URL.
    """
    try:
        parts = urlsplit(base_url)
        port = parts.port
        host = parts.hostname or ""
        host.encode("ascii" if ":" in host else "idna")
    except (ValueError, UnicodeError) as error:
        raise UpstreamProtocol("The upstream's address is none.", detail=str(error)) from None
    if parts.scheme not in ("http", "https") or not host:
        raise UpstreamProtocol(
            "The upstream's address is none.", detail=f"{parts.scheme}: no http URL with a host"
        )
    tls = parts.scheme == "https"
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    usual = 443 if tls else 80
    shown = name if port in (None, usual) else f"{name}:{port}"
    place = Address(name.strip("[]"), port or usual, tls, uds, ca if tls else None)
    return place, shown, parts.path.rstrip("/")


def request_head(
    method: str, base_url: str, uds: str | None, path: str, headers: Mapping[str, str], length: int
) -> bytes:
    """The request line and headers. Raises UpstreamProtocol for a line end inside one."""
    number = headers.get(_NUMBER)
    if number is None:
        lasting, own = tuple(headers.items()), b""
    else:  # the one header that differs from request to request
        lasting = tuple(item for item in headers.items() if item[0] != _NUMBER)
        own = _lines([f"{_NUMBER}: {number}\r\n"], 1)
    return b"%b%bcontent-length: %d\r\n\r\n" % (
        _lasting(method, base_url, uds, path, lasting),
        own,
        length,
    )


@functools.lru_cache(maxsize=1024)
def _lasting(
    method: str, base_url: str, uds: str | None, path: str, headers: tuple[tuple[str, str], ...]
) -> bytes:
    """All but what differs from request to request: a target's requests share it."""
    _, host, before = address(base_url, uds)
    lines = [f"{method} {before}{path} HTTP/1.1\r\n", f"host: {host}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    names = {name for name, _ in headers}
    lines += [f"{name}: {value}\r\n" for name, value in _OURS.items() if name not in names]
    return _lines(lines, len(lines))


def _lines(lines: list[str], count: int) -> bytes:
    text = "".join(lines)
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise UpstreamProtocol(
            "The request could not be written.", detail="a header holds a line end"
        )
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise UpstreamProtocol(
            "The request could not be written.", detail="a header is not Latin-1"
        ) from None


def no_answer(detail: str) -> UpstreamProtocol:
    """What the peer sent is no HTTP answer."""
    return UpstreamProtocol(_NO_ANSWER, detail=detail)


class Framing:
    """How the body of an answer ends: `LENGTH`, `CHUNKED`, `CLOSE` (with the connection)."""

    LENGTH: Final = 1
    CHUNKED: Final = 2
    CLOSE: Final = 3


def framing(status: int, headers: list[tuple[bytes, bytes]]) -> int:
    """The body's framing. Raises UpstreamProtocol where two readers could see two lengths: such an
    answer may hold another one in its body."""
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in headers:
        if name == b"content-length":
            if length is not None and length != value:
                raise no_answer("two values of content-length")
            if not value.rstrip(b" ").isdigit():
                raise no_answer("content-length is no number")
            length = value
        elif name == b"transfer-encoding":
            # A tab behind it is allowed, but httptools would then not see chunks.
            if coding is not None or value.rstrip(b" ").lower() != b"chunked":
                raise no_answer("a transfer-encoding other than chunked")
            coding = value
    if coding is not None:
        if length is not None:
            raise no_answer("both content-length and transfer-encoding")
        return Framing.CHUNKED
    if length is not None or status in (204, 304):
        return Framing.LENGTH
    return Framing.CLOSE
