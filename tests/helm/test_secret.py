"""The key that the chart makes is made once."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scripts import helm_render
from server.config.providers_table import _OUR_KEY
from tests.helm.policies import Manifest, of_kind

VALUES = {"image": {"repository": "roundhouse", "tag": "dev"}}
NAMES = {"ROUNDHOUSE_API_KEY", "ROUNDHOUSE_ADMIN_KEY", "ROUNDHOUSE_METRICS_KEY"}
WHERE = f"/api/v1/namespaces/{helm_render.NAMESPACE}/secrets/roundhouse"

# In a process of its own: Helm's client keeps what it learns of a cluster in the home folder.
RENDER = """
import json, sys
import helm_python
chart, server, values = sys.argv[1:]
cluster = helm_python.Config(kube_apiserver=server, namespace="models")
made = cluster.render(
    helm_python.Chart.load(chart), json.loads(values), name="roundhouse", namespace="models"
)
print(made["roundhouse/templates/gateway/secret.yaml"])
"""


def keys(manifests: list[Manifest]) -> dict[str, str]:
    """The secret's, decoded."""
    (secret,) = of_kind(manifests, "Secret")
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def test_a_key_is_made_in_the_servers_own_form() -> None:
    first, second = (keys(helm_render.manifests(VALUES)) for _ in range(2))
    assert set(first) == NAMES
    assert all(_OUR_KEY.fullmatch(key) for key in first.values())
    assert len({*first.values(), *second.values()}) == 2 * len(NAMES)


def test_a_secret_that_is_there_is_used_and_none_is_made() -> None:
    manifests = helm_render.manifests({**VALUES, "secrets": {"existingSecret": "mine"}})
    assert not of_kind(manifests, "Secret")
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "mine"}}]
    notes = helm_render.render({**VALUES, "secrets": {"existingSecret": "mine"}})
    assert "get secret mine" in notes["roundhouse/templates/NOTES.txt"]


def test_an_upgrade_keeps_the_keys_that_the_cluster_has(tmp_path: Path) -> None:
    there = {"ROUNDHOUSE_API_KEY": base64.b64encode(b"what the clients have").decode()}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "roundhouse", "namespace": "models"},
        "data": there,
    }
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    with cluster({WHERE: secret}) as (address, asked):
        run = subprocess.run(
            [sys.executable, "-c", RENDER, str(helm_render.CHART), address, json.dumps(VALUES)],
            env={**environment, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    assert WHERE in asked
    made = dict(re.findall(r"(ROUNDHOUSE_\w+): \"(.+)\"", run.stdout))
    assert set(made) == NAMES
    assert made["ROUNDHOUSE_API_KEY"] == there["ROUNDHOUSE_API_KEY"]
    # What an older chart did not have is made now.
    assert base64.b64decode(made["ROUNDHOUSE_ADMIN_KEY"]).startswith(b"sk-rh-")


@contextmanager
def cluster(objects: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """As much of Kubernetes' API as Helm's `lookup` asks for: its address, and what was asked."""
    pages = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [
                {
                    "name": "secrets",
                    "singularName": "secret",
                    "namespaced": True,
                    "kind": "Secret",
                    "verbs": ["get", "list"],
                }
            ],
        },
        **objects,
    }
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            body = json.dumps(pages.get(path, {"kind": "Status", "code": 404})).encode()
            self.send_response(200 if path in pages else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
