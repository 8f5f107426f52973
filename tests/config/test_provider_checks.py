"""What is refused under `providers`, and what is advised against."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
import trustme
import yaml

from server.config.load import Loaded
from server.config.provider import SETTINGS, DialectSettings
from server.config.providers_table import OTHER_NAMES, ROWS
from server.dialects.anthropic.settings import Settings, settings_of
from server.dialects.table import dialect_of
from server.dialects.thoughts import Thinking

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]

KEY = "api_key: k"
FAR = "base_url: 'https://far.example/v1'"
LAB = f"dialect: openai, {FAR}"
CASES = {
    # Names.
    "gemini: {}": "is not known by name, and has no base_url. Did you mean `google`?",
    "Claude: {}": "Did you mean `anthropic`?",
    "text-generation-webui: {}": "Did you mean `textgen`?",
    "mistrall: {}": "Did you mean `mistral`?",
    "zzz: {}": "Known by name: openai, anthropic, deepseek, mistral, cohere, huggingface, google,",
    "eu: {}": "for one more account of a known one {like: openai}.",
    f"eu: {{like: opnai, {KEY}}}": (
        "providers.eu.like: no provider is known by the name `opnai`. Did you mean `openai`?"
    ),
    # Dialects.
    f"openai: {{dialect: cohere, {KEY}}}": (
        "openai does not speak cohere at https://api.openai.com/v1. Remove it, or give"
    ),
    f"cohere: {{dialect: openai, {KEY}, base_url: 'https://API.cohere.com/v2'}}": (
        "cohere does not speak openai at https://api.cohere.com/v2."
    ),
    f"eu: {{like: cohere, dialect: openai, {KEY}}}": "cohere does not speak openai at https://api",
    "lab: {dialect: opnai}": "Did you mean `openai`?",
    # Keys.
    "anthropic: {}": (
        "has no key: ANTHROPIC_API_KEY is not set. Get one at "
        "https://platform.claude.com/settings/keys and set ANTHROPIC_API_KEY in the environment"
    ),
    "eu: {like: mistral}": "has no key: MISTRAL_API_KEY is not set. Get one at https://console.mis",
    "cohere: {}": "has no key: COHERE_API_KEY or CO_API_KEY is not set.",
    f"openai: {{{KEY}, api_keys: [l]}}": "api_keys: stands beside `api_key`. Keep one of the two.",
    "openai: {api_keys: []}": "providers.openai.api_keys: is empty. Remove it where none is needed",
    "openai: {api_keys: [a, '']}": "providers.openai.api_keys[1]: is empty.",
    "openai: {api_keys: [a, 'b ']}": "providers.openai.api_keys[1]: holds a line break, a space at",
    "openai: {api_keys: [a, b, a]}": (
        "providers.openai.api_keys[2]: is the same key as number 1. Give each of them once."
    ),
    f"openai: {{{KEY}, headers: {{Authorization: x}}}}": (
        "headers.Authorization: would stand beside the key. Keep one of the two"
    ),
    "openai: {api_key: '\"sk-quoted\"'}": "api_key: has quotes in it, and they are sent as part",
    'openai: {api_keys: [a, "\'b"]}': "providers.openai.api_keys[1]: has quotes in it, and they",
    "openai: {api_key: sk abc def}": "providers.openai.api_key: has a space in it, which no key",
    'openai: {api_key: "sk-1\\n"}': "providers.openai.api_key: holds a line break, a space at",
    'openai: {api_key: "${BLANK:- }"}': "providers.openai.api_key: holds a line break, a space at",
    # Who pays.
    f"mistral: {{{KEY}, organization: o}}": (
        "providers.mistral.organization: mistral has no header for an organization that is known "
        "here. openai and huggingface have. Write it under `headers`"
    ),
    f"openai: {{{KEY}, workspace: w}}": "no header for a workspace that is known here. anthropic",
    f"lab: {{{LAB}, project: p}}": "lab has no header for a project that is known here. openai has",
    f'openai: {{{KEY}, project: "a\\n"}}': "providers.openai.project: holds a line break",
    f"openai: {{{KEY}, project: p, headers: {{OpenAI-Project: q}}}}": (
        "headers.OpenAI-Project: says what `project` says, too."
    ),
    f"lab: {{{LAB}, headers: {{X-A: '1', x-a: '2'}}}}": "headers.x-a: is `X-A` once more",
    # Words of other servers.
    f"azure: {{{LAB}, {KEY}, api_version: 2024-10-21}}": "Azure's v1 API has none.",
    f"lab: {{{LAB}, api_base: x}}": "providers.lab.api_base: is not a known key. Write `base_url`.",
    # Settings.
    f"openai: {{{KEY}, settings: {{version: '2023-06-01'}}}}": (
        "providers.openai.settings.version: is a setting of anthropic, and this provider speaks "
        "openai. Remove it."
    ),
    f"anthropic: {{{KEY}, settings: {{input_type: search_query}}}}": "is a setting of cohere, and",
    f"anthropic: {{{KEY}, settings: {{version: 2024-01-01}}}}": (
        "settings.version: must be '2023-06-01' or '2026-10-21'."
    ),
    f"anthropic: {{{KEY}, settings: {{zzz: 1}}}}": "settings.zzz: is not a known key. Known here:",
    f"cohere: {{{KEY}, settings: {{truncate: end}}}}": "must be 'NONE', 'START' or 'END'.",
    f"anthropic: {{{KEY}, settings: {{think_tags: split}}}}": (
        "is a setting of openai, deepseek, mistral and huggingface, and this provider speaks anth"
    ),
    # Members.
    f"openai: {{{KEY}, drop: [messages]}}": (
        "providers.openai.drop: without `messages` there is no request."
    ),
    f"openai: {{{KEY}, drop: ['a b']}}": "must be the name of a member of a request's body",
    # Places.
    f"openai: {{{KEY}, max_in_flight: 0}}": "providers.openai.max_in_flight: should be greater",
    # Addresses.
    f"vllm: {{{KEY}}}": (
        "has no base_url, which is another one for each account. For example: base_url: "
        "http://gpu-box:8000/v1"
    ),
    f"azure: {{{KEY}}}": "For example: base_url: https://NAME.openai.azure.com/openai/v1",
    f"azure: {{{KEY}, base_url: 'https://n.openai.azure.com/openai/deployments/gpt'}}": (
        "is Azure's older API. Write https://n.openai.azure.com/openai/v1; a deployment's name is"
    ),
    f"azure: {{{KEY}, base_url: 'https://n.openai.azure.com'}}": (
        "is not Azure's v1 API. Write https://n.openai.azure.com/openai/v1"
    ),
    "lab: {dialect: anthropic, base_url: 'https://a.example/v1/messages'}": (
        "goes too far. Stop at the part that ends in /v1."
    ),
    "lab: {dialect: anthropic, base_url: 'https://a.example'}": (
        "ends too early. Write https://a.example/v1"
    ),
    "lab: {dialect: cohere, base_url: 'https://a.example/v2/chat'}": "Stop at the part that ends i",
    "lab: {dialect: cohere, base_url: 'https://a.example/v2/rerank'}": "ends in /v2.",
    "lab: {dialect: cohere, base_url: 'https://a.example/v1'}": "is of the older version. End in /",
    "lab: {dialect: cohere, base_url: 'https://api.cohere.ai/compatibility/v1'}": (
        "is where OpenAI's dialect is spoken. Write `dialect: openai`, or end in /v2."
    ),
    "lab: {dialect: mistral, base_url: 'https://a.example/v1/embeddings'}": "goes too far.",
    # Authorities.
    f"lab: {{{LAB}, ca: ''}}": "providers.lab.ca: is empty. Remove it to trust whom the system",
    f"lab: {{{LAB}, ca: nowhere.pem}}": (
        "there is no file nowhere.pem. Paths are relative to the config file's folder."
    ),
    f"lab: {{{LAB}, ca: .}}": "providers.lab.ca: . is no file.",
    f"lab: {{{LAB}, ca: pipe}}": "providers.lab.ca: pipe is no file.",
    f"lab: {{{LAB}, ca: good.pem/x}}": "good.pem/x cannot be read: Not a directory.",
    f"lab: {{{LAB}, ca: ~nobody-here/x}}": "~nobody-here/x cannot be read: whose home folder is",
    f'lab: {{{LAB}, ca: "a\\0b"}}': "providers.lab.ca: holds a NUL sign, which no path can.",
    f"lab: {{{LAB}, ca: empty.pem}}": "the file empty.pem is empty. It should hold certificates",
    f"lab: {{{LAB}, ca: text.pem}}": "text.pem holds no certificates in PEM. They begin with",
    f"lab: {{{LAB}, ca: blank.pem}}": "blank.pem holds no certificates in PEM.",
    f"lab: {{{LAB}, ca: broken.pem}}": "broken.pem holds no certificates in PEM.",
    f"lab: {{{LAB}, ca: key.pem}}": "key.pem holds no certificates in PEM.",
    "lab: {dialect: openai, base_url: 'http://far.example/v1', ca: good.pem}": (
        "has nothing to check: base_url is http://, without TLS. Remove it."
    ),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    authority = trustme.CA()
    good = authority.cert_pem.bytes()
    (tmp_path / "good.pem").write_bytes("# Ämter\n".encode() + good)
    (tmp_path / "broken.pem").write_bytes(good.replace(b"M", b"?", 3))
    (tmp_path / "key.pem").write_bytes(authority.private_key_pem.bytes())
    (tmp_path / "text.pem").write_text("hello\n")
    (tmp_path / "blank.pem").write_text("\n")
    (tmp_path / "empty.pem").touch()
    os.mkfifo(tmp_path / "pipe")


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    found = faults(f"version: 1\nproviders:\n  {text}")
    assert len(found) == 1, found
    assert CASES[text] in found[0]
    assert found[0].startswith("roundhouse.yaml:3: providers.")


def test_no_key_is_repeated(faults: Faults) -> None:
    (found,) = faults("version: 1\nproviders: {openai: {api_keys: [sk-secret, sk-secret]}}")
    assert "sk-secret" not in found
    (found,) = faults('version: 1\nproviders: {openai: {api_keys: ["sk-secret\\n"]}}')
    assert "sk-secret" not in found
    (found,) = faults("version: 1\nproviders: {openai: {api_keys: sk-secret}}")
    assert found == "roundhouse.yaml:2: providers.openai.api_keys: should be a list."
    (found,) = faults("version: 1\nproviders: {openai: {api_keys: [12345678]}}")
    assert found.endswith('but YAML reads what stands here as a number. Write "…".')


@pytest.mark.parametrize(
    "text",
    [
        f"openai: {{{KEY}, organization: o, project: p, headers: {{x-a: b}}}}",
        f'openai: {{{KEY}, organization: "${{ORG:-}}"}}',
        f"huggingface: {{{KEY}, organization: us}}",
        f"anthropic: {{{KEY}, workspace: w, settings: {{version: 2026-10-21, max_tokens: 9}}}}",
        f"anthropic: {{dialect: openai, {KEY}}}",
        f"openai: {{dialect: anthropic, base_url: 'https://a.example/v1', {KEY}}}",
        "openai: {base_url: 'http://127.0.0.1:9/v1'}",
        f"openai: {{base_url: 'https://gateway.example/v1', {KEY}}}",
        "openai: {base_url: 'https://gateway.example/v1', headers: {Authorization: t}}",
        "azure: {base_url: 'https://n.openai.azure.com/openai/v1', headers: {authorization: b}}",
        "lab: {dialect: cohere, base_url: 'https://a.example/v2', settings: {truncate: END}}",
        "lab: {dialect: openai, base_url: 'https://api.cohere.ai/compatibility/v1'}",
        f"lab: {{{LAB}, ca: good.pem, max_in_flight: 3, max_waiting: 0, drop: [seed]}}",
        f"two: {{like: openai, {KEY}}}\n  one: {{like: openai, api_keys: [a, b]}}",
        "lab: {dialect: openai, base_url: 'https://a.example/chat'}",
        "ollama: {settings: {think_tags: split}}\n  textgen: {}",
    ],
)
def test_what_is_good(text: str, good: Good) -> None:
    assert good(f"version: 1\nproviders:\n  {text}").advice == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"lab: {{{LAB}, max_waiting: 3}}", "Provider `lab`: `max_waiting` has no effect without"),
        (
            "openai: {base_url: 'https://gateway.example/v1'}",
            (
                "Provider `openai` has no key: that of OPENAI_API_KEY goes to "
                "https://api.openai.com/v1 alone. If gateway.example wants one, write `api_key`."
            ),
        ),
        (
            "lab: {dialect: openai, base_url: 'http://lab.example/v1', api_keys: [a, b]}",
            "Provider `lab`: its key travels to lab.example without TLS.",
        ),
    ],
)
def test_advice(text: str, said: str, good: Good) -> None:
    (found,) = good(f"version: 1\nproviders:\n  {text}").advice
    assert found.startswith(said)


# --- keys from the environment


def secrets(loaded: Loaded) -> dict[str, list[str]]:
    return {
        name: [key.get_secret_value() for key in provider.keys]
        for name, provider in loaded.config.providers.items()
    }


def test_a_key_of_the_file_wins(good: Good) -> None:
    environ = {"OPENAI_API_KEY": "theirs", "AZURE_OPENAI_API_KEY": "theirs"}
    text = """\
