"""LiteLLM's proxy: one worker, a master key, no database, and nothing that asks the internet."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.base import BENCH, MODEL, Running, get_it, peer_version
from benchmarks.contenders.spawn import Command, free_ports, started


class LiteLLM:
    """https://pypi.org/project/litellm/"""

    name = "litellm"

    def installed(self) -> str | None:
        return peer_version(self.name, self.name)

    def missing(self) -> str:
        return get_it(self.name)

    @contextlib.contextmanager
    def run(self, upstream: str, *, core: int | None, folder: Path) -> Iterator[Running]:
        (port,) = free_ports(1)
        # It refuses to start with a weak key.
        key = f"sk-{secrets.token_hex(24)}"
        target = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": target}],
            "general_settings": {"master_key": key},
        }
        path = folder / "litellm.yaml"
        path.write_text(json.dumps(config, indent=2))
        argv = (
            *(str(BENCH / self.name / "bin" / "litellm"), "--config", str(path)),
            *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
            *("--telemetry", "False"),
        )
        command = Command(
            name=self.name,
            version=self.installed() or "?",
            argv=argv,
            port=port,
            headers={"authorization": f"Bearer {key}"},
            # Prices from the package instead of from GitHub.
            env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"},
        )
        with started(command, core=core, folder=folder) as running:
            yield running
