"""How a pull reads that an engine waits for, and what a config says of the store."""

from __future__ import annotations

from pathlib import Path

from server.config.weights import Weights as Settings
from server.engines.store import bringing
from server.engines.store.progress import Progress
from server.engines.weights import StoreSettings


def test_notes_of_a_pull() -> None:
    now = [0.0]
    progress, said = Progress(lambda: now[0]), list[str]()
    notes = bringing.Notes("org/m", progress, said.append, clock=lambda: now[0])
    notes.tick()
    progress.plan(2, 4 << 30)
    for _ in range(4):
        progress.came(512 << 20)
        now[0] += 1.5
        notes.tick()
        notes.tick()
    progress.came(2 << 30)
    now[0] += 1.5
    notes.tick()
    assert said == [
        "pulling weights",
        "pulling weights: 12% of 4.0 GiB, 341 MiB/s, 10 s left",
        "pulling weights: 25% of 4.0 GiB, 341 MiB/s, 9 s left",
        "pulling weights: 37% of 4.0 GiB, 341 MiB/s, 8 s left",
        "pulling weights: 50% of 4.0 GiB, 341 MiB/s, 6 s left",
        "pulling weights: 100% of 4.0 GiB",
    ]


def test_one_that_waits_says_that_and_no_figures() -> None:
    now = [0.0]
    progress, said = Progress(lambda: now[0]), list[str]()
    notes = bringing.Notes("org/m", progress, said.append, clock=lambda: now[0])
    progress.plan(2, 4 << 30)
    for _ in range(20):
        progress.say("Another pull here is at this model.")
        notes.tick()
        now[0] += 0.2
    assert said == ["pulling weights: Another pull here is at this model."]
    now[0] += 1.0
    progress.came(1 << 30)
    notes.tick()
    assert said[1].startswith("pulling weights: 25% of 4.0 GiB")


def test_settings_of_a_config(tmp_path: Path) -> None:
    found = StoreSettings.of(Settings(folder="models", workers=2, pull=False), tmp_path)
    assert (found.folder, found.workers, found.pull) == (tmp_path / "models", 2, False)
    assert StoreSettings.of(Settings(folder="/models"), tmp_path).folder == Path("/models")
    assert StoreSettings.of(Settings(), tmp_path).folder is None
