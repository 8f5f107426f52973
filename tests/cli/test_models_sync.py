"""`roundhouse models sync`: what it prints and writes, from scripted upstreams on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server.cli.models import shelf, syncing
from server.config.providers_table import ROWS
from server.registry.overlay import read
from tests.cli import model_lists as lists
from tests.cli.synced import CATALOG, KEY, Run, config, sync
from tests.fakes.upstream import ScriptedUpstream, answer_json


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> Path:
    """A small catalog, and the folder of the overlays."""
    monkeypatch.setattr(shelf, "builtin", lambda: CATALOG)
    monkeypatch.setattr(syncing, "builtin", lambda: CATALOG)
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(nowhere / "home"))
    return nowhere / "home" / "catalog"


async def test_what_it_asks_prints_and_writes(run: Run, small: Path) -> None:
    async with ScriptedUpstream(answer_json(200, lists.MISTRAL)) as upstream:
        config(lab=upstream.url)
        result = await sync(run)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"lab: 4 models at {upstream.url}/v1/models"
    assert lines[1:4] == [
        "  new, 2: small-2402, ocr-1",
        "  gone, 1: left",
        "  known by another provider's card, 1",
    ]
    assert [line.split() for line in lines[4:8]] == [
        ["differs,", "2:"],
        ["MODEL", "FACT", "CHECKED", "LISTED", "COUNTS"],
        ["middle-2508", "specs.context_window", "128,000", "131,072", "checked"],
        ["middle-2508", "abilities.vision", "no", "yes", "checked"],
    ]
    assert lines[8:] == [f"  wrote {small / 'lab.json'}"]
    (request,) = upstream.requests
    assert (request.method, request.path) == ("GET", "/v1/models")
    assert request.header("authorization") == f"Bearer {KEY}"
    overlay = read(small / "lab.json")
    assert overlay.source.url == f"{upstream.url}/v1/models"
    assert [card["model_id"] for card in overlay.models] == [
        "middle-2508",
        "small-2402",
        "embed-2312",
        "ocr-1",
    ]
    assert [path.name for path in small.iterdir()] == ["lab.json"]
    assert stat.S_IMODE(small.parent.stat().st_mode) == 0o700


async def test_what_it_wrote_is_what_the_other_commands_read(run: Run) -> None:
    async with ScriptedUpstream(answer_json(200, lists.MISTRAL)) as upstream:
        config(lab=upstream.url)
        await sync(run)
    listed = run("models", "list").stdout
    assert "small-2402*" in listed
    assert "128k" in run("models", "search", "middle", "2508").stdout
    card = json.loads(run("models", "show", "middle-latest", "--json").stdout)
    assert card["specs"]["context_window"] == 128000
    assert card["default_temperature"] == 0.3
    assert card["overlay"] == ["default_temperature"]
    assert [one["fact"] for one in card["differences"]] == [
        "specs.context_window",
        "abilities.vision",
    ]


async def test_a_dry_run_writes_nothing(run: Run, small: Path) -> None:
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        result = await sync(run, "--dry-run")
        told = json.loads((await sync(run, "--dry-run", "--json")).stdout)
    assert f"would write {small / 'lab.json'}" in result.stdout
    assert not small.exists()
    assert told["providers"]["lab"]["written"] is None
    assert told["providers"]["lab"]["new"] == ["gpt-x", "text-embedding-x", "whisper-x"]
    assert told["errors"] == {}


async def test_nothing_new(run: Run) -> None:
    catalog_list = {"data": [{"id": "middle-2508"}, {"id": "left"}]}
    async with ScriptedUpstream(answer_json(200, catalog_list)) as upstream:
        config(lab=upstream.url)
        assert "nothing new, and nothing differs" in (await sync(run)).stdout


async def test_what_went_since_the_last_time_is_gone(run: Run) -> None:
    async with ScriptedUpstream() as upstream:
        config(lab=upstream.url)
        upstream.queue(answer_json(200, lists.OPENAI), answer_json(200, {"data": []}))
        await sync(run)
        told = json.loads((await sync(run, "--json")).stdout)
    assert told["providers"]["lab"]["gone"] == [
        "middle-2508",
        "left",
        "gpt-x",
        "text-embedding-x",
        "whisper-x",
    ]


async def test_a_retired_model_that_is_listed_differs(run: Run) -> None:
    async with ScriptedUpstream(answer_json(200, [{"id": "retired-1"}])) as upstream:
        config(lab=upstream.url)
        told = json.loads((await sync(run, "--json")).stdout)
    (one,) = told["providers"]["lab"]["differences"]
    assert (one["fact"], one["checked"], one["listed"]) == ("status", "retired", "current")


# --- accepting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        (["middle-2508"], ["specs.context_window", "abilities.vision"]),
        (["MIDDLE-2508:abilities.vision"], ["abilities.vision"]),
        (["specs.context_window"], ["specs.context_window"]),
        (["abilities", "specs"], ["specs.context_window", "abilities.vision"]),
    ],
)
async def test_an_accepted_difference_wins_from_then_on(
    words: list[str], accepted: list[str], run: Run, small: Path
) -> None:
    async with ScriptedUpstream(answer_json(200, lists.MISTRAL)) as upstream:
        config(lab=upstream.url)
        options = [option for word in words for option in ("--accept", word)]
        assert (await sync(run, *options)).exit_code == 0
        assert [one.fact for one in read(small / "lab.json").accepted] == accepted
        again = await sync(run)  # without saying it again
    assert again.stdout.count("listed, accepted") == len(accepted)
    assert [one.fact for one in read(small / "lab.json").accepted] == accepted
    card = json.loads(run("models", "show", "middle-2508", "--json").stdout)
    assert (card["specs"]["context_window"] == 131072) is ("specs.context_window" in accepted)
    assert card["abilities"]["vision"] is ("abilities.vision" in accepted)


async def test_what_was_accepted_lapses_when_the_list_changes(run: Run, small: Path) -> None:
    changed = {"data": [lists.mistral("middle-2508", "middle-2508", max_context_length=5)]}
    async with ScriptedUpstream() as upstream:
        config(lab=upstream.url)
        upstream.queue(answer_json(200, lists.MISTRAL), answer_json(200, changed))
        await sync(run, "--accept", "specs.context_window")
        await sync(run)
    assert read(small / "lab.json").accepted == []
    assert "128,000" in run("models", "show", "middle-2508").stdout


async def test_to_accept_what_does_not_differ_is_an_error(run: Run, small: Path) -> None:
    async with ScriptedUpstream(answer_json(200, lists.MISTRAL)) as upstream:
        config(lab=upstream.url)
        result = await sync(run, "--accept", "cost.input", "--accept", "abilities")
    assert result.exit_code == 1
    assert result.stderr == "Error: --accept cost.input names no difference that was found.\n"
    assert len(read(small / "lab.json").accepted) == 1


# --- the config -------------------------------------------------------------------------------


async def test_only_those_that_are_named(run: Run, nowhere: Path) -> None:
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(a=upstream.url, b=upstream.url)
        (nowhere / "roundhouse.yaml").rename(nowhere / "my.yaml")
        told = json.loads((await sync(run, "b", "--config", "my.yaml", "--json")).stdout)
    assert list(told["providers"]) == ["b"]


def test_a_provider_that_is_none(run: Run) -> None:
    config(lab="http://127.0.0.1:9")
    result = run("models", "sync", "lap")
    assert result.exit_code == 2
    assert "'lap' is not under `providers` in roundhouse.yaml. It has lab." in result.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_timeout_that_is_none(seconds: str, run: Run) -> None:
    config(lab="http://127.0.0.1:9")
    result = run("models", "sync", "--timeout", seconds)
    assert result.exit_code == 2
    assert "Invalid value for '--timeout'" in result.stderr


async def test_a_key_alone_is_a_provider(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        here = replace(ROWS["mistral"], base_url=f"{upstream.url}/v1")
        monkeypatch.setitem(ROWS, "mistral", here)
        result = await sync(run)
    assert result.stdout.startswith("mistral: 3 models")


def test_without_a_config_or_providers(run: Run) -> None:
    result = run("models", "sync")
    assert result.exit_code == 1
    assert "There is no config here, so no provider." in result.stderr
    Path("roundhouse.yaml").write_text("version: 1\nengines: {a: {weights: w}}\n")
    result = run("models", "sync")
    assert result.exit_code == 1
    assert "has no providers. Add some" in result.stderr
    config(openai={"base_url": "nowhere"})
    assert run("models", "sync").exit_code == 2


async def test_in_a_process_of_its_own(repo_root: Path, nowhere: Path, small: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(repo_root)}
    code = "from server.cli import main; main()"
    async with ScriptedUpstream(answer_json(200, lists.OPENAI)) as upstream:
        config(lab=upstream.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, "models", "sync"),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await process.communicate()
    assert (process.returncode, complained) == (0, b"")
    assert said.startswith(b"lab: 3 models at ")
    assert len(read(small / "lab.json").models) == 3
