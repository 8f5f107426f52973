"""The chart's tests need Helm as a library, which has no wheel for some Macs."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("helm_python", reason="no helm-python-sdk for this platform")

from kubernetes_validate import utils

# Two megabytes of JSON, read again for each object.
utils.schema_contents = functools.cache(utils.schema_contents)
