"""Engines of the chart: what vLLM is told, and what its pods have."""

from __future__ import annotations

from typing import Any

import pytest

from scripts import helm_render
from server.engines import arguments
from tests.helm.policies import Manifest, Pod, of_kind, pods

VLLM: dict[str, Any] = {"image": {"tag": "v1"}}


def manifests(defaults: dict[str, Any] | None = None, **engine: Any) -> list[Manifest]:
    """Those of one engine."""
    values = {
        "image": {"repository": "roundhouse", "tag": "dev"},
        "engineDefaults": {**VLLM, **(defaults or {})},
        "engines": [{"name": "qwen", "model": "Qwen/Qwen3-8B", **engine}],
    }
    return helm_render.manifests(values)


def engines(defaults: dict[str, Any] | None = None, **engine: Any) -> list[Pod]:
    return [pod for pod in pods(manifests(defaults, **engine)) if pod.role]


def container(defaults: dict[str, Any] | None = None, **engine: Any) -> dict[str, Any]:
    found: dict[str, Any] = engines(defaults, **engine)[0].spec["containers"][0]
    return found


def test_what_vllm_is_told() -> None:
    assert container(revision="main", drainSeconds=30)["args"] == [
        "Qwen/Qwen3-8B",
        "--host=0.0.0.0",
        "--port=8000",
        "--served-model-name=Qwen/Qwen3-8B",
        "--shutdown-timeout=30",
        "--revision=main",
    ]


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, "--it"),
        (False, "--no-it"),
        (5_000_000, "--it=5000000"),
        (0.9, "--it=0.9"),
        ("hermes", "--it=hermes"),
        ("", "--it="),
        ({"a": [1, "b"]}, '--it={"a":[1,"b"]}'),
    ],
)
def test_flags(value: Any, flag: str) -> None:
    assert container(args={"it": value})["args"][-1] == flag


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"it": ["a=/x", "b=/y"]}, ["--it", "a=/x", "b=/y"]),
        ({"it": [1, 16]}, ["--it", "1", "16"]),
        ({"it": [{"name": "a", "path": "/x"}]}, ["--it", '{"name":"a","path":"/x"}']),
        ({"it": []}, []),
        ({"middleware": ["a.b", "c.d"]}, ["--middleware", "a.b", "--middleware", "c.d"]),
        ({"allowed-origins": ["*"]}, ['--allowed-origins=["*"]']),
        ({"disable-log-stats": False}, []),
        ({"disable-log-stats": True}, ["--disable-log-stats"]),
    ],
)
def test_lists_and_flags_without_a_twin(args: dict[str, Any], told: list[str]) -> None:
    assert container(args=args)["args"][5:] == told


def test_flags_are_those_that_the_server_gives_its_own_engines() -> None:
    args: dict[str, Any] = {
        "middleware": ["a.b"],
        "lora-modules": ["a=/x", "b=/y"],
        "enable-prefix-caching": False,
        **dict.fromkeys(sorted(arguments._WITHOUT_TWIN - {"headless"}), False),
    }
    told = container(args=args)["args"][5:]
    assert told == arguments.flags(dict(sorted(args.items())))


def test_an_engine_adds_to_the_defaults_and_wins() -> None:
    defaults = {"args": {"a": 1, "b": True}, "gpus": 4, "tolerations": [{"key": "x"}]}
    pod = engines(defaults, args={"b": False}, gpus=0, tolerations=[], extraArgs=["--last"])[0]
    args = pod.spec["containers"][0]["args"]
    assert args[-3:] == ["--a=1", "--no-b", "--last"]
    assert "tolerations" not in pod.spec
    assert "nvidia.com/gpu" not in pod.spec["containers"][0]["resources"]["limits"]


