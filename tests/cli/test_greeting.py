from __future__ import annotations

import json
import shlex
from typing import Any

from server.cli import greeting
from server.cli.greeting import Urls
from server.config.cards import About, Prices
from server.config.resolve import ResolvedModel, ResolvedTarget, ResolvedTimeouts
from server.engines.state import EngineState, EngineView
from tests.fakes.catalog import catalog

TIMES = ResolvedTimeouts(1, 1, 1)
A = ResolvedTarget("a", None, None, TIMES)
B = ResolvedTarget("b", None, None, TIMES)
P = ResolvedTarget(None, "openai", "gpt", TIMES)
MODELS = {
    "first": ResolvedModel("first", (A, B), ("big",)),
    "big": ResolvedModel("big", (P,)),
    "fast": ResolvedModel("first", (A, B), ("big",), alias_of="first"),
}
URLS = Urls("http://127.0.0.1:8000", "http://127.0.0.1:8001")


def view(
    name: str, state: EngineState, eta: float | None = None, error: str | None = None
) -> EngineView:
    return EngineView(name, state, eta=eta, error=error)


def test_the_greeting() -> None:
    views = [view("a", EngineState.STARTING, eta=12.4), view("b", EngineState.STOPPED)]
    text = greeting.greeting(views, MODELS, URLS, True, version="1.2", source="r.yaml")
    assert (
        text
        == """\
Roundhouse 1.2 serves r.yaml

  MODEL  SERVED BY                     STATE
  first  engine a, engine b, else big  loading, about 12 s
  big    provider openai               ready
  fast   alias of first                loading, about 12 s

  API    http://127.0.0.1:8000/v1
  Docs   http://127.0.0.1:8000/docs
  Admin  http://127.0.0.1:8001

Try it:

  curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
    -H "authorization: Bearer $ROUNDHOUSE_API_KEY" \\
    -d '{"model": "big", "messages": [{"role": "user", "content": "What can you do?"}]}'
"""
    )


def test_an_external_engine_without_a_replica() -> None:
    ill = EngineView("a", EngineState.BACKOFF, error="None of 2.", error_reason="no_replica")
    assert greeting.describe(ill) == "no replica is well"


def test_the_greeting_of_an_engine_that_loads() -> None:
    models = {"a": ResolvedModel("a", (A,))}
    loading = [view("a", EngineState.STARTING)]
    text = greeting.greeting(loading, models, Urls("http://x", docs=False), False)
    assert "Once it is ready, try:" in text
    assert "Docs" not in text
    assert "Admin" not in text
    assert "authorization" not in text


def test_the_greeting_of_a_server_without_models() -> None:
    text = greeting.greeting([], {}, URLS, False)
    assert text.startswith("Roundhouse\n")
    assert "curl" not in text


def test_the_curl_line_is_good_shell() -> None:
    line = greeting.curl("http://127.0.0.1:1", "Qwen/Qwen3-8B", True).replace("\\\n", " ")
    words = shlex.split(line)
    assert words[:2] == ["curl", "http://127.0.0.1:1/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == "Qwen/Qwen3-8B"


def test_states() -> None:
    def state(*views: EngineView) -> str:
        return greeting.state_of({v.name: v for v in views}, MODELS["first"])

    assert state() == "not running"
    assert state(view("a", EngineState.FAILED), view("b", EngineState.READY)) == "ready"
    assert (
        state(view("a", EngineState.FAILED), view("b", EngineState.STOPPED)) == "loads on request"
    )
    assert state(view("a", EngineState.BACKOFF, eta=3)) == "restarting, about 3 s"
    assert state(view("a", EngineState.DRAINING)) == "stopping"
    assert {greeting.describe(view("a", s)) for s in EngineState} == {
        "ready",
        "loading",
        "waiting",
        "asleep",
        "restarting",
        "stopping",
        "loads on request",
        "failed",
    }


def test_settled() -> None:
    views = [
        view("a", EngineState.READY),
        view("b", EngineState.FAILED, error="No memory."),
        view("c", EngineState.FAILED),
        view("d", EngineState.STOPPED),
    ]
    assert greeting.settled(views) == (
        "a is ready.\nb has failed: No memory.\nc has failed: its log says why.\n"
    )
    assert greeting.settled([]) == ""


def added(name: str, provider: str, *, price: float | None = None, **more: Any) -> ResolvedModel:
    prices = None if price is None else Prices(output=price)
    target = ResolvedTarget(None, provider, name, TIMES, prices)
    return ResolvedModel(name, (target,), offered=True, **more)


def test_what_the_catalog_adds_is_counted() -> None:
    several = {name: added(name, "openai", listed=name != "alias") for name in ("x", "y", "alias")}
    text = greeting.greeting([], {"big": MODELS["big"], **several}, URLS, False)
    assert (
        "  MODEL  SERVED BY        STATE\n"
        "  big    provider openai  ready\n"
        "\n"
        "  PROVIDER  MODELS  SUCH AS\n"
        "  openai    2       x\n"
        "\n"
        "  API    "
    ) in text
    assert '"model": "big"' in text
    assert greeting.catalog(MODELS) == []


def test_a_catalog_alone_is_a_row_for_each_provider() -> None:
    cards = catalog()
    chat, old = About(card=cards["gpt-big"]), About(card=cards["gpt-mid"])
    models = {
        "embed": added("embed", "openai", price=0.1, about=About(card=cards["embed-1"])),
        "deprecated": added("deprecated", "openai", price=0.2, about=old),
        "best": added("best", "openai", price=9, about=chat),
        "free": added("free", "openai", price=0, about=chat),
        "unknown": added("unknown", "openai", about=chat),
        "only": added("only", "mistral", price=3, about=chat),
    }
    text = greeting.greeting([], models, URLS, False)
    assert (
        "Roundhouse\n"
        "\n"
        "  PROVIDER  MODELS  SUCH AS\n"
        "  openai    5       best, free\n"
        "  mistral   1       only\n"
        "\n"
        "  API    "
    ) in text
    assert "Try it:" in text
    assert '"model": "free"' in text


def test_what_is_ready_is_tried_before_what_loads_and_both_before_what_is_billed() -> None:
    models = {"a": ResolvedModel("a", (A,)), "b": ResolvedModel("b", (B,))}
    a, b = view("a", EngineState.STARTING), view("b", EngineState.READY)
    assert greeting.first_to_try([a, b], models) == "b"
    with_far = {**models, "far": added("far", "openai")}
    assert greeting.first_to_try([a, b], with_far) == "b"
    assert greeting.first_to_try([a], with_far) == "a"
    assert greeting.first_to_try([view("a", EngineState.FAILED)], with_far) == "far"
    assert greeting.first_to_try([view("a", EngineState.FAILED)], models) == "a"
