"""Values that cannot work are refused, in words that say which and what to do."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from scripts import helm_render
from server.config.engine import Engine
from server.config.provider import Provider
from server.config.schema import Key, Server

IMAGE = {"repository": "roundhouse", "tag": "dev"}
VLLM = {"image": {"tag": "v1"}}


def engine(**more: Any) -> dict[str, Any]:
    return {"engineDefaults": VLLM, "engines": [{"name": "qwen", "model": "Qwen/Qwen3-8B", **more}]}


def timeouts(**more: Any) -> dict[str, Any]:
    return {"config": {"server": {"timeouts": more}}}


TWO = {"engineDefaults": VLLM, "engines": [{"name": "a", "model": "b"}] * 2}
NODES = {
    "engineDefaults": VLLM,
    "engines": [{"name": "a", "model": "b", "nodes": 2}, {"name": "a-nodes", "model": "b"}],
}
CLASH = {**engine(), "config": {"engines": {"qwen": {"runtime": "external", "urls": ["http://a"]}}}}
NO_LIMIT = {
    **engine(),
    "engineDefaults": {**VLLM, "resources": {"limits": {"memory": None}}},
}
HEADER = {"config": {"providers": {"a": {"headers": {"Authorization": "Bearer abc"}}}}}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image": {"repository": ""}}, "Set image.repository"),
    ({"engines": [{"name": "a", "model": "b"}]}, "Set engineDefaults.image.tag"),
    ({"image": {**IMAGE, "tga": "1"}}, "additional properties 'tga' not allowed"),
    ({"gatway": {}}, "additional properties 'gatway' not allowed"),
    ({"gateway": {"replicas": -1}}, "/gateway/replicas"),
    ({"gateway": {"runAsUser": 0}}, "/gateway/runAsUser"),
    ({"gateway": {"resources": {"limits": {"memory": None}}}}, "/gateway/resources/limits"),
    ({"gateway": {"extraEnv": [{"value": "a"}]}}, "missing property 'name'"),
    (
        {"gateway": {"terminationGracePeriodSeconds": None, "preStopSeconds": "9"}},
        "/preStopSeconds",
    ),
    ({"gateway": {"extraEnv": [{"name": "A", "value": 1}]}}, "/gateway/extraEnv/0/value"),
    ({"service": {"port": "80"}}, "/service/port"),
    ({"service": {"type": "ExternalName"}}, "/service/type"),
    ({"secrets": {"env": ["Providers"]}}, "/secrets/env/0"),
    ({"secrets": {"existingSecret": "my secret"}}, "/secrets/existingSecret"),
    ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "/podDisruptionBudget/maxUnavailable"),
    ({"tests": {"command": []}}, "/tests/command"),
    ({"imagePullSecrets": ["regcred"]}, "/imagePullSecrets/0"),
    ({"image": {"repository": "a", "digest": "sha256:abc"}}, "/image/digest"),
    ({"nameOverride": "Gateway"}, "/nameOverride"),
    ({"commonLabels": {"team": "a b"}}, "/commonLabels/team"),
    ({"commonLabels": {"my team": "a"}}, "'my team'"),
    ({"gateway": {"podLabels": {"a": "b" * 64}}}, "/gateway/podLabels/a"),
    ({"gateway": {"nodeSelector": {"gpu": True}}}, "/gateway/nodeSelector/gpu"),
    ({"ingress": {"enabled": True}}, "Set ingress.hosts"),
    ({"autoscaling": {"enabled": True, "minReplicas": 11}}, "autoscaling.minReplicas is more"),
    (timeouts(drain="soon"), "config.server.timeouts.drain: soon is no duration"),
    (timeouts(unready="5 bananas"), "config.server.timeouts.unready: 5 bananas is no duration"),
    ({"gateway": {"terminationGracePeriodSeconds": 130}}, "is too short"),
    ({"config": {"server": {"port": 9000}}}, "config.server.port: the chart sets it"),
    ({"config": {"providers": {"openai": {"api_key": "sk-1"}}}}, "config.providers.openai.api_key"),
    ({"config": {"providers": {"a": {"api_keys": ["${A}", "b"]}}}}, "config.providers.a.api_keys"),
    ({"config": {"server": {"keys": [{"name": "a", "key": "b"}]}}}, "config.server.keys[0].key"),
    ({"config": {"providers": {"a": {"proxy": "http://me:word@p"}}}}, "config.providers.a.proxy"),
    (HEADER, "config.providers.a.headers.Authorization"),
    (engine(name="Qwen"), "/engines/0/name"),
    (engine(model="--host"), "/engines/0/model"),
    (engine(gpu=1), "additional properties 'gpu' not allowed"),
    (engine(args={"--dtype": "x"}), "write flags of vLLM without the dashes"),
    (engine(args={"port": 1}), "args.port of qwen: the chart sets it"),
    (engine(args={"ssl-keyfile": "/k"}), "args.ssl-keyfile of qwen: the chart sets it"),
    (engine(config={"model": "x"}), "config.model of qwen: the chart sets it"),
    (engine(cache={"kind": "hostPath"}), "set cache.hostPath of qwen"),
    (engine(cache={"kind": "nfs"}), "/engines/0/cache/kind"),
    (engine(cache={"kind": "pvc"}, replicas=2), "needs ReadWriteMany"),
    (engine(name="a" * 40, nodes=2), "makes names of more than 42 characters"),
    (engine(shm="lots"), "/engines/0/shm"),
    (engine(args={"it": ["-x"]}), "args.it of qwen: -x begins with a dash"),
    (engine(nodes=0), "/engines/0/nodes"),
    (engine(gpus="all"), "/engines/0/gpus"),
    (engine(startupMinutes=0), "/engines/0/startupMinutes"),
    (engine(cache={"accessModes": ["RWX"]}), "/engines/0/cache/accessModes/0"),
    (engine(podDisruptionBudget={"minAvailable": 1}), "'minAvailable' not allowed"),
    (engine(config={"discover": "x"}), "config.discover of qwen: the chart sets it"),
    (NO_LIMIT, "set resources.limits.memory of qwen"),
    ({"fullnameOverride": "8ball"}, "/fullnameOverride"),
    ({"engineDefaults": VLLM, "engines": [{"name": "a"}]}, "missing property 'model'"),
    (TWO, "two have the name a"),
    (NODES, "LeaderWorkerSet makes a Service for a that has the name of a-nodes'"),
    (CLASH, "config.engines.qwen: one of `engines` has this name, too"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_it_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        helm_render.render({"image": IMAGE, **values})
    assert words in str(refused.value)
    # Where Go's templates fall over by themselves, nobody knows what to do.
    assert "error calling" not in str(refused.value)
    assert "nil pointer" not in str(refused.value)


HIDDEN = {
    name
    for model in (Key, Server, Provider, Engine)
    for name, field in model.model_fields.items()
    if "SecretStr" in str(field.annotation)
}


@pytest.mark.parametrize("name", sorted(HIDDEN - {"headers", "proxy"}))
def test_whatever_the_server_hides_has_no_place_in_a_config_map(name: str) -> None:
    assert {"key", "api_key", "api_keys", "admin_key", "metrics_key"} == HIDDEN - {
        "headers",
        "proxy",
    }
    for value in ("sk-abc", ["sk-abc"]):
        config = {"somewhere": [{name: value}]}
        with pytest.raises(helm_python.HelmError) as refused:
            helm_render.render({"image": IMAGE, "config": config})
        assert f"config.somewhere[0].{name}\n" in str(refused.value)


@pytest.mark.parametrize("name", ["X-Auth-Token", "api-key", "Helicone-Auth", "Cookie"])
@pytest.mark.parametrize("where", ["headers", "env"])
def test_nor_what_sounds_like_a_secret(where: str, name: str) -> None:
    values = {"image": IMAGE, "config": {"providers": {"a": {where: {name: "abc"}}}}}
    with pytest.raises(helm_python.HelmError, match=rf"config\.providers\.a\.{where}\.{name}\n"):
        helm_render.render(values)


@pytest.mark.parametrize("release", ["8ball", "my.release"])
def test_a_release_whose_name_no_service_may_have(release: str) -> None:
    with pytest.raises(helm_python.HelmError, match="a Service may not have this name"):
        helm_render.render({"image": IMAGE}, release)
    assert helm_render.render({"image": IMAGE, "fullnameOverride": "llm"}, release)


@pytest.mark.parametrize(
    "config",
    [
        {"providers": {"openai": {"api_key": "${OPENAI_API_KEY}"}}},
        {"server": {"keys": [{"name": "a", "key": "sha256:" + "0" * 64}]}},
        {"providers": {"a": {"proxy": "http://${USER}:${PASSWORD}@p", "api_key": None}}},
        {"models": {"key": {"alias": "x"}}},
        {"providers": {"a": {"headers": {"authorization": "Bearer ${TOKEN}", "x-team": "b"}}}},
        {"providers": {"a": {"api_key": "${A:-}"}}},
        {"providers": {"a": {"headers": {"x-auth-token": "${TOKEN}"}, "max_tokens": 5}}},
        {"engines": {"a": {"env": {"HF_TOKEN": "${HF_TOKEN}", "OMP_NUM_THREADS": "4"}}}},
    ],
)
def test_what_is_no_secret_is_taken(config: dict[str, Any]) -> None:
    assert helm_render.render({"image": IMAGE, "config": config})