def test_gpus_are_asked_for_tolerated_and_used() -> None:
    pod = engines(gpus=2, tolerations=[{"key": "spot", "operator": "Exists"}])[0]
    assert pod.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert [each["key"] for each in pod.spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert "--tensor-parallel-size=2" in pod.spec["containers"][0]["args"]
    args = container(gpus=2, args={"tensor-parallel-size": 1})["args"]
    assert [arg for arg in args if "parallel" in arg] == ["--tensor-parallel-size=1"]


def test_weights_have_an_hour_and_a_roll_out_waits_for_them() -> None:
    deployment = next(
        each for each in of_kind(manifests(), "Deployment") if "engine" in each["metadata"]["name"]
    )
    probe = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 3600
    assert deployment["spec"]["progressDeadlineSeconds"] > 3600
    # No second GPU is asked for while the first is held.
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_pod_has_longer_than_its_requests() -> None:
    pod = engines(preStopSeconds=20, drainSeconds=100)[0]
    assert pod.spec["terminationGracePeriodSeconds"] > 120


def test_everything_that_is_cached_is_on_the_cache() -> None:
    spec = engines(shm="2Gi")[0].spec
    variables = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    for name in ("HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert variables[name].startswith("/cache/")
    shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({}, {"emptyDir": {"sizeLimit": "40Gi"}}),
        ({"kind": "hostPath", "hostPath": "/w"}, {"hostPath": {"path": "/w", "type": "Directory"}}),
        (
            {"kind": "pvc", "existingClaim": "weights"},
            {"persistentVolumeClaim": {"claimName": "weights"}},
        ),
        (
            {"kind": "pvc", "size": "5Gi"},
            {"persistentVolumeClaim": {"claimName": "roundhouse-engine-qwen-cache"}},
        ),
    ],
)
def test_where_the_cache_is(cache: dict[str, Any], volume: dict[str, Any]) -> None:
    made = manifests(cache=cache)
    pod = next(pod for pod in pods(made) if pod.role)
    assert {"name": "cache", **volume} in pod.spec["volumes"]
    claims = of_kind(made, "PersistentVolumeClaim")
    assert len(claims) == ("size" in cache)
    for claim in claims:
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_a_token_of_the_hub_comes_from_its_secret() -> None:
    variables = {each["name"]: each for each in container(hfToken={"existingSecret": "hub"})["env"]}
    assert variables["HF_TOKEN"]["valueFrom"] == {
        "secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}
    }
    assert "HF_TOKEN" not in {each["name"] for each in container()["env"]}


