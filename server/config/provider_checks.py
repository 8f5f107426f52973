"""What is wrong with the entries under `providers`, and what is odd about them."""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Final
from urllib.parse import urlsplit

from server.config import listeners, values
from server.config.explain import near
from server.config.places import Path, Places, Problem
from server.config.provider import SETTINGS, Provider
from server.config.providers_table import (
    ALSO_OPENAI,
    AUTH_HEADERS,
    OTHER_NAMES,
    ROWS,
    Row,
    at_home,
    row_of,
)
from server.config.schema import Config

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Headers that frame a request: a second value could make two requests of one.
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
#: Dialect → ends of a base URL that it adds itself.
_OPENAIS: Final = ("/chat/completions", "/completions", "/embeddings", "/rerank", "/models")
_TOO_FAR: Final = {
    "anthropic": ("/messages", "/models", "/complete"),
    "cohere": ("/chat", "/embed", "/rerank", "/models"),
}
_NAMED: Final = {
    "organization": "an organization",
    "project": "a project",
    "workspace": "a workspace",
}


def check(config: Config, places: Places, folder: FilePath) -> Iterator[Problem]:
    """All that keeps an account from being asked. `folder`: where relative paths start."""
    for name, provider in config.providers.items():
        path: Path = ("providers", name)
        if name == "engine":
            yield places.error(path, "the name `engine` is taken.", "Choose another name.")
        row = row_of(name, provider)
        if provider.like is not None and row is None:
            yield places.error((*path, "like"), *_unknown_row(provider.like))
            continue
        yield from _whole(name, path, provider, row, config, places)
        yield from _keys(path, provider, places)
        yield from _named(name, path, provider, row, places)
        yield from _headers(path, provider, row, places)
        dialect = provider.dialect or (row.dialect if row else "openai")
        yield from _settings(path, provider, dialect, places)
        yield from _base_url(path, provider, dialect, places)
        base_url = provider.base_url or (row.base_url if row else None)
        yield from _way(path, provider, base_url, config, places, folder)


def advice(config: Config) -> Iterator[str]:
    """What is allowed, but probably not meant."""
    for name, provider in config.providers.items():
        url = urlsplit(provider.base_url or "")
        host = url.hostname or ""
        if url.scheme == "http" and provider.keys and not listeners.is_loopback(host):
            yield f"Provider `{name}`: its key travels to {host} without TLS."
        row = row_of(name, provider)
        away = row is not None and not at_home(row, provider.base_url)
        away = away and not listeners.is_loopback(host)
        if row and row.variables and away and not _has_key(provider):
            yield (
                f"Provider `{name}` has no key: that of {row.variables[0]} goes to "
                f"{row.base_url} alone. If {host} wants one, write `api_key`."
            )
        if "max_waiting" in provider.model_fields_set and provider.max_in_flight is None:
            yield (
                f"Provider `{name}`: `max_waiting` has no effect without `max_in_flight`: nothing "
                "waits."
            )


# --- the account itself -------------------------------------------------------------------------


def _whole(
    name: str, path: Path, provider: Provider, row: Row | None, config: Config, places: Places
) -> Iterator[Problem]:
    """Is there enough to ask somebody?"""
    if row is None:
        if provider.base_url is None:
            yield places.error(path, *_unknown_provider(name))
        elif provider.dialect is None:
            yield places.error(path, "has no dialect.", "Add `dialect: openai`.")
        return
    if row.base_url is None and provider.base_url is None:
        yield places.error(
            path,
            "has no base_url, which is another one for each account.",
            f"For example: base_url: {row.example}",
        )
    spoken = {None, row.dialect, *(("openai",) if row.dialect in ALSO_OPENAI else ())}
    if row.base_url and at_home(row, provider.base_url) and provider.dialect not in spoken:
        yield places.error(
            (*path, "dialect"),
            f"{provider.like or name} does not speak {provider.dialect} at {row.base_url}.",
            "Remove it, or give the base_url where it does.",
        )
    if row.variables and at_home(row, provider.base_url) and not _has_key(provider):
        ours = " A key of this server's own is none." if config.server.keys else ""
        yield places.error(
            path,
            f"has no key: {' or '.join(row.variables)} is not set.",
            f"Get one at {row.page} and set {row.variables[0]} in the environment or in .env "
            f'beside the file, or write `api_key: "${{MY_VARIABLE}}"`.{ours}',
        )


