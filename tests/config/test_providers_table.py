from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, get_args

import pytest

from server.config.listeners import new_key
from server.config.provider import Dialect, Provider
from server.config.providers_table import (
    ALSO_OPENAI,
    OTHER_NAMES,
    ROWS,
    SURFACES,
    Account,
    Credential,
    account,
    key_in,
    key_variable,
)
from server.protocol.envelope import Surface


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def made(name: str = "lab", **said: Any) -> Account:
    return account(name, Provider.model_validate(said))


def test_a_row_alone_is_an_account() -> None:
    found = made("ollama")
    assert (found.dialect, found.base_url) == ("openai", "http://127.0.0.1:11434/v1")
    assert found.credentials == (Credential({}, None),)
    assert (found.headers, found.settings, found.drop) == ({}, {}, frozenset())
    with pytest.raises(ValueError, match="lab"):
        made()


def test_several_keys_are_several_credentials() -> None:
    own = {"dialect": "openai", "base_url": "http://x/v1/"}
    one = made(**own, api_key="k")
    assert one.base_url == "http://x/v1"
    assert one.credentials == (Credential({"authorization": "Bearer k"}, digest("k")),)
    more = made(**own, api_keys=["k", "l"])
    assert [c.digest for c in more.credentials] == [digest("k"), digest("l")]
    assert [c.headers["authorization"] for c in more.credentials] == ["Bearer k", "Bearer l"]


@pytest.mark.parametrize(
    ("name", "said", "header"),
    [
        ("anthropic", {}, "x-api-key"),
        ("claude", {"dialect": "anthropic", "base_url": "http://x/v1"}, "x-api-key"),
        ("openai", {}, "authorization"),
        ("openai", {"dialect": "anthropic", "base_url": "http://x/v1"}, "x-api-key"),
        ("anthropic", {"dialect": "openai", "base_url": "http://x/v1"}, "authorization"),
    ],
)
def test_where_the_key_stands(name: str, said: dict[str, Any], header: str) -> None:
    (credential,) = made(name, **said, api_key="k").credentials
    assert list(credential.headers) == [header]


def test_who_pays_is_a_header_of_the_row() -> None:
    openai = made("openai", api_key="k", organization="org-1", project="proj-1")
    assert openai.headers == {"openai-organization": "org-1", "openai-project": "proj-1"}
    assert made("huggingface", organization="us").headers == {"x-hf-bill-to": "us"}
    assert made("anthropic", workspace="w").headers == {"anthropic-workspace-id": "w"}
    assert made("openai", organization="", headers={"X-Team": "a"}).headers == {"x-team": "a"}


def test_an_account_like_another(tmp_path: Path) -> None:
    said = {
        "like": "anthropic",
        "base_url": "https://eu.example/v1",
        "api_key": "k",
        "ca": "ca.pem",
        "proxy": "http://p:1",
        "drop": ["seed"],
        "settings": {"version": "2026-10-21"},
        "max_in_flight": 3,
        "max_waiting": 2,
        "retry_ambiguous": True,
    }
    found = account("eu", Provider.model_validate(said), tmp_path)
    assert (found.name, found.dialect) == ("eu", "anthropic")
    assert (found.ca, found.proxy) == (str(tmp_path / "ca.pem"), "http://p:1")
    assert (found.drop, found.settings) == (frozenset({"seed"}), {"version": "2026-10-21"})
    assert (found.max_in_flight, found.max_waiting, found.retry_ambiguous) == (3, 2, True)


def test_no_secret_is_shown() -> None:
    found = made("openai", api_key="sk-1", proxy="http://u:sk-2@p:1", headers={"x": "sk-3"})
    assert "sk-" not in repr(found)


def test_what_an_address_of_somebody_elses_has_is_not_known() -> None:
    assert Surface.COMPLETIONS in made("openai").surfaces
    assert made("huggingface").surfaces == {Surface.CHAT}
    assert made("openai", base_url="http://x/v1").surfaces == SURFACES["openai"]
    assert made(dialect="anthropic", base_url="http://x/v1").surfaces == {Surface.CHAT}


