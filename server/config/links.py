"""What needs more than one section to judge. The models that a config comes to are in `resolve`,
and may be imported from here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Final

from server.config import engine_checks, listeners, model_checks, provider_checks, values
from server.config.places import Path, Places, Problem
from server.config.resolve import provider_target as provider_target
from server.config.resolve import resolve_models as resolve_models
from server.config.schema import Config
from server.registry.catalog import Catalog

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def check(config: Config, places: Places, catalog: Catalog, folder: FilePath) -> list[Problem]:
    """All that is wrong between the sections, and between them and the cards. `folder`: where
    relative paths start."""
    return [
        *listeners.exposure(config, places),
        *listeners.same_port(config, places),
        *_keys(config, places),
        *provider_checks.check(config, places, folder),
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
    if config.server.metrics_key is not None and config.server.admin_key is None:
        where = places.of(("server", "metrics_key"))
        found.append(f"{where}: without server.admin_key the metrics are open to everybody there.")
    found += provider_checks.advice(config)
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
        secrets.add(_as_digest(secret))
    if config.server.metrics_key is not None:
        secret = config.server.metrics_key.get_secret_value()
        path = ("server", "metrics_key")
        yield from _secret(path, secret, places)
        if _as_digest(secret) in secrets:
            yield places.error(
                path,
                "is also a client's key, or the admin key.",
                "It opens the metrics alone: give scrapers one of their own.",
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
