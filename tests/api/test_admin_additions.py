"""What a `POST /engines` comes to. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from server.api import admin_additions as asking
from server.api.admin_additions import Asked
from server.config.additions import Additions
from server.errors import NotAllowed


@pytest.mark.parametrize(
    ("weights", "model", "engine"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", "qwen3-8b"),
        ("embedded:guide", "guide", "guide"),
        ("/data/My Models/Llama 3.1 (8B)", "Llama-3.1--8B-", "llama-3.1--8b-"),
        ("/data/_.x", "x", "x"),
        ("/data/über", "ber", "ber"),
        ("/data/モデル", "model", "model"),
        ("/" + "x" * 300, "x" * 200, "x" * 60),
    ],
)
def test_names(weights: str, model: str, engine: str) -> None:
    assert asking.model_name(weights) == model
    assert asking.engine_name(model, ()) == engine
    assert asking.engine_name(model, {engine, f"{engine}-2"}) == f"{engine}-3"


@pytest.mark.parametrize(
    ("model", "weights", "folder"),
    [
        ("Qwen/Qwen3-8B", True, False),
        ("embedded:guide", True, False),
        ("/data/x", True, True),
        ("~/x", True, True),
        ("./x", True, True),
        ("qwen", False, False),
        ("a/b/c", False, False),
        ("a/", False, False),
        ("-a/b", False, False),
        ("a/b c", False, False),
    ],
)
def test_what_names_weights(model: str, weights: bool, folder: bool) -> None:
    asked = Asked(model)
    assert (asked.weights, asked.folder) == (weights, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pinned": True, "kv_cache": "2GiB", "env": {}, "trust_remote_code": False},
        {"args": {"max-num-seqs": 8, "enforce-eager": True, "seed": None, "x": 0.5}},
        {"args": {"tool-call-parser": "hermes", "names": ["a", "b-c"], "kv-cache-dtype": "fp8"}},
        {"args": 7},
    ],
)
def test_what_anybody_may_set(settings: dict[str, Any]) -> None:
    asking.guard(Asked("a/b", settings=settings), admin_key=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cmd": "sh"}, "`cmd`"),
        ({"env": {"LD_PRELOAD": "x"}}, "`env`"),
        ({"trust_remote_code": True}, "`trust_remote_code`"),
        ({"args": {"worker-cls": "evil.Worker"}}, "`args.worker-cls`"),
        ({"args": {"a": ["b", "/etc/passwd"], "c": 1}}, "`args.a`"),
        ({"args": {"hf-overrides": '{"a": 1}'}}, "`args.hf-overrides`"),
        ({"args": {"a": {"b": "c"}}}, "`args.a`"),
        ({"env": {"A": "b"}, "args": {"a": "."}}, "`env`, `args.a`"),
    ],
)
def test_what_takes_an_admin_key(settings: dict[str, Any], named: str) -> None:
    asked = Asked("a/b", settings=settings)
    with pytest.raises(NotAllowed) as refused:
        asking.guard(asked, admin_key=False)
    assert refused.value.message.startswith(f"{named} can run programs")
    asking.guard(asked, admin_key=True)


def test_to_and_fro() -> None:
    one = asking.with_engine(Additions(), "a", "org/A", {"weights": "org/A"}, default=True)
    two = asking.with_engine(one, "b", "org/B", {"weights": "org/B"}, default=False)
    assert two.default == "org/A"
    assert asking.models_of(two, "b") == ["org/B"]
    assert asking.without_engine(two, "b") == (one, ["org/B"])
    assert asking.without_engine(one, "a") == (Additions(), ["org/A"])