version: 1
providers:
  openai: {api_keys: [a, b]}
  second: {like: openai}
  third: {like: openai, base_url: "https://eu.example/v1"}
  fourth: {like: openai, base_url: "https://API.openai.com:443/v1/"}
  azure:
    base_url: https://n.openai.azure.com/openai/v1
    headers: {Authorization: "Bearer t"}
  azure-eu: {like: azure, base_url: "https://e.openai.azure.com/openai/v1"}
"""
    assert secrets(good(text, environ)) == {
        "openai": ["a", "b"],
        "second": ["theirs"],
        "third": [],
        "fourth": ["theirs"],
        "azure": [],
        "azure-eu": ["theirs"],
    }


def test_every_row_takes_its_key_from_each_of_its_variables(good: Good) -> None:
    for name, row in ROWS.items():
        for variable in row.variables:
            said: dict[str, Any] = {"base_url": row.example} if row.example else {}
            text = yaml.safe_dump({"version": 1, "providers": {name: said}})
            assert secrets(good(text, {variable: "k"})) == {name: ["k"]}, variable


def test_a_key_of_ours_is_told_to_be_none(faults: Faults) -> None:
    environ = {"OPENAI_API_KEY": "house-key", "ROUNDHOUSE_API_KEY": "house-key"}
    (found,) = faults("version: 1\nproviders: {openai: {}}", environ)
    assert found.endswith('`api_key: "${MY_VARIABLE}"`. A key of this server\'s own is none.')
    assert "house-key" not in found


def test_several_keys_in_one_variable_are_one(good: Good) -> None:
    loaded = good("version: 1\nproviders: {openai: {}}", {"OPENAI_API_KEY": "a,b"})
    assert secrets(loaded) == {"openai": ["a,b"]}


# --- tables


def test_other_names_lead_to_known_ones(faults: Faults) -> None:
    for name, known in OTHER_NAMES.items():
        (found,) = faults(f"version: 1\nproviders: {{{name}: {{}}}}")
        assert f"Did you mean `{known}`?" in found


def test_each_setting_is_some_dialects() -> None:
    assert frozenset().union(*SETTINGS.values()) == DialectSettings.model_fields.keys()


def words(annotation: Any) -> tuple[Any, ...]:
    """Of a choice, or of one that may be left open."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for inner in get_args(annotation) for word in words(inner))


def test_anthropics_settings_are_those_of_its_dialect() -> None:
    theirs = get_type_hints(Settings)
    assert theirs.keys() == SETTINGS["anthropic"]
    for name, annotation in theirs.items():
        assert words(annotation) == words(DialectSettings.model_fields[name].annotation), name
    said = {name: next(iter(words(kind)), 1) for name, kind in theirs.items()}
    ours = DialectSettings.model_validate(said).model_dump(exclude_none=True)
    assert ours == said
    assert msgspec.to_builtins(settings_of(ours)) == said


def test_what_becomes_of_thoughts_is_the_word_of_the_dialects() -> None:
    tags = words(DialectSettings.model_fields["think_tags"].annotation)
    with_tags = [name for name, keys in SETTINGS.items() if "think_tags" in keys]
    for name in with_tags:
        kinds = {word: type(dialect_of(name, {"think_tags": word})) for word in tags}
        assert kinds == {**dict.fromkeys(tags, Thinking), "keep": type(dialect_of(name))}
