"""One entry under `providers`: an account at a remote API."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from server.config.parts import Drop, Name, Strict, TargetTimeouts

Dialect = Literal["openai", "anthropic", "cohere", "mistral", "deepseek", "huggingface"]


class DialectSettings(Strict):
    """What an account says to its dialect. Each key is one dialect's; see `SETTINGS`."""

    version: Literal["2023-06-01", "2026-10-21"] | None = Field(
        None,
        description="anthropic: the version of its API. With the later one it takes no sampling "
        "parameters. Default: 2023-06-01.",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="anthropic, which wants a number: the longest answer where the client names "
        "none. Default: as the model's card says, else 4096.",
    )
    thinking: Literal["adaptive", "budget", "none"] | None = Field(
        None,
        description="anthropic: how the models reason. Default: as a model's id tells.",
    )
    thinking_display: Literal["summarized", "omitted"] | None = Field(
        None,
        description="anthropic: what becomes of the thoughts' words. Default: as it likes.",
    )
    later_system: Literal["top", "inline"] | None = Field(
        None,
        description="anthropic: where instructions go that come later in a conversation: before "
        "all of it, or where they stand. Default: as a model's id tells.",
    )
    input_type: (
        Literal["search_document", "search_query", "classification", "clustering"] | None
    ) = Field(
        None,
        description="cohere: what embeddings are for, where the client does not say. Default: "
        "search_document.",
    )
    truncate: Literal["NONE", "START", "END"] | None = Field(
        None, description="cohere: where a text that is too long to be embedded is cut."
    )
    answers: Literal["keep", "tidy"] | None = Field(
        None,
        description="openai: what becomes of answers. keep: their bytes pass; tidy: what strict "
        "clients refuse is put right, such as calls without an index, or words of a server's own. "
        "Default: tidy at azure, google, groq, textgen and together, else keep.",
    )
    think_tags: Literal["keep", "split", "begun"] | None = Field(
        None,
        description="openai, deepseek, mistral, huggingface: what becomes of `<think>…</think>` at "
        "the beginning of an answer. keep: it stays; split: it becomes `reasoning_content`; begun: "
        "so, too, where the model's template opens the thought before the answer begins. Default: "
        "keep.",
    )


_TAGS: Final = frozenset({"think_tags"})
#: Dialect → the keys of `settings` that are its own.
SETTINGS: Final[dict[str, frozenset[str]]] = {
    "openai": _TAGS | {"answers"},
    "anthropic": frozenset(
        {"version", "max_tokens", "thinking", "thinking_display", "later_system"}
    ),
    "deepseek": _TAGS,
    "mistral": _TAGS,
    "cohere": frozenset({"input_type", "truncate"}),
    "huggingface": _TAGS,
}


class Provider(Strict):
    """An account at a remote API. Rows known by name bring dialect, base URL and key variable."""

    like: Name | None = Field(
        None,
        description="A name that is known: this is one more account there, whose models have the "
        "same cards. Default: its own name, if that is known.",
    )
    dialect: Dialect | None = Field(None, description="The API's wire format.")
    base_url: str | None = Field(
        None, description="Up to and with `/v1`; for cohere, up to and with `/v2`."
    )
    api_key: SecretStr | None = Field(
        None,
        description="Default for rows known by name: the row's variable, e.g. OPENAI_API_KEY.",
    )
    api_keys: tuple[SecretStr, ...] = Field(
        (),
        description="Instead of `api_key`, several keys of this one account: requests are spread "
        "over them, and a key that is refused or rate limited rests.",
    )
    organization: str | None = Field(
        None, description="Who pays, for openai; for huggingface the organization to bill."
    )
    project: str | None = Field(None, description="The project of the requests, for openai.")
    workspace: str | None = Field(None, description="The workspace of the requests, for anthropic.")
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="Extra headers sent with every request."
    )
    proxy: SecretStr | None = Field(
        None,
        description="An HTTP proxy to go through: `http://host:3128`, or with `user:password@`.",
    )
    ca: str | None = Field(
        None,
        description="A PEM file, relative to the config file: the authorities that are trusted for "
        "this provider's TLS in place of the system's.",
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="Requests that this account is asked at one time, with all its models; over "
        "it they wait. Default: no limit.",
    )
    max_waiting: int = Field(
        64, ge=0, description="Requests that may wait for one of those places; over it: 503."
    )
    drop: Drop = Field(
        (),
        description="Members taken out of every body for this provider, as a target's `drop`, also "
        "for models that no entry names.",
    )
    settings: DialectSettings = Field(
        DialectSettings(), description="What its dialect wants to know."
    )
    retry_ambiguous: bool = Field(
        False,
        description="Try another target when this one broke after it may have done (and billed) "
        "the work.",
    )
    timeouts: TargetTimeouts = Field(
        TargetTimeouts(), description="Durations for this provider alone."
    )

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("start with http:// or https://, as in http://127.0.0.1:8080/v1")
        return value.rstrip("/") if value else value

    @property
    def keys(self) -> tuple[SecretStr, ...]:
        """`api_key` or `api_keys`; none where it has no key."""
        return (self.api_key,) if self.api_key is not None else self.api_keys
