"""The rows say what the providers' own SDKs do: addresses, headers, variables, words."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import anthropic
import cohere
import openai
import pytest
from cohere.client import _get_api_key_from_environment
from cohere.environment import ClientEnvironment
from cohere.types.embed_input_type import EmbedInputType
from cohere.v2.types.v2embed_request_truncate import V2EmbedRequestTruncate
from huggingface_hub import InferenceClient
from mistralai.client.sdkconfiguration import SERVERS

from server.config.provider import DialectSettings, Provider
from server.config.providers_table import ROWS, account

KEY = "sk-1"


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def sent(name: str, **said: Any) -> dict[str, str]:
    """The headers of an account with a key."""
    found = account(name, Provider.model_validate({"api_key": KEY, **said}))
    return {**found.headers, **found.credentials[0].headers}


def lower(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in headers.items()}


def test_openai() -> None:
    sdk = openai.OpenAI(api_key=KEY, organization="org-1", project="proj-1")
    assert f"{sdk.base_url}".rstrip("/") == ROWS["openai"].base_url
    ours = sent("openai", organization="org-1", project="proj-1")
    theirs = lower({**sdk.default_headers, **sdk.auth_headers})
    assert ours.items() <= theirs.items()
    assert len(ours) == 3


def test_azure_takes_its_key_in_a_header_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (variable,) = ROWS["azure"].variables
    monkeypatch.setenv(variable, KEY)
    sdk = openai.AzureOpenAI(base_url="https://n.openai.azure.com/openai", api_version="v1")
    assert sdk.api_key == KEY
    assert sent("azure", base_url="https://n.openai.azure.com/openai/v1") == {"api-key": KEY}


def test_anthropic() -> None:
    sdk = anthropic.Anthropic(api_key=KEY)
    assert f"{sdk.base_url}".rstrip("/") + "/v1" == ROWS["anthropic"].base_url
    # Its API takes a key as a bearer token, too, which is what this SDK sends.
    assert sent("anthropic") == {"x-api-key": KEY}
    assert lower(sdk.auth_headers) == {"authorization": f"Bearer {KEY}"}
    (header,) = ROWS["anthropic"].named.values()
    assert header in anthropic._client._CLIENT_LEVEL_HEADER_PARAMS


def test_cohere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{ClientEnvironment.PRODUCTION.value}/v2" == ROWS["cohere"].base_url
    for variable in ROWS["cohere"].variables:
        with monkeypatch.context() as alone:
            for other in ROWS["cohere"].variables:
                alone.delenv(other, raising=False)
            alone.setenv(variable, KEY)
            assert _get_api_key_from_environment() == KEY
    sdk = cohere.ClientV2(api_key=KEY)
    theirs = lower(sdk._client_wrapper.get_headers())
    assert sent("cohere").items() <= theirs.items()


def test_mistral() -> None:
    assert f"{SERVERS['global']}/v1" == ROWS["mistral"].base_url


def test_hugging_face() -> None:
    sdk = InferenceClient(token="hf_1", bill_to="us")
    ours = sent("huggingface", organization="us")
    assert ours["x-hf-bill-to"] == lower(sdk.headers)["x-hf-bill-to"] == "us"


def words(annotation: Any) -> set[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    return set().union(*(words(inner) for inner in typing.get_args(annotation)))


@pytest.mark.parametrize(
    ("setting", "theirs"), [("input_type", EmbedInputType), ("truncate", V2EmbedRequestTruncate)]
)
def test_coheres_settings_are_its_words(setting: str, theirs: Any) -> None:
    ours = words(DialectSettings.model_fields[setting].annotation)
    # Pictures are not in OpenAI's embeddings.
    assert ours == words(theirs) - {"image"}
