"""The places that can answer a request. See `seam.Target`."""

from server.targets.engines import Engines, EngineTarget, InstanceTarget
from server.targets.external import ExternalTarget, Replicas, ReplicaTarget
from server.targets.providers import ProviderTarget
from server.targets.seam import Target

__all__ = [
    "EngineTarget",
    "Engines",
    "ExternalTarget",
    "InstanceTarget",
    "ProviderTarget",
    "ReplicaTarget",
    "Replicas",
    "Target",
]
