"""What stands beside the file: keys of clients in a file of their own, keys in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.config import yamltext
from server.config.places import Path, Place, Places
from server.config.providers_table import AUTH_HEADERS, ROWS, holds_ours, key_in, key_variable
from server.config.variables import Expander


def section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    section = tree.get(name)
    return section if isinstance(section, dict) else {}


def _keys(tree: dict[str, Any]) -> list[Any] | None:
    """The list of keys, made if it is not there; None when something else stands in its place."""
    server = tree.setdefault("server", {})
    if not isinstance(server, dict):
        return None
    if server.get("keys") is None:
        server["keys"] = []
    return server["keys"] if isinstance(server["keys"], list) else None


def add_keys_file(
    tree: dict[str, Any], places: Places, data: bytes, source: str, variables: Mapping[str, str]
) -> Expander:
    found, there = yamltext.parse(data, source)
    if not isinstance(found, list | None):
        raise there.error((), "A keys file is a list.", "Write lines like `- {name: …, key: …}`.")
    expander = Expander(variables, places)
    keys = _keys(tree)
    if keys is not None:
        for number, key in enumerate(found or []):
            path: Path = ("server", "keys", len(keys))
            places.graft(path, there.inside((number,)))
            keys.append(expander.expand(key, path))
    return expander


def add_env_key(
    tree: dict[str, Any], places: Places, variables: Mapping[str, str], used: set[str]
) -> bool:
    """ROUNDHOUSE_API_KEY as the key `env` for all models.

    Not when the file uses the variable: it says there what the key may do.
    """
    secret = variables.get("ROUNDHOUSE_API_KEY")
    keys = None if "ROUNDHOUSE_API_KEY" in used or not secret else _keys(tree)
    if keys is None:
        return False
    places.move(("server", "keys", len(keys)), Place("ROUNDHOUSE_API_KEY"))
    keys.append({"name": "env", "key": secret})
    return True


def add_provider_keys(
    tree: dict[str, Any], places: Places, variables: Mapping[str, str]
) -> dict[str, str]:
    """The keys of known rows from their variables, where the file says none. Returns provider →
    variable."""
    took = {}
    for name, provider in section(tree, "providers").items():
        if not isinstance(provider, dict) or _has_key(provider):
            continue
        like = provider.get("like") or name
        variable = key_variable(str(like), provider.get("base_url"), variables)
        if variable is not None:
            provider["api_key"] = key_in(variables, variable)
            places.move(("providers", name, "api_key"), Place(variable))
            took[str(name)] = variable
    return took


def kept_keys(tree: dict[str, Any], variables: Mapping[str, str]) -> list[str]:
    """A sentence for each variable whose provider would be served, were its key not our own."""
    there = section(tree, "providers")
    return [
        f"{variable} holds a key of this server itself, so it is sent to nobody, and {name} is not "
        "served by it."
        for name, row in ROWS.items()
        if name not in there and row.base_url is not None
        for variable in row.variables
        if holds_ours(variables, variable)
    ]


def _has_key(provider: dict[str, Any]) -> bool:
    headers = provider.get("headers")
    sent = {str(name).lower() for name in headers} if isinstance(headers, dict) else set()
    return "api_key" in provider or "api_keys" in provider or bool(sent & AUTH_HEADERS)


def add_providers(tree: dict[str, Any], variables: Mapping[str, str]) -> None:
    """With `catalog: auto`, the providers known by name whose key is there."""
    providers = tree.setdefault("providers", {})
    if isinstance(providers, dict):
        for name in with_key(variables):
            providers.setdefault(name, {})


def with_key(variables: Mapping[str, str]) -> list[str]:
    """The names of those providers that need nothing but their key, which is there."""
    return [
        name
        for name, row in ROWS.items()
        if row.base_url is not None and key_variable(name, None, variables) is not None
    ]
