"""What all contenders share: what one is, and what one that runs is."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

ROOT: Final = Path(__file__).resolve().parent.parent.parent
BENCH: Final = ROOT / ".bench"
#: The mock upstream's one model.
MODEL: Final = "mock"


class GatewayDiedError(Exception):
    """A gateway ended, or gave no good answer, before it was ready; holds its log's last lines."""


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that has answered a chat. It is gone when the `with` that gave it is left."""

    name: str
    version: str
    #: Such as `http://127.0.0.1:41234`; clients POST to `{url}/v1/chat/completions`.
    url: str
    #: What to put into `model`.
    model: str
    #: What every request must carry, beside `content-type`. Names are in lower case. Holds a key
    #: that is made anew for each run.
    headers: dict[str, str] = field(repr=False)
    #: The root of the gateway's process tree, and leader of its session; this process for `direct`.
    pid: int
    #: From the spawn to the first good chat answer through the gateway.
    start_seconds: float


class Contender(Protocol):
    """One gateway: whether it is here, and how it runs."""

    @property
    def name(self) -> str: ...

    def installed(self) -> str | None:
        """Its version, or None where it is not installed. Starts nothing."""
        ...

    def missing(self) -> str:
        """How to get it, for people: one line."""
        ...

    def run(
        self, upstream: str, *, core: int | None, folder: Path
    ) -> AbstractContextManager[Running]:
        """Starts it in front of `upstream`, the base URL of the mock without `/v1`.

        `core` pins the whole process tree; None leaves it where the kernel puts it. `folder` exists
        and takes the gateway's config and `{name}.log`. Leaving the context ends every process of
        the gateway. Raises `GatewayDiedError` when it does not come up.
        """
        ...


def peer_version(peer: str, distribution: str) -> str | None:
    """The version of a Python peer in `.bench/{peer}`, or None where it is not installed."""
    name = re.sub(r"[-_.]+", "_", distribution)
    folders = (BENCH / peer / "lib").glob(f"python3.*/site-packages/{name}-*.dist-info")
    found = next(iter(folders), None)
    if found is None or not (BENCH / peer / "bin" / peer).exists():
        return None
    return found.name.removesuffix(".dist-info").rpartition("-")[2]


def package_version(package: Path) -> str | None:
    """The version that a `package.json` states, or None where there is none."""
    try:
        said = json.loads(package.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(said["version"])


def get_it(peer: str, needs: str = "") -> str:
    """The text of `Contender.missing` for a peer."""
    return f"{peer} is not installed: make bench-peers PEERS={peer}{needs}"
