from __future__ import annotations

from collections.abc import Callable

import pytest

from server.config.load import Loaded
from server.config.resolve import (
    ResolvedModel,
    ResolvedTarget,
    ResolvedTimeouts,
    provider_target,
    resolve_models,
)

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]

DEFAULT = ResolvedTimeouts(2, 300, 60)
HOUSE = """\
version: 1
server: {timeouts: {connect: 3}}
providers:
  lab: {dialect: openai, base_url: "http://127.0.0.1:9/v1", timeouts: {first_byte: 9}}
engines:
  a: {weights: w, timeouts: {first_byte: 5, inter_chunk: 6}}
  b: {weights: w}
  m: {weights: w}
models:
  first:
    targets: [{engine: a, timeouts: {inter_chunk: 7}}, {provider: lab, model: up}]
    fallbacks: [fast, m, faster, b]
  m: {targets: [{provider: lab, model: org/up:1}]}
  fast: {alias: faster}
  faster: {alias: m}
"""


def test_the_models_that_a_config_comes_to(good: Good) -> None:
    models = resolve_models(good(HOUSE).config)
    up = ResolvedTarget(None, "lab", "org/up:1", ResolvedTimeouts(3, 9, 60))
    assert models == {
        "first": ResolvedModel(
            "first",
            (
                ResolvedTarget("a", None, None, ResolvedTimeouts(3, 5, 7)),
                ResolvedTarget(None, "lab", "up", ResolvedTimeouts(3, 9, 60)),
            ),
            ("m", "b"),
        ),
        "m": ResolvedModel("m", (up,)),
        "fast": ResolvedModel("m", (up,), alias_of="m"),
        "faster": ResolvedModel("m", (up,), alias_of="m"),
        # `a` is a model's target, and the name of `m` is taken.
        "b": ResolvedModel("b", (ResolvedTarget("b", None, None, ResolvedTimeouts(3, 300, 60)),)),
    }
    assert list(models) == ["first", "m", "fast", "faster", "b"]


@pytest.mark.parametrize(
    ("name", "upstream"),
    [
        ("lab/x", "x"),
        ("lab/org/model:free", "org/model:free"),
        ("lab", None),
        ("lab/", None),
        ("lab/a b", None),
        ("lab//x", None),
        ("lab/" + "x" * 300, None),
        ("other/x", None),
        ("/x", None),
    ],
)
def test_any_upstream_id(name: str, upstream: str | None, good: Good) -> None:
    found = provider_target(good(HOUSE).config, name)
    assert (found.model if found else None) == upstream
    if found:
        assert found == ResolvedTarget(None, "lab", upstream, ResolvedTimeouts(3, 9, 60))


