"""An engine's weights before its start: from the store, else pulled from a hub on loopback."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.config.engine import Engine
from server.engines import weights
from server.engines.store import bringing, records
from server.engines.store.errors import Cancelled
from server.engines.store.fetching import Patience
from server.engines.store.locks import held
from server.engines.store.places import Place
from server.engines.weights import StoreSettings, Weights
from server.errors import EngineError
from tests.engines.store.pulls import FILE, REPO, left_over
from tests.fakes.hub import COMMIT, TOKEN, FakeHub, at, cut, model, tensors


@dataclass
class Ready:
    """`weights.ready` for an engine. `notes` and `counts` are what was told meanwhile."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    counts: list[tuple[str | None, int]] = field(default_factory=list)

    def __call__(self, *, stop: threading.Event | None = None, **facts: Any) -> Weights:
        names = ("allow_pickle", "pull", "stall_timeout")
        chosen = {name: facts.pop(name) for name in names if name in facts}
        return weights.ready(
            Engine(**{"weights": REPO, **facts}),
            base=self.folder.parent,
            store=StoreSettings(
                self.folder, counted=lambda *one: self.counts.append(one), **chosen
            ),
            note=self.notes.append,
            stop=stop,
        )


@pytest.fixture
def ready(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ready:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(bringing, "PATIENCE", Patience(attempts=2, pause=0))
    return Ready(tmp_path / "hub")


def refused(ready: Ready, reason: str = "weights", **facts: Any) -> str:
    with pytest.raises(EngineError) as caught:
        ready(**facts)
    assert (caught.value.reason, caught.value.terminal) == (reason, reason == "weights")
    assert not left_over(ready.folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def snapshot(ready: Ready) -> Path:
    return Place(ready.folder, REPO).snapshot(COMMIT)


def somebody_elses(ready: Ready) -> None:
    """What is here was brought by another program: nothing is recorded of it."""
    (Place(ready.folder, REPO).records / f"{COMMIT}.json").unlink()


# --- where it comes from


def test_it_is_pulled_before_the_first_start_and_never_again(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    found = ready()
    assert found == Weights(str(snapshot(ready)), snapshot(ready), len(model()[FILE]))
    assert ready.counts[-1] == ("ok", 0)
    assert sum(size for _, size in ready.counts) == sum(map(len, model().values()))
    asked = len(hub.seen)
    assert ready() == found
    assert len(hub.seen) == asked
    record = records.of(Place(ready.folder, REPO), COMMIT)
    assert record is not None
    assert record.asked_by == "an engine of the server"


def test_a_revision_is_its_own(hub: FakeHub, ready: Ready) -> None:
    repo = hub.add(REPO, branches=("main", "v2"))
    first = ready()
    repo.commit = "b" * 40
    assert ready(revision="v2").folder == Place(ready.folder, REPO).snapshot("b" * 40)
    assert ready(revision=COMMIT) == ready() == first


def test_a_folder_and_the_dummy_format_ask_nobody(
    hub: FakeHub, ready: Ready, tmp_path: Path
) -> None:
    for name, data in model().items():
        (tmp_path / name).write_bytes(data)
    assert ready(weights=str(tmp_path)).folder == tmp_path
    assert ready(args={"load-format": "dummy"}) == Weights(REPO)
    assert not hub.seen


def test_what_another_program_brought_is_used_and_told(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready()
    somebody_elses(ready)
    asked, told = len(hub.seen), len(ready.notes)
    assert ready().folder == snapshot(ready)
    assert len(hub.seen) == asked
    assert ready.notes[told:] == ["weights found in the cache, not verified"]


def test_what_another_program_has_begun_is_ended(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready()
    somebody_elses(ready)
    (Place(ready.folder, REPO).blobs / "0f.incomplete").write_bytes(b"half")
    asked = len(hub.seen)
    ready()
    assert [one.path for one in hub.seen[asked:]] == [f"/api/models/{REPO}/revision/main"]
    assert records.located(ready.folder, REPO) == snapshot(ready)


def test_a_half_of_another_program_is_completed(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready()
    somebody_elses(ready)
    (snapshot(ready) / FILE).unlink()
    assert refused(ready, pull=False).startswith(f"The folder {snapshot(ready)}")
    assert ready().folder == snapshot(ready)


def test_what_was_cut_since_is_brought_anew(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready()
    (snapshot(ready) / FILE).resolve().write_bytes(b"")
    assert ready().size == len(model()[FILE])


def test_what_was_changed_since_is_told(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready()
    (snapshot(ready) / FILE).resolve().write_bytes(b"x" * len(model()[FILE]))
    message = refused(ready)
    assert "is damaged or not complete" in message
    assert f"`roundhouse rm {REPO}` and `roundhouse pull {REPO}` bring it anew" in message


def test_python_of_its_own_is_fetched_when_the_engine_is_to_run_it(
    hub: FakeHub, ready: Ready
) -> None:
    config = {"auto_map": {"AutoModel": "modelling.Own", "AutoConfig": "other/repo--conf.Own"}}
    files = {"config.json": json.dumps(config).encode(), "modelling.py": b"pass\n"}
    hub.add(REPO, model() | files)
    ready()
    assert not (snapshot(ready) / "modelling.py").exists()
    assert any("trust_remote_code" in note for note in ready.notes)
    ready(trust_remote_code=True)
    assert (snapshot(ready) / "modelling.py").read_bytes() == b"pass\n"
    asked = len(hub.seen)
    ready(trust_remote_code=True)
    assert len(hub.seen) == asked


def test_an_engines_own_hub_token_and_cache(
    hub: FakeHub, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.add(REPO, gated=True)
    env = {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "own")}
    found = weights.ready(
        Engine(weights=REPO, env=env), base=tmp_path, store=StoreSettings(workers=1)
    )
    assert found.folder == Place(tmp_path / "own/hub", REPO).snapshot(COMMIT)


# --- what the operator allows


def test_pickles_are_served_where_they_are_allowed(hub: FakeHub, ready: Ready) -> None:
    files = model() | {"pytorch_model.bin": b"pickle"}
    del files[FILE]
    hub.add(REPO, files)
    message = refused(ready)
    assert "weights.allow_pickle" in message
    assert ready.counts[-1] == ("unsafe", 0)
    assert ready(allow_pickle=True).size == len(b"pickle")
    # It is here now, but another decision.
    assert "only pickled weights (pytorch_model.bin)" in refused(ready)


def test_nothing_is_pulled_where_that_is_not_wanted(hub: FakeHub, ready: Ready) -> None:
    message = refused(ready, pull=False, revision="v2")
    assert message.endswith(f"`weights.pull` is false. Run `roundhouse pull {REPO} --revision v2`.")
    assert not hub.seen
    hub.add(REPO)
    ready()
    assert ready(pull=False).folder == snapshot(ready)


@pytest.mark.parametrize("where", ["process", "engine"])
def test_offline(where: str, hub: FakeHub, ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO)
    env = {"HF_HUB_OFFLINE": "1"} if where == "engine" else {}
    if where == "process":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refused(ready, env=env)
    assert "HF_HUB_OFFLINE is set" in message
    assert f"`roundhouse pull {REPO}`" in message
    assert not hub.seen
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    ready()
    assert ready(env={"HF_HUB_OFFLINE": "1"}).folder == snapshot(ready)


# --- what goes wrong


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"weights": "org/none"}, "The hub has no model org/none"),
        ({"weights": "org/gated"}, "Accept its terms at"),
        ({"weights": "org/private"}, "it is private"),
        ({"revision": "v9"}, "has no revision 'v9'"),
        ({"weights": "org/empty"}, "has no *.safetensors"),
        ({"weights": "org/bare"}, "has no config.json"),
    ],
)
def test_what_no_second_try_can_mend(
    facts: dict[str, Any], says: str, hub: FakeHub, ready: Ready
) -> None:
    hub.add(REPO)
    hub.add("org/gated", gated=True)
    hub.add("org/private", private=True)
    hub.add("org/empty", {"config.json": b"{}"})
    hub.add("org/bare", {FILE: tensors()})
    assert says in refused(ready, **facts)


def test_a_wrong_hash_once_is_an_accident(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    hub.fault(FILE, lambda data, send: send(b"x" * len(data)))
    assert ready().folder == snapshot(ready)
    assert any("wrong hash, once more" in note for note in ready.notes)
    assert [outcome for outcome, _ in ready.counts if outcome] == ["hash", "ok"]


def test_a_wrong_hash_twice_is_none(hub: FakeHub, ready: Ready) -> None:
    repo = hub.add(REPO)
    repo.said[FILE] = tensors(1000, seed=1)
    assert "another hash" in refused(ready)
    assert len(hub.bytes_asked(FILE)) == 2


def test_a_cut_is_mended_and_told(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    ready()
    assert any("trying again" in note for note in ready.notes)
    assert hub.bytes_asked(FILE) == [None, "bytes=300-"]


def test_what_may_pass(hub: FakeHub, ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300), cut(0), cut(0))
    assert "could not be fetched" in refused(ready, "network")
    hub.fault(FILE, hub.hang(), hub.hang(), hub.hang())
    assert "no byte for 0.1 s" in refused(ready, "network", stall_timeout=0.1)
    hub.status[f"/api/models/{REPO}/revision/main"] = [(503, {})]
    assert "answered 503" in refused(ready, "network")
    assert ready.counts[-1] == ("down", 0)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "cannot be reached" in refused(ready, "network")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert ready().folder == snapshot(ready)
    assert hub.bytes_asked(FILE)[-1] == "bytes=300-"


def test_no_room(hub: FakeHub, ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    assert "has 1 MiB free" in refused(ready, "disk")


def test_a_store_that_cannot_be_made(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    ready.folder.write_text("")
    assert "weights.folder" in refused(ready)


# --- stopping, waiting


@pytest.mark.parametrize("when", ["looking", "fetching"])
def test_a_stop_ends_it_though_the_hub_is_silent(when: str, hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    stop, sent = threading.Event(), threading.Event()
    if when == "looking":
        hub.slow[f"/api/models/{REPO}/revision/main"] = sent
    else:
        hub.fault(FILE, at(sent, 300, hub.gone))
    ended: list[BaseException] = []

    def run() -> None:
        try:
            ready(stop=stop)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert sent.wait(20)
    stop.set()
    thread.join(20)  # the hub would have kept it for longer
    assert isinstance(ended[0], Cancelled)
    assert ready.counts[-1] == ("stopped", 0)
    assert not left_over(ready.folder)


def test_a_pull_that_is_under_way_is_waited_for(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    told = threading.Event()
    ready.notes = Watched(told)
    place = Place(ready.folder, REPO)
    found: list[Weights] = []
    thread = threading.Thread(target=lambda: found.append(ready()))
    with held(place.lock, REPO):
        place.lock.write_text("4711\n")  # as another process does
        thread.start()
        assert told.wait(20)
    thread.join(20)
    assert any("Process 4711" in note for note in ready.notes)
    assert found[0].folder == snapshot(ready)
    assert not left_over(ready.folder)


class Watched(list[str]):
    def __init__(self, told: threading.Event) -> None:
        self._told = told

    def append(self, text: str) -> None:
        super().append(text)
        if "is at this model; waiting until it is done" in text:
            self._told.set()


def test_two_at_once_fetch_it_once(hub: FakeHub, ready: Ready) -> None:
    hub.add(REPO)
    go_on, first = threading.Event(), threading.Event()
    hub.fault(FILE, at(first, 300, go_on))
    ready.notes = Watched(go_on)  # the second one waits: now the first may end
    found: list[Weights] = []
    threads = [threading.Thread(target=lambda: found.append(ready())) for _ in range(2)]
    threads[0].start()
    assert first.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert found[0] == found[1]
    assert hub.bytes_asked(FILE) == [None]
