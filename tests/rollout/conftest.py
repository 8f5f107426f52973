"""Updates in miniature: processes as pods, a name server as the cluster's DNS, and the chart's own
numbers. They need Helm as a library, and all of 127.0.0.0/8, which is Linux's."""

from __future__ import annotations

import importlib.util
import sys

if importlib.util.find_spec("helm_python") is None or sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]
