"""The gateways that a benchmark puts side by side, and how each is started.

Every contender is started by the same code, on one core if that is asked for, against the same
upstream, and counts as started when a chat has been answered through it. Peers run with their own
defaults, but for what would need the internet or a database; Roundhouse runs with everything on.
"""

from __future__ import annotations

from typing import Final

from benchmarks.contenders.base import Contender, GatewayDiedError, Running
from benchmarks.contenders.direct import Direct
from benchmarks.contenders.litellm import LiteLLM
from benchmarks.contenders.portkey import Portkey
from benchmarks.contenders.roundhouse import Roundhouse
from benchmarks.contenders.routers import SglangRouter, VllmRouter

__all__ = ["CONTENDERS", "Contender", "GatewayDiedError", "Running"]

_ALL: Final[tuple[Contender, ...]] = (
    Roundhouse(),
    VllmRouter(),
    SglangRouter(),
    LiteLLM(),
    Portkey(),
    Direct(),
)
#: By name, in the order in which a report shows them.
CONTENDERS: Final[dict[str, Contender]] = {contender.name: contender for contender in _ALL}
