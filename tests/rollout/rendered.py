"""What the chart says of its pods' lives, for values of a test's own."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Final

import yaml

from scripts.helm_render import manifests

ENGINE: Final = "qwen3-8b"


@dataclass(frozen=True)
class Life:
    """How a workload's pods come and go: seconds, and numbers of pods."""

    replicas: int
    surge: int
    unavailable: int
    pre_stop: float
    grace: float
    ready_path: str
    ready_port: str
    ready_period: float

    @classmethod
    def of(cls, workload: dict[str, Any]) -> Life:
        spec = workload["spec"]
        pod, rolling = spec["template"]["spec"], spec["strategy"]["rollingUpdate"]
        (container,) = pod["containers"]
        probe = container["readinessProbe"]
        replicas = spec["replicas"]
        return cls(
            replicas=replicas,
            surge=_pods(rolling["maxSurge"], replicas, math.ceil),
            unavailable=_pods(rolling["maxUnavailable"], replicas, math.floor),
            pre_stop=container["lifecycle"]["preStop"]["sleep"]["seconds"],
            grace=pod["terminationGracePeriodSeconds"],
            ready_path=probe["httpGet"]["path"],
            ready_port=probe["httpGet"]["port"],
            ready_period=probe["periodSeconds"],
        )


def _pods(given: Any, replicas: int, rounded: Any) -> int:
    """A number, or a percentage as Kubernetes rounds it."""
    if isinstance(given, int):
        return given
    return int(rounded(int(str(given).removesuffix("%")) * replicas / 100))


class Rendered:
    """A release in front of a provider at `base_url`, with an engine of two replicas."""

    def __init__(self, base_url: str) -> None:
        lab = {"dialect": "openai", "base_url": base_url}
        values = {
            "image": {"repository": "registry.example/roundhouse"},
            "config": {
                "providers": {"lab": lab},
                "models": {"m": {"targets": [{"provider": "lab", "model": "m"}]}},
            },
            "engineDefaults": {"image": {"tag": "v0.32.0"}},
            "engines": [{"name": ENGINE, "model": "Qwen/Qwen3-8B", "replicas": 2}],
        }
        self._objects = manifests(values)
        self.gateways = Life.of(self._find("Deployment", "gateway"))
        self.engines = Life.of(self._find("Deployment", "engine"))

    def _find(self, kind: str, component: str) -> dict[str, Any]:
        (found,) = (
            each
            for each in self._objects
            if each["kind"] == kind
            and each["metadata"]["labels"].get("app.kubernetes.io/component") == component
        )
        return found

    @property
    def gateway_pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self._find("Deployment", "gateway")["spec"]["template"]["spec"]
        return pod

    @property
    def config(self) -> dict[str, Any]:
        """The gateway's, as its ConfigMap has it."""
        text = self._find("ConfigMap", "gateway")["data"]["roundhouse.yaml"]
        config: dict[str, Any] = yaml.safe_load(text)
        return config

    @property
    def keys(self) -> dict[str, str]:
        """The generated keys, as a pod's environment has them."""
        data = self._find("Secret", "gateway")["data"]
        return {name: base64.b64decode(value).decode() for name, value in data.items()}

    @property
    def engine_drain(self) -> float:
        """Seconds that vLLM lets requests finish."""
        (container,) = self._find("Deployment", "engine")["spec"]["template"]["spec"]["containers"]
        (told,) = (a for a in container["args"] if a.startswith("--shutdown-timeout="))
        return float(told.partition("=")[2])
