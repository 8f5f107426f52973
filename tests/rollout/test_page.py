"""docs/kubernetes.md holds: its commands and values are the chart's, its numbers those that it
renders, and its links lead somewhere."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import helm_render
from scripts.helm_render import manifests
from server.config.load import load
from server.config.reload import RESTART
from server.registry.recommend.memory import ALLOWANCE, FIXED, FORMATS, GIB
from tests.helm.policies import Manifest, pods
from tests.rollout.rendered import Rendered

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text("utf-8")
BASE: dict[str, Any] = {
    "image": {"repository": "registry.example/roundhouse"},
    "engineDefaults": {"image": {"tag": "v0.32.0"}},
}
#: The volumes that the pod security level `restricted` admits.
ADMITTED = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SHORT = {"deploy": "Deployment", "pvc": "PersistentVolumeClaim"}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    """What follows a `$`, and what stands in a row of the table of troubles, as words."""
    lines = "\n".join(blocks("console")).replace("\\\n", " ").splitlines()
    found = [line[2:] for line in lines if line.startswith("$ ")]
    found += [each.replace("\\|", "|") for each in re.findall(r"\| `(kubectl .*?)` \|", TEXT)]
    return [shlex.split(each) for each in found]


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As Helm does it: mappings are merged, lists replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def set_by(words: list[str]) -> dict[str, Any]:
    """The values of a command's `--set`."""
    values: dict[str, Any] = {}
    for at, word in enumerate(words):
        if word == "--set":
            path, _, value = words[at + 1].partition("=")
            for key in reversed(path.split(".")):
                value = {key: value}  # type: ignore[assignment]
            values = merged(values, value)  # type: ignore[arg-type]
    return values


def first_values() -> dict[str, Any]:
    """The file that the page begins with."""
    (text,) = re.findall(r"\$ cat values.yaml\n(.*?)\n\$ ", TEXT, re.DOTALL)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def after(words: list[str], *options: str) -> Iterator[str]:
    for at, word in enumerate(words):
        if word in options:
            yield words[at + 1]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_piece_of_values_renders_to_a_config_that_the_server_takes(
    block: str, tmp_path: Path
) -> None:
    values = merged(merged(BASE, first_values()), yaml.safe_load(block))
    rendered = manifests(values)
    (config,) = (
        each["data"]["roundhouse.yaml"]
        for each in rendered
        if each["kind"] == "ConfigMap" and "roundhouse.yaml" in each["data"]
    )
    path = tmp_path / "roundhouse.yaml"
    path.write_text(config)
    keys = Rendered("http://127.0.0.1:9/v1").keys
    load(path, environ={**keys, "OPENAI_API_KEY": "sk-of-a-provider"})


def test_every_helm_command_names_what_is_there_and_renders() -> None:
    seen = set()
    for words in commands():
        if words[0] != "helm":
            continue
        rest = [w for w in words[1:] if not w.startswith("-") and w != "models"]
        seen.add(rest[0])
        if rest[0] not in ("install", "upgrade", "template"):
            assert "roundhouse" in rest, words
            continue
        assert rest[1:3] == ["roundhouse", "helm/roundhouse"], words
        values = merged(BASE, first_values())
        for file in after(words, "-f"):
            if file != "values.yaml":
                values = yaml.safe_load((ROOT / file).read_text("utf-8"))
        rendered = helm_render.render(merged(values, set_by(words)))
        for path in after(words, "--show-only"):
            assert rendered[f"roundhouse/{path}"].strip(), words
    assert seen >= {"install", "upgrade", "template", "test", "history", "rollback"}


def test_every_kubectl_command_names_an_object_that_is_there() -> None:
    values = merged(merged(BASE, first_values()), {"ingress": {"enabled": True, "hosts": ["a.b"]}})
    rendered = manifests(values)
    names = {(each["kind"].lower(), each["metadata"]["name"]) for each in rendered}
    labels = [pod.labels for pod in pods(rendered)]
    looked = 0
    for words in commands():
        if words[0] != "kubectl":
            continue
        line = " ".join(words).partition(" -- ")[0]
        for kind, name in re.findall(r"\b(deployment|service|secret|ingress)[/ ]([\w-]+)", line):
            if "create secret" not in line and "kubernetes.io/" not in line:
                assert (kind, name) in names, line
                looked += 1
        for key, value in re.findall(r"-l ([\w./-]+)=([\w.-]+)", line):
            services = {name for kind, name in names if kind == "service"}
            assert any(each.get(key) == value for each in labels) or value in services, line
            looked += 1
    assert looked >= 10


