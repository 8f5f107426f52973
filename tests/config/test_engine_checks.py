"""Entries under `engines`: those that are served here, and those that somebody else runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.config.engine import EXTERNAL_KEYS, LOCAL_KEYS, Engine
from server.config.load import Loaded
from server.config.resolve import external_engines, local_engines, resolve_models

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]

URL = 'urls: ["http://10.0.0.3:8000"]'


def external(more: str) -> str:
    return f"version: 1\nengines: {{e: {{runtime: external, {more}}}}}\n"


def local(more: str) -> str:
    return f"version: 1\nengines: {{e: {{{more}}}}}\n"


# --- what is read


@pytest.mark.parametrize(
    "url",
    ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"],
)
def test_a_replicas_url_ends_before_v1(url: str, good: Good) -> None:
    assert good(external(f'urls: ["{url}"]')).config.engines["e"].urls == ("http://h:8000",)


@pytest.mark.parametrize("name", ["dns://qwen.models.svc:8000", "dns+srv://_http._tcp.qwen.svc"])
def test_names_that_can_be_looked_up(name: str, good: Good) -> None:
    engine = good(external(f'discover: "{name}", refresh: 30s')).config.engines["e"]
    assert (engine.discover, engine.refresh, engine.urls) == (name, 30, ())


@pytest.mark.parametrize(
    "name",
    [
        *("dns://qwen", "dns:///qwen:1", "dns://8.8.8.8/qwen:1", "dns://q:0", "dns://q:65536"),
        *("dns://q w:1", "dns+srv://qwen:8000", "dns+srv://", "srv://qwen", "qwen:8000"),
    ],
)
def test_names_that_cannot(name: str, faults: Faults) -> None:
    (said,) = faults(external(f'discover: "{name}"'))
    assert "engines.e.discover: write dns://host:port or dns+srv://name." in said


def test_whose_an_engine_is(good: Good) -> None:
    text = f"version: 1\nengines: {{a: {{weights: w}}, b: {{runtime: external, {URL}}}}}"
    config = good(text).config
    assert list(local_engines(config)) == ["a"]
    assert list(external_engines(config)) == ["b"]
    # Each is a model of its own name, as it is no model's target.
    models = resolve_models(config)
    assert [models[name].targets[0].engine for name in ("a", "b")] == ["a", "b"]


def test_weights_are_those_of_an_engine_of_ours() -> None:
    assert Engine(weights="w").local_weights == "w"
    others = Engine(), Engine(runtime="external"), Engine(runtime="command", weights="w.gguf")
    for engine in others:
        with pytest.raises(ValueError, match="only an engine of vLLM has weights"):
            _ = engine.local_weights


def test_no_key_is_for_both_kinds_and_none_for_a_third() -> None:
    both = {
        "runtime", "max_in_flight", "max_waiting", "wait", "health_interval", "health_misses",
        "timeouts",
    }  # fmt: skip
    assert not LOCAL_KEYS & EXTERNAL_KEYS
    assert set(Engine.model_fields) == both | LOCAL_KEYS | EXTERNAL_KEYS


def test_what_applies_to_both(good: Good) -> None:
    text = external(
        f"{URL}, max_in_flight: 8, max_waiting: 9, wait: 1s, health_interval: 3s, "
        "health_misses: 2, timeouts: {connect: 1s}, weights: null, discover: null, api_key: null"
    )
    found = good(text)
    assert found.advice == ()
    target = resolve_models(found.config)["e"].targets[0]
    assert (target.max_in_flight, target.max_waiting, target.timeouts.connect) == (8, 9, 1)


# --- what is refused

CASES = {
    # Of ours.
    local(""): "engines.e.weights: is missing.",
    local("weights: "): "engines.e.weights: has no value. Give it one, or remove the line.",
    local(URL): "has neither `weights` nor `runtime: external`. Add `runtime: external` for",
    local("discover: 'dns://q:1', api_key: k"): "has neither `weights` nor `runtime: external`.",
    local(f"weights: w, {URL}"): (
        "engines.e.urls: is for engines with `runtime: external` only. Remove it, or write "
        "`runtime: external` and no `weights`."
    ),
    local("weights: w, discover: 'dns://q:1'"): "engines.e.discover: is for engines with `runtime:",
    local("weights: w, refresh: 1s"): "engines.e.refresh: is for engines with `runtime: external`",
    local("weights: w, model: m"): "engines.e.model: is for engines with `runtime: external` only. "
    "An engine of ours has `weights`;",
    local("weights: w, api_key: k"): "clients' keys stand under `server.keys`.",
    local("weights: w, max_in_flight: 0"): "should be greater than or equal to 1.",
    "version: 1\nruntimes: {external: {}}": "runtimes.external: the name `external` is taken.",
    # Somebody else's.
    external("api_key: k"): 'engines.e: has no replicas. Give `urls: ["http://10.0.0.3:8000"]` or',
    external("urls: []"): "engines.e: has no replicas.",
    external(f"{URL}, discover: 'dns://q:1'"): "engines.e.discover: stands beside `urls`. Keep one",
    external(f"{URL}, weights: w"): "engines.e.weights: is not for an engine with `runtime: "
    "external`. The replicas have them; `model` is the name",
    external(f"{URL}, args: {{max-model-len: 1}}"): "engines.e.args: is not for an engine with "
    "`runtime: external`. It is started elsewhere: say it there,",
    external(f"{URL}, load: request"): "engines.e.load: is not for an engine with `runtime:",
    external(f"{URL}, refresh: 1ms"): "engines.e.refresh: should be greater than or equal to 0.1.",
    external("urls: [10.0.0.3:8000]"): "engines.e.urls[0]: start with http:// or https://, as in",
    external('urls: ["http://a:1", "http://"]'): "engines.e.urls[1]: is no URL.",
    external('urls: ["http://a b:1"]'): "engines.e.urls[0]: is no URL.",
    external('urls: ["http://u:p@a:1"]'): "engines.e.urls[0]: must not hold a password, a query",
    external('urls: ["http://a:1/v1/models"]'): "engines.e.urls[0]: goes too far. Stop after the",
    external('urls: ["http://a:1/v1?x=y"]'): "engines.e.urls[0]: must not hold a password, a query",
    external('urls: ["http://a", "http://A:80/v1"]'): "engines.e.urls[1]: stands here twice.",
    external('urls: ["https://a", "https://a:443"]'): "engines.e.urls[1]: stands here twice.",
    external('urls: ["http://127.0.0.1:8000/v1"]'): "engines.e.urls[0]: is this server itself, so",
    external('urls: ["http://localhost:8001"]'): "engines.e.urls[0]: is this server itself, so",
    external("discover: 'dns://localhost:8000'"): "engines.e.discover: is this server itself, so",
    external(f"{URL}, api_key: ''"): "engines.e.api_key: is empty. Remove it where none is needed.",
    external(f'{URL}, api_key: "a\\n"'): "engines.e.api_key: holds a line break, a space at an end",
    external(f'{URL}, model: "a\\nb"'): "engines.e.model: must have 1 to 200",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    found = faults(text)
    assert len(found) == 1, found
    assert CASES[text] in found[0]


@pytest.mark.parametrize("key", sorted(LOCAL_KEYS))
def test_every_key_of_a_process_is_refused_for_another_ones(key: str, faults: Faults) -> None:
    values = {
        "args": "{a: 1}", "env": "{A: b}", "load": "startup", "trust_remote_code": "true",
        "pinned": "true", "sleep": "true", "groups": "[g]", "health": "/health",
    }  # fmt: skip
    counts = "kv_cache start_timeout stop_timeout concurrency memory idle residency replicas"
    numbers = dict.fromkeys(counts.split(), "1")
    value = {**values, **numbers}.get(key, "auto")
    (said,) = faults(external(f"{URL}, {key}: {value}"))
    assert f"engines.e.{key}: is not for an engine with `runtime: external`." in said


def test_two_addresses_of_one_host_are_two(good: Good) -> None:
    urls = '["http://a:1", "http://a:2", "http://b:1", "https://a:3"]'
    assert len(good(external(f"urls: {urls}")).config.engines["e"].urls) == 4


def test_a_secret_is_never_repeated(faults: Faults) -> None:
    for more in (
        f"{URL}, api_key: 73577357",
        f'{URL}, api_key: "73577357\\n"',
        'urls: ["http://u:73577357@a:1"]',
        'urls: ["http://u:73577357@a:x"]',
    ):
        assert "73577357" not in "\n".join(faults(external(more)))


# --- advice


@pytest.mark.parametrize(
    ("where", "host"),
    [
        ('urls: ["https://a:1", "http://b:1"]', "b"),
        ('urls: ["http://127.0.0.1:9", "http://c:1"]', "c"),
        ("discover: 'dns://qwen.svc:8000'", "qwen.svc"),
        ("discover: 'dns+srv://qwen.svc'", "qwen.svc"),
        ('urls: ["https://a:1"]', None),
        ('urls: ["http://127.0.0.1:9/v1", "http://[::1]:9"]', None),
        ("discover: 'dns://localhost:9'", None),
    ],
)
def test_a_key_that_can_be_read_on_its_way(where: str, host: str | None, good: Good) -> None:
    said = (f"Engine `e`: its key travels to {host} without TLS.",) if host else ()
    assert good(external(f"{where}, api_key: k")).advice == said
    assert good(external(where)).advice == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'env: {A: "s3cret\0"}', "env: the value of A holds a NUL sign, which no argument can."),
        (r'env: {A: "s3cret\ud800"}', "env: the value of A holds half of a sign, which no"),
        (r'env: {"A\0": s3cret}', r"env: 'A\x00' can be no name of a variable."),
        ("env: {A=B: s3cret}", "env: 'A=B' can be no name of a variable."),
        ('env: {"": s3cret}', "env: '' can be no name of a variable."),
        (r'args: {a: "s3cret\0"}', "args: the value of 'a' holds a NUL sign, which no argument"),
        (r'args: {a: [1, "s3cret\ud800"]}', "args: the value of 'a' holds half of a sign"),
    ],
)
def test_what_no_process_can_be_given(text: str, said: str, faults: Faults) -> None:
    found = faults(local(f"weights: w, {text}"))
    if text.startswith("env"):
        found += faults(f"version: 1\nruntimes: {{r: {{{text}}}}}\n")
    for line, where in zip(found, ("engines.e", "runtimes.r"), strict=False):
        assert line.startswith(f"roundhouse.yaml:2: {where}.{said}")
        assert "s3cret" not in line
    assert len(found) == (2 if text.startswith("env") else 1)
