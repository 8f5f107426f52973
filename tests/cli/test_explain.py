"""`roundhouse explain`: what is asked of a server, what is shown, and how it ends without one."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from server.api.openapi import build_admin
from server.cli.explain import headline, row
from tests.cli.conftest import FakeServer

Run = Callable[..., Result]
PATHS = build_admin("1")["paths"]


def example(path: str, method: str) -> Any:
    content = PATHS[path][method]["responses"]["200"]["content"]["application/json"]
    return copy.deepcopy(content["examples"]["example"]["value"])


@pytest.fixture
def plan() -> dict[str, Any]:
    """The plan that the admin API's page shows."""
    found: dict[str, Any] = example("/plans/{model}", "post")
    return found


CONFIG = """
version: 1
server: {keys: [{name: narrow, key: sk-0123456789abcdef, models: [one]}]}
providers: {lab: {dialect: openai, base_url: "http://127.0.0.1:9/v1"}}
engines:
  own: {weights: some/weights}
  theirs: {runtime: external, urls: ["http://127.0.0.1:9"]}
models:
  one:
    targets: [{engine: own}, {provider: lab, model: a}]
    abilities: {tools: false}
    fallbacks: [two]
  two: {targets: [{engine: theirs}]}
  alias: {alias: one}
"""


@pytest.fixture
def config(nowhere: Path) -> str:
    (nowhere / "some.yaml").write_text(CONFIG)
    return "some.yaml"


# --- a server


def test_a_plan(run: Run, fake: FakeServer, plan: dict[str, Any]) -> None:
    fake.json("POST", "/plans/fast", plan)
    result = run("explain", "fast", "--admin-url", fake.url, "--admin-key", "adm")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "fast is qwen3-8b. Policy: ordered. While it loads: fallback.",
        "Request: chat, about 11 + 256 tokens. Key: team-a.",
        "At most 3 attempts; 0% of the retry budget is used up.",
        "",
    ]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[4:]]
    assert cells == [
        ["ACTION", "TARGET", "MODEL", "NOW", "REASON"],
        ["1", "send", "lab/qwen3-8b-instruct", "qwen3-8b", "0 of 8 places, 0.41 s, $0.000053",
         "place 2 of the order"],
        ["2", "wait", "engine/qwen", "qwen3-8b", "ready in about 12 s",
         "place 1 of the order; not ready yet, waits when nothing else can answer"],
    ]  # fmt: skip
    (seen,) = fake.seen
    assert (seen.body, seen.headers["authorization"]) == (None, "Bearer adm")


def test_what_is_asked(run: Run, fake: FakeServer, plan: dict[str, Any], nowhere: Path) -> None:
    fake.json("POST", "/plans/org/a%20b?surface=chat&key=team%26a", plan)
    (nowhere / "body.json").write_text('{"messages": []}')
    asked = ("explain", "org/a b", "--surface", "chat", "--key", "team&a", "--admin-url", fake.url)
    result = run(*asked, "--request", "body.json", "--json")
    assert json.loads(result.stdout) == plan
    run(*asked, "--request", "-", input='{"prompt": "x"}')
    assert [seen.body for seen in fake.seen] == [{"messages": []}, {"prompt": "x"}]
    assert fake.seen[0].headers["content-type"] == "application/json"


def test_all_models(run: Run, fake: FakeServer) -> None:
    told = example("/plans", "get")
    fake.json("GET", "/plans", told)
    result = run("explain", "--admin-url", fake.url)
    assert result.stdout.splitlines() == [
        "MODEL           POLICY   TARGETS",
        "qwen3-8b, fast  ordered  engine/qwen not ready",
    ]
    assert json.loads(run("explain", "--admin-url", fake.url, "--json").stdout) == told["plans"]
    fake.json("GET", "/plans", {"plans": [{**told["plans"][0], "offered": True}] * 2})
    result = run("explain", "--admin-url", fake.url)
    assert result.stdout == "The config has no models.\nand 2 of the catalog\n"


def test_targets_of_all_groups_in_one_line(run: Run, fake: FakeServer) -> None:
    told = example("/plans", "get")
    first = told["plans"][0]["targets"][0]
    told["plans"][0]["targets"] += [
        {**first, "replica": "http://a:1", "state": "ready"},
        {**first, "target": "lab/x", "group": "fallback", "state": "half_open"},
    ]
    fake.json("GET", "/plans", told)
    assert run("explain", "--admin-url", fake.url).stdout.endswith(
        "engine/qwen not ready, engine/qwen at http://a:1 ready; fallback: lab/x half open\n"
    )


def test_what_the_server_refuses(run: Run, fake: FakeServer) -> None:
    fake.error("POST", "/plans/m", 404, "The model `m` does not exist.")
    result = run("explain", "m", "--admin-url", fake.url)
    assert (result.exit_code, result.stderr) == (1, "Error: The model `m` does not exist.\n")
    fake.json("POST", "/plans/m", {"object": "list"})
    assert "is not the admin API" in run("explain", "m", "--admin-url", fake.url).stderr
    fake.json("GET", "/plans", {"plans": None})
    assert "is not the admin API" in run("explain", "--admin-url", fake.url).stderr


