from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from server.config.listeners import is_loopback, new_key, split
from server.config.load import Loaded
from server.config.providers_table import account

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("a.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_host_and_port() -> None:
    assert split("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split("[::1]:0") == ("::1", 0)


def test_a_fresh_key_is_new_and_long() -> None:
    assert re.fullmatch(r"sk-rh-[0-9a-f]{8}-[A-Za-z0-9_-]{43}", new_key())
    assert new_key() != new_key()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gpu-box"])
def test_beyond_loopback_without_keys(host: str, faults: Faults) -> None:
    (found,) = faults(f'version: 1\nserver: {{host: "{host}"}}')
    assert "no keys are set, so anybody could use this server." in found
    assert re.search(r"Set a key, for example ROUNDHOUSE_API_KEY=sk-rh-\S{50,} \(made", found)
    assert found.endswith("or listen on 127.0.0.1.")


def test_an_empty_host_is_all_of_them(faults: Faults) -> None:
    assert "an empty host can be reached" in faults("version: 1\nserver: {host: ''}")[0]


def test_beyond_loopback_with_keys(good: Good) -> None:
    environ = {"ROUNDHOUSE_API_KEY": new_key()}
    assert good("version: 1\nserver: {host: 0.0.0.0}", environ).config.server.host == "0.0.0.0"
    digest = "sha256:" + "0f" * 32
    good(f"version: 1\nserver: {{host: 0.0.0.0, keys: [{{name: a, key: '{digest}'}}]}}")


def test_a_weak_key(good: Good, faults: Faults) -> None:
    keys = "keys: [{name: a, key: hunter2}]"
    assert good(f"version: 1\nserver: {{{keys}}}").config.server.keys
    (found,) = faults(f"version: 1\nserver: {{host: 0.0.0.0, {keys}}}")
    assert "server.keys[0].key: has fewer than 16 characters" in found
    assert "hunter2" not in found


def test_a_flag_opens_what_the_file_did_not(faults: Faults) -> None:
    (found,) = faults("version: 1", server__host="0.0.0.0")
    assert found.startswith("--host: server.host: 0.0.0.0 can be reached from other machines")


def test_a_metrics_key_alone_locks_nothing(good: Good) -> None:
    config = "version: 1\nproviders: {openai: {api_key: k}}\nserver: {metrics_key: a-key}"
    assert "without server.admin_key the metrics are open" in good(config).advice[0]
    assert not good(config, {"ROUNDHOUSE_ADMIN_KEY": new_key()}).advice


def test_admin_beyond_loopback(good: Good, faults: Faults) -> None:
    config = 'version: 1\nserver: {admin: "0.0.0.0:8001"}'
    (found,) = faults(config)
    assert "server.admin: 0.0.0.0:8001 can be reached" in found
    assert "ROUNDHOUSE_ADMIN_KEY=sk-rh-" in found
    (found,) = faults(config, {"ROUNDHOUSE_ADMIN_KEY": "short"})
    assert found.startswith("ROUNDHOUSE_ADMIN_KEY: server.admin_key: has fewer than 16")
    assert good(config, {"ROUNDHOUSE_ADMIN_KEY": new_key()}).config.server.admin_key
    keys = {"ROUNDHOUSE_ADMIN_KEY": new_key(), "ROUNDHOUSE_METRICS_KEY": "short"}
    (found,) = faults(config, keys)
    assert found.startswith("ROUNDHOUSE_METRICS_KEY: server.metrics_key: has fewer than 16")


@pytest.mark.parametrize(
    ("host", "admin", "good_ones"),
    [
        ("127.0.0.1", "127.0.0.1:8000", False),
        ("localhost", "127.0.0.1:8000", False),
        ("127.0.0.1", "127.0.0.1:8001", True),
    ],
)
def test_two_listeners_need_two_ports(
    host: str, admin: str, good_ones: bool, good: Good, faults: Faults
) -> None:
    text = f'version: 1\nserver: {{host: {host}, admin: "{admin}"}}'
    if good_ones:
        good(text)
    else:
        assert "is the address of the public API." in faults(text)[0]
    good('version: 1\nserver: {port: 0, admin: "127.0.0.1:0"}')
    good("version: 1\nserver: {port: 8001, admin: null}")


@pytest.mark.parametrize(
    ("host", "url", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1", True),
        ("127.0.0.1", "http://localhost:8000/v1", True),
        ("127.0.0.1", "http://[::1]:8000/v1", True),
        ("127.0.0.1", "http://127.0.0.1:8001/v1", True),
        ("127.0.0.1", "http://127.0.0.1:8080/v1", False),
        ("127.0.0.1", "http://10.0.0.1:8000/v1", False),
        ("127.0.0.1", "https://api.example.com/v1", False),
        ("127.0.0.1", "http://api.example.com/v1", False),
        ("127.0.0.1", "http://0.0.0.0:8000/v1", True),
        ("0.0.0.0", "http://127.0.0.1:8000/v1", True),
        ("0.0.0.0", "http://0.0.0.0:8000/v1", True),
        ("127.0.0.1", "http://LOCALHOST.:8000/v1", True),
        ("127.0.0.1", "http://127.1:8000/v1", True),
        ("127.0.0.1", "http://2130706433:8000/v1", True),
        ("127.0.0.1", "http://0x7f.0.0.1:8000/v1", True),
        ("127.0.0.1", "http://[0:0:0:0:0:0:0:1]:8000/v1", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:8000/v1", True),
        ("127.0.0.1", "http://[::ffff:10.0.0.1]:8000/v1", False),
        ("127.0.0.1", "http://0:8000/v1", True),
        ("0.0.0.0", "http://[::]:8000/v1", True),
        ("::1", "http://127.0.0.1:8000/v1", True),
        ("10.0.0.5", "http://10.5:8000/v1", True),
        ("10.0.0.5", "http://127.0.0.1:8000/v1", False),
        ("gpu-box", "http://GPU-box:8000/v1", True),
        ("gpu-box", "http://gpu-box:8002/v1", False),
    ],
)
def test_a_provider_that_is_this_server(
    host: str, url: str, own: bool, good: Good, faults: Faults
) -> None:
    text = (
        f"version: 1\nserver: {{host: '{host}'}}\n"
        f"providers: {{lab: {{dialect: openai, base_url: '{url}'}}}}"
    )
    environ = {"ROUNDHOUSE_API_KEY": new_key()}
    if own:
        (found,) = faults(text, environ)
        assert "providers.lab.base_url:" in found
        assert "is this server itself" in found
    else:
        good(text, environ)


def test_a_known_row_may_be_this_server_too(faults: Faults) -> None:
    (found,) = faults("version: 1\nproviders: {llamacpp: {}}", server__port=8080)
    assert "http://127.0.0.1:8080/v1 is this server itself" in found


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1"])
def test_where_our_clients_ask_is_nobody_to_ask(variable: str, host: str, faults: Faults) -> None:
    dialect = "anthropic" if variable.startswith("A") else "openai"
    text = f"version: 1\nproviders: {{up: {{dialect: {dialect}, base_url: '${{{variable}}}'}}}}"
    (found,) = faults(text, {variable: f"http://{host}:8000/v1"})
    assert "is this server itself, so requests would go round in circles." in found


def test_base_urls_in_the_environment_are_the_clients(good: Good) -> None:
    ours = "http://127.0.0.1:8000/v1"
    environ = {
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": ours,
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_BASE_URL": ours,
        "CO_API_URL": ours,
    }
    config = good("version: 1\ncatalog: auto\nproviders: {openai: {}}", environ).config
    places = {name: account(name, one).base_url for name, one in config.providers.items()}
    assert places == {
        "openai": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com/v1",
    }