def test_many_machines_are_a_group_with_a_leader() -> None:
    made = manifests(nodes=3, gpus=8, replicas=2)
    group = of_kind(made, "LeaderWorkerSet")[0]
    assert group["spec"]["replicas"] == 2
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 3
    assert group["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    leader, worker = (pod for pod in pods(made) if pod.role)
    told = leader.spec["containers"][0]["args"]
    assert {
        "--nnodes=$(LWS_GROUP_SIZE)",
        "--node-rank=$(LWS_WORKER_INDEX)",
        "--master-addr=$(LWS_LEADER_ADDRESS)",
        "--tensor-parallel-size=8",
        "--pipeline-parallel-size=3",
    } <= set(told)
    assert set(worker.spec["containers"][0]["args"]) - set(told) == {"--headless"}
    # LeaderWorkerSet makes a headless Service of its own, by the group's name.
    services = {each["metadata"]["name"] for each in of_kind(made, "Service")}
    assert group["metadata"]["name"] not in services


def test_a_groups_service_means_its_leaders_and_its_policy_all() -> None:
    made = manifests(nodes=2)
    leader, worker = (pod for pod in pods(made) if pod.role)
    service = next(
        each for each in of_kind(made, "Service") if "engine" in each["metadata"]["name"]
    )
    assert service["spec"]["selector"].items() <= leader.labels.items()
    assert not service["spec"]["selector"].items() <= worker.labels.items()
    policy = next(
        each for each in of_kind(made, "NetworkPolicy") if "engine" in each["metadata"]["name"]
    )
    peers = policy["spec"]["podSelector"]["matchLabels"]
    assert peers.items() <= worker.labels.items()
    # Among themselves every port, for all others that of the API.
    assert [rule.get("ports") for rule in policy["spec"]["ingress"]] == [[{"port": 8000}], None]
    assert policy["spec"]["ingress"][1]["from"] == [{"podSelector": {"matchLabels": peers}}]


@pytest.mark.parametrize("name", ["0", "1e3", "no", "on", "null", "0x1f", "2026-11-21"])
def test_names_that_yaml_takes_for_something_else(name: str) -> None:
    made = manifests(name=name, hfToken={"existingSecret": name}, runtimeClassName=name)
    pod = next(pod for pod in pods(made) if pod.role)
    assert pod.labels["roundhouse-engine"] == name
    assert pod.spec["runtimeClassName"] == name
    variables = {each["name"]: each for each in pod.spec["containers"][0]["env"]}
    assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == name


@pytest.mark.parametrize(
    ("release", "prefix"),
    [
        ("roundhouse", "roundhouse"),
        ("my-roundhouse", "my-roundhouse"),
        ("llm", "llm-roundhouse"),
        ("a-release-with-a-very-long-name-indeed-it-is", "a-release-with-a-very-2dc12627"),
        ("a-release-with-a-very-long-name-indeed-it-was", "a-release-with-a-very-2c812fb7"),
    ],
)
def test_releases_beside_each_other_have_names_of_their_own(release: str, prefix: str) -> None:
    values = {
        "image": {"repository": "roundhouse"},
        "engineDefaults": VLLM,
        "engines": [{"name": "qwen", "model": "a/b"}],
    }
    made = helm_render.manifests(values, release)
    for each in made:
        assert each["metadata"]["name"].startswith(prefix)
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == release
    for pod in pods(made):
        assert pod.labels["app.kubernetes.io/instance"] == release


def test_a_worker_outlasts_its_leader() -> None:
    leader, worker = engines(nodes=2, preStopSeconds=10, drainSeconds=60)
    sleeps = [
        pod.spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        for pod in (leader, worker)
    ]
    assert sleeps == [10, 70]


def test_machines_of_a_group_name_their_own_address() -> None:
    variables = {each["name"]: each for each in container(nodes=2)["env"]}
    assert variables["VLLM_HOST_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert "VLLM_HOST_IP" not in {each["name"] for each in container()["env"]}


def test_a_group_is_replaced_before_another_asks_for_its_gpus() -> None:
    strategy = of_kind(manifests(nodes=2), "LeaderWorkerSet")[0]["spec"]["rolloutStrategy"]
    assert strategy["rollingUpdateConfiguration"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_variable_of_the_users_stands_instead_of_the_charts() -> None:
    variables = [
        each
        for each in container(extraEnv=[{"name": "HF_HOME", "value": "/models"}])["env"]
        if each["name"] == "HF_HOME"
    ]
    assert variables == [{"name": "HF_HOME", "value": "/models"}]


def test_a_cache_on_the_node_is_asked_for() -> None:
    def asked(**engine: Any) -> Any:
        return container(**engine)["resources"]["requests"].get("ephemeral-storage")

    assert asked(cache={"size": "30Gi"}) == "30Gi"
    assert asked(cache={"kind": "hostPath", "hostPath": "/w"}) is None
    assert asked(resources={"requests": {"ephemeral-storage": "1Gi"}}) == "1Gi"


def test_what_is_more_is_added() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    pod = engines(
        extraVolumes=[{"name": "own", "configMap": {"name": "own"}}],
        extraVolumeMounts=[{"name": "own", "mountPath": "/own"}],
        podLabels={"team": "a", "roundhouse-role": "none"},
        topologySpreadConstraints=[spread],
    )[0]
    assert pod.spec["volumes"][-1] == {"name": "own", "configMap": {"name": "own"}}
    mounts = pod.spec["containers"][0]["volumeMounts"]
    assert mounts[-1] == {"name": "own", "mountPath": "/own"}
    assert pod.spec["topologySpreadConstraints"] == [spread]
    assert pod.labels["team"] == "a"
    assert pod.role == "serving"


def test_a_drained_node_takes_one_pod_of_an_engine_at_a_time() -> None:
    made = manifests(replicas=2)
    budget = next(
        each
        for each in of_kind(made, "PodDisruptionBudget")
        if "engine" in each["metadata"]["name"]
    )
    pod = next(pod for pod in pods(made) if pod.role)
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["spec"]["selector"]["matchLabels"].items() <= pod.labels.items()
    without = manifests(podDisruptionBudget={"enabled": False})
    assert len(of_kind(without, "PodDisruptionBudget")) == 1


def test_who_may_reach_an_engine() -> None:
    policy = next(
        each
        for each in of_kind(manifests(), "NetworkPolicy")
        if "engine" in each["metadata"]["name"]
    )
    gateway = next(pod for pod in pods(manifests()) if not pod.role)
    (rule,) = policy["spec"]["ingress"]
    first, prometheus = rule["from"]
    assert first["podSelector"]["matchLabels"].items() <= gateway.labels.items()
    assert prometheus["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
