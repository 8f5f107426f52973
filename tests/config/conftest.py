from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.config.load import Loaded, load
from server.errors import ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config (or another file) and returns its path."""

    def write_it(text: str, name: str = "roundhouse.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text, "utf-8")
        return file

    return write_it


@pytest.fixture
def good(write: Write) -> Callable[..., Loaded]:
    """Loads a text that is expected to be good."""

    def load_it(text: str, environ: dict[str, str] | None = None, **overrides: object) -> Loaded:
        settings = {name.replace("__", "."): value for name, value in overrides.items()}
        return load(write(text), environ=environ or {}, overrides=settings)

    return load_it


@pytest.fixture
def faults(write: Write) -> Callable[..., list[str]]:
    """Loads a text that is expected to be refused; the errors' lines without the folder."""

    def load_it(text: str, environ: dict[str, str] | None = None, **overrides: object) -> list[str]:
        file = write(text)
        settings = {name.replace("__", "."): value for name, value in overrides.items()}
        with pytest.raises(ConfigError) as caught:
            load(file, environ=environ or {}, overrides=settings)
        return str(caught.value).replace(f"{file.parent}/", "").splitlines()

    return load_it
