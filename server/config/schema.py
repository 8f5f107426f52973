"""The config as types: one YAML file, `version: 1`, unknown keys rejected.

Sizes are bytes, durations seconds once validated; see `units` for what a file may say. What needs
more than one section to judge (does this target's engine exist?) is in `links`; reading files,
`${VAR}` and the environment in `load`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema, field_validator

from server.config.engine import Engine, Runtime
from server.config.model import Model
from server.config.parts import ModelName, Name, Strict
from server.config.placement import Placement
from server.config.provider import Provider
from server.config.routing import Routing
from server.config.units import Duration, Patience, Size
from server.config.weights import Weights


class Key(Strict):
    """A client's key. `key` is the secret itself or `sha256:<64 hex digits>` of it."""

    name: Name = Field(description="For the log, the metrics and the limits.")
    key: SecretStr = Field(
        description="The secret itself, best as `${VARIABLE}`, or `sha256:` and the 64 hex digits "
        "of its digest."
    )
    models: tuple[str, ...] = Field(
        ("*",), description="Model names this key may use; `*` and trailing `*` are patterns."
    )
    rpm: int | None = Field(
        None, ge=1, description="Requests a minute; over it: 429. Default: no limit."
    )
    tpm: int | None = Field(
        None,
        ge=1,
        description="Tokens a minute, of prompts and answers; over it: 429. Default: no limit.",
    )
    max_in_flight: int | None = Field(
        None, ge=1, description="Requests under way at one time; over it: 429. Default: no limit."
    )

    @field_validator("models")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if "*" in pattern[:-1]:
                raise ValueError(f"{pattern!r}: a `*` may only stand at the end")
        return value


class Limits(Strict):
    """Caps on what a client may send, over which it gets 400 or 413 with the parameter's name; and
    on what all clients may ask at one time."""

    body: Size = Field(32 * 2**20, description="Bytes of one request body.")
    all_bodies: Size = Field(
        256 * 2**20, description="Bytes of all request bodies held at one time; over it: 503."
    )
    headers: Size = Field(64 * 2**10, description="Bytes of one request's headers.")
    depth: int = Field(64, ge=4, le=512, description="Nesting of a JSON body.")
    messages: int = Field(2048, ge=1, description="Messages of one chat request.")
    n: int = Field(8, ge=1, description="Choices of one request.")
    stop: int = Field(16, ge=0, description="Stop sequences.")
    logit_bias: int = Field(1024, ge=0, description="Tokens in `logit_bias`.")
    tools: int = Field(128, ge=0, description="Tools of one request.")
    schema_size: Size = Field(64 * 2**10, description="Bytes of one JSON schema.")
    schema_depth: int = Field(16, ge=1, description="Nesting of one JSON schema.")
    event: Size = Field(2**20, description="Bytes of one event of an upstream's stream.")
    answer: Size = Field(64 * 2**20, description="Bytes of an upstream's whole non-stream answer.")
    connections: int = Field(
        4096, ge=1, description="Open client connections; over it new ones get 503."
    )
    in_flight: int | None = Field(
        None, ge=1, description="Requests served at one time; over it they wait. Default: no limit."
    )
    waiting: int = Field(
        256, ge=0, description="Requests that wait for a place of the server; over it: 503."
    )


class Timeouts(Strict):
    """Durations. An engine, a provider or a target may override the last three for itself. Where 0
    stands for no time at all, and so for no answer, it is refused."""

    header: Patience = Field(10, description="A client's request head must be in.")
    body: Patience = Field(30, description="A client's request body must be in.")
    write: Patience = Field(60, description="A client that reads nothing for so long is closed.")
    keep_alive: Duration = Field(75, description="An idle client connection is closed.")
    unready: Duration = Field(
        0, description="On shutdown: time between `/ready` turning 503 and the listener closing."
    )
    drain: Duration = Field(25, description="On shutdown: time that open requests have to finish.")
    waiting: Duration = Field(
        10, description="A stream that waits longer for an engine gets 200 and comments."
    )
    queue: Duration = Field(
        30,
        description="A request waits so long for a free place, of the server, a model or a target; "
        "then 503.",
    )
    total: Patience = Field(
        600,
        description="One deadline over all attempts: to the first event of a stream, to the end of "
        "a non-stream answer.",
    )
    connect: Patience = Field(2, description="Per attempt: TCP, Unix socket and TLS handshake.")
    first_byte: Patience = Field(300, description="Per attempt: until the answer's head.")
    inter_chunk: Patience = Field(60, description="Per attempt: between two chunks of an answer.")


