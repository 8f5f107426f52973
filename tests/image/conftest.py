from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.image import context, dockerfile
from tests.image.building import Builder, plain
from tests.image.dockerfile import Dockerfile
from tests.image.miniature import Image, missing

#: What vllm's own image has, for those tests that ask no more of it than its number.
METADATA = "Metadata-Version: 2.4\nName: vllm\nVersion: {}\n"


@pytest.fixture(scope="session")
def read(repo_root: Path) -> Dockerfile:
    return dockerfile.read(repo_root / "Dockerfile.cuda")


@pytest.fixture(scope="session")
def builder(repo_root: Path, read: Dockerfile) -> Iterator[Builder]:
    """Builds each stage once in a run, from the context alone, on this machine's Debian."""
    # In CI as well: a container, which a runner may be, has no right to make others.
    if reason := missing():
        pytest.skip(reason)
    with TemporaryDirectory(prefix="roundhouse-image-") as folder:
        work = Path(folder)
        (work / "cache").mkdir()
        copied = context.copy(repo_root, work / "context")
        yield Builder(
            read, copied, work / "stages", work / "cache", base, twins={"cuda-venv": "gateway-venv"}
        )


def base(name: str, folder: Path) -> Image:
    """A Debian with Python; under the name of vLLM's image one that claims to have vLLM."""
    image = plain(name, folder)
    if name.startswith("vllm/"):
        claim(image, name.rpartition(":v")[2])
    return image


def claim(image: Image, version: str) -> None:
    packages = image.root.changed("/usr/local/lib/python3.11/dist-packages")
    for place in (packages, image.root.changed("/usr/lib/python3/dist-packages")):
        info = place / f"vllm-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(METADATA.format(version))


@pytest.fixture(scope="session")
def gateway(builder: Builder) -> Image:
    return builder.build("gateway")


@pytest.fixture(scope="session")
def cuda(builder: Builder) -> Image:
    return builder.build("cuda")
