"""The section `weights`: where models are stored, and how they are pulled."""

from __future__ import annotations

from pydantic import Field

from server.config.parts import Strict
from server.config.units import Patience


class Weights(Strict):
    """The store of weights, for `pull` and for engines."""

    folder: str | None = Field(
        None,
        description="Where models are stored, relative to the config file. Default: the cache of "
        "the hub's own library.",
    )
    allow_pickle: bool = Field(
        False,
        description="Take weights that are pickles, which can run code when they are read. An "
        "operator's choice; default: safetensors only.",
    )
    stall_timeout: Patience = Field(
        30, description="A pull in which no byte comes for so long is tried again."
    )
    workers: int = Field(4, ge=1, le=32, description="Files that are pulled at one time.")
    pull: bool = Field(
        True,
        description="Pull weights that are not here before an engine's first start. false: it "
        "fails, and says how to pull them.",
    )
