"""What a build sees of the project, by .dockerignore."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.image import context

NEVER = [
    ".env",
    ".git/config",
    ".venv/bin/python",
    "server/.env",
    "server/cli/.env.local",
    "server/.ssh/id_ed25519",
    "server/__pycache__/serving.cpython-311.pyc",
    "server/cli/__pycache__/x.pyc",
    "server/x.pyo",
    "roundhouse/.DS_Store",
    "tests/test_app.py",
    "requirements/dev.txt",
    "scripts/setup.py",
    "scripts/image/.wheel.sh.swp",
    "key.pem",
    "roundhouse.yaml",
    "my/server/x.py",
    "dist/roundhouse_llm-0.1.0-py3-none-any.whl",
]
ALWAYS = [
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "server/serving.py",
    "server/embedded/guide/model.safetensors",
    "server/api/assets/page.html",
    "server/config/quickstart.yaml",
    "roundhouse/__init__.py",
    "requirements/image.txt",
    "requirements/build.txt",
    "scripts/image/wheel.sh",
]


@pytest.fixture
def by(repo_root: Path) -> str:
    return (repo_root / ".dockerignore").read_text("utf-8")


@pytest.mark.parametrize("path", NEVER)
def test_it_leaves_out(path: str, by: str) -> None:
    assert context.left_out(path, context.rules(by))


@pytest.mark.parametrize("path", ALWAYS)
def test_it_lets_in(path: str, by: str, repo_root: Path) -> None:
    assert not context.left_out(path, context.rules(by))
    assert path in context.context(repo_root)


def test_it_lets_in_all_of_the_package_and_little_else(repo_root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "server", "roundhouse"],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    package = {
        name
        for name in listed.stdout.split("\0")
        if name and "/." not in name and (repo_root / name).is_file()
    }
    found = set(context.context(repo_root))
    assert package <= found
    beside = {name for name in found if name.split("/")[0] not in ("server", "roundhouse")}
    assert len(beside) < 20
    assert sum((repo_root / name).stat().st_size for name in found) < 64 * 1024**2


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*", "a/b", True),
        ("a", "a/b/c", True),
        ("/a/", "a/b", True),
        ("b", "a/b", False),
        ("**/b", "b", True),
        ("**/b", "a/c/b/d", True),
        ("*.pyc", "a/x.pyc", False),
        ("**/*.py[co]", "a/x.pyc", True),
        ("**/*.py[co]", "a/x.py", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("# a", "# a", False),
        ("*\n!a", "a/b", False),
        ("!a\n*", "a/b", True),
    ],
)
def test_the_rules_are_dockers(pattern: str, path: str, out: bool) -> None:
    assert context.left_out(path, context.rules(pattern)) is out