def _has_key(provider: Provider) -> bool:
    """`api_keys: []` is told of elsewhere."""
    sent = {header.lower() for header in provider.headers}
    given = "api_keys" in provider.model_fields_set or bool(provider.keys)
    return given or bool(sent & AUTH_HEADERS)


def _unknown_provider(name: str) -> tuple[str, str]:
    others = (
        'For others write {dialect: openai, base_url: "https://…/v1"}, for one more account of a '
        "known one {like: openai}."
    )
    return "is not known by name, and has no base_url.", f"{_near_row(name)} {others}"


def _unknown_row(name: str) -> tuple[str, str]:
    return f"no provider is known by the name `{name}`.", _near_row(name)


def _near_row(name: str) -> str:
    other = OTHER_NAMES.get(name.lower().replace("-", "_"))
    if other is not None:
        return f"Did you mean `{other}`?"
    return near(name, ROWS) or f"Known by name: {', '.join(ROWS)}."


def _keys(path: Path, provider: Provider, places: Places) -> Iterator[Problem]:
    if provider.api_key is not None:
        yield from values.api_key((*path, "api_key"), provider.api_key.get_secret_value(), places)
        if provider.api_keys:
            yield places.error(
                (*path, "api_keys"), "stands beside `api_key`.", "Keep one of the two."
            )
    if "api_keys" in provider.model_fields_set and not provider.api_keys:
        yield places.error((*path, "api_keys"), "is empty.", "Remove it where none is needed.")
    seen: dict[str, int] = {}
    for at, key in enumerate(provider.api_keys):
        secret, here = key.get_secret_value(), (*path, "api_keys", at)
        yield from values.api_key(here, secret, places)
        first = seen.setdefault(secret, at)
        if first != at and secret:
            yield places.error(
                here, f"is the same key as number {first + 1}.", "Give each of them once."
            )


def _named(
    name: str, path: Path, provider: Provider, row: Row | None, places: Places
) -> Iterator[Problem]:
    for word, what in _NAMED.items():
        value = getattr(provider, word)
        if not value:
            continue
        yield from values.header_value((*path, word), value, places)
        if row is None or word not in row.named:
            theirs = [known for known, one in ROWS.items() if word in one.named]
            yield places.error(
                (*path, word),
                f"{provider.like or name} has no header for {what} that is known here.",
                f"{_and(theirs)} {'has' if len(theirs) == 1 else 'have'}. Write it under "
                "`headers`, with the name that it has there.",
            )


def _headers(path: Path, provider: Provider, row: Row | None, places: Places) -> Iterator[Problem]:
    named = {
        header: word
        for word, header in (row.named if row else {}).items()
        if getattr(provider, word)
    }
    seen: dict[str, str] = {}
    for header, value in provider.headers.items():
        here, lower = (*path, "headers", header), header.lower()
        if not _HEADER_NAME.fullmatch(header):
            yield places.error(here, "is no name of a header.")
        elif lower in _OURS:
            yield places.error(here, "is Roundhouse's own to say.")
        elif lower in AUTH_HEADERS and provider.keys:
            yield places.error(
                here, "would stand beside the key.", "Keep one of the two: this or `api_key`."
            )
        elif lower in named:
            yield places.error(here, f"says what `{named[lower]}` says, too.", "Keep one of them.")
        elif seen.setdefault(lower, header) != header:
            yield places.error(here, f"is `{seen[lower]}` once more: capitals make no difference.")
        yield from values.header_value(here, value.get_secret_value(), places)


