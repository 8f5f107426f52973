"""What needs more than one section to judge. The models that a config comes to are in `resolve`,
and may be imported from here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from server.config import engine_checks, listeners, model_checks, values
from server.config.explain import near
from server.config.places import Path, Places, Problem
from server.config.provider import Provider
from server.config.providers_table import ROWS, row_of
from server.config.resolve import provider_target as provider_target
from server.config.resolve import resolve_models as resolve_models
from server.config.schema import Config
from server.registry.catalog import Catalog

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Headers that frame a request: a second value could make two requests of one.
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def check(config: Config, places: Places, catalog: Catalog) -> list[Problem]:
    """All that is wrong between the sections, and between them and the cards."""
    return [
        *listeners.exposure(config, places),
        *listeners.same_port(config, places),
        *_keys(config, places),
        *_providers(config, places),
        *engine_checks.check(config, places),
        *_twins(config, places),
        *model_checks.check(config, places, catalog),
    ]


def advice(config: Config, places: Places, catalog: Catalog) -> list[str]:
    """What is allowed, but probably not meant: one sentence each."""
    found = []
    known = resolve_models(config, catalog)
    if not known and not config.providers:
        found.append("No engine, provider or model is configured: every request will be refused.")
    for at, key in enumerate(config.server.keys):
        for pattern in key.models:
            route = provider_target(config, pattern) is not None
            if not pattern.endswith("*") and pattern not in known and not route:
                where = places.of(("server", "keys", at, "models"))
                found.append(f"{where}: key `{key.name}`: there is no model `{pattern}`.")
    for name, provider in config.providers.items():
        url = urlsplit(provider.base_url or "")
        host = url.hostname or ""
        if url.scheme == "http" and provider.api_key and not listeners.is_loopback(host):
            found.append(f"Provider `{name}`: its key travels to {host} without TLS.")
    found += engine_checks.advice(config)
    return [*found, *model_checks.advice(config, places, catalog)]


def _keys(config: Config, places: Places) -> Iterator[Problem]:
    names: set[str] = set()
    secrets: set[str] = set()
    for at, key in enumerate(config.server.keys):
        path: Path = ("server", "keys", at)
        if key.name in names:
            yield places.error((*path, "name"), f"another key is named `{key.name}`, too.")
        secret = key.key.get_secret_value()
        if _as_digest(secret) in secrets:
            yield places.error(
                (*path, "key"), "is the secret of another key, too.", "Give each its own."
            )
        names.add(key.name)
        secrets.add(_as_digest(secret))
        yield from _secret((*path, "key"), secret, places)
    if config.server.admin_key is not None:
        secret = config.server.admin_key.get_secret_value()
        path = ("server", "admin_key")
        yield from _secret(path, secret, places)
        if _as_digest(secret) in secrets:
            yield places.error(
                path, "is also a client's key.", "Clients must not hold the admin key."
            )


def _as_digest(secret: str) -> str:
    if secret.startswith(listeners.DIGEST):
        return secret
    return listeners.DIGEST + hashlib.sha256(secret.encode()).hexdigest()


def _secret(path: Path, secret: str, places: Places) -> Iterator[Problem]:
    if not secret:
        yield places.error(path, "is empty.", f"For example: {listeners.new_key()}")
    elif secret.startswith(listeners.DIGEST) and not _DIGEST.fullmatch(secret):
        yield places.error(
            path,
            "begins with sha256: but 64 small hex digits do not follow.",
            'Make them with: printf %s "$KEY" | sha256sum',
        )
    else:
        yield from values.header_value(path, secret, places)


def _providers(config: Config, places: Places) -> Iterator[Problem]:
    for name, provider in config.providers.items():
        path: Path = ("providers", name)
        if name == "engine":
            yield places.error(path, "the name `engine` is taken.", "Choose another name.")
        row = row_of(name, provider)
        if row is None and provider.base_url is None:
            yield places.error(path, *_unknown_provider(name))
        elif row is None and provider.dialect is None:
            yield places.error(path, "has no dialect.", "Add `dialect: openai`.")
        elif row and row.variables and provider.base_url is None and not provider.keys:
            yield places.error(
                path,
                f"has no key: {' or '.join(row.variables)} is not set.",
                f"Set {row.variables[0]} in the environment or in .env beside the file, or write "
                f'`api_key: "${{MY_VARIABLE}}"`.',
            )
        yield from _account(path, provider, places)
        base_url = provider.base_url or (row.base_url if row else None)
        if provider.proxy is not None:
            proxy = provider.proxy.get_secret_value()
            yield from _proxy((*path, "proxy"), proxy, base_url, config, places)
        if (
            base_url is not None
            and values.readable(base_url)
            and listeners.is_own(base_url, config)
        ):
            yield places.error(
                (*path, "base_url"),
                f"{base_url} is this server itself, so requests would go round in circles.",
                "Give the other server's address, or change server.port.",
            )


def _unknown_provider(name: str) -> tuple[str, str]:
    works = ", ".join(ROWS)
    hint = near(name, ROWS) or f"Known by name: {works}."
    return (
        "is not known by name, and has no base_url.",
        f'{hint} For others write {{dialect: openai, base_url: "https://…/v1"}}.',
    )


def _account(path: Path, provider: Provider, places: Places) -> Iterator[Problem]:
    url = provider.base_url
    here = (*path, "base_url")
    if url is not None:
        wrong = list(values.plain_url(here, url, places))
        yield from wrong
        if not wrong and url.endswith(
            ("/chat/completions", "/completions", "/models", "/embeddings")
        ):
            yield places.error(here, "goes too far.", "Stop at the part that ends in /v1.")
    if provider.api_key is not None:
        yield from values.api_key((*path, "api_key"), provider.api_key.get_secret_value(), places)
    for header, value in provider.headers.items():
        if not _HEADER_NAME.fullmatch(header):
            yield places.error((*path, "headers", header), "is no name of a header.")
        elif header.lower() in _OURS:
            yield places.error((*path, "headers", header), "is Roundhouse's own to say.")
        yield from values.header_value((*path, "headers", header), value.get_secret_value(), places)


def _proxy(
    path: Path, url: str, base_url: str | None, config: Config, places: Places
) -> Iterator[Problem]:
    """The URL may hold a password, so no message repeats any of it."""
    if not url:
        yield places.error(path, "is empty.", "Remove it where none is needed.")
    elif not url.lower().startswith("http://"):
        yield places.error(
            path, "should start with http://.", "TLS to the provider goes through it all the same."
        )
    elif (
        not values.readable(url)
        or not url.isascii()
        or not url.isprintable()
        or set(url) & set(" \\")
    ):
        hint = "For example: http://proxy.internal:3128; in a password write %40 for @, and so on."
        yield places.error(path, "is no URL.", hint)
    elif urlsplit(url).path not in ("", "/") or urlsplit(url).query or urlsplit(url).fragment:
        yield places.error(path, "goes too far.", "Stop after the port.")
    elif listeners.is_own(url, config):
        yield places.error(path, "is this server itself, which is no proxy.")
    elif base_url and _on_this_machine(base_url) and not _on_this_machine(url):
        yield places.error(
            path,
            "cannot reach base_url, which only this machine can.",
            "Remove it: requests to this machine need no proxy.",
        )


def _on_this_machine(url: str) -> bool:
    return values.readable(url) and listeners.is_loopback(urlsplit(url).hostname or "")


def _twins(config: Config, places: Places) -> Iterator[Problem]:
    """Names that a file system or a reader may take for one."""
    for section in ("engines", "providers"):
        folded: dict[str, str] = {}
        for name in getattr(config, section):
            other = folded.setdefault(name.lower(), name)
            if other != name:
                yield places.error(
                    (section, name), f"differs from `{other}` only in capital letters."
                )
