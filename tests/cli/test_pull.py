"""`roundhouse pull`, `ls`, `show`, `rm` and `du`, against a hub on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.cli.weights.meter import Meter
from server.cli.weights.pulling import who
from server.engines import runtimes
from server.engines.store import holdings
from tests.cli.conftest import Run
from tests.fakes.hub import COMMIT, FakeHub, model, running

REPO = "org/small"
FILE = "model.safetensors"


@pytest.fixture
def hub(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(nowhere / "no-token"))
    monkeypatch.setenv("HF_HOME", str(nowhere / "hf"))
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(nowhere / "home"))
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def config(folder: Path, **engines: str) -> None:
    lines = [f"  {name}: {{weights: {weights!r}}}" for name, weights in engines.items()]
    models = [f"  {name}: {{targets: [{{engine: {name}}}]}}" for name in engines]
    text = "\n".join(["version: 1", "engines:", *lines, "models:", *models])
    (folder / "roundhouse.yaml").write_text(text + "\n")


def test_the_life_of_a_model(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    done = run("pull", REPO)
    assert done.exit_code == 0, done.output
    first, path = done.stdout.splitlines()
    assert first == (
        "org/small is here: commit c0ffee000000, 4 files, 1.1 KiB, licence apache-2.0, verified."
    )
    assert Path(path) == nowhere / "hf/hub/models--org--small/snapshots" / COMMIT
    head, row = run("ls").stdout.splitlines()
    assert head.split() == ["MODEL", "COMMIT", "SIZE", "STATE", "SINCE", "USED", "BY"]
    assert row.split()[:5] == [REPO, "c0ffee000000", "1.1", "KiB", "verified"]
    shown = run("show", REPO, "--verify").stdout
    assert f"commit    {COMMIT}" in shown
    assert "licence   apache-2.0" in shown
    assert f"hub       {hub.url}" in shown
    assert FILE in shown
    total = run("du").stdout.splitlines()[-1]
    assert f" KiB in {nowhere / 'hf/hub'}, " in total
    assert total.endswith(" free")
    removed = run("rm", REPO, "--dry-run")
    assert removed.stdout.startswith("Would remove org/small: ")
    assert run("rm", REPO).stdout.startswith("Removed org/small: ")
    assert "There are no models in" in run("ls").stdout
    assert "No models are here." in run("du").stdout


def test_all_of_it_as_json(run: Run, hub: FakeHub) -> None:
    hub.add(REPO)
    events = [json.loads(line) for line in run("pull", REPO, "--json").stdout.splitlines()]
    assert events[-1]["event"] == "done"
    assert events[-1]["commit"] == COMMIT
    assert {one["event"] for one in events} <= {"progress", "done"}
    (row,) = json.loads(run("ls", "--json").stdout)
    assert (row["name"], row["state"], row["used_by"]) == (REPO, "verified", [])
    (shown,) = json.loads(run("show", REPO, "--json", "--verify").stdout)
    assert shown["changed"] == []
    assert {file["path"] for file in shown["record"]["files"]} == set(model())
    used = json.loads(run("du", "--json").stdout)
    assert used["models"][0]["size"] == used["size"]
    gone = json.loads(run("rm", REPO, "--json").stdout)
    assert (gone["name"], gone["removed"]) == (REPO, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pull", "org/smal"], "Did you mean org/small?"),
        (["pull", "org/gated"], "Accept its terms at"),
        (["pull", REPO, "--revision", "v9"], "has no revision 'v9'"),
        (["pull", "org/old"], "--allow-pickle"),
        (["pull", "a/b/c"], "is no id of a model"),
        (["pull", "./nothing"], "There is no folder './nothing'"),
        (["pull", "./nothing"], "/nothing)"),
        (["pull", "."], "has no config.json"),
        (["pull", "embedded:guide"], "nothing to pull"),
        (["show", "org/none"], "org/none is not here"),
        (["show", "embedded:guide"], "comes with Roundhouse, and is in no store"),
        (["rm", "org/none"], "org/none is not here"),
    ],
)
def test_errors_are_one_paragraph(run: Run, hub: FakeHub, arguments: list[str], says: str) -> None:
    hub.add(REPO)
    hub.add("org/gated", gated=True)
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_error_as_json(run: Run, hub: FakeHub) -> None:
    done = run("pull", REPO, "--json")
    assert done.exit_code == 1
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (event["event"], event["reason"]) == ("error", "not_found")


def test_pickles_when_allowed(run: Run, hub: FakeHub) -> None:
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    done = run("pull", "org/old", "--allow-pickle")
    assert done.exit_code == 0
    assert "can run code here" in done.stderr


def test_code_that_is_left_out_is_told(run: Run, hub: FakeHub) -> None:
    hub.add(REPO, model() | {"modeling_x.py": b"1"})
    assert "modeling_x.py" in run("pull", REPO).stderr
    assert "5 files" in run("pull", REPO, "--allow-code").stdout


def test_what_an_engine_uses_is_not_removed(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    config(nowhere, small=REPO)
    assert run("pull", "small").exit_code == 0  # by the engine's name
    assert run("ls").stdout.splitlines()[1].endswith("small")
    refused = run("rm", REPO)
    assert refused.exit_code == 1
    assert "the engine small" in refused.stderr
    assert run("rm", REPO, "--force").exit_code == 0


def test_an_engine_s_name_is_that_of_its_weights(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    folder = nowhere / "own"
    for name, content in model().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    config(nowhere, small=REPO, mine="own")
    for name, title in (("small", REPO), ("mine", "own")):
        assert run("pull", name).exit_code == 0
        assert run("show", name).stdout.startswith(f"{title}\n  state     verified\n")
        assert f"{title} is the weights of the engine {name}" in run("rm", name).stderr
    # What has the name itself comes first.
    config(nowhere, own=REPO)
    assert run("rm", "own").stdout == "own is registered no more. Its files stay.\n"


def test_an_engine_without_weights(run: Run, hub: FakeHub, nowhere: Path) -> None:
    text = "version: 1\nengines: {own: {runtime: command, cmd: 'serve ${PORT}'}}\n"
    (nowhere / "roundhouse.yaml").write_text(text)
    for command in ("pull", "show", "rm"):
        done = run(command, "own")
        assert done.exit_code == 1
        assert done.stderr == (
            "Error: The engine own of the config has no weights that could be here: its "
            "runtime is command.\n"
        )
    assert hub.seen == []


def test_a_config_with_faults(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    (nowhere / "roundhouse.yaml").write_text("version: 1\nno: 1\n")
    pulled = run("pull", REPO)
    assert pulled.exit_code == 0
    assert "has faults" in pulled.stderr
    assert run("rm", REPO).exit_code == 2  # who uses it is not known
    assert run("rm", REPO, "--force").exit_code == 0


def test_a_folder(run: Run, hub: FakeHub, nowhere: Path) -> None:
    (nowhere / "mine").mkdir()
    for name, data in model().items():
        (nowhere / "mine" / name).write_bytes(data)
    config(nowhere, own="./mine")
    done = run("pull", "./mine")
    assert done.stdout.startswith("mine is registered: 4 files")
    assert run("ls").stdout.splitlines()[1].endswith("own")
    assert run("pull", "./mine", "--revision", "main").exit_code == 2
    (nowhere / "mine" / FILE).write_bytes(b"x" * len(model()[FILE]))
    changed = run("show", "mine", "--verify")
    assert changed.exit_code == 1
    assert "changed" in changed.stdout
    assert "1 files of mine are not what they were" in changed.stderr
    assert run("rm", "mine", "--force").stdout == "mine is registered no more. Its files stay.\n"
    assert (nowhere / "mine" / FILE).exists()


def test_another_store(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    assert run("pull", REPO, "--store", "there").exit_code == 0
    assert (nowhere / "there/models--org--small").is_dir()
    assert REPO in run("ls", "--store", "there").stdout
    assert "There are no models" in run("ls").stdout


@pytest.mark.parametrize("arguments", [["ls"], ["du"], ["show", REPO], ["pull", REPO]])
def test_a_store_that_is_no_folder(
    run: Run, hub: FakeHub, nowhere: Path, arguments: list[str]
) -> None:
    (nowhere / "file").touch()
    done = run(*arguments, "--store", "file")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "file is no folder. Name one with --store" in done.stderr


@pytest.mark.parametrize("command", [["ls"], ["du"], ["show", REPO], ["rm", REPO]])
def test_a_store_that_cannot_be_read(
    run: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def denied(*args: object) -> None:  # tests may run as root, whom nothing is denied
        raise PermissionError(13, "Permission denied", "/the/store")

    monkeypatch.setattr(holdings, "holdings", denied)
    monkeypatch.setattr(holdings, "usage", denied)
    done = run(*command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: /the/store cannot be used (Permission denied).")


# --- what the config says


def test_the_store_of_the_config(run: Run, hub: FakeHub, nowhere: Path) -> None:
    hub.add(REPO)
    config(nowhere, small=REPO)
    with (nowhere / "roundhouse.yaml").open("a") as file:
        file.write("weights: {folder: models, workers: 1, stall_timeout: 5s}\n")
    where = nowhere / "models"
    assert run("pull", "small").stdout.splitlines()[1].startswith(str(where))
    assert (where / "models--org--small").is_dir()
    assert run("ls").stdout.splitlines()[1].startswith(REPO)
    assert f" in {where}, " in run("du").stdout
    assert str(where) in run("show", REPO).stdout
    assert "There are no models in" in run("ls", "--store", "other").stdout
    # The config's folder is the config's, wherever the command is run.
    (nowhere / "below").mkdir()
    os.chdir(nowhere / "below")
    assert run("ls", "--config", "../roundhouse.yaml").stdout.splitlines()[1].startswith(REPO)


def test_what_the_config_allows(run: Run, hub: FakeHub, nowhere: Path) -> None:
    files = model() | {"pytorch_model.bin": b"pickle"}
    del files[FILE]
    hub.add(REPO, files)
    assert run("pull", REPO).exit_code == 1
    (nowhere / "roundhouse.yaml").write_text(
        "version: 1\nweights: {allow_pickle: true}\n"
        f"engines: {{a: {{weights: {REPO}, trust_remote_code: true}}}}\n"
    )
    done = run("pull", REPO)
    assert done.exit_code == 0, done.output
    assert "whoever made them can run code here" in done.stderr


def test_an_engine_s_own_hub_and_python(
    run: Run, hub: FakeHub, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, model() | {"own.py": b"pass"})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    (nowhere / "roundhouse.yaml").write_text(
        f"version: 1\nengines: {{a: {{weights: {REPO}, trust_remote_code: true, "
        f'env: {{HF_ENDPOINT: "{hub.url}", HF_HOME: "{nowhere}/own"}}}}}}\n'
    )
    assert run("pull", "a").exit_code == 0
    assert list(nowhere.glob("own/hub/models--org--small/snapshots/*/own.py"))


def test_ctrl_c_in_this_process(
    run: Run, hub: FakeHub, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(meter: Meter) -> None:
        raise KeyboardInterrupt

    hub.add(REPO)
    hub.fault(FILE, hub.hang(300))
    monkeypatch.setattr(Meter, "tick", pressed)
    done = run("pull", REPO)
    assert done.exit_code == 130
    assert done.stderr == "Stopped. What has come is kept; pull again to go on.\n"
    assert not list(nowhere.glob("hf/hub/.locks/**/*.lock"))


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError(0)

    monkeypatch.setattr("getpass.getuser", nameless)
    assert who() == f"user {os.getuid()}"


def test_a_second_commit_and_a_partial_one(run: Run, hub: FakeHub, nowhere: Path) -> None:
    repo = hub.add(REPO, branches=("main", "v2"))
    assert run("pull", REPO).exit_code == 0
    repo.commit = "b" * 40
    repo.files["tokenizer.json"] = b'{"new": 1}'
    assert run("pull", REPO, "--revision", "v2").exit_code == 0
    (nowhere / "hf/hub/models--org--small/blobs/0f.incomplete").write_bytes(b"half")
    shown = run("show", REPO, "--verify")
    assert shown.exit_code == 0
    assert shown.stdout.count(f"{REPO}\n") == 3
    assert "revisions v2" in shown.stdout
    assert "state     partial" in shown.stdout
    (row,) = json.loads(run("show", REPO, "--revision", "v2", "--json").stdout)
    assert row["commit"] == "b" * 40


def test_check_tells_where_weights_are(
    run: Run, hub: FakeHub, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO)
    found = SimpleNamespace(path="/python")
    monkeypatch.setattr(runtimes, "find_python", lambda *args, **more: found)
    text = f"version: 1\nengines: {{a: {{weights: {REPO}}}}}\n"
    file = nowhere / "roundhouse.yaml"
    file.write_text(text)
    store = nowhere / "hf/hub"
    done = run("check", "--engines")
    assert f"Engine a: {REPO}, pulled into {store} before its first start\n" in done.stdout
    file.write_text(text + "weights: {pull: false}\n")
    done = run("check", "--engines")
    assert done.exit_code == 4
    assert f"`weights.pull` is false. Run `roundhouse pull {REPO}`." in done.stderr
    assert not hub.seen
    assert run("pull", REPO).exit_code == 0
    done = run("check", "--engines")
    assert f"Engine a: {store}/models--org--small/snapshots/{COMMIT}\n" in done.stdout
    # Nobody has verified it, and it is there all the same.
    (store / f"models--org--small/roundhouse/{COMMIT}.json").unlink()
    assert run("check", "--engines").stdout == done.stdout
