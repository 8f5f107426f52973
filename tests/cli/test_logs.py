"""`roundhouse logs`: over the admin API, and from the files where no server answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from server.cli.logs import Clean
from tests.cli.conftest import FakeServer
from tests.cli.terminal import Start, open_terminals, start

__all__ = ["open_terminals", "start"]

Run = Callable[..., Result]
RAW = b"one\n\x1b[31mtwo\x1b[0m \xff\n10%\r20%\r\nthree \x07\n"
PATH = "/engines/qwen/logs?lines=100&follow=false"


@pytest.fixture
def home(nowhere: Path) -> Path:
    """A config here whose server does not run."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nserver: {{home: ./home, admin: '127.0.0.1:{port}'}}\n"
    )
    (nowhere / "home" / "logs").mkdir(parents=True)
    return nowhere / "home"


def test_in_a_pipe_it_is_as_it_is(run: Run, fake: FakeServer) -> None:
    fake.answers["GET", PATH] = (200, [RAW[:7], RAW[7:]])
    result = run("logs", "qwen", "--admin-url", fake.url)
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, RAW, "")


def test_a_terminal_gets_nothing_that_draws(start: Start, fake: FakeServer) -> None:
    fake.answers["GET", PATH] = (200, [RAW[:7], RAW[7:]])
    terminal = start("logs", "qwen", "--admin-url", fake.url)
    assert terminal.ended() == 0
    assert terminal.raw.decode() == "one\r\ntwo \ufffd\r\n10%\r\n20%\r\nthree \r\n"


@pytest.mark.parametrize("cut", range(len(RAW) + 1))
def test_wherever_it_is_cut(cut: int) -> None:
    clean = Clean()
    text = clean.text(RAW[:cut]) + clean.text(RAW[cut:])
    assert text == "one\ntwo \ufffd\n10%\n20%\nthree \n"


def test_following_until_ctrl_c(start: Start, fake: FakeServer) -> None:
    more, leave = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"before\n"
        more.wait(30)
        yield b"after\n"
        leave.wait(30)

    fake.answers["GET", "/engines/qwen/logs?lines=5&follow=true"] = (200, chunks())
    terminal = start("logs", "qwen", "-f", "-n", "5", "--admin-url", fake.url)
    terminal.until("before")
    more.set()
    terminal.until("after")
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown
    leave.set()


def test_an_empty_log_and_an_engine_that_is_not_there(run: Run, fake: FakeServer) -> None:
    fake.answers["GET", PATH] = (200, [])
    result = run("logs", "qwen", "--admin-url", fake.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "it has not been started yet" in result.stderr
    fake.error("GET", "/engines/a%2Fb/logs?lines=100&follow=false", 404, "There is no engine.")
    result = run("logs", "a/b", "--admin-url", fake.url)
    assert (result.exit_code, result.stderr) == (1, "Error: There is no engine.\n")
    assert run("logs", "qwen", "-n", "-1", "--admin-url", fake.url).exit_code == 2


def test_from_the_files(run: Run, home: Path) -> None:
    (home / "logs" / "qwen.log").write_bytes(b"3\n4\n")
    (home / "logs" / "qwen.log.1").write_bytes(b"1\n2\n")
    result = run("logs", "qwen", "-n", "3")
    assert (result.exit_code, result.stdout) == (0, "2\n3\n4\n")
    assert "No server answers at http://127.0.0.1:" in result.stderr
    assert f"This is from {home / 'logs' / 'qwen.log'}:" in result.stderr


def test_from_the_files_of_a_server_that_has_no_admin_api(run: Run, home: Path) -> None:
    (home / "logs" / "qwen.log").write_bytes(b"1\n")
    (home.parent / "roundhouse.yaml").write_text(
        "version: 1\nserver: {home: ./home, admin: null}\n"
    )
    result = run("logs", "qwen")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "The config here switches the admin API off. This is from " in result.stderr
    result = run("logs", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Nor is there a log of `nobody`" in result.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("qwne", "Did you mean `qwen`?"), ("zzz", "There are: qwen."), ("../secret", "There are")],
)
def test_no_such_file(run: Run, home: Path, name: str, hint: str) -> None:
    (home / "logs" / "qwen.log").write_bytes(b"1\n")
    (home / "secret.log").write_bytes(b"secret")
    result = run("logs", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Nor is there a log of `{name}`" in result.stderr
    assert hint in result.stderr


def test_another_server_s_log_is_not_here(run: Run, home: Path) -> None:
    (home / "logs" / "qwen.log").write_bytes(b"1\n")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        result = run("logs", "qwen", "--admin-url", url)
    assert (result.exit_code, result.stdout) == (1, "")


def following(home: Path, repo_root: Path, *flags: str) -> subprocess.Popen[bytes]:
    """`roundhouse logs qwen -f` into a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", "from server.cli import main; main()", "logs", "qwen", "-f", *flags],
        cwd=home.parent,
        env={"PYTHONPATH": str(repo_root), "PATH": "", "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_reader_may_leave_while_nothing_is_said(
    home: Path, repo_root: Path, fake: FakeServer
) -> None:
    leave = threading.Event()

    def quiet() -> Iterator[bytes]:
        yield b"ready\n"
        leave.wait(60)

    (home / "logs" / "qwen.log").write_bytes(b"ready\n")
    fake.answers["GET", "/engines/qwen/logs?lines=100&follow=true"] = (200, quiet())
    for flags in ((), ("--admin-url", fake.url)):
        with following(home, repo_root, *flags) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.stdout.close()
            assert process.wait(30) == 0
    leave.set()


def test_a_file_is_followed_and_a_reader_may_leave(home: Path, repo_root: Path) -> None:
    file = home / "logs" / "qwen.log"
    file.write_bytes(b"before\n")
    with following(home, repo_root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"before\n"
        with file.open("ab") as log:
            log.write(b"after\n")
        assert process.stdout.readline() == b"after\n"
        process.stdout.close()
        with file.open("ab") as log:
            log.write(b"more\n")
        assert process.wait(30) == 0
        assert b"Traceback" not in process.stderr.read()
