"""What the chart makes is what Kubernetes takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from scripts import helm_render
from tests.helm.policies import Manifest, of_kind

# Each version is listed twice, once with strict schemas.
VERSIONS = list(dict.fromkeys(utils.all_versions()))[-2:]
# Kinds that somebody else defines: what pods they make is looked at all the same.
FOREIGN = {"LeaderWorkerSet"}


def native(manifests: list[Manifest]) -> Iterator[Manifest]:
    """What Kubernetes itself has a schema for, and the pods of what it has none for."""
    for each in manifests:
        if each["kind"] not in FOREIGN:
            yield each
    for group in of_kind(manifests, "LeaderWorkerSet"):
        template = group["spec"]["leaderWorkerTemplate"]
        for name in ("leaderTemplate", "workerTemplate"):
            yield {"apiVersion": "v1", "kind": "Pod", **template[name]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", helm_render.examples())
def test_examples_are_valid(name: str, version: str) -> None:
    for each in native(helm_render.manifests(helm_render.example(name))):
        kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_manifest_is_not_valid() -> None:
    deployment = of_kind(helm_render.manifests(helm_render.example("one-gpu")), "Deployment")[0]
    deployment["spec"]["replcas"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replcas"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", helm_render.examples())
def test_a_render_is_the_same_each_time_but_for_new_keys(name: str) -> None:
    values = helm_render.example(name)

    def rendered() -> list[dict[str, Any]]:
        return [m for m in helm_render.manifests(values) if m["kind"] != "Secret"]

    assert rendered() == rendered()


def test_the_command_prints_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert helm_render.main(["one-gpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# ==== one-gpu ====")
    assert "kind: Deployment" in out
    assert helm_render.main(["two-gpus"]) == 2
    assert "there are cpu-kind, gateway-only" in capsys.readouterr().err
