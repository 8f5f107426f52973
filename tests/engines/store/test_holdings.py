"""The store: which files are taken, what is listed, checked, removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine
from server.engines.store import holdings, local, records
from server.engines.store.choice import Remote, choose
from server.engines.store.errors import Cancelled, StoreError
from server.engines.store.fetching import Fetch, is_whole
from server.engines.store.holdings import Holding
from server.engines.store.hub import Hub
from server.engines.store.locks import held
from server.engines.store.places import Place, checked_id, store_folder
from server.engines.store.progress import Progress
from server.engines.store.pulling import Pull, Wanted
from tests.fakes.hub import COMMIT, model, running, tensors

REPO = "org/small"
OTHER = "b" * 40


# --- which files


def listed(*names: str) -> list[Remote]:
    return [Remote(name, 10, f"{number:040x}") for number, name in enumerate(names)]


TAKEN = [
    ("config.json model.safetensors tokenizer.json chat_template.jinja LICENSE README.md", ""),
    ("model.safetensors generation_config.json special_tokens_map.json", "eval.csv"),
    ("model.safetensors vocab.txt merges.txt tokenizer.model", "rust_model.ot"),
    ("model.safetensors", "pytorch_model.bin flax_model.msgpack tf_model.h5 model.onnx a.gguf"),
    ("model.safetensors", "original/params.json onnx/config.json .cache/x.json .gitattributes"),
    (
        "model-00001-of-00001.safetensors model.safetensors.index.json",
        "pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json",
    ),
    ("model.safetensors params.json tekken.json", "consolidated.safetensors"),
    ("consolidated.safetensors params.json tekken.json", ""),
    ("model.safetensors", "model.fp16.safetensors image.png notebook.ipynb"),
    ("model.safetensors 1_Pooling/config.json 2_Dense/model.safetensors modules.json", ""),
    ("model.safetensors", "modeling_x.py"),
]


@pytest.mark.parametrize(("taken", "left"), TAKEN)
def test_which_files_are_taken(taken: str, left: str) -> None:
    found = choose(REPO, listed(*taken.split(), *left.split()))
    assert [file.path for file in found.files] == taken.split()


def test_code_is_taken_when_allowed() -> None:
    files = listed("model.safetensors", "modeling_x.py")
    assert [file.path for file in choose(REPO, files).left] == ["modeling_x.py"]
    assert len(choose(REPO, files, allow_code=True).files) == 2


def test_pickles_are_taken_when_allowed_and_needed() -> None:
    pickled = listed("config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "a.pt")
    found = choose(REPO, pickled, allow_pickle=True)
    assert found.pickled
    assert [file.path for file in found.files] == [one.path for one in pickled[:3]]
    both = choose(REPO, [*pickled, *listed("model.safetensors")], allow_pickle=True)
    assert not both.pickled
    assert not any(file.path.endswith(".bin") for file in both.files)


@pytest.mark.parametrize(
    ("names", "reason", "says"),
    [
        ("config.json pytorch_model.bin", "unsafe", "--allow-pickle"),
        ("a.Q4_K_M.gguf", "not_found", "GGUF"),
        ("README.md", "not_found", "nothing to serve"),
        ("config.json original/model.safetensors", "not_found", "nothing to serve"),
    ],
)
def test_nothing_to_serve(names: str, reason: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as caught:
        choose(REPO, listed(*names.split()))
    assert caught.value.reason == reason


# --- where


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/b"}, "/c"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_the_store_is_the_hubs_cache(environ: dict[str, str], folder: str) -> None:
    assert str(store_folder(environ=environ)) == folder
    assert str(store_folder("/set", environ)) == "/set"
    # huggingface_hub itself, in a process of its own, since it looks once.
    code = "from huggingface_hub.constants import HF_HUB_CACHE as h; print(h)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": os.environ.get("HOME", "/"), "PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == folder


def test_a_page_is_as_good_as_an_id() -> None:
    assert checked_id("https://huggingface.co/Qwen/Qwen3-8B/") == "Qwen/Qwen3-8B"


# --- what is there


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two revisions of a model that share their weights, and one that somebody else got."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    with running() as hub:
        there = Hub(endpoint=hub.url, environ={})
        folder = tmp_path / "hub"
        repo = hub.add(REPO)
        Pull(Wanted(REPO, asked_by="a test"), folder, there).run()
        repo.commit, repo.branches = OTHER, ("v2",)
        repo.files["config.json"] = b'{"v": 2}'
        Pull(Wanted(REPO, "v2"), folder, there).run()
        hub.add("org/cached", model(50), commit="a" * 40)
        Pull(Wanted("org/cached"), folder, there).run()
    shutil.rmtree(Place(folder, "org/cached").records)
    return folder


def listing(store: Path) -> list[Holding]:
    return holdings.holdings(store, store.parent / "home")


def states(store: Path) -> dict[str, str]:
    return {f"{one.name}@{one.commit[:3]}": one.state for one in listing(store)}


def test_what_is_listed(store: Path) -> None:
    assert states(store) == {
        "org/cached@aaa": "cached",
        "org/small@c0f": "verified",
        "org/small@bbb": "verified",
    }
    assert holdings.holdings(store / "nothing", store) == []


def test_what_can_be_served_without_a_network(store: Path) -> None:
    place = Place(store, REPO)
    assert records.located(store, REPO) == place.snapshot(COMMIT)
    assert records.located(store, REPO, "v2") == place.snapshot(OTHER)
    assert records.located(store, REPO, OTHER) == place.snapshot(OTHER)
    for revision in ("v3", "a" * 40):
        assert records.located(store, REPO, revision) is None
    assert records.located(store, "org/cached") is None  # nobody verified it
    (place.snapshot(OTHER) / "config.json").resolve().unlink()
    assert records.located(store, REPO, "v2") is None


def test_a_pull_that_did_not_end_is_listed(store: Path) -> None:
    place = Place(store, "org/new")
    place.make()
    (place.blobs / f"{'d' * 64}.incomplete").write_bytes(b"x" * 100)
    (found,) = holdings.named("org/new", None, listing(store))
    assert (found.state, found.size) == ("partial", 100)
    assert holdings.remove([found], store, store).freed == 100
    assert not place.folder.exists()


def test_what_is_damaged_is_said_and_can_be_removed(store: Path) -> None:
    place = Place(store, REPO)
    (place.snapshot(OTHER) / "model.safetensors").resolve().write_bytes(b"short")
    assert states(store)["org/small@bbb"] == "damaged"
    (place.snapshot(OTHER) / "model.safetensors").resolve().unlink()
    assert states(store) == {"org/cached@aaa": "cached", "org/small@": "damaged"}
    holdings.remove(holdings.named(REPO, None, listing(store)), store, store)
    assert not place.folder.exists()


@pytest.mark.parametrize("revision", ["v2", OTHER, "bbbbbb"])
def test_a_revision_is_found(store: Path, revision: str) -> None:
    (found,) = holdings.named(REPO, revision, listing(store))
    assert found.commit == OTHER


def test_what_is_not_there(store: Path) -> None:
    with pytest.raises(StoreError, match="Did you mean org/small"):
        holdings.named("org/smal", None, listing(store))
    with pytest.raises(StoreError, match="there is "):
        holdings.named(REPO, "v3", listing(store))


@pytest.mark.parametrize("weights", [REPO, "SNAPSHOT", "folder/../SNAPSHOT"])
def test_who_uses_it_by_its_name_or_by_its_path(store: Path, weights: str) -> None:
    (found, other) = sorted(holdings.named(REPO, None, listing(store)), key=lambda one: one.commit)
    found, other = (found, other) if found.commit == COMMIT else (other, found)
    snapshot = Place(store, REPO).snapshot(COMMIT).relative_to(store)
    engine = Engine(weights=weights.replace("SNAPSHOT", str(snapshot)))
    assert holdings.users(found, {"a": engine, "b": Engine(weights="org/cached")}, store) == ["a"]
    assert holdings.users(other, {"a": engine}, store) == []


def test_a_removed_revision_leaves_what_others_have(store: Path) -> None:
    place = Place(store, REPO)
    chosen = holdings.named(REPO, "v2", listing(store))
    assert holdings.remove(chosen, store, store, dry_run=True).freed == len(b'{"v": 2}')
    assert place.snapshot(OTHER).exists()
    assert holdings.remove(chosen, store, store).freed == len(b'{"v": 2}')
    assert not place.snapshot(OTHER).exists()
    assert records.of(place, OTHER) is None
    (rest,) = holdings.named(REPO, None, listing(store))
    assert (rest.commit, rest.state) == (COMMIT, "verified")
    assert holdings.verify(rest, progress=Progress(), stop=threading.Event()) == []
    assert place.refs() == {"main": COMMIT}


def test_all_of_a_model_is_removed(store: Path) -> None:
    done = holdings.remove(holdings.named(REPO, None, listing(store)), store, store)
    assert set(done.commits) == {COMMIT, OTHER}
    assert done.freed > sum(map(len, model().values()))
    assert not Place(store, REPO).folder.exists()
    assert states(store) == {"org/cached@aaa": "cached"}


def test_nothing_is_removed_under_a_pull(store: Path) -> None:
    chosen = holdings.named(REPO, None, listing(store))
    with held(Place(store, REPO).lock, REPO), pytest.raises(StoreError) as caught:
        holdings.remove(chosen, store, store)
    assert caught.value.reason == "busy"
    assert states(store)["org/small@c0f"] == "verified"


def test_a_change_is_found(store: Path) -> None:
    (found,) = holdings.named(REPO, "main", listing(store))
    link = Place(store, REPO).snapshot(COMMIT) / "model.safetensors"
    link.resolve().write_bytes(tensors(1000, seed=9))
    wrong = holdings.verify(found, progress=Progress(), stop=threading.Event())
    assert wrong == ["model.safetensors"]
    (cached,) = holdings.named("org/cached", None, listing(store))
    with pytest.raises(StoreError, match="Nothing is recorded"):
        holdings.verify(cached, progress=Progress(), stop=threading.Event())


def test_what_it_takes(store: Path) -> None:
    rows = {one.name: one for one in holdings.usage(store)}
    assert set(rows) == {REPO, "org/cached"}
    assert rows[REPO].size > rows["org/cached"].size > 0
    assert holdings.usage(store / "nothing") == []


# --- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "mine"
    found.mkdir()
    for name, data in model().items():
        (found / name).write_bytes(data)
    (found / "training.bin").write_bytes(b"not a part of it")
    return found


def register(folder: Path, **facts: Any) -> records.Record:
    facts.setdefault("stop", threading.Event())
    return local.register(
        folder, folder.parent / "home", asked_by="a test", progress=Progress(), **facts
    )


def test_a_registered_folder(folder: Path) -> None:
    record = register(folder)
    assert {file.path for file in record.files} == set(model())
    (found,) = holdings.holdings(folder.parent / "hub", folder.parent / "home")
    assert (found.name, found.state, found.path) == ("mine", "verified", folder)
    assert holdings.named(str(folder), None, [found]) == [found]
    assert holdings.verify(found, progress=Progress(), stop=threading.Event()) == []
    (folder / "config.json").write_bytes(b"x" * len(model()["config.json"]))
    wrong = holdings.verify(found, progress=Progress(), stop=threading.Event())
    assert wrong == ["config.json"]
    (folder / "config.json").unlink()
    assert holdings.holdings(folder, folder.parent / "home")[0].state == "damaged"
    done = holdings.remove([found], folder.parent / "hub", folder.parent / "home")
    assert done.folder
    assert (folder / "model.safetensors").exists()
    assert holdings.holdings(folder, folder.parent / "home") == []


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("config.json", None, "config.json"),
        ("model.safetensors", b"x" * 50, "damaged"),
        ("model.safetensors", tensors()[:-1], "not complete"),
        ("model.safetensors", None, "pickled|safetensors"),
    ],
)
def test_a_folder_that_cannot_be_served(
    folder: Path, name: str, data: bytes | None, says: str
) -> None:
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(StoreError, match=says) as caught:
        register(folder)
    assert caught.value.reason == "folder"
    assert not (folder.parent / "home").exists()


def test_a_stopped_registration(folder: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        register(folder, stop=stop)
    assert not (folder.parent / "home").exists()


# --- small things


def test_a_lock_of_the_dead_is_nobodys(tmp_path: Path) -> None:
    lock = tmp_path / "pull.lock"
    code = (
        "import sys, os, signal; from pathlib import Path; from server.engines.store.locks import "
        "held\nwith held(Path(sys.argv[1]), 'x'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    assert lock.exists()
    with held(lock, REPO):
        assert lock.read_text() == f"{os.getpid()}\n"
    assert not lock.exists()


def test_a_record_that_is_none_counts_as_none(store: Path) -> None:
    (Place(store, REPO).records / f"{COMMIT}.json").write_text('{"name": 1}')
    assert states(store)["org/small@c0f"] == "cached"


def test_a_stop_while_a_file_is_read(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    (tmp_path / "a").write_bytes(b"xx")
    with pytest.raises(Cancelled):
        is_whole(tmp_path / "a", Remote("a", 2, "0" * 40), Progress(), stop)


def test_an_empty_file_needs_no_hub(tmp_path: Path) -> None:
    empty = Remote("empty.txt", 0, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")

    def source(path: str, start: int, end: int | None) -> Any:
        raise AssertionError("it was asked")

    fetch = Fetch(source, empty, tmp_path, progress=Progress(), stop=threading.Event())
    fetch.run()
    assert (tmp_path / empty.blob).read_bytes() == b""
