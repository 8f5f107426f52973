"""The named policies, on every example; and each of them on manifests that break it."""

from __future__ import annotations

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


def _kind(manifests: list[Manifest], kind: str) -> Any:
    return policies.of_kind(manifests, kind)[0]


BREAKS: dict[Policy, Break] = {
    policies.not_root: lambda m: _pod(m)["securityContext"].pop("runAsUser"),
    policies.confined: lambda m: _container(m).pop("securityContext"),
    policies.writable_where_needed: lambda m: _pod(m).pop("volumes"),
    policies.limited: lambda m: _container(m).pop("resources"),
    policies.probed: lambda m: _container(m).update(startupProbe={}),
    policies.no_token: lambda m: _pod(m).pop("automountServiceAccountToken"),
    policies.no_secret_in_the_open: lambda m: _kind(m, "ConfigMap")["data"].update(
        more="providers: {lab: {api_key: abc}}"
    ),
    policies.selectors_match: lambda m: _kind(m, "Service")["spec"]["selector"].update(a="b"),
    policies.ports_exist: lambda m: _container(m).pop("ports"),
    policies.labelled: lambda m: m.append(m[0]),
    policies.one_scaler: lambda m: _gateway(m).pop("replicas"),
    policies.time_to_end: lambda m: _pod(m).update(terminationGracePeriodSeconds=10),
    policies.guarded: lambda m: [
        rule.pop("from", None)
        for policy in policies.of_kind(m, "NetworkPolicy")
        for rule in policy["spec"]["ingress"]
    ],
    policies.whole: lambda m: m.remove(_kind(m, "ConfigMap")),
}


@pytest.mark.parametrize("policy", [*POLICIES, policies.whole], ids=lambda policy: policy.__name__)
def test_a_breach_is_found(policy: Policy) -> None:
    manifests = copy.deepcopy(helm_render.manifests(helm_render.example("one-gpu")))
    # The gateway's Deployment comes first in this list, whatever order Helm has.
    manifests.sort(key=lambda each: len(each["metadata"]["name"]))
    assert list(policy(manifests)) == []
    BREAKS[policy](manifests)
    assert list(policy(manifests))
