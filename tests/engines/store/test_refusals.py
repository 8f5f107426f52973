"""Pulls that the hub refuses, that cannot reach it, and two at a time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from server.engines.store.errors import StoreError
from server.engines.store.hub import Hub
from server.engines.store.locks import held
from server.engines.store.places import Place
from server.engines.store.progress import Progress
from server.engines.store.pulling import Pull, Wanted
from server.engines.store.records import Record
from tests.engines.store.pulls import FILE, REPO, Make, refused
from tests.fakes.hub import COMMIT, TOKEN, FakeHub, at, model

# --- what the hub refuses


def test_a_gated_model_without_a_token(hub: FakeHub, make: Make) -> None:
    hub.add(REPO, gated=True)
    message = refused(make(), "gated")
    assert f"{hub.url}/{REPO}" in message
    assert "HF_TOKEN" in message
    assert not make().store.exists()


def test_a_gated_model_that_the_token_may_not_read(
    hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of-somebody-else")
    hub.add(REPO, gated=True)
    message = refused(make(), "gated")
    assert "may not read it yet" in message
    assert "somebody" not in message


def test_a_token_that_may_read_no_gated_models(
    hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(REPO, gated=True)
    hub.status[f"/api/models/{REPO}/auth-check"] = [(403, {})]
    assert "may read gated repositories" in refused(make(), "gated")


def test_a_mirror_that_does_not_know_the_question(
    hub: FakeHub, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, gated=True)
    hub.status[f"/api/models/{REPO}/auth-check"] = [(404, {}), (404, {})]
    refused(make(), "gated")  # the first file says so
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert make().run().commit == COMMIT


def test_a_model_that_is_not_there_has_near_names(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    message = refused(make("org/smal"), "not_found")
    assert "Did you mean org/small?" in message
    assert "HF_TOKEN is not set" in message


@pytest.mark.parametrize(
    ("status", "headers", "reason", "says"),
    [
        (
            401,
            {"x-error-message": "Invalid credentials in Authorization header"},
            "gated",
            "refuses the token",
        ),
        (403, {}, "gated", "private"),
        (404, {}, "not_found", "private"),
        (400, {}, "hub", "answered 400 for org/small."),
        (503, {}, "down", "Try again in a moment"),
        (429, {}, "down", "Try again in a moment"),
    ],
)
def test_other_refusals(
    hub: FakeHub, make: Make, status: int, headers: dict[str, str], reason: str, says: str
) -> None:
    hub.add(REPO)
    hub.status[f"/api/models/{REPO}/revision/main"] = [(status, headers)]
    assert says in refused(make(), reason)


def test_a_refusal_without_hints(hub: FakeHub, make: Make) -> None:
    hub.status["/api/models"] = [(500, {})]
    assert "Did you mean" not in refused(make(), "not_found")
    hub.add(REPO)
    hub.status[f"/api/models/{REPO}/refs"] = [(500, {})]
    assert "It has" not in refused(make(revision="v3"), "not_found")


def test_a_file_that_is_refused(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    hub.status[f"/cdn/{FILE}"] = [(403, {})]
    refused(make(), "gated")


def test_sizes_that_the_hub_does_not_say(hub: FakeHub, make: Make) -> None:
    repo = hub.add(REPO)
    repo.unsized = True
    assert "how large" in refused(make(), "hub")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "other", "license_name": "llama3"}, "llama3"),
        ({"license": ["mit", "apache-2.0"]}, "mit, apache-2.0"),
        ({}, "openrail"),
    ],
)
def test_the_licence_of_the_card(
    hub: FakeHub, make: Make, card: dict[str, object], licence: str
) -> None:
    repo = hub.add(REPO)
    repo.card, repo.tags = card, ("pytorch", "license:openrail")
    assert make().run().licence == licence


def test_a_revision_that_is_not_there(hub: FakeHub, make: Make) -> None:
    hub.add(REPO, branches=("main", "v2"))
    assert "It has main, v2." in refused(make(revision="v3"), "not_found")


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "a--b/c", "-x", "org/name.git"])
def test_what_is_no_id(hub: FakeHub, make: Make, name: str) -> None:
    refused(make(name), "not_found")
    assert not hub.seen


@pytest.mark.parametrize("revision", ["../main", "a/../b", "-x", "", "a//b"])
def test_what_is_no_revision(hub: FakeHub, make: Make, revision: str) -> None:
    refused(make(revision=revision), "not_found")
    assert not hub.seen


def test_no_network(make: Make) -> None:
    message = refused(make(url="http://127.0.0.1:1"), "offline")
    assert "Connection refused" in message
    assert "HTTPS_PROXY" in message


def test_no_network_and_here_already(hub: FakeHub, make: Make, tmp_path: Path) -> None:
    hub.add(REPO)
    make().run()
    with pytest.raises(StoreError, match="commit c0ffee000000, and can be served") as caught:
        make(url="http://127.0.0.1:1").run()
    assert caught.value.reason == "offline"


def test_offline_by_choice(hub: FakeHub, tmp_path: Path) -> None:
    there = Hub(endpoint=hub.url, environ={"HF_HUB_OFFLINE": "1"})
    message = refused(Pull(Wanted(REPO), tmp_path / "hub", there), "offline")
    assert "HF_HUB_OFFLINE is set" in message
    assert not hub.seen


def test_what_is_no_hub(hub: FakeHub, make: Make) -> None:
    hub.status[f"/api/models/{REPO}/revision/main"] = [(200, {})]
    assert "not a hub" in refused(make(), "hub")


@pytest.mark.parametrize("path", ["../../x.json", "a/../../x.json", "/x.json"])
def test_a_hub_cannot_write_elsewhere(hub: FakeHub, make: Make, path: str) -> None:
    hub.add(REPO, model() | {path: b"{}"})
    refused(make(), "hub")


# --- two at a time


def test_a_second_pull_waits_for_the_first(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    halfway, go_on = threading.Event(), threading.Event()
    hub.fault(FILE, at(halfway, 300, go_on))
    done: list[Record] = []
    first = threading.Thread(target=lambda: done.append(make().run()))
    first.start()
    assert halfway.wait(30)
    second: Pull = make()
    lines: list[str] = []

    def tick() -> None:
        lines.extend(second.progress.said())
        go_on.set()

    second = make(tick=tick, progress=second.progress)
    record = second.run()
    first.join()
    assert record.files == done[0].files
    assert "Another pull here is at this model" in lines[0]
    assert hub.bytes_asked(FILE) == [None]


def test_or_is_told(hub: FakeHub, make: Make) -> None:
    hub.add(REPO)
    pull = make(wait=False)
    with held(Place(pull.store, REPO).lock, REPO):
        assert str(os.getpid()) in refused(pull, "busy")
    assert pull.run().commit == COMMIT


def test_progress_says_rate_and_time_left() -> None:
    now = [100.0]
    progress = Progress(lambda: now[0])
    progress.plan(2, 1000)
    progress.found(200)
    assert progress.look().rate is None
    now[0] += 2
    progress.came(100)
    look = progress.look()
    assert (look.done, look.rate, look.left) == (300, 50, 14)
    now[0] += 60
    progress.look()
    now[0] += 20
    assert progress.look().rate == 0