def _settings(path: Path, provider: Provider, dialect: str, places: Places) -> Iterator[Problem]:
    for key, value in provider.settings:
        if value is None or key in SETTINGS.get(dialect, ()):
            continue
        theirs = [name for name, keys in SETTINGS.items() if key in keys]
        yield places.error(
            (*path, "settings", key),
            f"is a setting of {_and(theirs)}, and this provider speaks {dialect}.",
            "Remove it.",
        )


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# --- where it is, and the way there -------------------------------------------------------------


def _base_url(path: Path, provider: Provider, dialect: str, places: Places) -> Iterator[Problem]:
    url, here = provider.base_url, (*path, "base_url")
    if url is None:
        return
    wrong = list(values.plain_url(here, url, places))
    yield from wrong
    if wrong:
        return
    parts = urlsplit(url)
    end = "/v2" if dialect == "cohere" else "/v1"
    if dialect == "cohere" and "/compatibility/" in f"{parts.path}/":
        yield places.error(
            here, "is where OpenAI's dialect is spoken.", "Write `dialect: openai`, or end in /v2."
        )
    elif url.endswith(_TOO_FAR.get(dialect, _OPENAIS)):
        yield places.error(here, "goes too far.", f"Stop at the part that ends in {end}.")
    elif dialect == "cohere" and parts.path.endswith("/v1"):
        yield places.error(here, "is of the older version.", "End in /v2.")
    elif dialect in ("anthropic", "cohere") and not parts.path:
        yield places.error(here, "ends too early.", f"Write {url}{end}")
    elif "/openai/deployments" in parts.path:
        yield places.error(
            here,
            "is Azure's older API.",
            f"Write {parts.scheme}://{parts.netloc}/openai/v1; a deployment's name is the model.",
        )
    elif (parts.hostname or "").endswith(".openai.azure.com") and parts.path != "/openai/v1":
        yield places.error(
            here, "is not Azure's v1 API.", f"Write {parts.scheme}://{parts.netloc}/openai/v1"
        )


def _way(
    path: Path,
    provider: Provider,
    base_url: str | None,
    config: Config,
    places: Places,
    folder: FilePath,
) -> Iterator[Problem]:
    if provider.proxy is not None:
        proxy = provider.proxy.get_secret_value()
        yield from _proxy((*path, "proxy"), proxy, base_url, config, places)
    if provider.ca is not None:
        yield from _authorities((*path, "ca"), provider.ca, base_url, places, folder)
    if base_url is not None and values.readable(base_url) and listeners.is_own(base_url, config):
        yield places.error(
            (*path, "base_url"),
            f"{base_url} is this server itself, so requests would go round in circles.",
            "Give the other server's address, or change server.port.",
        )


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


def _authorities(
    path: Path, ca: str, base_url: str | None, places: Places, folder: FilePath
) -> Iterator[Problem]:
    """Can TLS be checked with this file, and is there any?"""
    if not ca:
        yield places.error(path, "is empty.", "Remove it to trust whom the system trusts.")
        return
    if base_url is not None and base_url.startswith("http://"):
        yield places.error(
            path, "has nothing to check: base_url is http://, without TLS.", "Remove it."
        )
    try:
        file = folder / FilePath(ca).expanduser()
        found = file.stat()
        held = _certificates(file) if stat.S_ISREG(found.st_mode) else 0
    except FileNotFoundError:
        yield places.error(
            path, f"there is no file {ca}.", "Paths are relative to the config file's folder."
        )
        return
    except OSError as error:
        yield places.error(path, f"{ca} cannot be read: {error.strerror}.")
        return
    if not stat.S_ISREG(found.st_mode):
        yield places.error(path, f"{ca} is no file.")
    elif not found.st_size:
        yield places.error(path, f"the file {ca} is empty.", "It should hold certificates in PEM.")
    elif not held:
        yield places.error(
            path,
            f"{ca} holds no certificates in PEM.",
            "They begin with -----BEGIN CERTIFICATE-----; convert others with openssl.",
        )


def _certificates(file: FilePath) -> int:
    """How many can be used, as the transport reads them. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:  # an OSError, too
        return 0
    return context.cert_store_stats()["x509"]
