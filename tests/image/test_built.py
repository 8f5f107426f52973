"""Both images, built by the steps of Dockerfile.cuda and run as Docker would run them with a
read-only root (tests/image/miniature.py)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.image.building import Builder
from tests.image.conftest import claim
from tests.image.miniature import PATH, Container, Image, Root

# The first of them waits for the builds: a minute, or several on a machine that is busy.
pytestmark = pytest.mark.timeout(1200)

KEY = "sk-rh-0123456789abcdefghijklmnop"
CONFIG = """\
version: 1
server:
  admin: "0.0.0.0:8001"
  admin_key: "${ROUNDHOUSE_ADMIN_KEY}"
  keys: [{name: me, key: "${ROUNDHOUSE_API_KEY}"}]
providers: {lab: {dialect: openai, base_url: "http://127.0.0.1:9/v1"}}
"""
ENV = {"ROUNDHOUSE_API_KEY": KEY, "ROUNDHOUSE_ADMIN_KEY": KEY[::-1]}
#: An engine that is two processes, as vLLM's are more than one.
ENGINE = """\
import http.server, subprocess, sys
child = subprocess.Popen(["sleep", "infinity"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *said):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
WITH_ENGINE = """\
version: 1
engines:
  two:
    runtime: command
    cmd: "python3 /etc/roundhouse/engine.py ${PORT}"
    device: cpu
    memory: 64MiB
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "roundhouse.yaml").write_text(CONFIG)
    return tmp_path / "config"


@pytest.fixture(params=["gateway", "cuda"])
def image(request: pytest.FixtureRequest, builder: Builder) -> Image:
    return builder.build(request.param)


@contextmanager
def serving(image: Image, config: Path, user: str | None = None) -> Iterator[Container]:
    with image.container(env=ENV, files={"/etc/roundhouse": config}, user=user) as container:
        container.until("Admin  http")
        yield container


def test_the_image_is_of_this_version(image: Image, repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))["project"]
    assert image.labels["org.opencontainers.image.version"] == project["version"]
    with image.container("--version") as container:
        assert container.wait() == 0
        assert container.said == [f"roundhouse {project['version']}\n"]


def test_the_environment_holds_the_lock_and_nothing_else(image: Image, repo_root: Path) -> None:
    lock = (repo_root / "requirements" / "image.txt").read_text("utf-8")
    lines = re.findall(r"^[\w.-]+==[^\\\n]+", lock, re.MULTILINE)
    pins = [Requirement(line.strip()) for line in lines]
    wanted = {(pin.name, str(pin.specifier)[2:]) for pin in pins if _here(pin)}
    (packages,) = image.root.at("/opt/roundhouse/.venv/lib").glob("python3.*/site-packages")
    found = set()
    for info in packages.glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        found.add((name.replace("_", "-").lower(), version))
    assert {name for name, _ in found} >= {"roundhouse-llm", "aiohttp"}
    assert {pair for pair in found if pair[0] != "roundhouse-llm"} == wanted
    # Compiled by the build, since whoever runs it may not.
    assert list(packages.glob("server/__pycache__/serving.*.pyc"))


def _here(pin: Requirement) -> bool:
    return pin.marker is None or pin.marker.evaluate()


def test_the_images_own_files_belong_to_root(image: Image) -> None:
    folder = image.root.at("/opt/roundhouse")
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 1000
    for path in paths:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert path.is_symlink() or not found.st_mode & 0o022, path


def test_nothing_of_the_build_stays(image: Image) -> None:
    assert not list(image.root.at("/build").glob("**/*.*"))
    assert not list(image.root.at("/root").glob("**/*.*"))
    assert not list(image.root.at("/tmp").iterdir())


def test_check_knows_what_it_would_serve(image: Image, config: Path) -> None:
    with image.container("check", env=ENV, files={"/etc/roundhouse": config}) as container:
        assert container.wait() == 0, container.said
    said = "".join(container.said)
    assert "Read        roundhouse.yaml" in said
    assert "API         0.0.0.0:8000" in said


def test_it_serves_from_a_root_that_nobody_may_write(image: Image, config: Path) -> None:
    with serving(image, config) as container:
        assert container.healthy()
        said = container.call("roundhouse", "health", "--ready")
        assert said.stdout == "The server at http://127.0.0.1:8000 is ready.\n"
        # What it may write is what the image declares, and Docker's own /dev/shm.
        places = "/ -path /proc -prune -o -type d -writable -print"
        written = container.call("find", *places.split()).stdout.split()
        tops = {place for place in written if not any(f"{p}/" in place for p in image.volumes)}
        assert tops == {*image.volumes, "/dev/shm"}
        (ids,) = re.findall(r"^Uid:\s+(.*)", _status(container), re.MULTILINE)
        assert set(ids.split()) == {"10001"}
        assert set(re.findall(r"^Cap\w+:\s+(\w+)", _status(container), re.MULTILINE)) == {"0" * 16}
        assert "The server has no engines." in container.call("roundhouse", "ps").stdout
        assert container.stop() == 0
    assert [line for line in container.said if '"event":"drained"' in line]


def _status(container: Container) -> str:
    return container.call("cat", "/proc/1/status").stdout


def test_without_keys_it_does_not_listen_to_others(image: Image) -> None:
    with image.container(env={"OPENAI_API_KEY": "sk-of-a-provider"}) as container:
        assert container.wait() == 2
    assert "ROUNDHOUSE_API_KEY" in "".join(container.said)


def test_a_user_that_the_image_does_not_know(gateway: Image, config: Path) -> None:
    with serving(gateway, config, user="123456:0") as container:
        assert container.healthy()
        assert container.stop() == 0


def test_a_container_without_a_server_is_not_healthy(gateway: Image) -> None:
    with gateway.container("echo up; exec sleep infinity", entrypoint=["sh", "-c"]) as container:
        container.until("up")
        said = container.call(*gateway.health)
        assert said.returncode == 1
        assert "No server answers" in said.stderr


def test_the_first_process_reaps_whoever_is_orphaned(gateway: Image, config: Path) -> None:
    with serving(gateway, config) as container:
        orphan = "sh -c 'echo $$' &"
        pids = [container.call("sh", "-c", orphan).stdout.strip() for _ in range(5)]
        gone = " || ".join(f"[ -e /proc/{pid} ]" for pid in pids)
        assert container.call("sh", "-c", f"while {gone}; do :; done").returncode == 0
        assert container.healthy()
        assert container.stop() == 0


def test_of_an_engine_whose_guard_is_killed_no_zombie_stays(gateway: Image, config: Path) -> None:
    """The guard is who an engine's orphans come to; without it that is PID 1."""
    (config / "engine.py").write_text(ENGINE)
    (config / "roundhouse.yaml").write_text(WITH_ENGINE)
    with gateway.container(env=ENV, files={"/etc/roundhouse": config}) as container:
        container.until("two is ready.", never="has failed")
        # In brackets, so that no shell finds itself.
        there = "grep -ls 'guard[.]py' /proc/[0-9]*/cmdline"
        (found,) = container.call("sh", "-c", there).stdout.split()
        container.call("sh", "-c", f"kill -KILL {found.split('/')[2]}")
        # The server kills what is left of the engine, and starts it again under another guard.
        zombies = "grep -ls '^State:.Z' /proc/[0-9]*/status"
        waiting = f'while [ -z "$({there})" ] || [ -n "$({zombies})" ]; do :; done'
        assert container.call("sh", "-c", waiting).returncode == 0
        assert container.call("sh", "-c", there).stdout.split() != [found]
        assert container.healthy()
        assert container.stop() == 0


def test_a_server_that_is_killed_ends_its_container(gateway: Image, config: Path) -> None:
    with serving(gateway, config) as container:
        (worker,) = container.call("cat", "/proc/1/task/1/children").stdout.split()
        container.call("sh", "-c", f"kill -KILL {worker}")
        assert container.wait() == 128 + 9


def test_engines_run_with_the_python_that_has_vllm(cuda: Image, builder: Builder) -> None:
    wanted = builder.dockerfile.arguments["VLLM_VERSION"]
    with cuda.container("version") as container:
        assert container.wait() == 0
    assert f"vllm        {wanted} (vllm) in /opt/roundhouse/.venv-engine\n" in container.said
    with cuda.container("check", "--engines", env=ENV) as container:
        assert container.wait() == 0, container.said
    assert "Runtime vllm: /opt/roundhouse/.venv-engine/bin/python\n" in container.said


def test_another_vllm_than_the_locked_one_fails_the_build(builder: Builder, tmp_path: Path) -> None:
    image = Image(Root(tmp_path / "root"), env={"PATH": PATH})
    claim(image, "0.31.0")
    script = {"/build/image": builder.context / "scripts" / "image"}
    line = "/build/image/engine.sh /opt/roundhouse 0.32.0"
    with pytest.raises(AssertionError, match=r"has vLLM 0\.31\.0, and not 0\.32\.0"):
        image.root.run(line, image.env, binds=script)
    image.root.run(line.replace("0.32.0", "0.31.0"), image.env, binds=script)


def test_a_python_that_is_roots_alone_fails_the_build(builder: Builder, tmp_path: Path) -> None:
    image = Image(Root(tmp_path / "root"), env={"PATH": PATH})
    claim(image, "0.32.0")
    script = {"/build/image": builder.context / "scripts" / "image"}
    hidden = image.root.changed("/usr/local/bin/python3")
    hidden.parent.mkdir(parents=True, exist_ok=True)
    hidden.write_text('#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    hidden.chmod(0o700)
    line = "/build/image/engine.sh /opt/roundhouse 0.32.0"
    with pytest.raises(AssertionError, match=r"/usr/local/bin/python3: .*[Pp]ermission denied"):
        image.root.run(line, image.env, binds=script)
    packages = image.root.changed("/usr/local/lib/python3.11/dist-packages/vllm-0.32.0.dist-info")
    for place in (
        packages,
        image.root.changed("/usr/lib/python3/dist-packages/vllm-0.32.0.dist-info"),
    ):
        place.chmod(0o700)
    hidden.unlink()
    with pytest.raises(AssertionError, match="10001 does not see the vLLM of /usr/bin/python3"):
        image.root.run("rm -rf /opt/roundhouse && " + line, image.env, binds=script)


def test_a_wheel_that_is_not_what_the_lock_says_fails_the_build(
    builder: Builder, tmp_path: Path
) -> None:
    image = Image(Root(tmp_path / "root"), env={"PATH": PATH})
    lock = tmp_path / "lock.txt"
    text = (builder.context / "requirements" / "image.txt").read_text("utf-8")
    entry = re.search(r"^certifi==.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)
    assert entry is not None
    lock.write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", entry.group()))
    binds = {"/build/image": builder.context / "scripts" / "image", "/build/lock.txt": lock}
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        image.root.run("/build/image/dependencies.sh /venv /build/lock.txt", image.env, binds=binds)
