"""The chart's tests need Helm as a library, which has no wheel for Macs with Intel's processors."""

from __future__ import annotations

import functools
import importlib.util

from kubernetes_validate import utils

if importlib.util.find_spec("helm_python") is None:
    collect_ignore_glob = ["test_*.py"]

# Two megabytes of JSON, read again for each object.
utils.schema_contents = functools.cache(utils.schema_contents)
