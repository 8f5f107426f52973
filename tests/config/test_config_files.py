"""Every file under configs/ is a config that the server takes, without a word of advice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from server.config.load import load
from server.config.resolve import resolve_models
from server.routing.policies import Policy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
NAMES = [str(file.relative_to(CONFIGS)) for file in FILES]


def variables(text: str) -> set[str]:
    """Those that its head names."""
    named = re.search(r"# (?:Variables|Here): ([^.]*)\.", text)
    return set() if named is None else set(re.findall(r"[A-Z_]{5,}", named[1]))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("ca") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    return str(file)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_it_is_good_with_the_variables_that_it_names(file: Path, authority: str) -> None:
    text = file.read_text("utf-8")
    environ = {name: f"sk-rh-{name.lower()}" for name in variables(text)}
    environ |= {"COMPANY_CA": authority, "COMPANY_PROXY": "http://proxy.internal:3128"}
    loaded = load(file, environ=environ)
    assert loaded.advice == ()
    assert resolve_models(loaded.config, loaded.catalog)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_editors_find_the_schema(file: Path) -> None:
    first = file.read_text("utf-8").partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    assert (file.parent / named[1]).resolve() == CONFIGS / "schema.json"


@pytest.mark.parametrize("policy", Policy)
def test_there_is_one_for_each_policy(policy: Policy) -> None:
    file = CONFIGS / "routing" / f"{policy}.yaml"
    models = resolve_models(
        load(file, environ=dict.fromkeys(variables(file.read_text()), "k")).config
    )
    assert policy in {model.balance for model in models.values()}
    assert file.read_text("utf-8").splitlines()[1].startswith(f"# {policy}")


def test_providers_for_common_setups() -> None:
    assert {file.stem for file in (CONFIGS / "providers").glob("*.yaml")} == {
        "gateway",
        "two_keys",
        "behind_a_proxy",
        "azure",
    }
