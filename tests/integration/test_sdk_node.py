"""The official OpenAI SDK for Node against real vLLM through the server."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.integration.conftest import KEY
from tests.integration.stack import REPO_ROOT, ServerProcess

FOLDER = REPO_ROOT / "tests" / "node"


@pytest.mark.node
def test_conformance(stack: ServerProcess) -> None:
    if shutil.which("node") is None or not (FOLDER / "node_modules" / "openai").is_dir():
        message = "no node or no SDK: install Node 20+, then python3 scripts/setup.py node"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(
        ["node", "conformance.mjs", f"{stack.url}/v1", KEY],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 checks passed" in done.stdout
