"""`helm test`: its pod's command, run against a server that has the chart's own config."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from scripts import helm_render
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, error
from tests.faults.process import Served, served
from tests.helm.policies import Manifest, of_kind
from tests.helm.test_config import config_of

IMAGE = {"repository": "roundhouse", "tag": "dev"}
KEY = "a-key-of-the-clients"
#: As the gateway's pod is started: with the variables of its secrets.
PROGRAM = """
import json, os, sys
from server.config.load import load
from server.serving import serve

def greet(server):
    print(json.dumps([server.url, server.admin_url]), flush=True)

sys.exit(serve(load(sys.argv[1], environ=dict(os.environ)), greet))
"""


def pod_of(manifests: list[Manifest]) -> Manifest:
    (pod,) = of_kind(manifests, "Pod")
    return pod


def provider(upstream: ScriptedUpstream) -> dict[str, Any]:
    """A config with one model that does not chat and two that do."""
    types = {"a-embed": "embedding", "b-small": "chat", "c-large": "chat"}
    return {
        "providers": {
            "lab": {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": "${LAB_KEY}"}
        },
        "models": {
            name: {"targets": [{"provider": "lab", "model": name}], "type": kind}
            for name, kind in types.items()
        },
    }


@asynccontextmanager
async def gateway(manifests: list[Manifest], folder: Path) -> AsyncIterator[Served]:
    """A server as the chart configures it, but for where it listens."""
    config = yaml.safe_load(config_of(manifests))
    config["server"] |= {"host": "127.0.0.1", "port": 0, "admin": "127.0.0.1:0"}
    keys = {
        "ROUNDHOUSE_API_KEY": KEY,
        "ROUNDHOUSE_ADMIN_KEY": "a-key-of-the-operator",
        "LAB_KEY": "a-key-of-the-lab",
    }
    async with served(folder, config, program=PROGRAM, environment=keys) as server:
        yield server


async def asked(
    manifests: list[Manifest], folder: Path, url: str, key: str = KEY
) -> tuple[int | None, str]:
    """Exit code and output of the pod's container, with its files and its variables."""
    container = pod_of(manifests)["spec"]["containers"][0]
    scripts = next(each for each in of_kind(manifests, "ConfigMap") if "ask.py" in each["data"])
    (folder / "ask.py").write_text(scripts["data"]["ask.py"], "utf-8")
    variables = {each["name"]: each.get("value", key) for each in container["env"]}
    assert variables["ROUNDHOUSE_URL"] == "http://roundhouse.models.svc:80"
    program = shutil.which(container["command"][0])
    assert program
    process = await asyncio.create_subprocess_exec(
        *(program, *container["command"][1:]),
        *(arg.replace("/test/", f"{folder}/") for arg in container["args"]),
        env={"PATH": os.environ["PATH"], **variables, "ROUNDHOUSE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_first_model_that_chats_is_asked(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.queue(chat_answer("Where engines sleep."))
    made = helm_render.manifests({"image": IMAGE, "config": provider(upstream)})
    async with gateway(made, tmp_path) as server:
        code, out = await asked(made, tmp_path, server.url)
    assert code == 0, out
    assert "Models: a-embed, b-small, c-large." in out
    assert out.rstrip().endswith("Where engines sleep.")
    (request,) = upstream.requests
    assert request.json()["model"] == "b-small"


async def test_another_model_may_be_named(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.queue(chat_answer("Where engines sleep."))
    values = {"image": IMAGE, "config": provider(upstream), "tests": {"model": "c-large"}}
    made = helm_render.manifests(values)
    async with gateway(made, tmp_path) as server:
        code, out = await asked(made, tmp_path, server.url)
    assert code == 0, out
    assert upstream.requests[0].json()["model"] == "c-large"


async def test_a_model_that_fails_fails_the_test(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.default = answer_json(400, error("no such thing"))
    made = helm_render.manifests({"image": IMAGE, "config": provider(upstream)})
    async with gateway(made, tmp_path) as server:
        code, out = await asked(made, tmp_path, server.url)
    assert code == 1
    assert "b-small does not answer (400): no such thing" in out


async def test_without_models_it_is_enough_that_it_is_ready(tmp_path: Path) -> None:
    made = helm_render.manifests({"image": IMAGE})
    async with gateway(made, tmp_path) as server:
        code, out = await asked(made, tmp_path, server.url)
        wrong, why = await asked(made, tmp_path, server.url, key="")
    assert (code, out) == (0, "Ready. Models: none yet.\nNothing was asked: no model chats.\n")
    assert wrong == 1
    assert "does not take the secret's ROUNDHOUSE_API_KEY" in why


async def test_nobody_there(tmp_path: Path, unused_tcp_port: int) -> None:
    made = helm_render.manifests({"image": IMAGE, "tests": {"timeoutSeconds": 1}})
    code, out = await asked(made, tmp_path, f"http://127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert "No gateway is ready at http://127.0.0.1" in out


def test_it_is_a_hook_that_leaves_its_log() -> None:
    made = helm_render.manifests({"image": IMAGE, "secrets": {"existingSecret": "mine"}})
    annotations = pod_of(made)["metadata"]["annotations"]
    assert annotations == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    secrets = [each.get("valueFrom") for each in pod_of(made)["spec"]["containers"][0]["env"]]
    assert [each["secretKeyRef"]["name"] for each in secrets if each] == ["mine"]


def test_it_may_reach_the_gateway_where_few_may() -> None:
    clients = [{"podSelector": {"matchLabels": {"team": "a"}}}]
    made = helm_render.manifests({"image": IMAGE, "networkPolicy": {"clients": clients}})
    rule = of_kind(made, "NetworkPolicy")[0]["spec"]["ingress"][0]
    first, second = rule["from"]
    assert first == clients[0]
    labels = pod_of(made)["metadata"]["labels"]
    assert second["podSelector"]["matchLabels"].items() <= labels.items()
    # No Service leads to it.
    for service in of_kind(made, "Service"):
        assert not service["spec"]["selector"].items() <= labels.items()
