"""Where the server listens, and who may reach it there."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from server.config.places import Path, Places, Problem
from server.config.schema import Config

#: A key beyond loopback has at least this many characters.
SHORTEST_KEY: Final = 16
DIGEST: Final = "sha256:"


def is_loopback(host: str) -> bool:
    """Can nobody but this machine reach it? A name other than localhost counts as reachable."""
    bare = host.strip("[]").partition("%")[0].lower()
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def new_key() -> str:
    """A fresh key: `sk-rh-`, a public id, and 256 random bits."""
    return f"sk-rh-{secrets.token_hex(4)}-{secrets.token_urlsafe(32)}"


def split(address: str) -> tuple[str, int]:
    """Host and port of a checked `host:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def exposure(config: Config, places: Places) -> Iterator[Problem]:
    """Refuses to be reached by others without keys, or with keys that can be guessed."""
    server = config.server
    if not is_loopback(server.host):
        if not server.keys:
            yield places.error(
                ("server", "host"),
                f"{server.host or 'an empty host'} can be reached from other machines, and no keys "
                "are set, so anybody could use this server.",
                f"Set a key, for example ROUNDHOUSE_API_KEY={new_key()} (made for you just now), "
                "or listen on 127.0.0.1.",
            )
        for at, key in enumerate(server.keys):
            yield from _weak(("server", "keys", at, "key"), key.key.get_secret_value(), places)
    if server.admin is not None and not is_loopback(split(server.admin)[0]):
        path: Path = ("server", "admin")
        if server.admin_key is None:
            yield places.error(
                path,
                f"{server.admin} can be reached from other machines, and no admin key is set.",
                f"Set a key, for example ROUNDHOUSE_ADMIN_KEY={new_key()} (made for you just now), "
                'or write admin: "127.0.0.1:8001".',
            )
        else:
            secret = server.admin_key.get_secret_value()
            yield from _weak(("server", "admin_key"), secret, places)
        if server.metrics_key is not None:
            secret = server.metrics_key.get_secret_value()
            yield from _weak(("server", "metrics_key"), secret, places)


def _weak(path: Path, secret: str, places: Places) -> Iterator[Problem]:
    if not secret.startswith(DIGEST) and len(secret) < SHORTEST_KEY:
        yield places.error(
            path,
            f"has fewer than {SHORTEST_KEY} characters, and the listener can be reached from other "
            "machines.",
            f"Use a long random one, for example {new_key()} (made for you just now).",
        )


def same_port(config: Config, places: Places) -> Iterator[Problem]:
    """The two listeners need two ports."""
    server = config.server
    if server.admin is None:
        return
    host, port = split(server.admin)
    if port and port == server.port and _meet(host, server.host):
        yield places.error(
            ("server", "admin"),
            f"{server.admin} is the address of the public API.",
            "Give the admin API a port of its own, or null to switch it off.",
        )


def is_own(url: str, config: Config) -> bool:
    """Does this URL lead back to one of this server's own listeners? Names are not looked up."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    own = [(config.server.host, config.server.port)]
    if config.server.admin is not None:
        own.append(split(config.server.admin))
    return any(port == p and _meet(host, h) for h, p in own)


def _meet(one: str, other: str) -> bool:
    one, other = _plain(one), _plain(other)
    anywhere = {"", "0.0.0.0", "::"}
    if one == other or (is_loopback(one) and is_loopback(other)):
        return True
    near_one, near_other = one in anywhere or is_loopback(one), other in anywhere
    return (near_one and near_other) or (one in anywhere and is_loopback(other))


def _plain(host: str) -> str:
    """One spelling of an address: not `127.1`, `0x7f000001`, `::ffff:127.0.0.1` or `LOCALHOST.`."""
    bare = host.strip("[]").partition("%")[0].lower().rstrip(".")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        try:  # the older spellings of IPv4, which the system's own resolver takes
            return socket.inet_ntoa(socket.inet_aton(bare))
        except (OSError, ValueError):
            return bare
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