class Server(Strict):
    """Listeners, keys, and what clients may do."""

    host: str = Field(
        "127.0.0.1",
        description="Address of the public API. Beyond loopback keys are needed.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port of the public API; 0: a free one.")
    admin: str | None = Field(
        "127.0.0.1:8001",
        description="Listener of the admin API and the metrics, `host:port`; null switches it off.",
    )
    admin_key: SecretStr | None = Field(
        None, description="Needed on the admin listener when it is set, or beyond loopback."
    )
    metrics_key: SecretStr | None = Field(
        None,
        description="For scrapers: opens `/metrics` and `/metrics/engines` of the admin listener "
        "as `admin_key` does, and nothing else there.",
    )
    keys: tuple[Key, ...] = Field(
        (), description="Who may ask. None: everybody who reaches the (loopback) listener."
    )
    keys_file: str | None = Field(
        None, description="A YAML list of the same shape as `keys`, relative to the config file."
    )
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    home: str | None = Field(
        None, description="Engine logs, caches and learned estimates. Default ~/.roundhouse."
    )
    limits: Limits = Field(
        Limits(), description="Caps on what a client may send, and on all at one time."
    )
    timeouts: Timeouts = Field(Timeouts(), description="Durations, for clients and for attempts.")

    @field_validator("admin")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            host, _, port = value.rpartition(":")
            if not host or not port.isdigit() or int(port) > 65535:
                raise ValueError('write "host:port", for example "127.0.0.1:8001"')
        return value


class Log(Strict):
    """The log goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much the log says."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise."
    )
    access: bool = Field(True, description="One line per request.")


def _off(value: Any) -> Any:
    return "off" if value is False else value


#: YAML 1.1 reads `off` as false.
Catalogs = Annotated[
    Literal["off", "auto"],
    BeforeValidator(_off),
    WithJsonSchema({"enum": ["off", "auto", False]}),
]


class Config(Strict):
    """The whole file."""

    version: Literal[1] = Field(description="Of the config's form: 1.")
    server: Server = Field(Server(), description="Listeners, keys, limits, durations.")
    log: Log = Field(Log(), description="What is logged, and how.")
    routing: Routing = Field(
        Routing(), description="How often a request is tried, and what is left alone meanwhile."
    )
    placement: Placement = Field(
        Placement(), description="Which engines are loaded when not all of them fit."
    )
    weights: Weights = Field(
        Weights(), description="Where weights are stored, and how they are pulled."
    )
    runtimes: dict[Name, Runtime] = Field(
        default_factory=dict, description="Pythons that have vLLM, by name. `vllm` is built in."
    )
    providers: dict[Name, Provider] = Field(
        default_factory=dict,
        description="Accounts at remote APIs, by name; of many known providers it is enough. "
        "`name/any-upstream-id` needs no entry under `models`.",
    )
    engines: dict[Name, Engine] = Field(
        default_factory=dict,
        description="Weights to serve here, commands that serve some, or replicas that somebody "
        "else runs, by name. One that is no model's target is a model of its own name.",
    )
    models: dict[ModelName, Model] = Field(
        default_factory=dict, description="The names that clients may put in `model`."
    )
    default: ModelName | None = Field(
        None,
        description="The model behind the name `default`, and behind a request without `model`.",
    )
    catalog: Catalogs = Field(
        "off",
        description="auto: every card of a provider whose key is there is a model by its id and "
        "aliases, also of providers known by name that are not under `providers`.",
    )
    cards: tuple[str, ...] = Field(
        (),
        description="Files of cards over those of the built-in catalog, JSON or YAML, relative to "
        "the config file; watched like it.",
    )
