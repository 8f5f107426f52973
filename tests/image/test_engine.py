"""The image with a real vLLM in it, for the CPU: its first answer from a read-only root."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.image.building import Builder
from tests.image.conftest import base
from tests.image.miniature import PATH, Container, Image, Root

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ENV = {"ROUNDHOUSE_API_KEY": "sk-rh-0123456789abcdefghijklmnop"}


@pytest.fixture(scope="module")
def image(builder: Builder, repo_root: Path) -> Image:
    """Dockerfile.cuda on a base whose `python3` is that of .venv-engine."""
    engine = repo_root / ".venv-engine"
    asked = [f"{engine}/bin/python", "-I", "-c", "import sys; print(sys.base_prefix)"]
    prefix = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def with_vllm(name: str, folder: Path) -> Image:
        if not name.startswith("vllm/"):
            return base(name, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Not where it is here: that may be below what containers have of their own, such as /tmp.
        shown = {"/srv/engine": engine}
        if not Path(prefix).is_relative_to("/usr"):  # where its links lead
            shown[prefix] = Path(prefix)
        return Image(Root(folder, shown), env={"PATH": f"/srv/engine/bin:{PATH}"}, user="0:0")

    work, built = builder.work.with_name("engine"), {"gateway-venv": builder.build("gateway-venv")}
    return replace(builder, work=work, base=with_vllm, _built=built).build("cuda")


@pytest.fixture(scope="module")
def serving(image: Image) -> Iterator[Container]:
    """`docker run --read-only IMAGE`, with no config at all: the embedded model."""
    with image.container(env=ENV) as container:
        container.until("guide is ready.", never="has failed")
        yield container


def test_it_answers(serving: Container) -> None:
    assert serving.healthy()
    said = serving.call("roundhouse", "chat", "guide", input="What is a fallback?")
    assert (said.returncode, said.stderr) == (0, "")
    assert len(said.stdout) > 20


def test_all_of_it_runs_without_rights_in_the_images_folders(serving: Container) -> None:
    listed = json.loads(serving.call("roundhouse", "ps", "--json").stdout)
    assert [engine["state"] for engine in listed] == ["ready"]
    script = "grep -H -e ^Uid -e ^CapEff /proc/[0-9]*/status"
    lines = serving.call("sh", "-c", script).stdout.split("\n")
    users = {line.split("\t")[2] for line in lines if "Uid:" in line}
    rights = {line.split("\t")[1] for line in lines if "CapEff:" in line}
    assert (users, rights) == ({"10001"}, {"0" * 16})


def test_of_an_engine_whose_guard_is_killed_no_zombie_stays(serving: Container) -> None:
    """The guard is who engines' orphans come to; without it that is PID 1."""
    # In brackets, so that no shell finds itself.
    there = "grep -ls 'guard[.]py' /proc/[0-9]*/cmdline"
    (found,) = serving.call("sh", "-c", there).stdout.split()
    serving.call("sh", "-c", f"kill -KILL {found.split('/')[2]}")
    # The server kills what is left of the engine, and starts it again under another guard.
    zombies = "grep -ls '^State:.Z' /proc/[0-9]*/status"
    waiting = f'while [ -z "$({there})" ] || [ -n "$({zombies})" ]; do :; done'
    assert serving.call("sh", "-c", waiting).returncode == 0
    (again,) = serving.call("sh", "-c", there).stdout.split()
    assert again != found
    assert serving.healthy()


def test_it_ends_in_order(serving: Container) -> None:
    assert serving.stop() == 0
    assert [line for line in serving.said if '"event":"drained"' in line]
