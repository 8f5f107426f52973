"""A vLLM that no supervisor of ours knows of, as its owner starts it: on a TCP port. Its owner ends
it, too, with all that it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from server.embedded import path as embedded
from server.engines import guard
from tests.integration.stack import ENGINE_PYTHON, START, free_port, until

_MIB = 2**20


class Unsupervised:
    """The embedded model, called `name`, on a vLLM of its own. `tidy` has to follow."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *flags: str,
        context: int = 2048,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.log = free_port(), folder / "vllm.log"
        self.url = f"http://127.0.0.1:{self.port}"
        # vLLM puts its own sockets there, for whose paths pytest's folders are too long, and a
        # process that is killed leaves them.
        self._scratch = tempfile.mkdtemp(prefix="vllm-", dir=os.environ.get("TMPDIR"))
        self._shared: set[str] = set()
        argv = [
            *(str(ENGINE_PYTHON), "-m", "vllm.entrypoints.launchers.api_server.entry"),
            *("--model", str(embedded("guide")), "--served-model-name", name),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--max-model-len", str(context), "--kv-cache-memory-bytes", str(64 * _MIB)),
            *("--enforce-eager", "--disable-uvicorn-access-log", *flags),
        ]
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **(environment or {}),
            "TMPDIR": self._scratch,
            "VLLM_RPC_BASE_PATH": self._scratch,
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                argv, env=env, stdout=out, stderr=out, start_new_session=True
            )

    def wait_ready(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:

            def ready() -> bool:
                assert self.process.poll() is None, self.tail()
                with suppress(httpx.TransportError):
                    return http.get("/health").status_code == 200
                return False

            try:
                until(ready, within=START, what="vLLM up")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def signal(self, number: int) -> None:
        """To its whole group: its core and its worker outlive the server alone."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """All of it at once, as a machine that goes; but those whose work it is to remove shared
        memory may do it."""
        alone: float | None = None

        def dead() -> bool:
            nonlocal alone
            left = guard.members(self.process.pid)
            # Once they are dead nobody can tell what was theirs.
            self._shared |= guard.shared_memory(left)
            alone = guard.kill_but_trackers(left, alone)
            self.process.poll()
            return not left

        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        until(dead, within=30, what="its processes gone")

    def tidy(self) -> None:
        """Kill what is left of it, and remove its files and its shared memory."""
        self.kill()
        guard.remove(self._shared)
        shutil.rmtree(self._scratch, ignore_errors=True)
