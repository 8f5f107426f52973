"""The gateway's objects, where the policies do not already say it."""

from __future__ import annotations

from typing import Any

import pytest

import roundhouse
from scripts import helm_render
from tests.helm.policies import Manifest, of_kind

IMAGE = {"repository": "roundhouse", "tag": "dev"}


def manifests(**values: Any) -> list[Manifest]:
    return helm_render.manifests({"image": IMAGE, **values})


def container(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(manifests(**values), "Deployment")[0]["spec"]["template"][
        "spec"
    ]["containers"][0]
    return found


def test_the_config_is_a_mounted_folder_so_that_it_can_change() -> None:
    made = container()
    mounts = {each["name"]: each for each in made["volumeMounts"]}
    assert mounts["config"] == {
        "name": "config",
        "mountPath": "/etc/roundhouse",
        "readOnly": True,
    }
    assert made["args"] == ["serve", "/etc/roundhouse/roundhouse.yaml"]


def test_its_folders_keep_no_node() -> None:
    word = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    template = of_kind(manifests(), "Deployment")[0]["spec"]["template"]
    local = {each["name"] for each in template["spec"]["volumes"] if "emptyDir" in each}
    assert set(template["metadata"]["annotations"][word].split(",")) == local
    own = {"podAnnotations": {word: "", "a": "b"}, "rolloutOnConfigChange": True}
    template = of_kind(manifests(gateway=own), "Deployment")[0]["spec"]["template"]
    found = template["metadata"]["annotations"]
    assert {name: found[name] for name in (word, "a")} == {word: "", "a": "b"}
    assert set(found) == {word, "a", "checksum/config"}


def test_a_server_that_is_full_is_neither_killed_nor_left_out() -> None:
    made = container()
    ports = {
        probe: made[probe]["httpGet"]["port"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    # The limit of connections is each listener's own.
    assert ports == {"startupProbe": "http", "livenessProbe": "admin", "readinessProbe": "admin"}


def test_an_ingress_passes_streams_on_for_an_hour() -> None:
    ingress = of_kind(manifests(ingress={"enabled": True, "hosts": ["a.example"]}), "Ingress")[0]
    annotations = ingress["metadata"]["annotations"]
    nginx = "nginx.ingress.kubernetes.io/proxy-"
    assert annotations[f"{nginx}buffering"] == "off"
    assert int(annotations[f"{nginx}read-timeout"]) == 3600
    assert int(annotations[f"{nginx}send-timeout"]) == 3600
    assert ingress["spec"]["rules"][0]["host"] == "a.example"


def test_the_admin_port_is_on_a_service_of_its_own() -> None:
    services = {
        each["metadata"]["name"]: [port["targetPort"] for port in each["spec"]["ports"]]
        for each in of_kind(manifests(service={"type": "LoadBalancer"}), "Service")
    }
    assert services == {"roundhouse": ["http"], "roundhouse-admin": ["admin"]}
    types = [each["spec"]["type"] for each in of_kind(manifests(), "Service")]
    assert types == ["ClusterIP", "ClusterIP"]


def test_metrics_are_for_prometheus_and_the_api_for_everybody() -> None:
    first, second = of_kind(manifests(), "NetworkPolicy")[0]["spec"]["ingress"]
    assert first == {"ports": [{"port": "http"}]}
    assert second["ports"] == [{"port": "admin"}]
    assert second["from"]
    (only,) = of_kind(manifests(networkPolicy={"prometheus": []}), "NetworkPolicy")[0]["spec"][
        "ingress"
    ]
    assert only["ports"] == [{"port": "http"}]


def test_where_it_may_go_is_limited_only_if_said() -> None:
    assert of_kind(manifests(), "NetworkPolicy")[0]["spec"]["policyTypes"] == ["Ingress"]
    rule = {"ports": [{"port": 443}]}
    policy = of_kind(manifests(networkPolicy={"egress": [rule]}), "NetworkPolicy")[0]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == [rule]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"tag": "dev"}, "roundhouse:dev"),
        ({"tag": ""}, f"roundhouse:{roundhouse.__version__}"),
        ({"tag": "dev", "digest": "sha256:" + "0" * 64}, "roundhouse@sha256:" + "0" * 64),
    ],
)
def test_images(image: dict[str, str], name: str) -> None:
    assert container(image={"repository": "roundhouse", **image})["image"] == name


def test_what_is_more_is_added() -> None:
    more = {
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumeMounts": [{"name": "keys", "mountPath": "/keys"}],
        "extraVolumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
    }
    made = container(gateway=more, secrets={"env": ["providers"]})
    assert made["args"][-1] == "--log-level=debug"
    assert made["env"][-1] == {"name": "TZ", "value": "UTC"}
    assert made["envFrom"][-1] == {"secretRef": {"name": "providers"}}
    assert made["volumeMounts"][-1] == {"name": "keys", "mountPath": "/keys"}
    without = {each["kind"] for each in manifests(serviceAccount={"create": False})}
    assert "ServiceAccount" not in without