LAB = 'lab: {dialect: openai, base_url: "http://127.0.0.1:9/v1"'
CASES = {
    "models: {m: {targets: [{engine: qwen}]}}\nengines: {qwen3: {weights: w}}": (
        "roundhouse.yaml:2: models.m.targets[0].engine: there is no engine `qwen`. "
        "Did you mean `qwen3`?"
    ),
    "models: {m: {targets: [{engine: x}]}}": "there is no engine `x`. No engine is configured.",
    "models: {m: {targets: [{provider: x, model: y}]}}": "there is no provider `x`.",
    "models: {m: {alias: nobody}}": "models.m.alias: there is no model `nobody`. There are: m.",
    "engines: {e: {weights: w}}\nmodels: {m: {targets: [{engine: e}], fallbacks: [e]}}": (
        "there is no model `e`. There are: m."
    ),
    f"providers: {{{LAB}}}}}\nmodels: {{m: {{targets: [{{provider: lab, model: x}}], "
    "fallbacks: [lab/z]}}": "`lab/z: {targets: [{provider: lab, model: z}]}`",
    "models: {a: {alias: b}, b: {alias: a}}": "models.b.alias: goes round in a circle: a → b → a.",
    "models: {a: {alias: a}}": "goes round in a circle: a → a.",
    "engines: {e: {weights: w}}\nmodels: {m: {targets: [{engine: e}], fallbacks: [n]}, "
    "n: {alias: m}}": "goes round in a circle: m → n → m.",
    "engines: {e: {weights: w, runtime: vlm}}": "there is no runtime `vlm`. Did you mean `vllm`?",
    "engines: {e: {weights: w}, E: {weights: w}}": "differs from `e` only in capital letters.",
    "providers: {engine: {dialect: openai, base_url: 'http://x/v1'}}": "the name `engine` is taken",
    "providers: {opnai: {}}": "is not known by name, and has no base_url. Did you mean `openai`?",
    "providers: {zzz: {}}": "Known by name: openai, anthropic, deepseek,",
    "providers: {x: {base_url: 'http://x/v1'}}": "has no dialect. Add `dialect: openai`.",
    "providers: {openai: {}}": (
        "has no key: OPENAI_API_KEY is not set. Get one at https://platform.openai.com/api-keys "
        "and set OPENAI_API_KEY in the environment or in .env beside the file, or write `api_key:"
    ),
    "providers: {huggingface: {}}": "has no key: HF_TOKEN or HUGGINGFACE_API_KEY is not set.",
    "providers: {openai: {api_key: ''}}": "providers.openai.api_key: is empty.",
    'providers: {openai: {api_key: "a\\n"}}': "holds a line break, a space at an end",
    'providers: {openai: {api_key: "aö"}}': "a sign that cannot stand in a header",
    f"providers: {{{LAB}, proxy: ''}}}}": "providers.lab.proxy: is empty.",
    f"providers: {{{LAB}, proxy: 'https://p:1'}}}}": "proxy: should start with http://.",
    f"providers: {{{LAB}, proxy: 'http://'}}}}": "providers.lab.proxy: is no URL.",
    f"providers: {{{LAB}, proxy: 'http://a:b@p:x'}}}}": "providers.lab.proxy: is no URL.",
    f"providers: {{{LAB}, proxy: 'http://a b@p:1'}}}}": "providers.lab.proxy: is no URL.",
    f"providers: {{{LAB}, proxy: 'http://p:1/x'}}}}": "goes too far. Stop after the port.",
    f"providers: {{{LAB}, proxy: 'http://p:3128'}}}}": "cannot reach base_url, which only this",
    f"providers: {{{LAB}, proxy: 'http://127.0.0.1:8000'}}}}": "is this server itself, which is",
    f"providers: {{{LAB}, headers: {{'a b': c}}}}}}": "is no name of a header.",
    f"providers: {{{LAB}, headers: {{Content-Length: '5'}}}}}}": "is Roundhouse's own to say.",
    f'providers: {{{LAB}, headers: {{a: "b\\r\\nc: d"}}}}}}': "headers.a: holds a line break",
    "providers: {x: {dialect: openai, base_url: 'http://'}}": "is no URL.",
    "providers: {x: {dialect: openai, base_url: 'http://a:b/v1'}}": "is no URL.",
    "providers: {x: {dialect: openai, base_url: 'http://a b/v1'}}": "is no URL.",
    "providers: {x: {dialect: openai, base_url: 'http://u:p@a/v1'}}": "must not hold a password",
    "providers: {x: {dialect: openai, base_url: 'http://a/v1?k=1'}}": "must not hold a password",
    "providers: {x: {dialect: openai, base_url: 'http://a/v1/chat/completions'}}": "goes too far.",
    "server: {keys: [{name: a, key: x}, {name: a, key: y}]}": "another key is named `a`, too.",
    "server: {keys: [{name: a, key: x}, {name: b, key: x}]}": "is the secret of another key, too.",
    "server: {keys: [{name: a, key: x}, {name: b, key: 'sha256:"
    "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'}]}": (
        "server.keys[1].key: is the secret of another key, too."
    ),
    "server: {keys: [{name: a, key: ''}]}": "server.keys[0].key: is empty. For example: sk-rh-",
    "server: {keys: [{name: a, key: 'sha256:AB'}]}": "64 small hex digits do not follow.",
    "server: {keys: [{name: a, key: 'a '}]}": "holds a line break, a space at an end",
    "server: {keys: [{name: a, key: x}], admin_key: x}": "is also a client's key.",
    "server: {admin_key: ' x'}": "server.admin_key: holds a line break",
    "server: {metrics_key: ' x'}": "server.metrics_key: holds a line break",
    "server: {keys: [{name: a, key: x}], metrics_key: x}": "is also a client's key, or the admin",
    "server: {admin_key: x, metrics_key: x}": "server.metrics_key: is also a client's key, or",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    found = faults(f"version: 1\n{text}")
    assert len(found) == 1, found
    assert CASES[text] in found[0]


def test_a_diamond_of_fallbacks_is_no_circle(good: Good) -> None:
    text = "version: 1\nengines: {e: {weights: w}}\nmodels:\n" + "".join(
        f"  {name}: {{targets: [{{engine: e}}], fallbacks: [{after}]}}\n"
        for name, after in {"a": "b, c", "b": "d", "c": "d", "d": ""}.items()
    )
    assert resolve_models(good(text).config)["a"].fallbacks == ("b", "c")


# --- advice


def test_advice(good: Good) -> None:
    assert good("version: 1").advice == (
        "No engine, provider or model is configured: every request will be refused.",
    )
    text = """\
version: 1
server:
  keys: [{name: a, key: x, models: [guide, gide, "q*", "lab/any", "*"]}]
providers:
  lab: {dialect: openai, base_url: "http://lab.example/v1", api_key: k}
  near: {dialect: openai, base_url: "http://127.0.0.1:9/v1", api_key: k}
engines: {guide: {weights: w}}
"""
    first, second = good(text).advice
    assert first.endswith("roundhouse.yaml:3: key `a`: there is no model `gide`.")
    assert second == "Provider `lab`: its key travels to lab.example without TLS."
    (env_key,) = good("version: 1\nengines: {guide: {weights: w}}\n").advice or ("",)
    assert env_key == ""
