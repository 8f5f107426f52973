from __future__ import annotations

from collections.abc import Callable

import pytest

from server.config import explain

Faults = Callable[..., list[str]]

CASES = {
    "version: 1\nserver: {prot: 1}": "server.prot: is not a known key. Did you mean `port`?",
    "version: 1\nport: 1": "port: is not a known key. `port` stands under `server`.",
    "version: 1\nserver: {models: {}}": "`models` stands under `the top level of the file`.",
    "version: 1\nserver: {body: 1}": "`body` stands under `server.limits`.",
    "version: 1\nmodel_list: []": "Models stand under `models`, by name.",
    "version: 1\nlog: {zzz: 1}": "log.zzz: is not a known key. Known here: level, format, access.",
    "version: 1\nengines: {e: {weights: w, max_model_len: 1}}": "`args: {max-model-len: 4096}`",
    "version: 1\nengines: {e: {weights: w, block_size: 1}}": "`args: {block-size: …}`",
    "version: 1\nengines: {e: {}}": "engines.e.weights: is missing.",
    "version: 1\nengines: {e: 5}": "engines.e: should be a mapping (lines of `key: value`).",
    "version: 1\nengines: 5": "engines: should be a mapping (lines of `key: value`).",
    "version: 1\nengines: {a b: {weights: w}}": "engines.a b: is no name that can be used here",
    "version: 1\nengines: {e: {weights: no}}": "YAML reads what stands here as true or false. "
    'Write "no".',
    "version: 1\nengines: {e: {weights: 8}}": 'as a number. Write "8".',
    "version: 1\nengines: {e: {weights: }}": "has no value. Give it one, or remove the line.",
    "version: 1\nserver: {host: }": "has no value. Give it one, or remove the line.",
    "version: 1\nserver: {keys: [{name: a, key: 12345678}]}": 'as a number. Write "…".',
    "version: 1\nserver: {keys: [{name: -a, key: b}]}": "may hold letters, digits",
    "version: 1\nserver: {keys: [{name: a, key: b, models: ['a*b']}]}": "only stand at the end",
    "version: 1\nserver: {port: 99999}": "should be less than or equal to 65535.",
    "version: 1\nserver: {port: x}": "server.port: should be a valid integer.",
    "version: 1\nserver: {port: }": "Give it a value, or remove the line.",
    "version: 1\nserver: {docs: maybe}": "server.docs: should be true or false.",
    "version: 1\nserver: {admin: x}": 'write "host:port", for example',
    "version: 1\nserver: {limits: {body: 3 cows}}": "'3 cows' is no size: write bytes",
    "version: 1\nserver: {timeouts: {drain: -1}}": "a duration cannot be negative.",
    "version: 1\nengines: {e: {weights: w, device: gpu}}": "must be auto, cpu, cuda, or GPUs",
    "version: 1\nengines: {e: {weights: w, dtype: float61}}": "Did you mean `float16`?",
    "version: 1\nengines: {e: {weights: w, args: {x: {y: 1}}}}": "engines.e.args.x: should be",
    "version: 1\nengines: {e: {weights: w, args: {x: [[1]]}}}": "should be text, a number, true,",
    "version: 1\nengines: {e: {weights: w, args: {--port: 1}}}": "flags stand without dashes.",
    "version: 1\nengines: {e: {weights: w, args: {port: 1}}}": "'port' is set by Roundhouse",
    "version: 1\nproviders: {p: {dialect: opnai}}": "Did you mean `openai`?",
    "version: 1\nproviders: {p: {base_url: ftp://x}}": "start with http:// or https://",
    "version: 1\nmodels: {m: {}}": "Give `targets` (a list of engines or providers) or `alias`.",
    "version: 1\nmodels: {m: {targets: [{engine: e, model: x}]}}": "belongs to provider targets",
    "version: 1\nmodels: {m: {targets: [{weight: 1}]}}": "give either `engine` or `provider`.",
    "version: 1\nmodels: {m: {targets: {engine: e}}}": "models.m.targets: should be a list.",
    "version: 1\nengines: {e: {weights: w, ttl: 600}}": "is not a known key. Write `idle`.",
    "version: 1\nengines: {e: {weights: w, keep_alive: 5m}}": "is not a known key. Write `idle`.",
    "version: 1\nengines: {e: {weights: w, checkEndpoint: /}}": "Write `health`.",
    "version: 1\nengines: {e: {weights: w, command: s}}": "Write `cmd`, with `runtime: command`.",
    "version: 1\nengines: {e: {weights: w, gpus: 2}}": 'such as `device: "cuda:0,1"`.',
    "version: 1\nkeep_alive: 5m": "`keep_alive` stands under `server.timeouts`.",
    "version: two": "version: must be 1",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_said(text: str, faults: Faults) -> None:
    found = faults(text)
    assert len(found) == 1, found
    assert CASES[text] in found[0]


def test_a_secret_is_never_repeated(faults: Faults) -> None:
    for text in (
        "server: {keys: [{name: a, key: 73577357}]}",
        "server: {admin_key: 73577357}",
        "server: {metrics_key: 73577357}",
        "providers: {openai: {api_key: 73577357}}",
        "providers: {openai: {api_key: a, headers: {x: 73577357}}}",
        "server: {keys: [{name: a, key: [73577357]}]}",
        "providers: {openai: {api_key: a, proxy: 73577357}}",
        "providers: {openai: {api_key: a, proxy: 'https://u:73577357@p'}}",
        "providers: {openai: {api_key: a, proxy: 'http://u:73577357@p:x'}}",
        "providers: {openai: {api_key: a, proxy: 'http://u:735/73577357@p:1'}}",
        "providers: {openai: {api_key: a, proxy: 'http://u:73577357@p:1/x'}}",
    ):
        assert "73577357" not in "\n".join(faults(f"version: 1\n{text}"))


def test_a_removed_keys_error_names_its_successor(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(explain.REMOVED, ("engines", "*", "gpus"), "Write `device: cuda:0,1`.")
    (found,) = faults("version: 1\nengines: {e: {weights: w, gpus: 2}}")
    assert found.endswith("engines.e.gpus: is not a known key. Write `device: cuda:0,1`.")


def test_the_known_keys_of_a_place() -> None:
    known = ("name", "key", "models", "rpm", "tpm", "max_in_flight")
    assert explain.fields_at(("server", "keys", 0)) == known
    assert "engine" in explain.fields_at(("models", "m", "targets", 3))
    assert explain.fields_at(("engines",)) == ()
    assert explain.fields_at(("engines", "e", "args")) == ()
    assert explain.fields_at(("nothing", "x")) == ()
    assert explain.fields_at(("models", 0)) == ()
