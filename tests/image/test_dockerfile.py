"""Dockerfile.cuda as it is written: what it names is there, and both images keep the same rules."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.environments.pythons import NEWEST, OLDEST
from server.cli.command import COMMANDS
from server.config.schema import Server
from tests.image import context
from tests.image.dockerfile import Dockerfile, Stage, expand, variables

FINAL = ("gateway", "cuda")
LABELS = {"title", "description", "version", "revision", "source", "licenses"} | {
    "base.name",
    "base.digest",
}
#: Set in every step by Docker itself.
GIVEN = {"PATH"}


@pytest.fixture(params=FINAL)
def final(request: pytest.FixtureRequest, read: Dockerfile) -> Stage:
    return read.stages[request.param]


def test_hadolint_finds_nothing(repo_root: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold=style", repo_root / "Dockerfile.cuda"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    # Nothing is ignored, neither there nor by a file beside it.
    assert "hadolint ignore" not in (repo_root / "Dockerfile.cuda").read_text("utf-8")
    assert not list(repo_root.glob(".hadolint.y*ml"))


def test_the_last_stage_is_the_one_with_vllm(read: Dockerfile) -> None:
    assert list(read.stages)[-2:] == list(FINAL)


def test_images_are_pinned_by_version_and_by_a_digest_that_is_given(
    read: Dockerfile, repo_root: Path
) -> None:
    lock = (repo_root / "requirements" / "engine-cuda.txt").read_text("utf-8")
    assert f"\nvllm=={read.arguments['VLLM_VERSION']} " in lock
    python = tuple(map(int, read.arguments["PYTHON_VERSION"].split(".")))
    assert OLDEST <= python <= NEWEST
    bases = {stage.base for stage in read.stages.values()} - set(read.stages)
    plain = {expand(base, read.arguments) for base in bases}
    assert plain == {"vllm/vllm-openai:v0.32.0", "python:3.12-slim"}
    pinned = read.arguments | {"VLLM_DIGEST": "sha256:aa", "PYTHON_DIGEST": "sha256:bb"}
    assert {expand(base, pinned) for base in bases} == {
        "vllm/vllm-openai:v0.32.0@sha256:aa",
        "python:3.12-slim@sha256:bb",
    }


def test_what_is_copied_or_mounted_is_in_the_context(read: Dockerfile, repo_root: Path) -> None:
    files = context.context(repo_root)
    there = {parent.as_posix() for file in files for parent in [Path(file), *Path(file).parents]}
    used = set()
    for stage in read.stages.values():
        for one in stage.all("COPY"):
            if one.flag("from") is None:
                used |= set(one.words[:-1])
            else:
                assert one.flag("from") in read.stages
        for one in stage.all("RUN"):
            for mount in one.mounts:
                if mount["type"] == "bind" and "from" not in mount:
                    used.add(mount["source"])
    assert used <= there
    # And nothing is in it for nothing.
    assert [
        f for f in files if not {p.as_posix() for p in [Path(f), *Path(f).parents]} & used
    ] == []


def test_every_step_is_a_script_of_ours(read: Dockerfile, repo_root: Path) -> None:
    ran = set()
    for stage in read.stages.values():
        for one in stage.all("RUN"):
            for command in one.rest.split(" && "):
                script = command.split()[0]
                assert script.startswith("/build/image/"), command
                ran.add(script.removeprefix("/build/image/"))
    folder = repo_root / "scripts" / "image"
    assert ran == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert path.stat().st_mode & stat.S_IXOTH, path.name
        assert path.read_text("utf-8").startswith("#!/bin/sh\n# ")
        assert "\nset -eu\n" in path.read_text("utf-8")


def test_every_variable_is_defined(read: Dockerfile) -> None:
    for stage in read.stages.values():
        assert variables(stage.base) <= set(read.arguments)
        known = set(GIVEN)
        for one in stage.instructions:
            assert variables(one.rest) <= known, f"line {one.line}"
            if one.keyword == "ARG":
                name, given, _ = one.rest.partition("=")
                assert given or name in read.arguments, f"line {one.line}"
                known.add(name)
            elif one.keyword == "ENV":
                known |= set(one.pairs)


def test_no_argument_is_hidden_by_what_the_base_has(read: Dockerfile) -> None:
    """What an image has in its environment wins over an argument of that name."""
    there = {"PATH", "LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256", "CUDA_VERSION"}
    for stage in read.stages.values():
        assert not there & {one.rest.partition("=")[0] for one in stage.all("ARG")}, stage.name


def test_arguments_and_variables_hold_no_secrets(read: Dockerfile) -> None:
    secret = re.compile(r"KEY|TOKEN|SECRET|PASSW|INDEX_URL", re.IGNORECASE)
    names = {
        name for stage in read.stages.values() for one in stage.all("ENV") for name in one.pairs
    }
    names |= {one.rest for stage in read.stages.values() for one in stage.all("ARG")}
    assert not [name for name in names | set(read.arguments) if secret.search(name)]


def test_the_user_is_a_number_and_the_charts(final: Stage, repo_root: Path) -> None:
    uid, _, gid = final.one("USER").rest.partition(":")
    values = yaml.safe_load((repo_root / "helm/roundhouse/values.yaml").read_text("utf-8"))
    assert (int(uid), int(gid)) == (
        values["gateway"]["runAsUser"],
        values["gateway"]["runAsGroup"],
    )
    assert int(uid) > 0
    # Nothing runs after it that would want to be root, and nothing before it ends otherwise.
    after = final.instructions[final.instructions.index(final.one("USER")) :]
    assert not [one for one in after if one.keyword in ("RUN", "COPY")]


def test_all_that_is_written_is_written_to_volumes(final: Stage) -> None:
    volumes = final.one("VOLUME").words
    for one in final.all("ENV"):
        for name, value in one.pairs.items():
            if value.startswith("/"):
                assert [v for v in volumes if f"{value}/".startswith(f"{v}/")], name
    made = [word for word in final.one("RUN").rest.split() if word.startswith("/var/")]
    assert [*made, "/tmp"] == volumes


def test_how_it_runs(final: Stage) -> None:
    assert final.one("ENTRYPOINT").words == ["roundhouse"]
    (command,) = final.one("CMD").words
    assert command in COMMANDS
    health = final.one("HEALTHCHECK")
    assert health.rest == 'CMD ["roundhouse", "health"]'
    assert set(dict(health.flags)) == {"interval", "timeout", "start-period", "retries"}
    assert "health" in COMMANDS
    assert final.one("STOPSIGNAL").rest == "SIGTERM"
    server = Server()
    admin = (server.admin or "").rpartition(":")[2]
    assert final.one("EXPOSE").rest.split() == [str(server.port), admin]


def test_both_images_say_the_same(read: Dockerfile) -> None:
    one, other = (read.stages[name] for name in FINAL)
    for keyword in ("WORKDIR", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "USER", "ENTRYPOINT", "CMD"):
        assert one.one(keyword).rest == other.one(keyword).rest, keyword
        assert one.one(keyword).flags == other.one(keyword).flags, keyword
    small, large = one.one("ENV").pairs, other.one("ENV").pairs
    assert small.items() <= large.items()


def test_labels(final: Stage, repo_root: Path) -> None:
    labels = final.one("LABEL").pairs
    assert set(labels) == {f"org.opencontainers.image.{name}" for name in LABELS}
    project = (repo_root / "pyproject.toml").read_text("utf-8")
    version = next(one for one in final.all("ARG") if one.rest.startswith("VERSION="))
    assert f'\nversion = "{version.rest.removeprefix("VERSION=")}"\n' in project
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert f'\nlicense = "{labels["org.opencontainers.image.licenses"]}"\n' in project
    # They change with every commit, and so they come last.
    assert final.instructions[-1].keyword == "LABEL"


def test_the_images_locks_are_the_servers(repo_root: Path) -> None:
    locks = {}
    for name in ("server", "image", "build"):
        text = (repo_root / "requirements" / f"{name}.txt").read_text("utf-8")
        locks[name] = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
        assert text.count("--hash=sha256:") >= len(locks[name])
    assert locks["image"] | locks["build"] == locks["server"]
    assert not {"hatchling", "editables"} & set(locks["image"])
