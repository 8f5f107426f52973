"""Where recorded exchanges are: the part that the project keeps, and a folder with all of them."""

from __future__ import annotations

import os
from pathlib import Path

_TESTS = Path(__file__).resolve().parent.parent
#: The project's own part.
PART = _TESTS / "data" / "recordings"


def folders() -> dict[str, Path]:
    """`part` always, `all` where `RECORDINGS_DIR` names a folder or there is one beside the
    checkout. Raises FileNotFoundError where `RECORDINGS_DIR` names none."""
    said = os.environ.get("RECORDINGS_DIR")
    everything = Path(said) if said else _TESTS.parent.parent / "shared" / "recordings"
    if everything.is_dir():
        return {"part": PART, "all": everything}
    if said:
        raise FileNotFoundError(f"RECORDINGS_DIR: there is no folder {said}")
    return {"part": PART}
