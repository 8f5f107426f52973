"""Where an external engine's replicas are: fixed URLs, or what DNS says now."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from server.transport.names import look_up

#: Seconds for one look-up. The system's resolver mostly gives up sooner by itself.
LOOK_UP: Final = 30.0
#: What getaddrinfo says when there is an answer, and it is that there is nothing.
_NOTHING: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
#: Look-ups of SRV targets under way at one time.
_AT_A_TIME: Final = 16
#: Bytes of an answer over UDP that no network cuts up; for more there is TCP.
_PACKET: Final = 1232
_PORTS: Final = {"http": 80, "https": 443}

#: (IP address, port) of every replica that the `discover` of a config names; empty: there is none.
#: Raises OSError when nothing could be learned.
Resolver = Callable[[str], Awaitable[Iterable[tuple[str, int]]]]


class LookUpFailed(OSError):
    """A look-up without an answer; the text is for operators."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica listens. `address` tells it from the others, in labels and to people."""

    address: str
    base_url: str


def fixed(urls: Iterable[str]) -> tuple[Place, ...]:
    """The places of the config's URLs, in its order, each once. A URL ends with its port."""
    places: dict[str, Place] = {}
    for url in urls:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)
        address = _joined(host, port)
        places.setdefault(address, Place(address, url))
    return tuple(places.values())


def found(hosts: Iterable[tuple[str, int]]) -> tuple[Place, ...]:
    """The places of what a look-up has found, always in the same order: DNS shuffles."""
    addresses = sorted({_joined(host, port) for host, port in hosts})
    return tuple(Place(address, f"http://{address}") for address in addresses)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolve(discover: str) -> list[tuple[str, int]]:
    """`dns://host:port` as every program of this machine would look it up, with its hosts file and
    search domains; `dns+srv://name` by asking the machine's name servers. A `Resolver`.
    """
    kind, _, name = discover.partition("://")
    try:
        async with asyncio.timeout(LOOK_UP):
            if kind == "dns+srv":
                return await Srv().look_up(name)
            host, _, port = name.rpartition(":")
            return await addresses(host, int(port))
    except TimeoutError as exc:
        raise LookUpFailed(f"no answer within {LOOK_UP:g} s") from exc


async def addresses(host: str, port: int) -> list[tuple[str, int]]:
    """All addresses of a host. Raises LookUpFailed."""
    try:
        # A family that this machine does not speak is of no use.
        found = await look_up(host, socket.AI_ADDRCONFIG)
    except socket.gaierror as exc:
        if exc.errno in _NOTHING:
            return []
        raise LookUpFailed(exc.strerror or "the look-up failed") from exc
    except UnicodeError as exc:
        raise LookUpFailed("that is no name of a host") from exc
    return [(address, port) for address in found]


class Srv:
    """SRV records: one replica for each target and port, whatever their priority and weight.

    Asks the name servers of the machine, or those given. `lifetime`: seconds for one question.
    """

    def __init__(self, servers: Iterable[str] = (), port: int = 53, lifetime: float = 5.0) -> None:
        self._servers, self._port, self._lifetime = list(servers), port, lifetime

    async def look_up(self, name: str) -> list[tuple[str, int]]:
        """Raises LookUpFailed, also when a target's address cannot be had: half an answer would
        take away replicas that are there."""
        # Here, because the import takes 100 ms and few need it.
        from dns.asyncresolver import Resolver
        from dns.exception import DNSException
        from dns.name import Name, root
        from dns.rdatatype import AAAA, SRV, A
        from dns.resolver import NXDOMAIN, NoAnswer

        places = asyncio.Semaphore(_AT_A_TIME)

        async def one(target: Name, port: int) -> list[tuple[str, int]]:
            async with places:
                # One replica with two families is still one.
                for kind in (A, AAAA):
                    answer = await resolver.resolve(target, kind, raise_on_no_answer=False)
                    if answer.rrset is not None:
                        return [(record.address, port) for record in answer.rrset]
            raise LookUpFailed(f"{target} has no address")

        try:
            resolver = Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers, resolver.port = self._servers, self._port
            resolver.lifetime = self._lifetime
            resolver.use_edns(0, 0, _PACKET)
            try:
                answer = await resolver.resolve(name, SRV, search=True)
            except (NXDOMAIN, NoAnswer):
                return []
            records = [record for record in answer if record.target != root]
            hosts = [one(record.target, record.port) for record in records]
            answers = await asyncio.gather(*hosts, return_exceptions=True)
        except DNSException as exc:
            raise LookUpFailed(_told(exc)) from exc
        replicas: list[tuple[str, int]] = []
        for answered in answers:
            if isinstance(answered, DNSException):
                raise LookUpFailed(_told(answered)) from answered
            if isinstance(answered, BaseException):
                raise answered
            replicas += answered
        return replicas


def _told(exc: Exception) -> str:
    return str(exc).split("\n")[0][:200] or type(exc).__name__
