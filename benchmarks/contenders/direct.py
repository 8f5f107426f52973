"""No gateway: the upstream itself, so that a report can say what a gateway adds."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.base import MODEL, Running
from benchmarks.contenders.spawn import chat


class Direct:
    """Starts nothing; `core` and `folder` are not used."""

    name = "direct"

    def installed(self) -> str | None:
        return "-"

    def missing(self) -> str:
        return "direct needs nothing"

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        port = urllib.parse.urlsplit(upstream).port
        assert port is not None, f"{upstream} has no port"
        chat(port, {}, timeout=10.0)
        yield Running(self.name, "-", upstream, MODEL, {}, os.getpid(), 0.0)
