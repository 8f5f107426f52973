from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import FakeServer

Run = Callable[..., Result]


def test_a_server_that_is_well(fake: FakeServer, run: Run) -> None:
    fake.json("GET", "/health", {"status": "ok"})
    result = run("health", "--base-url", fake.url)
    assert (result.exit_code, result.stdout) == (0, f"The server at {fake.url} is well.\n")


@pytest.mark.parametrize("status", [200, 503])
def test_a_server_that_drains_is_well_and_not_ready(
    status: int, fake: FakeServer, run: Run
) -> None:
    fake.json("GET", "/health", {"status": "ok"})
    fake.json("GET", "/ready", {"status": "…"}, status)
    assert run("health", "--base-url", fake.url).exit_code == 0
    result = run("health", "--ready", "--base-url", fake.url)
    assert result.exit_code == (status != 200)
    if status != 200:
        assert result.stderr == "Error: The server answered HTTP 503.\n"


def test_nobody_there(run: Run) -> None:
    with socket.socket() as held:  # bound, and nobody listens: refused, and nobody else's
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        result = run("health", "--base-url", url)
    assert result.exit_code == 1
    assert f"No server answers at {url}." in result.stderr


def test_the_server_of_the_config_here_is_asked_without_a_key(
    fake: FakeServer, run: Run, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = fake.url.rpartition(":")[2]
    key = "sk-none-of-its-business"
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nserver:\n  host: 0.0.0.0\n  port: {port}\n"
        f"  keys: [{{name: me, key: {key}}}]\n"
        "providers: {lab: {dialect: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
    )
    monkeypatch.setenv("ROUNDHOUSE_API_KEY", "sk-neither-this-one-of-the-environment")
    fake.json("GET", "/health", {"status": "ok"})
    assert run("health").exit_code == 0
    assert [seen.headers.get("authorization") for seen in fake.seen] == [None]
