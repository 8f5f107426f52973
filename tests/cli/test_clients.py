"""The commands that ask a running server: models, reload, and how all of them find it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from server.cli import client
from server.cli.client import ClientError, normal, printable
from tests.cli.conftest import FakeServer

Run = Callable[..., Result]


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_models(run: Run, fake: FakeServer) -> None:
    fake.models("guide", "Qwen/Qwen3-8B")
    result = run("models", "--base-url", fake.url)
    assert result.exit_code == 0
    assert result.stdout == (
        "MODEL          OWNED BY\nguide          roundhouse\nQwen/Qwen3-8B  roundhouse\n"
    )
    assert "authorization" not in fake.seen[0].headers
    listed = json.loads(run("models", "--base-url", f"{fake.url}/v1/", "--json").stdout)
    assert [entry["id"] for entry in listed] == ["guide", "Qwen/Qwen3-8B"]


def test_no_models(run: Run, fake: FakeServer) -> None:
    fake.models()
    assert "no model that this key may use" in run("models", "--base-url", fake.url).stdout


def test_the_key_and_the_address_of_the_environment(
    run: Run, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.models("m")
    monkeypatch.setenv("ROUNDHOUSE_BASE_URL", fake.url.removeprefix("http://"))
    monkeypatch.setenv("ROUNDHOUSE_API_KEY", "sk-rh-1\n")
    assert run("models").exit_code == 0
    assert fake.seen[0].headers["authorization"] == "Bearer sk-rh-1"
    monkeypatch.setenv("ROUNDHOUSE_API_KEY", "ö")
    assert "cannot stand in a header" in run("models").stderr


def test_a_refused_key(run: Run, fake: FakeServer) -> None:
    fake.error("GET", "/v1/models", 401, "No key was sent.")
    fake.error("GET", "/engines", 401, "No key was sent.")
    result = run("models", "--base-url", fake.url)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: No key was sent. Give the key with ROUNDHOUSE_API_KEY=… or --api-key.\n"
    )
    assert "ROUNDHOUSE_ADMIN_KEY=… or --admin-key" in run("ps", "--admin-url", fake.url).stderr


def test_no_server(run: Run, nobody: str) -> None:
    result = run("models", "--base-url", nobody)
    assert result.exit_code == 1
    assert f"No server answers at {nobody}. Start one with `roundhouse serve`" in result.stderr
    result = run("ps", "--admin-url", nobody)
    assert "--admin-url or ROUNDHOUSE_ADMIN_URL" in result.stderr


def test_without_a_server_the_config_here_is_shown(run: Run, nowhere: Path, nobody: str) -> None:
    port = nobody.rpartition(":")[2]
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nserver: {{port: {port}}}\nengines: {{a: {{weights: w}}}}\n"
        "models: {b: {alias: a}}"
    )
    result = run("models")
    assert result.exit_code == 0
    assert "The config here has:" in result.stderr
    assert result.stdout.splitlines()[1:] == [
        "b      alias of a  not running",
        "a      engine a    not running",
    ]
    assert json.loads(run("models", "--json").stdout)[0] == {"id": "b", "state": "not running"}
    assert run("models", "--base-url", nobody).exit_code == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "is no Roundhouse server (HTTP 200, not JSON)"),
        (502, b"Bad Gateway", "is no Roundhouse server (HTTP 502, not JSON)"),
        (500, {"x": 1}, "The server answered HTTP 500."),
        (500, {"error": "flat \x1b[31mtext"}, "Error: flat [31mtext"),
        (500, {"error": {"message": ""}}, "The server answered HTTP 500."),
    ],
)
def test_strange_answers(status: int, body: object, said: str, run: Run, fake: FakeServer) -> None:
    fake.json("GET", "/v1/models", body, status)
    result = run("models", "--base-url", fake.url)
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_connection_that_breaks(run: Run) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        import threading

        def cut() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)

        thread = threading.Thread(target=cut)
        thread.start()
        result = run("models", "--base-url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "The connection to http://127.0.0.1:" in result.stderr


@pytest.mark.parametrize("url", ["http://", "ftp://x", "http://x:y", "http://x:0", ""])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ClientError, match="is no URL"):
        normal(url)


def test_urls() -> None:
    assert normal("http://x:1/v1/") == "http://x:1"
    assert normal(" gpu-box:8000 ") == "http://gpu-box:8000"
    assert normal("https://x/base/v1") == "https://x/base"


def test_what_a_terminal_may_get() -> None:
    assert printable("a\x1b[2J\tb\nc\x07\u202e") == "a[2J\tb\nc"


# --- what the config here says


def test_the_config_here(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.here() == client.Here(home=Path.home() / ".roundhouse")
    (nowhere / "roundhouse.yaml").write_text(
        'version: 1\nserver: {host: "::", port: 81, admin: "[::1]:82", '
        "admin_key: adminadminadminadmin, keys: [{name: d, key: 'sha256:"
        + "0f"
        * 32
        + "'}, {name: a, key: only-for-one-model, "
        "models: [m]}, {name: b, key: a-long-enough-key}]}"
    )
    found = client.here()
    assert (found.public, found.admin) == ("http://127.0.0.1:81", "http://[::1]:82")
    assert (found.key, found.admin_key) == ("a-long-enough-key", "adminadminadminadmin")
    (nowhere / "roundhouse.yaml").write_text("version: 1\nserver: {admin: null}")
    assert client.here().admin is None
    with pytest.raises(ClientError, match="switches the admin API off"):
        client.admin(None, None)
    (nowhere / "roundhouse.yaml").write_text("version: 77")
    assert client.here() == client.Here()


def test_a_key_of_the_config_here_goes_to_no_other_server(
    run: Run, fake: FakeServer, nowhere: Path
) -> None:
    port = fake.url.rpartition(":")[2]
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nserver: {{port: {port}, admin: '127.0.0.1:{port}', admin_key: adm, "
        "keys: [{name: a, key: kkk}]}"
    )
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nserver: {{port: {port}, keys: [{{name: a, key: kkk}}]}}"
    )
    fake.models("m")
    run("models")
    run("models", "--base-url", fake.url)
    assert [seen.headers.get("authorization") for seen in fake.seen] == ["Bearer kkk", None]


# --- reload


def test_reload(run: Run, fake: FakeServer) -> None:
    fake.json("POST", "/reload", {"result": "ok", "changed": ["models.m"], "warnings": ["w"]})
    result = run("reload", "--admin-url", fake.url)
    assert (result.stdout, result.stderr) == ("Reloaded. Changed: models.m.\n", "Note: w\n")
    fake.json("POST", "/reload", {"result": "ok", "changed": [], "warnings": []})
    assert run("reload", "--admin-url", fake.url).stdout == "Reloaded. Changed: nothing.\n"
    fake.json("POST", "/reload", {"result": "unchanged"})
    assert run("reload", "--admin-url", fake.url).stdout == (
        "Nothing has changed since the server read it last, which it does by itself.\n"
    )
    fake.error("POST", "/reload", 400, "a:1: x\na:2: y")
    result = run("reload", "--admin-url", fake.url)
    assert result.exit_code == 1
    assert result.stderr == "Error: 2 things to mend:\n  a:1: x\n  a:2: y\n"
    fake.json("POST", "/reload", {"result": "perhaps"})
    assert "is not the admin API" in run("reload", "--admin-url", fake.url).stderr
