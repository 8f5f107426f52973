"""A name server on loopback, over UDP and TCP, that says what a test tells it.

::

    async with NameServer() as names:
        names.say("_http._tcp.qwen.test.", "SRV", "0 0 8000 one.test.", "0 0 8000 two.test.")
        names.say("one.test.", "A", "127.0.0.1")
        ... ask 127.0.0.1 at names.port ...

A name of which nothing was said does not exist; one without records of the asked type has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Any, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer(asyncio.DatagramProtocol):
    """`rcode`: every question gets this error. `silent`: none gets an answer. `cut`: over UDP
    answers are truncated. `asked`: (transport, name, type) of every question."""

    def __init__(self) -> None:
        self.rcode: dns.rcode.Rcode | None = None
        self.silent = self.cut = False
        self.asked: list[tuple[str, str, str]] = []
        self.port = 0
        self._records: dict[str, dict[str, tuple[str, ...]]] = {}
        self._udp: Any = None
        self._tcp: asyncio.Server | None = None

    def say(self, name: str, kind: str, *records: str) -> None:
        self._records.setdefault(name, {})[kind] = records

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        while self._tcp is None:  # the same number must be free for both
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=("127.0.0.1", 0), family=socket.AF_INET
            )
            self.port = self._udp.get_extra_info("sockname")[1]
            with contextlib.suppress(OSError):
                self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                break
            self._udp.close()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._udp.close()
        assert self._tcp is not None
        self._tcp.close()
        await self._tcp.wait_closed()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if (answer := self._answer(data, "udp")) is not None:
            self._udp.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        if (answer := self._answer(await reader.readexactly(size), "tcp")) is not None:
            writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    def _answer(self, data: bytes, transport: str) -> bytes | None:
        question = dns.message.from_wire(data)
        (asked,) = question.question
        name, kind = asked.name.to_text(), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((transport, name, kind))
        if self.silent:
            return None
        answer = dns.message.make_response(question)
        records = self._records.get(name)
        if self.rcode is not None:
            answer.set_rcode(self.rcode)
        elif records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif self.cut and transport == "udp":
            answer.flags |= dns.flags.TC
        elif found := records.get(kind):
            answer.answer.append(dns.rrset.from_text(name, 5, "IN", kind, *found))
        return answer.to_wire(max_size=65535)
