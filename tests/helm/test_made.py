"""Values that nobody thought of keep every policy, and the server takes their config."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import helm_python
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts import helm_render
from server.cli import command
from server.config.load import load
from tests.helm import policies
from tests.helm.test_config import ENVIRONMENT, config_of
from tests.helm.test_manifests import valid

LETTERS = string.ascii_lowercase + string.digits
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
TEXT = st.text(LETTERS + " '\"#:{}[]$%&*!|>@`\\,é-", max_size=12)
SCALARS = st.booleans() | st.integers(0, 10**9) | st.floats(0, 1) | TEXT
QUANTITIES = st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["", "Mi", "Gi"]))
LABELS = st.dictionaries(NAMES, NAMES, max_size=2)
TOLERATIONS = st.lists(
    st.fixed_dictionaries({"key": NAMES, "operator": st.just("Exists")}), max_size=2
)
ENV = st.lists(st.fixed_dictionaries({"name": NAMES, "value": TEXT}), max_size=2)
PEERS = st.lists(
    st.fixed_dictionaries({"podSelector": st.fixed_dictionaries({"matchLabels": LABELS})}),
    min_size=1,
    max_size=2,
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


CACHES = st.one_of(
    some(size=QUANTITIES),
    st.fixed_dictionaries({"kind": st.just("hostPath"), "hostPath": st.just("/var/lib/x")}),
    st.fixed_dictionaries({"kind": st.just("pvc"), "existingClaim": NAMES}),
    st.fixed_dictionaries(
        {"kind": st.just("pvc"), "accessModes": st.just(["ReadWriteMany"]), "size": QUANTITIES}
    ),
)
BUDGETS = some(enabled=st.booleans(), maxUnavailable=st.sampled_from([0, 1, "50%"]))
ENGINE = {
    "replicas": st.integers(0, 5),
    "nodes": st.integers(1, 3),
    "gpus": st.integers(0, 8),
    "args": st.dictionaries(st.from_regex(r"[a-z]{2}(-[a-z]{2})?", fullmatch=True), SCALARS),
    "extraArgs": st.lists(TEXT, max_size=2),
    "extraEnv": ENV,
    "shm": QUANTITIES,
    "cache": CACHES,
    "hfToken": some(existingSecret=NAMES),
    "preStopSeconds": st.integers(0, 100),
    "drainSeconds": st.integers(0, 1000),
    "podAnnotations": LABELS,
    "podLabels": LABELS,
    "nodeSelector": LABELS,
    "podDisruptionBudget": BUDGETS,
    "extraVolumes": st.just([{"name": "more", "emptyDir": {"sizeLimit": "1Gi"}}]),
    "tolerations": TOLERATIONS,
    "config": some(max_in_flight=st.integers(1, 99), wait=st.sampled_from([0, "1m"])),
}
ENGINES = st.lists(
    st.builds(
        lambda needed, more: {**more, **needed},
        st.fixed_dictionaries(
            {"name": NAMES, "model": st.sampled_from(["Qwen/Qwen3-8B", "a/b", "/models/c"])}
        ),
        some(**ENGINE),
    ),
    max_size=3,
    unique_by=lambda engine: engine["name"],
)
VALUES = st.builds(
    lambda needed, more: {**more, **needed},
    st.fixed_dictionaries(
        {
            "image": st.just({"repository": "registry.example/roundhouse"}),
            "engineDefaults": st.just({"image": {"tag": "v1"}}),
            "engines": ENGINES,
        }
    ),
    some(
        fullnameOverride=st.from_regex(r"[a-z][a-z0-9-]{0,15}[a-z0-9]", fullmatch=True),
        commonLabels=LABELS,
        imagePullSecrets=st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
        secrets=some(existingSecret=NAMES, env=st.lists(NAMES, max_size=2)),
        gateway=some(
            replicas=st.integers(0, 9),
            extraArgs=st.lists(TEXT, max_size=2),
            extraEnv=ENV,
            rolloutOnConfigChange=st.booleans(),
            preStopSeconds=st.integers(0, 60),
            podLabels=LABELS,
            podAnnotations=LABELS,
            tolerations=TOLERATIONS,
        ),
        service=some(
            type=st.sampled_from(["ClusterIP", "LoadBalancer"]), port=st.integers(1, 65535)
        ),
        autoscaling=some(enabled=st.booleans(), targetCPU=st.integers(1, 99)),
        podDisruptionBudget=BUDGETS,
        tests=some(model=TEXT, timeoutSeconds=st.integers(1, 10**4)),
        monitoring=some(
            labels=LABELS,
            serviceMonitor=some(enabled=st.booleans()),
            podMonitor=some(enabled=st.booleans()),
            rules=some(enabled=st.booleans()),
            dashboards=some(enabled=st.booleans()),
        ),
        ingress=st.fixed_dictionaries(
            {"enabled": st.booleans(), "hosts": st.just(["llm.example"])},
            optional={"className": NAMES, "annotations": LABELS},
        ),
        networkPolicy=some(enabled=st.booleans(), clients=PEERS, prometheus=PEERS),
        serviceAccount=some(create=st.booleans(), name=NAMES, annotations=LABELS),
    ),
)


# Not made smaller: that takes minutes, and the failed policy says which object it is.
@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(values=VALUES)
def test_made_values(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    manifests = helm_render.manifests(values)
    for policy in policies.POLICIES:
        assert list(policy(manifests)) == [], policy.__name__
    assert list(policies.whole(manifests, policies.elsewhere(values))) == []
    for each in manifests:
        valid(each)
    assert helm_python.lint(helm_render.CHART, values, strict=True)["errors"] == []
    file = Path(tmp_path_factory.getbasetemp()) / "made.yaml"
    file.write_text(config_of(manifests), "utf-8")
    config = load(file, environ=ENVIRONMENT, cwd=file.parent).config
    assert set(config.engines) == {engine["name"] for engine in values["engines"]}
    checked = CliRunner().invoke(command.cli, ["check", str(file)], env=ENVIRONMENT)
    assert checked.exit_code == 0, checked.output
    assert_flags(values, manifests)


def assert_flags(values: dict[str, Any], manifests: list[policies.Manifest]) -> None:
    """Text reaches vLLM as it was, whatever YAML would make of it."""
    by_name = {pod.labels["roundhouse-engine"]: pod for pod in policies.pods(manifests) if pod.role}
    for engine in values["engines"]:
        args = by_name[engine["name"]].spec["containers"][0]["args"]
        texts = {flag: v for flag, v in engine.get("args", {}).items() if isinstance(v, str)}
        assert {f"--{flag}={value}" for flag, value in texts.items()} <= set(args)
        assert set(engine.get("extraArgs", [])) <= set(args)
