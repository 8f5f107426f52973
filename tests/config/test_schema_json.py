from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import schema_json

SCHEMA = schema_json.schema()


def fits(value: Any, schema: dict[str, Any] | bool) -> bool:
    """The part of JSON schema that ours is made of."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]):
        return False
    if "anyOf" in schema and not any(fits(value, option) for option in schema["anyOf"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    return _type(value, schema) and _inside(value, schema)


def _type(value: Any, schema: dict[str, Any]) -> bool:
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "object": dict,
        "array": list,
        "null": type(None),
    }
    kind = schema.get("type")
    if kind is not None and not isinstance(value, kinds[kind]):
        return False
    return not (kind in ("integer", "number") and isinstance(value, bool))


def _inside(value: Any, schema: dict[str, Any]) -> bool:
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        return all(fits(one, schema.get("items", True)) for one in value)
    if isinstance(value, dict):
        return set(schema.get("required", ())) <= value.keys() and all(
            _member(key, one, schema) for key, one in value.items()
        )
    return True


def _member(key: str, value: Any, schema: dict[str, Any]) -> bool:
    if key in schema.get("properties", {}):
        return fits(value, schema["properties"][key])
    for pattern, inner in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return fits(value, inner)
    return fits(value, schema.get("additionalProperties", True))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("version: 1", True),
        ("{}", False),
        ("version: 2", False),
        ('version: "${V}"', False),
        ("{version: 1, zzz: 1}", False),
        ("{version: 1, server: }", True),
        ("{version: 1, providers: {openai: }}", True),
        ("{version: 1, providers: {openai: {api_key: k, zzz: 1}}}", False),
        ("{version: 1, providers: {'a b': {}}}", False),
        ('{version: 1, providers: {eu: {like: openai, api_keys: ["${A}", k]}}}', True),
        ("{version: 1, providers: {openai: {api_keys: k}}}", False),
        ("{version: 1, providers: {lab: {dialect: vllm}}}", False),
        ('{version: 1, providers: {a: {settings: {version: "${V}", max_tokens: "${N}"}}}}', True),
        ("{version: 1, providers: {a: {settings: {version: '2020-01-01'}}}}", False),
        ("{version: 1, providers: {a: {drop: ['a b']}}}", False),
        ('{version: 1, server: {port: "${PORT:-1}"}}', True),
        ("{version: 1, server: {port: 80}}", True),
        ("{version: 1, server: {port: eighty}}", False),
        ("{version: 1, server: {port: 70000}}", False),
        ('{version: 1, log: {level: "${LEVEL}", access: "${A}"}}', True),
        ("{version: 1, log: {level: loud}}", False),
        ("{version: 1, engines: {e: {weights: w, kv_cache: 1GiB, wait: 15m}}}", True),
        ('{version: 1, engines: {e: {weights: w, quantization: "${Q}"}}}', True),
        ("{version: 1, engines: {e: {weights: w, quantization: 'a b'}}}", False),
        ("{version: 1, engines: {e: {weights: w, args: {a: [1, x], b: , c: true}}}}", True),
        ("{version: 1, engines: {e: {}}}", False),
        ("{version: 1, engines: {e: {runtime: external, urls: ['http://a:1']}}}", True),
        ("{version: 1, engines: {e: {runtime: external, discover: 'dns://a:1'}}}", True),
        ("{version: 1, engines: {e: {runtime: external, model: m}}}", False),
        ("{version: 1, engines: {e: {runtime: command, cmd: 'a ${PORT}', health: /}}}", True),
        ("{version: 1, engines: {e: {runtime: command, cmd: 'a ${PORT}', health: x}}}", False),
        ("{version: 1, engines: {e: {weights: w, idle: 15m, groups: [g], memory: 1GiB}}}", True),
        ("{version: 1, engines: {e: {weights: w, groups: ['a b']}}}", False),
        ("{version: 1, engines: {e: {weights: w, replicas: 65}}}", False),
        ("{version: 1, placement: , weights: }", True),
        ("{version: 1, placement: {drain: 1m, memory: {cpu: 1GiB, 'cuda:0': \"${M}\"}}}", True),
        ("{version: 1, placement: {memory: {gpu: 1GiB}}}", False),
        ("{version: 1, weights: {workers: 0}}", False),
        ("{version: 1, routing: }", True),
        ('{version: 1, routing: {attempts: "${N}", breaker: {window: 1m}}}', True),
        ("{version: 1, routing: {attempts: 4}}", False),
        ("{version: 1, models: {m: {balance: least_busy, max_in_flight: null}}}", True),
        ("{version: 1, models: {m: {balance: least-busy}}}", False),
        ("{version: 1, models: {m: {targets: [{engine: e, drop: ['a b']}]}}}", False),
        ('{version: 1, models: {a/b: {targets: [{engine: "${E}"}], fallbacks: ["${F}"]}}}', True),
        ("{version: 1, models: {a/b: {fallbacks: ['a b']}}}", False),
    ],
)
def test_what_fits(text: str, good: bool) -> None:
    assert fits(yaml.safe_load(text), SCHEMA) is good


@pytest.mark.parametrize("folder", [".", "routing", "providers"])
def test_our_configs_fit(folder: str, repo_root: Path) -> None:
    files = sorted((repo_root / "configs" / folder).glob("*.yaml"))
    assert len(files) > 1
    for file in files:
        assert fits(yaml.safe_load(file.read_text()), SCHEMA), file


def test_the_file_is_up_to_date(repo_root: Path) -> None:
    assert schema_json.main(["--check", str(repo_root / "configs" / "schema.json")]) == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.json"
    assert schema_json.main(["--check", str(file)]) == 1
    assert "is not up to date: python -m server.config.schema_json --write" in (
        capsys.readouterr().err
    )
    assert schema_json.main(["--write", str(file)]) == 0
    assert schema_json.main(["--check", str(file)]) == 0
    file.write_text("{}")
    assert schema_json.main(["--check", str(file)]) == 1
    assert schema_json.main([]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"] == schema_json.DIALECT
