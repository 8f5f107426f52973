"""What the chart makes is what Kubernetes takes."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from scripts import helm_render
from tests.helm import crds
from tests.helm.crds import VERSIONS
from tests.helm.policies import Manifest, of_kind


def valid(manifest: Manifest, version: str = VERSIONS[-1]) -> None:
    """Raises for what Kubernetes, or whose kind it is, would not take."""
    if manifest["kind"] in crds.KINDS:
        crds.validate(manifest, version)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", helm_render.examples())
def test_examples_are_valid(name: str, version: str) -> None:
    for each in helm_render.manifests(helm_render.example(name)):
        valid(each, version)


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