def test_the_numbers_of_an_update_are_those_that_are_rendered() -> None:
    rendered = Rendered("http://127.0.0.1:9/v1")
    gateways, engines = rendered.gateways, rendered.engines
    drain = yaml.safe_load(yaml.safe_dump(rendered.config))["server"]["timeouts"]["drain"]
    assert drain == "2m"
    for row in (
        f"| preStop: serves as before | {gateways.pre_stop} s | {engines.pre_stop} s |",
        f"| 120 s at most | {rendered.engine_drain:g} s at most |",
        f"| grace period | {gateways.grace} s | {engines.grace} s |",
    ):
        assert row in TEXT, row
    assert (engines.surge, engines.unavailable, gateways.unavailable) == (0, 1, 0)
    longest = max(gateways.grace, engines.grace)
    assert f"must give pods {math.ceil(longest / 60)} minutes" in TEXT


def test_the_figures_of_sizing_are_those_of_their_pages() -> None:
    measured = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert "| 11,592 | **7,092** | 19.9 |" in measured
    assert "62 / 83 | 0.4 |" in measured
    rows = re.findall(r"^\| ([\d.]+) \| (.+) GiB \|$", TEXT, re.MULTILINE)
    for billions, cells in rows:
        parameters = float(billions) * 1e9
        needs = [parameters * FORMATS[f] * (1 + ALLOWANCE) + FIXED for f in FORMATS]
        counted = [*needs, parameters * FORMATS["bf16"]]
        assert cells.split(" GiB | ") == [f"{each / GIB:.1f}" for each in counted], billions
    assert len(rows) == 3


def breaks_restricted(rendered: list[Manifest]) -> set[str]:
    """Who does not pass the pod security level, and why."""
    found = set()
    for pod in pods(rendered):
        security = pod.spec["securityContext"]
        passes = security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault"
        for container in pod.containers:
            own = container["securityContext"]
            passes &= own["allowPrivilegeEscalation"] is False
            passes &= own["capabilities"] == {"drop": ["ALL"]}
        kinds = {k for volume in pod.spec["volumes"] for k in volume if k != "name"}
        if any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or not passes:
            found.add(f"{pod.owner}: pod")
        found |= {f"{pod.owner}: {kind}" for kind in kinds - ADMITTED}
    return found


@pytest.mark.parametrize("name", helm_render.examples())
def test_all_but_folders_of_the_node_pass_restricted(name: str) -> None:
    values = helm_render.example(name)
    said = {"Deployment/roundhouse-engine-qwen3-8b: hostPath"} if name == "one-gpu" else set()
    assert breaks_restricted(manifests(values)) == said


def test_selectors_hold_no_version_and_no_others_labels() -> None:
    """What an upgrade may not change: a newer chart, image or label leaves it as it is."""

    def selectors(values: dict[str, Any]) -> dict[str, Any]:
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["spec"]["selector"]
            for each in manifests(values)
            if each["kind"] in ("Deployment", "Service")
        }

    before = merged(BASE, first_values())
    newer = {
        "image": {"tag": "9.9.9"},
        "commonLabels": {"team": "a", "app.kubernetes.io/name": "x"},
    }
    assert selectors(before) == selectors(merged(before, newer))


def test_claims_stay_and_releases_share_no_name() -> None:
    values = merged(merged(BASE, first_values()), {"engineDefaults": {"cache": {"kind": "pvc"}}})
    claims = [each for each in manifests(values) if each["kind"] == "PersistentVolumeClaim"]
    assert [c["metadata"]["annotations"]["helm.sh/resource-policy"] for c in claims] == ["keep"]
    one, other = (
        {(each["kind"], each["metadata"]["name"]) for each in manifests(values, release)}
        for release in ("roundhouse", "second")
    )
    assert not one & other


def test_links_have_their_anchors() -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)]+)?\)", TEXT):
        if "://" in link:
            continue
        path = (PAGE.parent / link) if link else PAGE
        assert path.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor[1:] in slugs, f"{link}{anchor}"


def test_what_needs_a_restart_is_said_where_the_page_links_to() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8").split("## Reload")[1]
    assert all(f"`{setting}`" in text.split("## ")[0] for setting in RESTART)
