"""Kinds that others define (LeaderWorkerSet, monitoring), against the schemas that they publish.

`schemas/KIND.json` has each with its source and version, without its prose. Kubernetes drops fields
that such a schema does not know, without a word; here they are refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

SCHEMAS = Path(__file__).parent / "schemas"
#: What has a schema here.
KINDS = frozenset(path.stem for path in SCHEMAS.glob("*.json"))
# Each version is listed twice, once with strict schemas.
VERSIONS = list(dict.fromkeys(utils.all_versions()))[-2:]


class Invalid(AssertionError):
    """What is wrong with a manifest, with its place, a line each."""


def validate(manifest: dict[str, Any], version: str = VERSIONS[-1]) -> None:
    """Raises Invalid, or kubernetes_validate's error for a pod in it; `version`: of Kubernetes."""
    kind = manifest["kind"]
    validator = jsonschema.Draft202012Validator(schema(kind))
    found = [
        f"{kind} {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(manifest)
    ]
    if found:
        raise Invalid("\n".join(found))
    for pod in templates(manifest):
        kubernetes_validate.validate(pod, version, strict=True)


def templates(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods that a LeaderWorkerSet makes."""
    group = manifest["spec"].get("leaderWorkerTemplate", {})
    for name in ("leaderTemplate", "workerTemplate"):
        if name in group:
            yield {"apiVersion": "v1", "kind": "Pod", **group[name]}


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """Of a kind, with nothing unknown let in. Raises KeyError for one that has none here."""
    if kind not in KINDS:
        raise KeyError(f"there is no schema of {kind} in {SCHEMAS.name}/")
    read: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.json").read_text("utf-8"))["schema"]
    _close(read)
    return read


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        for child in node.values():
            _close(child)
    elif isinstance(node, list):
        for child in node:
            _close(child)
