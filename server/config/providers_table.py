"""Providers known by name, as rows of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config.schema import Provider


@dataclass(frozen=True, slots=True)
class Row:
    """What a name under `providers` brings. `variables`: where its key may stand, first one wins;
    none: it needs no key."""

    dialect: str
    base_url: str
    variables: tuple[str, ...] = ()


ROWS: Final[dict[str, Row]] = {
    "openai": Row("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "deepseek": Row("openai", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",)),
    "huggingface": Row(
        "openai", "https://router.huggingface.co/v1", ("HF_TOKEN", "HUGGINGFACE_API_KEY")
    ),
    "ollama": Row("openai", "http://127.0.0.1:11434/v1"),
    "llamacpp": Row("openai", "http://127.0.0.1:8080/v1"),
}
#: Names that people will try, whose dialect is not here yet.
LATER: Final = frozenset({"anthropic", "cohere", "mistral"})


@dataclass(frozen=True, slots=True)
class Account:
    """A provider's row and its mapping in the config, as one. `api_key` never belongs in a log."""

    dialect: str
    base_url: str
    api_key: str | None

    def __repr__(self) -> str:
        return f"Account({self.dialect!r}, {self.base_url!r}, api_key=…)"


def account(name: str, provider: Provider) -> Account:
    """The account of a config that has passed its checks."""
    row = ROWS.get(name)
    dialect = provider.dialect or (row.dialect if row else None)
    base_url = provider.base_url or (row.base_url if row else None)
    if dialect is None or base_url is None:
        raise ValueError(name)
    key = provider.api_key.get_secret_value() if provider.api_key else None
    return Account(dialect, base_url, key or None)


def key_from(name: str, own_url: bool, environ: dict[str, str]) -> str | None:
    """The key of a known row from its variables; never for a URL that is not the row's own."""
    row = ROWS.get(name)
    if row is None or own_url:
        return None
    return next((environ[v] for v in row.variables if environ.get(v)), None)
