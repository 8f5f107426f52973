"""What Prometheus' operator and Grafana find of the chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from scripts import helm_render
from scripts.helm_render import CHART
from tests.helm import crds, policies
from tests.helm.policies import Manifest, of_kind, pods, selects

ON = {"enabled": True}
ALL = {"serviceMonitor": ON, "podMonitor": ON, "rules": ON, "dashboards": ON}
MONITORS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


def manifests(monitoring: dict[str, Any] | None = None, **values: Any) -> list[Manifest]:
    """Of two engines, one of them on many nodes."""
    return helm_render.manifests(
        {
            "image": {"repository": "roundhouse", "tag": "dev"},
            "engineDefaults": {"image": {"tag": "v1"}},
            "engines": [
                {"name": "qwen", "model": "Qwen/Qwen3-8B"},
                {"name": "llama", "model": "meta-llama/Llama-3.3-70B-Instruct", "nodes": 2},
            ],
            "monitoring": ALL if monitoring is None else monitoring,
            **values,
        }
    )


def one(kind: str, made: list[Manifest] | None = None) -> Any:
    (found,) = of_kind(manifests() if made is None else made, kind)
    return found["spec"]


def test_nothing_is_made_unless_asked_for() -> None:
    made = manifests({})
    assert not of_kind(made, *MONITORS)
    assert not [each for each in of_kind(made, "ConfigMap") if "dashboard" in str(each["metadata"])]


def test_the_operators_schemas_take_it() -> None:
    made = of_kind(manifests(), *MONITORS)
    assert len(made) == len(MONITORS)
    for each in made:
        crds.validate(each)


def test_it_keeps_every_policy() -> None:
    made = manifests({**ALL, "labels": {"release": "kps"}})
    for policy in policies.POLICIES:
        assert list(policy(made)) == [], policy.__name__
    for each in of_kind(made, *MONITORS):
        assert each["metadata"]["labels"]["release"] == "kps"


def test_the_gateways_are_scraped() -> None:
    made = manifests()
    monitor = one("ServiceMonitor", made)
    (endpoint,) = monitor["endpoints"]
    services = [
        each
        for each in of_kind(made, "Service")
        if selects(monitor["selector"]["matchLabels"], each["metadata"]["labels"])
        and endpoint["port"] in [port["name"] for port in each["spec"]["ports"]]
    ]
    (service,) = services
    behind = [pod for pod in pods(made) if selects(service["spec"]["selector"], pod.labels)]
    assert {pod.owner for pod in behind} == {"Deployment/roundhouse"}
    port = next(each for each in service["spec"]["ports"] if each["name"] == endpoint["port"])
    ports = {
        each["name"]: each["containerPort"] for each in behind[0].spec["containers"][0]["ports"]
    }
    assert ports[port["targetPort"]] == 8001
    assert (endpoint["path"], endpoint["scheme"]) == ("/metrics", "http")


def test_prometheus_has_the_metrics_key_alone() -> None:
    made = manifests()
    wanted = one("ServiceMonitor", made)["endpoints"][0]["authorization"]
    assert wanted["type"] == "Bearer"
    secret = of_kind(made, "Secret")[0]
    assert wanted["credentials"] == {
        "name": secret["metadata"]["name"],
        "key": "ROUNDHOUSE_METRICS_KEY",
    }
    assert wanted["credentials"]["key"] in secret["data"]
    mine = manifests(secrets={"existingSecret": "mine"})
    credentials = one("ServiceMonitor", mine)["endpoints"][0]["authorization"]["credentials"]
    assert credentials["name"] == "mine"


def test_the_engines_are_scraped_and_workers_are_not() -> None:
    made = manifests()
    monitor = one("PodMonitor", made)
    (endpoint,) = monitor["podMetricsEndpoints"]
    found = [pod for pod in pods(made) if selects(monitor["selector"]["matchLabels"], pod.labels)]
    assert sorted(pod.labels["roundhouse-engine"] for pod in found) == ["llama", "qwen"]
    for pod in found:
        assert pod.role == "serving"
        (container,) = pod.spec["containers"]
        assert {"name": endpoint["port"], "containerPort": 8000} in container["ports"]


def test_labels_are_those_of_the_dashboards() -> None:
    """The name of a port would push our own label `endpoint` aside."""
    made = manifests()
    gateway = one("ServiceMonitor", made)["endpoints"][0]
    engines = one("PodMonitor", made)["podMetricsEndpoints"][0]
    assert {"action": "labeldrop", "regex": "endpoint"} in gateway["relabelings"]
    targets = {each.get("targetLabel") for each in engines["relabelings"]}
    assert {"instance", "roundhouse_engine"} <= targets
    for endpoint in (gateway, engines):
        assert not endpoint.get("honorLabels")


def test_network_policies_let_prometheus_in() -> None:
    peer = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "seen"}}}]
    made = manifests(networkPolicy={"prometheus": peer})
    wanted = {"gateway": "admin", "engine": 8000}
    for policy in of_kind(made, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        port = wanted[selector["app.kubernetes.io/component"]]
        rules = [
            rule
            for rule in policy["spec"]["ingress"]
            if peer[0] in rule.get("from", []) and {"port": port} in rule["ports"]
        ]
        assert len(rules) == 1, policy["metadata"]["name"]


def test_intervals() -> None:
    made = manifests({"serviceMonitor": {**ON, "interval": "15s", "scrapeTimeout": "5s"}})
    endpoint = one("ServiceMonitor", made)["endpoints"][0]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "5s")
    with pytest.raises(helm_python.HelmError, match="scrapeTimeout is longer than its interval"):
        manifests({"serviceMonitor": {**ON, "interval": "5s"}})
    for wrong in ("15", "0s", "soon"):
        with pytest.raises(helm_python.HelmError, match="/monitoring/podMonitor/interval"):
            manifests({"podMonitor": {**ON, "interval": wrong}})


def test_rules_are_those_of_the_file_but_for_what_values_say() -> None:
    file = yaml.safe_load((CHART / "rules" / "roundhouse.yaml").read_text("utf-8"))["groups"]
    assert one("PrometheusRule")["groups"] == file
    said = {
        **ON,
        "objective": 0.9995,
        "disabled": ["RoundhouseShedsLoad"],
        "alertLabels": {"team": "llm", "severity": "none"},
        "runbooks": "https://git.example/roundhouse/blob/main/",
    }
    rules = [
        rule
        for group in one("PrometheusRule", manifests({"rules": said}))["groups"]
        for rule in group["rules"]
    ]
    assert {"record": "roundhouse:objective", "expr": "vector(0.9995)"} in rules
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert len(alerts) == len([r for g in file for r in g["rules"] if "alert" in r]) - 1
    assert "RoundhouseShedsLoad" not in alerts
    breaker = alerts["RoundhouseBreakerOpen"]
    assert breaker["labels"] == {"severity": "warning", "team": "llm"}
    assert breaker["annotations"]["runbook_url"] == (
        "https://git.example/roundhouse/blob/main/docs/monitoring.md#roundhousebreakeropen"
    )


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"disabled": ["RoundhouseNothing"]}, "there is no alert RoundhouseNothing"),
        ({"objective": 99.5}, "/monitoring/rules/objective"),
        ({"objective": 1}, "/monitoring/rules/objective"),
        ({"runbooks": "docs"}, "/monitoring/rules/runbooks"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError, match=words):
        manifests({"rules": {**ON, **rules}})


def test_dashboards_are_where_grafanas_sidecar_looks() -> None:
    said = {**ON, "namespace": "grafana", "annotations": {"grafana_folder": "Roundhouse"}}
    maps = [
        each
        for each in of_kind(manifests({"dashboards": said}), "ConfigMap")
        if each["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    held: dict[str, Path] = {
        f"roundhouse-{path.stem}.json": path for path in (CHART / "dashboards").glob("*.json")
    }
    assert len(maps) == len(held) == 2
    for each in maps:
        assert each["metadata"]["namespace"] == "grafana"
        assert each["metadata"]["annotations"] == {"grafana_folder": "Roundhouse"}
        ((name, text),) = each["data"].items()
        assert json.loads(text) == json.loads(held[name].read_text("utf-8"))
        # Kubernetes takes a mebibyte, and an annotation of kubectl's a quarter of it.
        assert len(text.encode()) < 2**18


def test_values_of_the_page_are_taken(repo_root: Path) -> None:
    page = (repo_root / "docs" / "monitoring.md").read_text("utf-8")
    (values,) = [
        block
        for block in map(yaml.safe_load, re.findall(r"```yaml\n(.+?)```", page, re.DOTALL))
        if "monitoring" in block
    ]
    made = manifests(values["monitoring"], networkPolicy=values["networkPolicy"])
    assert len(of_kind(made, *MONITORS)) == 3