def test_rows_are_whole() -> None:
    assert set(SURFACES) == set(get_args(Dialect))
    for name, row in ROWS.items():
        assert row.dialect in SURFACES, name
        assert row.surfaces <= SURFACES[row.dialect], name
        assert (row.base_url is None) is (row.example is not None), name
        assert not (row.base_url or "").endswith("/"), name
        assert bool(row.variables) is bool(row.page), name
        assert row.named.keys() <= Provider.model_fields.keys(), name
        assert all(header == header.lower() for header in row.named.values()), name
    assert set(OTHER_NAMES.values()) <= ROWS.keys()
    assert not OTHER_NAMES.keys() & ROWS.keys()
    assert {ROWS[name].dialect for name in ALSO_OPENAI}.isdisjoint({"openai", "cohere"})


def test_a_key_goes_to_its_own_address_alone() -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "HUGGINGFACE_API_KEY": "hf-1", "AZURE_OPENAI_API_KEY": "a"}
    assert key_variable("openai", None, environ) == "OPENAI_API_KEY"
    assert key_variable("openai", "https://elsewhere.example/v1", environ) is None
    assert key_variable("openai", "https://api.openai.com/v1/", environ) == "OPENAI_API_KEY"
    assert key_variable("openai", 5, environ) is None
    assert (
        key_variable("azure", "https://n.openai.azure.com/openai/v1", environ)
        == "AZURE_OPENAI_API_KEY"
    )
    assert key_variable("huggingface", None, environ) == "HUGGINGFACE_API_KEY"
    assert key_variable("huggingface", None, {**environ, "HF_TOKEN": "hf-2"}) == "HF_TOKEN"
    assert key_variable("huggingface", None, {**environ, "HF_TOKEN": ""}) == "HUGGINGFACE_API_KEY"
    assert key_variable("lab", None, environ) is None
    assert key_variable("ollama", None, environ) is None


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("https://api.cohere.com/v2", True),
        ("https://API.Cohere.com:443/v2/", True),
        ("https://api.cohere.com:444/v2", False),
        ("https://api.cohere.com:443/v1", False),
        ("https://api.cohere.com/V2", False),
        ("http://api.cohere.com/v2", False),
        ("http://api.cohere.com:443/v2", False),
        ("https://api.cohere.com.example/v2", False),
        ("https://user@api.cohere.com/v2", False),
        ("https://api.cohere.com@a.example/v2", False),
        ("https://api.cohere.com/v2?x=1", False),
        ("https://api.cohere.com/v2#x", False),
        ("https://api.cohere.com:x/v2", False),
        ("https:///v2", False),
    ],
)
def test_one_address_is_written_in_several_ways(url: str, home: bool) -> None:
    assert (key_variable("cohere", url, {"CO_API_KEY": "k"}) == "CO_API_KEY") is home


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n\t"])
def test_a_blank_variable_is_not_set(blank: str) -> None:
    both = {"HF_TOKEN": blank, "HUGGINGFACE_API_KEY": "hf-1\n", "ROUNDHOUSE_API_KEY": blank}
    assert key_variable("huggingface", None, both) == "HUGGINGFACE_API_KEY"
    assert key_in(both, "HUGGINGFACE_API_KEY") == "hf-1"
    assert key_variable("openai", None, {"OPENAI_API_KEY": blank}) is None


def test_a_clients_key_of_ours_is_no_key_of_openai() -> None:
    assert key_variable("openai", None, {"OPENAI_API_KEY": new_key()}) is None
    same = {"OPENAI_API_KEY": "house-key", "ROUNDHOUSE_API_KEY": "house-key"}
    assert key_variable("openai", None, same) is None
    assert key_variable("openai", None, {**same, "OPENAI_API_KEY": "house-key\n"}) is None
    assert key_variable("openai", None, {**same, "ROUNDHOUSE_API_KEY": "k"}) == "OPENAI_API_KEY"
    scraper = {"OPENAI_API_KEY": "house-key", "ROUNDHOUSE_METRICS_KEY": "house-key"}
    assert key_variable("openai", None, scraper) is None
    both = {
        "HF_TOKEN": "house-key",
        "HUGGINGFACE_API_KEY": "hf",
        "ROUNDHOUSE_ADMIN_KEY": "house-key",
    }
    assert key_variable("huggingface", None, both) == "HUGGINGFACE_API_KEY"