def test_no_server(run: Run) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    result = run("explain", "m", "--admin-url", url)
    assert result.exit_code == 1
    assert f"No server answers at {url}. Start one with `roundhouse serve`" in result.stderr
    assert result.stderr.endswith("Or explain a config without a server: --config FILE.\n")


def test_a_request_that_is_not_there(run: Run) -> None:
    result = run("explain", "m", "--request", "nowhere.json")
    assert result.exit_code == 2
    assert "nowhere.json" in result.stderr


# --- the words


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ["1", "send", "lab/x", "m", "2 in flight", "why"]),
        ({"replica": "http://r"}, ["1", "send", "lab/x at http://r", "m", "2 in flight", "why"]),
        ({"group": "bridge"}, ["1", "send", "lab/x", "m (bridge)", "2 in flight", "why"]),
        ({"group": "context_fallback"}, ["1", "send", "lab/x", "m (larger window)", "2 in flight",
                                         "why"]),
        ({"dropped": ["a", "b"]}, ["1", "send", "lab/x", "m", "2 in flight", "why; without a, b"]),
        ({"dropped": ["a"], "action": "skip"}, ["1", "skip", "lab/x", "m", "2 in flight", "why"]),
        ({"ready": False}, ["1", "send", "lab/x", "m", "not ready", "why"]),
        ({"price_usd": 0.0}, ["1", "send", "lab/x", "m", "2 in flight, free", "why"]),
        ({"places": {"taken": 4, "limit": 4, "waiting": 3, "bound": 9}},
         ["1", "send", "lab/x", "m", "4 of 4 places, 3 waiting", "why"]),
    ],
)  # fmt: skip
def test_rows(changed: dict[str, Any], told: list[str], plan: dict[str, Any]) -> None:
    entry = {
        **plan["targets"][0],
        "target": "lab/x",
        "model": "m",
        "reason": "why",
        "in_flight": 2,
        "places": None,
        "latency_s": None,
        "price_usd": None,
        **changed,
    }
    assert list(row(entry)) == told


def test_headlines(plan: dict[str, Any]) -> None:
    plan.update(name="qwen3-8b", policy="affinity")
    plan["request"].update(stream=True, needs=["tools", "n"], affinity_key=False)
    plan["server"].update(panic=True, retry_budget=0.25)
    what = "chat, streamed, about 11 + 256 tokens, needs tools, n, nothing to hash"
    assert headline(plan) == [
        "Policy: affinity. While it loads: fallback.",
        f"Request: {what}. Key: team-a.",
        "At most 3 attempts; 25% of the retry budget is used up.",
        "So many targets are out that breakers are ignored.",
    ]


def test_when_nothing_can_be_tried(run: Run, fake: FakeServer, plan: dict[str, Any]) -> None:
    answer = {"status": 503, "code": "no_target_left", "message": "None\x1b.", "param": None}
    plan["answer"] = {**answer, "retry_after_s": 4.2}
    fake.json("POST", "/plans/m", plan)
    result = run("explain", "m", "--admin-url", fake.url)
    assert result.exit_code == 0
    assert result.stdout.endswith(
        "\nThe client is told: 503 no_target_left. None. It may come back in 4 s.\n"
    )
    plan["answer"]["retry_after_s"] = None
    assert run("explain", "m", "--admin-url", fake.url).stdout.endswith(" None.\n")


# --- a config


def test_from_a_config_alone(run: Run, config: str) -> None:
    result = run("explain", "alias", "--config", config)
    assert result.exit_code == 0
    assert result.stderr == "From the config alone: no engine is loaded, all targets are well.\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "alias is one. Policy: ordered. While it loads: fallback."
    assert [line.split()[:3] for line in lines[5:]] == [
        ["1", "send", "lab/a"],
        ["2", "wait", "engine/own"],
        ["3", "wait", "engine/theirs"],
    ]


def test_a_request_against_a_config(run: Run, config: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "tools": tools})
    result = run("explain", "one", "--config", config, "--request", "-", "--json", input=body)
    told = json.loads(result.stdout)
    assert [(one["target"], one["action"]) for one in told["targets"]] == [
        ("engine/theirs", "wait"),
        ("engine/own", "skip"),
        ("lab/a", "skip"),
    ]
    assert told["targets"][1]["lacks"] == "lacks tools"
    result = run("explain", "one", "--config", config, "--surface", "embeddings", "--json")
    assert json.loads(result.stdout)["request"]["surface"] == "embeddings"


def test_all_models_of_a_config(run: Run, config: str) -> None:
    result = run("explain", "--config", config, "--json")
    assert [(one["model"], one["aliases"]) for one in json.loads(result.stdout)] == [
        ("one", ["alias"]),
        ("two", []),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tow", "--config", "some.yaml"], 1, "Did you mean `two`"),
        (["two", "--config", "some.yaml", "--key", "narrow"], 1, "may not use the model `two`"),
        (["two", "--config", "some.yaml", "--key", "x"], 1, "There is no key `x`. Keys: narrow."),
        (["two", "--config", "some.yaml", "--surface", "x"], 2, "--surface"),
        (["two", "--config", "none.yaml"], 2, "none.yaml"),
    ],
)
def test_what_a_config_refuses(
    arguments: list[str], code: int, said: str, run: Run, config: str
) -> None:
    result = run("explain", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
