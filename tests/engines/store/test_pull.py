"""Pulling from a hub on loopback, over huggingface_hub."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from server.engines import weights
from server.engines.store import fetching, records
from server.engines.store.errors import Cancelled
from server.engines.store.fetching import Patience
from server.engines.store.places import Place
from tests.engines.store.pulls import FILE, REPO, Make, left_over, refused
from tests.fakes.hub import COMMIT, TOKEN, FakeHub, at, cut, model, tensors

# --- what a pull brings


def test_a_pull(hub: FakeHub, make: Make, tmp_path: Path) -> None:
    files = model() | {
        "original/consolidated.00.pth": b"pickle",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
        ".gitattributes": b"*.bin",
    }
    from huggingface_hub.utils import _http

    hub.add(REPO, files)
    pull = make()
    record = pull.run()
    assert (record.commit, record.revision, record.licence) == (COMMIT, "main", "apache-2.0")
    assert (record.asked_by, record.endpoint) == ("a test", hub.url)
    place = Place(pull.store, REPO)
    snapshot = place.snapshot(COMMIT)
    assert {path.name for path in snapshot.iterdir()} == set(model())
    assert all((snapshot / name).read_bytes() == data for name, data in model().items())
    assert place.refs() == {"main": COMMIT}
    assert records.of(place, COMMIT) == record
    assert record.size == sum(map(len, model().values())) == pull.progress.look().done
    assert pull.progress.look().files_done == 4
    assert not left_over(pull.store)
    assert all("agent" not in one.headers["user-agent"] for one in hub.seen)
    assert _http._GLOBAL_CLIENT is None  # no connection stays open
    # What an engine asks of a folder holds for it.
    assert weights.resolve(str(snapshot), base=tmp_path).size == len(files[FILE])


def test_huggingface_hub_finds_it_offline(hub: FakeHub, make: Make) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    hub.add(REPO)
    pull = make()
    pull.run()
    found = snapshot_download(REPO, cache_dir=pull.store, local_files_only=True)
    assert Path(found) == Place(pull.store, REPO).snapshot(COMMIT)
    scan = scan_cache_dir(pull.store)
    assert not scan.warnings
    assert [repo.repo_id for repo in scan.repos] == [REPO]


def test_a_second_pull_fetches_nothing(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    first = make().run()
    asked = len(hub.seen)
    again = make()
    second = again.run()
    assert [one.path for one in hub.seen[asked:]] == [f"/api/models/{REPO}/revision/main"]
    assert second.files == first.files
    assert again.progress.look().files_done == 4


def test_a_branch_that_moved_fetches_what_changed(hub: FakeHub, make: Make) -> None:
    repo = hub.add(REPO)
    make().run()
    repo.commit = "b" * 40
    repo.files["tokenizer.json"] = b'{"new": 1}'
    asked = len(hub.seen)
    record = make().run()
    assert record.commit == "b" * 40
    fetched = [one.path for one in hub.seen[asked:] if "/resolve/" in one.path]
    assert fetched == [f"/{REPO}/resolve/{'b' * 40}/tokenizer.json"]
    assert Place(make().store, REPO).refs() == {"main": "b" * 40}


def test_a_commit_is_its_own_revision(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    pull = make(revision=COMMIT)
    assert pull.run().revision == COMMIT
    assert Place(pull.store, REPO).refs() == {}


def test_the_token_goes_to_the_hub_alone(
    hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(REPO, gated=True)
    make().run()
    sent = {one.path.split("/")[1]: one.headers.get("authorization") for one in hub.seen}
    assert sent["org"] == f"Bearer {TOKEN}"
    assert sent["cdn"] is None


def test_large_files_come_in_windows(
    hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "WINDOW", 400)
    hub.add(REPO)
    make().run()
    size = len(model()[FILE])
    assert hub.bytes_asked(FILE) == ["bytes=0-399", "bytes=400-799", "bytes=800-"]
    assert size > 800


# --- what goes wrong on the way


def test_a_cut_is_resumed_within_a_pull(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300), cut(200))
    pull = make()
    pull.run()
    assert hub.bytes_asked(FILE) == [None, "bytes=300-", "bytes=500-"]
    assert any(FILE in line for line in pull.progress.said())


def test_a_cut_is_resumed_by_the_next_pull(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300), cut(0), cut(0), cut(0))
    pull = make()
    message = refused(pull, "stalled")
    assert FILE in message
    assert "pull again" in message
    (partial,) = Place(pull.store, REPO).partials()
    assert partial.stat().st_size == 300
    assert not Place(pull.store, REPO).snapshot(COMMIT).exists()
    assert not left_over(pull.store)
    make().run()
    assert hub.bytes_asked(FILE)[-1] == "bytes=300-"
    assert not partial.exists()


def test_a_hub_that_cannot_resume_sends_all(hub: FakeHub, make: Make) -> None:
    hub.ranges = False
    hub.add(REPO)
    hub.fault(FILE, cut(300))
    pull = make()
    pull.run()
    assert pull.progress.look().done == pull.progress.look().size


def test_a_wrong_hash_leaves_nothing_of_the_file(hub: FakeHub, make: Make) -> None:
    repo = hub.add(REPO)
    repo.said[FILE] = tensors(1000, seed=1)
    pull = make()
    message = refused(pull, "hash")
    assert FILE in message
    blobs = Place(pull.store, REPO).blobs
    assert all(path.stat().st_size < 1000 for path in blobs.iterdir())
    assert not Place(pull.store, REPO).snapshot(COMMIT).exists()


def test_a_small_file_is_verified_by_its_git_hash(hub: FakeHub, make: Make) -> None:
    repo = hub.add(REPO)
    repo.said["config.json"] = repo.files["config.json"].replace(b"Llama", b"Gemma")
    assert "config.json" in refused(make(), "hash")


def test_a_wrong_part_of_an_earlier_pull_is_fetched_anew(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.fault(FILE, cut(300), cut(0), cut(0), cut(0))
    pull = make()
    refused(pull, "stalled")
    (partial,) = Place(pull.store, REPO).partials()
    partial.write_bytes(b"x" * 300)
    again = make()
    again.run()
    assert hub.bytes_asked(FILE)[-2:] == ["bytes=300-", None]
    assert again.progress.look().done == again.progress.look().size


def test_a_damaged_blob_is_fetched_anew(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    pull = make()
    pull.run()
    (pull.store / "models--org--small" / "roundhouse" / f"{COMMIT}.json").unlink()
    blob = Place(pull.store, REPO).snapshot(COMMIT) / FILE
    blob.resolve().write_bytes(b"x" * len(model()[FILE]))
    make().run()
    assert blob.read_bytes() == model()[FILE]


def test_a_silent_hub(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.fault(FILE, *[hub.hang(after) for after in (100, 0, 0, 0)])
    message = refused(make(limits={"stall": 0.1}), "stalled")
    assert "no byte for 0.1 s" in message


def test_a_hub_that_trickles(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    ticks = itertools.count()
    # Each look at the clock is a second later: every few bytes take as long.
    patience = Patience(attempts=2, pause=0, span=1, clock=lambda: float(next(ticks)))
    hub.fault(FILE, *[hub.hang(10)] * 3)
    message = refused(make(patience=patience, workers=1), "stalled")
    assert "10 bytes in 1 s, 3 times in a row" in message
    assert hub.bytes_asked(FILE) == [None, "bytes=10-", "bytes=20-"]


def test_a_model_that_no_engine_can_serve_is_told(hub: FakeHub, make: Make) -> None:
    hub.add(REPO, {FILE: tensors()})
    pull = make()
    pull.run()
    (line,) = pull.progress.said()
    assert "no engine can serve it" in line
    assert "no config.json" in line


def test_a_hub_that_does_not_answer(hub: FakeHub, make: Make) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        pull = make(url=f"http://127.0.0.1:{port}", limits={"connect": 0.1})
        assert "did not answer" in refused(pull, "stalled")


def test_a_busy_hub_is_asked_again(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.status[f"/cdn/{FILE}"] = [(503, {}), (429, {"retry-after": "0"})]
    make().run()
    assert len(hub.bytes_asked(FILE)) == 3


def test_ctrl_c_leaves_what_has_come_and_no_lock(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    halfway, never = threading.Event(), hub.gone
    hub.fault(FILE, at(halfway, 300, never))
    place = Place(make().store, REPO)

    def tick() -> None:
        with contextlib.suppress(FileNotFoundError):  # those of other files come whole meanwhile
            if any(path.stat().st_size == 300 for path in place.partials()):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tick=tick, limits={"stall": 0.5}).run()
    assert not left_over(place.store)
    (partial,) = [path for path in place.partials() if path.stat().st_size]
    assert partial.stat().st_size == 300
    make().run()
    assert hub.bytes_asked(FILE)[-1] == "bytes=300-"


def test_a_stop_from_outside(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    pull = make(limits={"stall": 0.5})
    hub.fault(FILE, at(pull.stop, 300, hub.gone))
    with pytest.raises(Cancelled):
        pull.run()
    assert not left_over(pull.store)


# --- the disk


def test_too_little_room_is_said_before_the_first_byte(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    message = refused(make(free=lambda path: 64 << 20), "space")
    assert "64 MiB to spare" in message
    assert not any("/resolve/" in one.path for one in hub.seen)


def test_what_is_here_needs_no_room(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    make().run()
    make(free=lambda path: 0).run()


def test_a_disk_that_fills_up(hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO)
    room = [500]
    real = os.pwrite

    def pwrite(descriptor: int, data: Any, at: int) -> int:
        """A file system that takes what fits and then says so, as they do."""
        if len(data) and at >= room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[: max(room[0] - at, 0)] if at < room[0] else data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    pull = make()
    message = refused(pull, "disk")
    assert "is full" in message
    assert "500 of" in message
    assert not left_over(pull.store)
    room[0] = 1 << 30
    make().run()
    assert hub.bytes_asked(FILE)[-1] == "bytes=500-"


def test_a_store_that_is_a_file(hub: FakeHub, make: Make, tmp_path: Path) -> None:
    hub.add(REPO)
    (tmp_path / "hub").write_text("")
    assert "--store" in refused(make(), "store")
