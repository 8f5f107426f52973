"""A config that comes as a ConfigMap: Kubernetes changes no file, but swaps a folder's symlink."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config.load import load
from server.serving import Roundhouse
from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.rollout.rendered import Rendered

FILE = "roundhouse.yaml"


class ConfigMap:
    """A mounted one: `FILE -> ..data/FILE`, `..data -> ..TIME`, a new folder for each change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._versions = folder, itertools.count()
        self.path = folder / FILE
        folder.mkdir()
        self.path.symlink_to(Path("..data") / FILE)

    def write(self, text: str) -> None:
        """What the kubelet does, in its order."""
        old = self.folder / "..data"
        gone = old.resolve() if old.is_symlink() else None
        new = self.folder / f"..2026_11_21_{next(self._versions)}"
        new.mkdir()
        (new / FILE).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(old)
        if gone is not None:
            (gone / FILE).unlink()
            gone.rmdir()


async def until(look: Callable[[], Any]) -> None:
    """The watcher looks once a second, and sends no events."""
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.02)


async def test_a_swapped_configmap_is_read_again(
    upstream: ScriptedUpstream, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    upstream.default = chat_answer()
    rendered = Rendered(f"{upstream.url}/v1")
    mounted = ConfigMap(tmp_path / "etc")
    config = rendered.config
    del config["engines"]
    config["server"] |= {
        "host": "127.0.0.1",
        "port": 0,
        "admin": "127.0.0.1:0",
        "home": str(tmp_path / "home"),
    }
    mounted.write(yaml.safe_dump(config))
    async with Roundhouse(load(mounted.path, environ=rendered.keys)) as server:

        def reloads(result: str) -> float:
            labels = {"result": result}
            read = server.metrics.registry.get_sample_value
            return read("roundhouse_config_reloads_total", labels) or 0

        config["models"]["second"] = {"alias": "m"}
        mounted.write(yaml.safe_dump(config))
        await until(lambda: "second" in server.services.state.models)

        # One with a fault changes nothing, and is told, whichever kind of fault.
        wrong = {**config, "models": {**config["models"], "m": {"fallback": ["x"]}}}
        for text, said in (("models: [", "YAML"), (yaml.safe_dump(wrong), "fallbacks")):
            before, rejected = server.services.state, reloads("rejected")
            mounted.write(text)
            await until(functools.partial(lambda old: reloads("rejected") > old, rejected))
            assert server.services.state is before
            lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line]
            errors = [line["error"] for line in lines if line["level"] == "error"]
            assert any(said in error and FILE in error for error in errors), lines
        auth = {"authorization": f"Bearer {rendered.keys['ROUNDHOUSE_API_KEY']}"}
        ask = {"model": "second", "messages": [{"role": "user", "content": "hi"}]}
        async with httpx.AsyncClient(base_url=server.url, headers=auth) as http:
            assert (await http.post("/v1/chat/completions", json=ask)).status_code == 200

        # The next good one is taken.
        config["models"]["third"] = {"alias": "m"}
        mounted.write(yaml.safe_dump(config))
        await until(lambda: "third" in server.services.state.models)
        assert reloads("ok") == 2


def test_the_mount_is_a_folder() -> None:
    """A file mounted by subPath is never changed."""
    pod = Rendered("http://127.0.0.1:9/v1").gateway_pod
    (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "config")
    assert "subPath" not in mount
    assert f"{mount['mountPath']}/{FILE}" in pod["containers"][0]["args"]
