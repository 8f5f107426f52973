"""The check of others' kinds itself, and the LeaderWorkerSets of the chart."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from scripts import helm_render
from tests.helm import crds
from tests.helm.policies import Manifest, of_kind

MONITOR: Manifest = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "ServiceMonitor",
    "metadata": {"name": "a"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "endpoints": [{"port": "admin", "path": "/metrics", "interval": "30s"}],
    },
}
RULE: Manifest = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "a"},
    "spec": {"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "up == 0", "for": "5m"}]}]},
}


def group() -> Manifest:
    manifests = helm_render.manifests(helm_render.example("multi-node-70b"))
    return of_kind(manifests, "LeaderWorkerSet")[0]


def test_each_schema_says_where_it_is_from() -> None:
    assert {"LeaderWorkerSet", "PodMonitor", "PrometheusRule", "ServiceMonitor"} == crds.KINDS
    for kind in crds.KINDS:
        about = json.loads((crds.SCHEMAS / f"{kind}.json").read_text("utf-8"))
        assert about["source"].startswith("github.com/")
        assert about["version"]


@pytest.mark.parametrize("manifest", [group(), MONITOR, RULE], ids=lambda each: each["kind"])
def test_what_is_right_is_taken(manifest: Manifest) -> None:
    crds.validate(manifest)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m["spec"].update(replcas=1), "'replcas' was unexpected"),
        (lambda m: m["spec"].pop("leaderWorkerTemplate"), "'leaderWorkerTemplate' is a required"),
        (lambda m: m["spec"].update(startupPolicy="Never"), "spec.startupPolicy: 'Never' is not"),
        (lambda m: m["spec"]["leaderWorkerTemplate"].update(size="2"), "size: '2' is not of type"),
        (lambda m: m.update(apiVersion="leaderworkerset.x-k8s.io/v2"), "apiVersion"),
    ],
)
def test_a_wrong_group_is_refused(spoil: Callable[[Any], Any], words: str) -> None:
    manifest = group()
    spoil(manifest)
    with pytest.raises(crds.Invalid, match=words):
        crds.validate(manifest)


def test_a_wrong_pod_in_a_group_is_refused() -> None:
    manifest = group()
    manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["contaners"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="contaners"):
        crds.validate(manifest)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ({"port": "admin", "intervall": "30s"}, "'intervall' was unexpected"),
        ({"port": "admin", "interval": "30 s"}, "endpoints.0.interval: '30 s' does not match"),
        ({"port": 8001}, "endpoints.0.port: 8001 is not of type 'string'"),
        ({"port": "admin", "scheme": "gopher"}, "'gopher' is not one of"),
        ({"authorization": {"credentials": {"name": "a"}}}, "'key' is a required property"),
    ],
)
def test_a_wrong_monitor_is_refused(endpoint: dict[str, Any], words: str) -> None:
    spec = {**MONITOR["spec"], "endpoints": [endpoint]}
    with pytest.raises(crds.Invalid, match=words):
        crds.validate({**MONITOR, "spec": spec})


def test_a_rule_without_an_expression_is_refused() -> None:
    spec = {"groups": [{"name": "a", "rules": [{"alert": "A"}]}]}
    with pytest.raises(crds.Invalid, match="'expr' is a required property"):
        crds.validate({**RULE, "spec": spec})


def test_a_kind_without_a_schema_is_said_to_have_none() -> None:
    with pytest.raises(KeyError, match="no schema of ScaledObject"):
        crds.validate({"kind": "ScaledObject"})
