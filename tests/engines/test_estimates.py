from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.engines.estimates import ENTRIES, Estimates, fingerprint


def test_the_median_of_the_last_five_is_kept_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "home" / "estimates.json"
    estimates = Estimates(path)
    assert estimates.of("a") is None
    for seconds in (100, 20, 21, 22, 23, 60):
        estimates.learn("a", seconds)
    assert estimates.of("a") == 22
    estimates.save()
    assert Estimates(path).of("a") == 22
    assert [file.name for file in path.parent.iterdir()] == ["estimates.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"starts": {"a": ["x"]}}', '{"starts": 3}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "estimates.json"
    path.write_text(text)
    assert Estimates(path).of("a") is None


def test_old_entries_go_first() -> None:
    estimates = Estimates(None)
    for number in range(ENTRIES + 1):
        estimates.learn(str(number), 1)
        estimates.learn("0", 1)
    assert estimates.of("0") == 1
    assert estimates.of("1") is None
    assert estimates.of("2") == 1
    estimates.save()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "estimates.json"
    estimates = Estimates(path)
    estimates.learn("a", 1)
    estimates.save()
    estimates.learn("a", 9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        estimates.save()
    assert json.loads(path.read_text())["starts"] == {"a": [1]}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_left_of_a_start_is_known_by_its_stages(tmp_path: Path) -> None:
    path = tmp_path / "estimates.json"
    estimates = Estimates(path)
    assert estimates.ahead("a", "loading weights", 0) is None
    estimates.learn("a", 99, {"checking": 1, "compiling": 88, "loading weights": 10})
    estimates.learn("a", 12, {"checking": 1, "loading weights": 8, "warming up": 3})
    estimates.save()
    for known in (estimates, Estimates(path)):
        assert known.ahead("a", "loading weights", 0) == 9 + 3
        assert known.ahead("a", "loading weights", 4) == 5 + 3
        assert known.ahead("a", "loading weights", 400) == 3
        assert known.ahead("a", "compiling", 0) is None  # it is in a cache by now
        assert known.ahead("b", "checking", 0) is None
    assert json.loads(path.read_text())["version"] == 2


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "estimates.json"
    path.write_text(json.dumps({"version": 1, "starts": {"a": [3.0]}}))
    estimates = Estimates(path)
    assert estimates.of("a") == 3
    assert estimates.ahead("a", "checking", 0) is None


def test_fingerprints() -> None:
    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1)
    assert fingerprint(a=1) != fingerprint(a=2)
