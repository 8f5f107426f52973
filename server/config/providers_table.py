"""Providers known by name, as rows of data; and the account that a row and its settings come to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from server.config import values
from server.config.provider import Provider
from server.protocol.envelope import Surface

Auth = Literal["bearer", "x-api-key", "api-key"]
#: Headers that may carry a key.
AUTH_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key"})
#: A key that this server has made for its own clients (`listeners.new_key`) is no provider's.
_OUR_KEY: Final = re.compile(r"sk-rh-[0-9a-f]{8}-[A-Za-z0-9_-]{43}")
_CHAT: Final = frozenset({Surface.CHAT})
_EMBEDDINGS: Final = frozenset({Surface.EMBEDDINGS})
_COMPLETIONS: Final = frozenset({Surface.COMPLETIONS})
_RERANK: Final = frozenset({Surface.RERANK})
_THREE: Final = _CHAT | _COMPLETIONS | _EMBEDDINGS
_ALL: Final = _THREE | _RERANK
#: What a dialect has words for, at an address of which nothing more is known.
SURFACES: Final[Mapping[str, frozenset[Surface]]] = {
    "openai": _ALL,
    "anthropic": _CHAT,
    "cohere": _CHAT | _EMBEDDINGS | _RERANK,
    "mistral": _CHAT | _EMBEDDINGS,
    "deepseek": _CHAT,
    "huggingface": _CHAT,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What a name under `providers` brings.

    `base_url`: None where each account has its own, such as `example`. `variables`: where its key
    may stand, first one wins; none: it needs no key. `page`: where a person gets a key. `named`:
    the account's words for who pays and what for, each with the header that carries it. `settings`:
    its dialect's, where the account says nothing else.
    """

    dialect: str
    base_url: str | None
    variables: tuple[str, ...] = ()
    auth: Auth = "bearer"
    page: str | None = None
    named: Mapping[str, str] = field(default_factory=dict, hash=False)
    surfaces: frozenset[Surface] = _ALL
    example: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)


#: For those who follow OpenAI loosely.
_LOOSE: Final[Mapping[str, object]] = {"answers": "tidy"}
#: In the order in which `catalog: auto` has them. Sources: the providers' own pages and SDKs.
ROWS: Final[dict[str, Row]] = {
    "openai": Row(
        "openai",
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        page="https://platform.openai.com/api-keys",
        named={"organization": "openai-organization", "project": "openai-project"},
        surfaces=_THREE,
    ),
    "anthropic": Row(
        "anthropic",
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        "x-api-key",
        page="https://platform.claude.com/settings/keys",
        named={"workspace": "anthropic-workspace-id"},
        surfaces=_CHAT,
    ),
    "deepseek": Row(
        "deepseek",
        "https://api.deepseek.com/v1",
        ("DEEPSEEK_API_KEY",),
        page="https://platform.deepseek.com/api_keys",
        surfaces=_CHAT,
    ),
    "mistral": Row(
        "mistral",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        page="https://console.mistral.ai/api-keys",
        surfaces=_CHAT | _EMBEDDINGS,
    ),
    "cohere": Row(
        "cohere",
        "https://api.cohere.com/v2",
        ("COHERE_API_KEY", "CO_API_KEY"),
        page="https://dashboard.cohere.com/api-keys",
        surfaces=_CHAT | _EMBEDDINGS | _RERANK,
    ),
    "huggingface": Row(
        "huggingface",
        "https://router.huggingface.co/v1",
        ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        page="https://huggingface.co/settings/tokens",
        named={"organization": "x-hf-bill-to"},
        surfaces=_CHAT,
    ),
    "google": Row(
        "openai",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        page="https://aistudio.google.com/apikey",
        surfaces=_CHAT | _EMBEDDINGS,
        settings=_LOOSE,
    ),
    "xai": Row(
        "openai",
        "https://api.x.ai/v1",
        ("XAI_API_KEY",),
        page="https://console.x.ai",
        surfaces=_CHAT | _COMPLETIONS,
    ),
    "groq": Row(
        "openai",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        page="https://console.groq.com/keys",
        surfaces=_CHAT,
        settings=_LOOSE,
    ),
    "together": Row(
        "openai",
        "https://api.together.ai/v1",
        ("TOGETHER_API_KEY",),
        page="https://api.together.ai/settings/api-keys",
        settings=_LOOSE,
    ),
    "fireworks": Row(
        "openai",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        page="https://fireworks.ai/account/api-keys",
    ),
    "openrouter": Row(
        "openai",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        page="https://openrouter.ai/settings/keys",
    ),
    "azure": Row(
        "openai",
        None,
        ("AZURE_OPENAI_API_KEY",),
        "api-key",
        page="https://portal.azure.com",
        surfaces=_THREE,
        example="https://NAME.openai.azure.com/openai/v1",
        settings=_LOOSE,
    ),
    "ollama": Row("openai", "http://127.0.0.1:11434/v1", surfaces=_THREE),
    "llamacpp": Row("openai", "http://127.0.0.1:8080/v1"),
    "textgen": Row("openai", "http://127.0.0.1:5000/v1", surfaces=_THREE, settings=_LOOSE),
    # Their own port is ours, too.
    "vllm": Row("openai", None, example="http://gpu-box:8000/v1"),
    "roundhouse": Row("openai", None, example="https://roundhouse.example/v1"),
}
#: What people may call them → our name.
OTHER_NAMES: Final[Mapping[str, str]] = {
    "gemini": "google",
    "vertex": "google",
    "claude": "anthropic",
    "grok": "xai",
    "hf": "huggingface",
    "gpt": "openai",
    "llama_cpp": "llamacpp",
    "llama.cpp": "llamacpp",
    "oobabooga": "textgen",
    "text_generation_webui": "textgen",
    "azure_openai": "azure",
}
#: Dialects of which OpenAI's is also spoken at the row's own address.
ALSO_OPENAI: Final = frozenset({"anthropic", "deepseek", "mistral", "huggingface"})


