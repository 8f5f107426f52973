"""`pull`, `ls`, `show`, `rm` and `du` on the disk of a server that runs, over its admin API."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

from server.cli.weights import remote
from server.config.load import load
from server.engines.state import EngineState
from server.serving import Roundhouse
from tests.cli.conftest import FakeServer, Run
from tests.cli.terminal import Start, open_terminals, start
from tests.cli.test_pull import FILE, REPO, hub
from tests.fakes.hub import COMMIT, FakeHub, at, cut, model

__all__ = ["hub", "open_terminals", "start"]
KEY = "an-admin-key-of-the-tests-0123456789"


@dataclass
class Served:
    """A server in a thread of its own, with an engine `small` of REPO that nobody has started."""

    server: Roundhouse
    url: str
    store: Path

    def admin(self) -> tuple[str, str, str, str]:
        return ("--admin-url", self.url, "--admin-key", KEY)


@pytest.fixture
def served(hub: FakeHub, nowhere: Path) -> Iterator[Served]:
    folder = nowhere / "server"
    folder.mkdir()
    config = {
        "version": 1,
        "server": {
            "port": 0,
            "admin": "127.0.0.1:0",
            "admin_key": KEY,
            "home": str(folder / "home"),
            "timeouts": {"unready": "0s"},
        },
        "weights": {"folder": "hub"},
        "engines": {"small": {"weights": REPO, "load": "request"}},
        "models": {"small": {"targets": [{"engine": "small"}]}},
    }
    (folder / "roundhouse.yaml").write_text(yaml.safe_dump(config))
    ready: Future[Roundhouse] = Future()
    stop: Future[None] = Future()

    async def serve() -> None:
        try:
            async with Roundhouse(load(folder / "roundhouse.yaml", environ={})) as server:
                ready.set_result(server)
                await asyncio.wrap_future(stop)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    with capture_logs():  # they would stand in what the command prints: it is the same process
        thread.start()
        try:
            server = ready.result(60)
            yield Served(server, server.admin_url or "", folder / "hub")
        finally:
            stop.set_result(None)
            thread.join()


def test_the_life_of_a_model_on_a_server(run: Run, hub: FakeHub, served: Served) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    done = run("pull", REPO, "--on-server", *served.admin())
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "org/small is on the server: commit c0ffee000000, 4 files, 1.1 KiB, verified.\n"
    )
    assert f"{FILE}: " in done.stderr  # that it was cut
    assert (served.store / "models--org--small").is_dir()
    _, row = run("ls", "--on-server", *served.admin()).stdout.splitlines()
    assert row.split()[:5] == [REPO, "c0ffee000000", "1.1", "KiB", "verified"]
    assert row.endswith("small")
    # This disk is another one.
    assert "There are no models" in run("ls").stdout
    shown = run("show", REPO, "--on-server", "--revision", "main", *served.admin()).stdout
    assert f"commit    {COMMIT}" in shown
    assert "asked by  the admin API" in shown
    assert FILE in shown
    total = run("du", "--on-server", *served.admin()).stdout.splitlines()[-1]
    assert f" KiB in {served.store}, " in total
    refused = run("rm", REPO, "--on-server", *served.admin())
    assert refused.exit_code == 1
    assert "The engine `small` has org/small as its weights" in refused.stderr
    dry = run("rm", REPO, "--on-server", "--force", "--dry-run", *served.admin())
    assert dry.stdout.startswith("Would remove org/small: ")
    gone = run("rm", REPO, "--on-server", "--force", *served.admin())
    assert gone.stdout.startswith("Removed org/small: ")
    assert "--on-server` brings one" in run("ls", "--on-server", *served.admin()).stdout


def test_all_of_it_as_json(run: Run, hub: FakeHub, served: Served) -> None:
    hub.add(REPO)
    done = run("pull", REPO, "--on-server", "--json", *served.admin())
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["commit"], last["model"]) == ("done", COMMIT, REPO)
    (row,) = json.loads(run("ls", "--on-server", "--json", *served.admin()).stdout)
    assert row["used_by"] == ["small"]
    (shown,) = json.loads(run("show", REPO, "--on-server", "--json", *served.admin()).stdout)
    assert {file["path"] for file in shown["record"]["files"]} == set(model())
    used = json.loads(run("du", "--on-server", "--json", *served.admin()).stdout)
    assert used["models"][0]["size"] == used["size"]
    failed = run("pull", "org/none", "--on-server", "--json", *served.admin())
    last = json.loads(failed.stdout.splitlines()[-1])
    assert (last["event"], last["reason"]) == ("error", "weights_not_found")
    assert failed.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["pull", "org/smal"], 1, "Did you mean org/small?"),
        (["pull", "org/gated"], 1, "Accept its terms at"),
        (["pull", "./folder"], 1, "no id of a model on the hub"),
        (["pull", "../engines"], 1, "`../engines` is no id of a model on the hub"),
        (["show", "../engines/small"], 1, "`../engines/small` is no id of a model on the hub"),
        (["rm", "../default"], 1, "`../default` is no id of a model on the hub"),
        (["pull", REPO, "--stop"], 1, "The server pulls no org/small."),
        (["pull", REPO, "--store", "x", "--no-wait"], 2, "--store, --no-wait cannot go with"),
        (["show", REPO, "--verify"], 2, "--verify cannot go with"),
        (["show", "org/none"], 1, "org/none is not here"),
        (["rm", "org/none"], 1, "org/none is not here. `roundhouse ls --on-server` shows all."),
    ],
)
def test_errors_are_one_paragraph(
    run: Run, hub: FakeHub, served: Served, arguments: list[str], code: int, says: str
) -> None:
    hub.add(REPO)
    hub.add("org/gated", gated=True)
    done = run(*arguments, "--on-server", *served.admin())
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", [REPO, "small"])
def test_ctrl_c_leaves_the_server_at_it_and_stop_ends_it(
    run: Run, start: Start, hub: FakeHub, served: Served, name: str
) -> None:
    hub.add(REPO)
    halfway = threading.Event()
    hub.fault(FILE, at(halfway, 300, hub.gone))
    terminal = start("pull", name, "--on-server", *served.admin())
    terminal.until("3 of 4 files")
    terminal.type("\x03")
    terminal.until("The server goes on.")
    terminal.until("with --stop it ends it.")
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown
    again = start("pull", name, "--on-server", *served.admin())
    again.until("3 of 4 files")
    stopped = run("pull", name, "--on-server", "--stop", *served.admin())
    assert stopped.stdout == "Stopped pull-1. What has come is kept.\n"
    again.until("The pull was stopped.")
    assert again.ended() == 1
    assert hub.bytes_asked(FILE) == [None]


def test_stop_is_for_servers(run: Run, nowhere: Path) -> None:
    done = run("pull", REPO, "--stop")
    assert done.exit_code == 2
    assert "ends with Ctrl-C" in done.stderr


# --- rm here asks the server that runs


def test_rm_here_asks_the_server_whose_disk_it_is(
    run: Run, hub: FakeHub, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO)
    here = ("--store", str(served.store))
    assert run("pull", REPO, *here).exit_code == 0
    for more in ((), ("--dry-run",)):
        refused = run("rm", REPO, *here, *more, *served.admin())
        assert refused.exit_code == 1
        assert "The engine `small` has org/small as its weights" in refused.stderr
    # While it runs, force does not help.
    with monkeypatch.context() as patch:
        running = type("Running", (), {"state": EngineState.READY})()
        patch.setattr(served.server.supervisor, "view", lambda name: running)
        refused = run("rm", REPO, *here, "--force", *served.admin())
        assert refused.exit_code == 1
        assert "roundhouse unload small" in refused.stderr
    # A server that does not say is not passed over, unless by force.
    refused = run("rm", REPO, *here, "--admin-url", served.url)
    assert refused.exit_code == 1
    assert "does not say which engines it has" in refused.stderr
    assert run("rm", REPO, *here, "--force", *served.admin()).exit_code == 0


def test_rm_here_does_not_mind_a_server_with_another_disk(
    run: Run, hub: FakeHub, served: Served
) -> None:
    hub.add(REPO)
    assert run("pull", REPO).exit_code == 0
    assert run("rm", REPO, *served.admin()).stdout.startswith("Removed org/small: ")


def test_rm_asks_nobody_where_nobody_is(run: Run, hub: FakeHub, fake: FakeServer) -> None:
    hub.add(REPO)
    assert run("pull", REPO).exit_code == 0
    # Something else answers there, and was asked for by name.
    refused = run("rm", REPO, "--admin-url", fake.url)
    assert refused.exit_code == 1
    assert "is no Roundhouse server" in refused.stderr
    assert run("rm", REPO, "--admin-url", "http://127.0.0.1:1").exit_code == 1
    (Path("roundhouse.yaml")).write_text(
        "version: 1\nserver: {admin: '127.0.0.1:1'}\nengines: {a: {weights: ./a}}\n"
    )
    assert run("rm", REPO).stdout.startswith("Removed org/small: ")


# --- what answers there is something else


def test_a_feed_that_is_none(run: Run, fake: FakeServer) -> None:
    url = ("--on-server", "--admin-url", fake.url)
    for chunks in ([b"event: pull\ndata: []\n\n"], [b"event: pull\ndata: {\n\n"]):
        fake.answers["POST", "/weights"] = (200, chunks)
        done = run("pull", REPO, *url)
        assert (done.exit_code, "is not the admin API" in done.stderr) == (1, True)
    fake.answers["POST", "/weights"] = (200, [b": ping\n\n", b'event: pull\ndata: {"size": 1}\n\n'])
    done = run("pull", REPO, *url)
    assert done.exit_code == 1
    assert "the same command shows it again" in done.stderr
    fake.json("GET", "/weights", {"something": "else"})
    for command in (("ls",), ("du",)):
        assert "is not the admin API" in run(*command, *url).stderr


def test_a_path_of_any_name() -> None:
    assert remote._path("a/b?c#d", revision=None, force=False) == "/weights/a/b%3Fc%23d"
    assert remote._path("a", revision="v 1", force=True) == "/weights/a?revision=v+1&force=true"
    assert remote._path("../engines/x") == "/weights/%2E%2E/engines/x"
