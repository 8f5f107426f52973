"""The named policies, on every example; and each of them on manifests that break it."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from scripts import helm_render
from tests.helm import policies
from tests.helm.policies import POLICIES, Manifest, Policy

Break = Callable[[list[Manifest]], Any]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("name", helm_render.examples())
def test_examples_keep_it(name: str, policy: Policy) -> None:
    assert list(policy(helm_render.manifests(helm_render.example(name)))) == []


@pytest.mark.parametrize("name", helm_render.examples())
def test_what_is_referred_to_is_there(name: str) -> None:
    values = helm_render.example(name)
    found = policies.whole(helm_render.manifests(values), policies.elsewhere(values))
    assert list(found) == []


def _gateway(manifests: list[Manifest]) -> Any:
    return next(m for m in policies.of_kind(manifests, "Deployment"))["spec"]


def _pod(manifests: list[Manifest]) -> Any:
    return _gateway(manifests)["template"]["spec"]


def _container(manifests: list[Manifest]) -> Any:
    return _pod(manifests)["containers"][0]


def _volume(manifests: list[Manifest], name: str) -> Any:
    return next(each for each in _pod(manifests)["volumes"] if each["name"] == name)


def _probe(manifests: list[Manifest], name: str) -> Any:
    return _container(manifests)[name]["httpGet"]


def _secret(manifests: list[Manifest]) -> str:
    return base64.b64decode(_kind(manifests, "Secret")["data"]["ROUNDHOUSE_API_KEY"]).decode()


def _scaler() -> Manifest:
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "mine"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "roundhouse"}},
    }


def _kind(manifests: list[Manifest], kind: str) -> Any:
    return policies.of_kind(manifests, kind)[0]


def _policies(manifests: list[Manifest]) -> Any:
    return policies.of_kind(manifests, "NetworkPolicy")


#: Every way to break a policy that it should notice.
BREAKS: list[tuple[Policy, str, Break]] = [
    (policies.not_root, "user", lambda m: _pod(m)["securityContext"].pop("runAsUser")),
    (policies.not_root, "root", lambda m: _pod(m)["securityContext"].update(runAsUser=0)),
    (policies.not_root, "may", lambda m: _pod(m)["securityContext"].pop("runAsNonRoot")),
    (policies.not_root, "calls", lambda m: _pod(m)["securityContext"].pop("seccompProfile")),
    (policies.confined, "nothing", lambda m: _container(m).pop("securityContext")),
    (policies.confined, "host", lambda m: _pod(m).update(hostNetwork=True)),
    (
        policies.confined,
        "root",
        lambda m: _container(m)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    (
        policies.confined,
        "escalation",
        lambda m: _container(m)["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    (
        policies.confined,
        "capability",
        lambda m: _container(m)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    ),
    (
        policies.admitted,
        "volume",
        lambda m: _pod(m)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
    ),
    (policies.admitted, "port", lambda m: _container(m)["ports"][0].update(hostPort=80)),
    (policies.writable_where_needed, "volumes", lambda m: _pod(m).pop("volumes")),
    (policies.writable_where_needed, "mounts", lambda m: _container(m).update(volumeMounts=[])),
    (policies.limited, "nothing", lambda m: _container(m).pop("resources")),
    (policies.limited, "memory", lambda m: _container(m)["resources"]["limits"].pop("memory")),
    (policies.limited, "requests", lambda m: _container(m)["resources"].pop("requests")),
    (policies.limited, "disk", lambda m: _volume(m, "tmp")["emptyDir"].pop("sizeLimit")),
    (policies.probed, "startup", lambda m: _container(m).update(startupProbe={})),
    (policies.probed, "ready", lambda m: _container(m).pop("readinessProbe")),
    (policies.probed, "key", lambda m: _probe(m, "readinessProbe").update(path="/v1/models")),
    (policies.probed, "draining", lambda m: _probe(m, "livenessProbe").update(path="/ready")),
    (policies.no_token, "pod", lambda m: _pod(m).pop("automountServiceAccountToken")),
    (policies.no_token, "links", lambda m: _pod(m).pop("enableServiceLinks")),
    (
        policies.no_token,
        "account",
        lambda m: _kind(m, "ServiceAccount").pop("automountServiceAccountToken"),
    ),
    (
        policies.no_secret_in_the_open,
        "config",
        lambda m: _kind(m, "ConfigMap")["data"].update(more="providers: {lab: {api_key: abc}}"),
    ),
    (
        policies.no_secret_in_the_open,
        "variable",
        lambda m: _container(m)["env"].append({"name": "LAB_API_KEY", "value": "abc"}),
    ),
    (
        policies.no_secret_in_the_open,
        "copied",
        lambda m: _container(m)["args"].append(_secret(m)),
    ),
    (
        policies.selectors_match,
        "nothing",
        lambda m: _kind(m, "Service")["spec"]["selector"].update(a="b"),
    ),
    (
        policies.selectors_match,
        "two",
        lambda m: _policies(m)[0]["spec"]["podSelector"].update(
            matchLabels={"app.kubernetes.io/name": "roundhouse"}
        ),
    ),
    (
        policies.selectors_match,
        "another",
        lambda m: _gateway(m)["selector"].update(matchLabels={"roundhouse-role": "serving"}),
    ),
    (policies.ports_exist, "none", lambda m: _container(m).pop("ports")),
    (
        policies.ports_exist,
        "other",
        lambda m: _kind(m, "Service")["spec"]["ports"][0].update(targetPort="metrics"),
    ),
    (policies.labelled, "twice", lambda m: m.append(m[0])),
    (policies.labelled, "namespace", lambda m: m[0]["metadata"].pop("namespace")),
    (policies.labelled, "owner", lambda m: m[0]["metadata"].update(labels={})),
    (
        policies.labelled,
        "version",
        lambda m: _gateway(m)["template"]["metadata"]["labels"].update({"helm.sh/chart": "a-1"}),
    ),
    (
        policies.labelled,
        "long",
        lambda m: _gateway(m)["template"]["metadata"]["labels"].update(a="b" * 64),
    ),
    (
        policies.distinct,
        "variable",
        lambda m: _container(m)["env"].append({"name": "HOME", "value": "/"}),
    ),
    (
        policies.distinct,
        "volume",
        lambda m: _pod(m)["volumes"].append({"name": "tmp", "emptyDir": {}}),
    ),
    (policies.versioned, "none", lambda m: _container(m).update(image="registry:5000/a")),
    (policies.versioned, "latest", lambda m: _container(m).update(image="a:latest")),
    (policies.one_scaler, "nobody", lambda m: _gateway(m).pop("replicas")),
    (policies.one_scaler, "two", lambda m: m.append(_scaler())),
    (policies.time_to_end, "", lambda m: _pod(m).update(terminationGracePeriodSeconds=10)),
    (
        policies.guarded,
        "open",
        lambda m: [
            rule.pop("from", None) for policy in _policies(m) for rule in policy["spec"]["ingress"]
        ],
    ),
    (policies.guarded, "one", lambda m: m.remove(_policies(m)[1])),
    (policies.whole, "config", lambda m: m.remove(_kind(m, "ConfigMap"))),
    (policies.whole, "secret", lambda m: m.remove(_kind(m, "Secret"))),
    (policies.whole, "account", lambda m: m.remove(_kind(m, "ServiceAccount"))),
    (
        policies.whole,
        "scaled",
        lambda m: m.append({**_scaler(), "spec": {"scaleTargetRef": {"kind": "A", "name": "b"}}}),
    ),
]


@pytest.mark.parametrize(
    ("policy", "breach"),
    [(policy, breach) for policy, _, breach in BREAKS],
    ids=[f"{policy.__name__}-{name}" for policy, name, _ in BREAKS],
)
def test_a_breach_is_found(policy: Policy, breach: Break) -> None:
    manifests = copy.deepcopy(helm_render.manifests(helm_render.example("one-gpu")))
    # The gateway's objects come first of their kind, whatever order Helm has.
    manifests.sort(key=lambda each: len(each["metadata"]["name"]))
    assert list(policy(manifests)) == []
    breach(manifests)
    assert list(policy(manifests))


def test_every_policy_is_broken_by_something() -> None:
    assert {policy for policy, _, _ in BREAKS} == {*POLICIES, policies.whole}