@dataclass(frozen=True, slots=True)
class Credential:
    """One key of an account, as the headers that carry it. `digest`: SHA-256 of the secret, in hex;
    None where there is no key. The headers never belong in a log."""

    headers: Mapping[str, str] = field(repr=False, hash=False)
    digest: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """A provider's row and its mapping in the config, as one.

    `credentials` is never empty: without a key there is one with no headers. `headers` are all that
    every request has besides, in lower case; `ca` is an absolute path; `settings` has only what is
    set. `like`: the provider whose cards its models have. Headers and proxy never belong in a log.
    """

    name: str
    dialect: str
    base_url: str
    credentials: tuple[Credential, ...]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    proxy: str | None = field(default=None, repr=False)
    ca: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    drop: frozenset[str] = frozenset()
    max_in_flight: int | None = None
    max_waiting: int = 64
    retry_ambiguous: bool = False
    surfaces: frozenset[Surface] = _ALL
    like: str = ""


def key_hint(row: Row) -> str:
    """How an account at a known provider gets its key. Only for rows that need one."""
    return f"get a key at {row.page} and set {row.variables[0]}"


def row_of(name: str, provider: Provider) -> Row | None:
    """The row that an account follows; None where it says all of itself."""
    return ROWS.get(provider.like or name)


def account(name: str, provider: Provider, folder: Path | None = None) -> Account:
    """The account of a config that has passed its checks. `folder`: where relative paths start, by
    default the working directory."""
    row = row_of(name, provider)
    dialect = provider.dialect or (row.dialect if row else None)
    base_url = provider.base_url or (row.base_url if row else None)
    if dialect is None or base_url is None:
        raise ValueError(name)
    auth: Auth = "x-api-key" if dialect == "anthropic" else "bearer"
    surfaces = SURFACES[dialect]
    settings: dict[str, object] = {}
    if row is not None:
        if row.dialect == dialect:
            auth = row.auth
            settings = dict(row.settings)
        if at_home(row, provider.base_url):
            surfaces &= row.surfaces  # somebody else's server in its place has what it has
    secrets = [key.get_secret_value() for key in provider.keys]
    ca = None
    if provider.ca:
        ca = str(((folder or Path()) / Path(provider.ca).expanduser()).absolute())
    return Account(
        name,
        dialect,
        base_url,
        tuple(_credential(auth, secret) for secret in secrets if secret) or (Credential({}, None),),
        headers=_headers(provider, row),
        proxy=provider.proxy.get_secret_value() if provider.proxy else None,
        ca=ca,
        settings=settings | provider.settings.model_dump(exclude_none=True),
        drop=frozenset(provider.drop),
        max_in_flight=provider.max_in_flight,
        max_waiting=provider.max_waiting,
        retry_ambiguous=provider.retry_ambiguous,
        surfaces=surfaces,
        like=provider.like or name,
    )


def _credential(auth: Auth, secret: str) -> Credential:
    name, value = ("authorization", f"Bearer {secret}") if auth == "bearer" else (auth, secret)
    return Credential({name: value}, hashlib.sha256(secret.encode()).hexdigest())


def _headers(provider: Provider, row: Row | None) -> dict[str, str]:
    found = {name.lower(): value.get_secret_value() for name, value in provider.headers.items()}
    for word, header in row.named.items() if row else ():
        if value := getattr(provider, word):
            found[header] = value
    return found


def at_home(row: Row, base_url: object) -> bool:
    """Is this the row's own address (None: nothing else was said), or left to the account?"""
    if base_url is None or row.base_url is None:
        return True
    return isinstance(base_url, str) and values.same_place(base_url, row.base_url)


def key_in(environ: Mapping[str, str], variable: str) -> str:
    """The key that a variable holds, without the line break that a secret read from a file ends
    with; empty where there is none."""
    return environ.get(variable, "").strip()


def key_variable(name: str, base_url: object, environ: Mapping[str, str]) -> str | None:
    """The variable that has the key of a known row, for an account at this address; None where the
    row is not at home. Not one of our own keys: that is for a client here, whose variable has the
    same name."""
    row = ROWS.get(name)
    if row is None or not at_home(row, base_url):
        return None
    set_here = (v for v in row.variables if key_in(environ, v) and not holds_ours(environ, v))
    return next(set_here, None)


def holds_ours(environ: Mapping[str, str], variable: str) -> bool:
    """Does this variable hold a key of this server's own, which is for its clients?"""
    key = key_in(environ, variable)
    ours = [key_in(environ, f"ROUNDHOUSE_{own}_KEY") for own in ("API", "ADMIN", "METRICS")]
    return bool(key) and (key in ours or bool(_OUR_KEY.fullmatch(key)))
