"""One entry under `engines`: weights that vLLM serves here, a command that does, or replicas that
somebody else runs; and one under `runtimes`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from server.config.parts import (
    NAME,
    UPSTREAM,
    Name,
    Scalar,
    Strict,
    TargetTimeouts,
    Variables,
    no_argument,
)
from server.config.units import Duration, Size

#: The runtime of an engine that somebody else runs.
EXTERNAL: Final = "external"
#: The runtime of an engine that an operator's own command starts.
COMMAND: Final = "command"
#: Keys that only vLLM has a use for.
VLLM_KEYS: Final = frozenset(
    "revision dtype quantization kv_cache concurrency args sleep trust_remote_code".split()
)
#: Keys that are for a command only.
COMMAND_KEYS: Final = frozenset("cmd health".split())
#: Keys that mean nothing without a process of ours.
LOCAL_KEYS: Final = (
    VLLM_KEYS
    | COMMAND_KEYS
    | frozenset(
        "weights device memory env load pinned idle residency groups replicas start_timeout "
        "stop_timeout".split()
    )
)
#: Keys that mean nothing with one; but `model` is a command's, too.
EXTERNAL_KEYS: Final = frozenset("urls discover refresh model api_key".split())
#: In `cmd`: where the port stands that the engine is to answer at.
PORT: Final = "${PORT}"

#: A path at an engine's address.
HEALTH: Final = r"^/[!-~]*$"

#: A flag without dashes, or a member of one that takes JSON (`hf-overrides.rope_theta`). No `=`,
#: which would bring a value past all who look at values.
_FLAG: Final = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\.[A-Za-z0-9_+-]+)*")
_DISCOVER: Final = re.compile(r"dns://([A-Za-z0-9._-]+):([0-9]{1,5})|dns\+srv://([A-Za-z0-9._-]+)")


def _replica(url: str) -> str:
    """Without /v1: vLLM has its health and its metrics beside that."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("start with http:// or https://, as in http://10.0.0.3:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _names(value: str) -> str:
    found = _DISCOVER.fullmatch(value)
    if found is None or not 0 < int(found[2] or 1) < 65536:
        raise ValueError("write dns://host:port or dns+srv://name")
    return value


class Engine(Strict):
    """Weights and how to serve them; or, with `runtime: command`, what serves them; or, with
    `runtime: external`, where replicas are."""

    model_config = ConfigDict(
        # For editors; `engine_checks` says the same in words.
        json_schema_extra={
            "anyOf": [{"required": [k]} for k in ("weights", "cmd", "urls", "discover")]
        }
    )

    runtime: Name = Field(
        "vllm",
        description="A name under `runtimes`; `vllm` is built in. `command`: what `cmd` starts. "
        "`external`: replicas that somebody else runs, at `urls` or behind `discover`.",
    )
    weights: str | None = Field(
        None,
        description="`embedded:guide`, a folder (relative to the config file), or a hub id. "
        "Needed with vLLM; for a command it is only shown.",
    )
    cmd: str | None = Field(
        None,
        description="Command: the program and its arguments, started without a shell. `${PORT}` in "
        "it is the port of 127.0.0.1 to answer at, with OpenAI's API.",
    )
    health: str = Field(
        "/health",
        pattern=HEALTH,
        description="Command: a path that answers 200 once it is ready.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+(,\d+)*)?)$", description="auto, cpu, cuda, cuda:0,1"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Numbers that the weights are held in; auto: as the weights say."
    )
    quantization: str | None = Field(
        None, pattern=NAME, description="As vLLM names it, e.g. fp8; default: as the weights say."
    )
    kv_cache: Size | None = Field(
        None, description="Bytes for the KV cache. CPU default 1 GiB; GPU: vLLM decides."
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        description="Requests of full length at one time that the KV cache is counted for, where "
        "`kv_cache` does not say its bytes.",
    )
    memory: Size | None = Field(
        None,
        gt=0,
        description="Bytes that it takes on each of its devices. Default: counted from the "
        "weights; what a command takes is not counted.",
    )
    args: dict[str, Scalar | list[Scalar] | None] = Field(
        default_factory=dict,
        description="vLLM flags without dashes; true for a bare flag, false for its --no- twin.",
    )
    env: Variables = Field(default_factory=dict, description="Variables for the engine's process.")
    load: Literal["startup", "request"] = Field(
        "startup", description="Load when the server starts, or when the first request comes."
    )
    pinned: bool = Field(
        False,
        description="Loaded with the server, before others, and never unloaded to make room.",
    )
    idle: Duration | None = Field(
        None,
        description="Unloaded after so long without a request. Default: only when others need the "
        "room.",
    )
    residency: Duration = Field(
        30, description="It stays at least so long once it is ready, whoever waits for its room."
    )
    groups: tuple[Name, ...] = Field(
        (), description="Engines that share one of these names are never loaded at one time."
    )
    replicas: int = Field(
        1, ge=1, le=64, description="Copies of it; those after the first take free memory only."
    )
    sleep: bool = Field(
        False,
        description="To make room its weights go to the host's memory, from where they are back "
        "sooner (GPU only).",
    )
    urls: tuple[Annotated[str, AfterValidator(_replica)], ...] = Field(
        (), description="External: the replicas' addresses, with or without `/v1`."
    )
    discover: Annotated[str, AfterValidator(_names)] | None = Field(
        None,
        description="External, instead of `urls`: `dns://host:port`, where each address of the "
        "name is a replica, or `dns+srv://name`.",
    )
    refresh: Duration = Field(
        5, ge=0.1, description="External: between two look-ups of what `discover` names."
    )
    model: Annotated[str, Field(pattern=UPSTREAM)] | None = Field(
        None,
        description="External: the replicas' own name of the model; default: the first that they "
        "list. Command: what it calls the model; default: the engine's name.",
    )
    api_key: SecretStr | None = Field(None, description="External: sent to the replicas.")
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="Requests that it answers at one time, an external one with each replica; over "
        "it they wait. Default: no limit.",
    )
    max_waiting: int = Field(
        64,
        ge=0,
        description="Requests that may wait while it loads or while all its places are taken; over "
        "it: 503.",
    )
    wait: Duration = Field(
        300,
        description="How long a request waits for it to be ready; 0: 503 with an estimate at once.",
    )
    start_timeout: Duration = Field(
        900, description="Ready within this, or it is killed and reported."
    )
    stop_timeout: Duration = Field(15, description="Drain time before its process group is killed.")
    health_interval: Duration = Field(2, description="Between two health checks.")
    health_misses: int = Field(
        3, ge=1, description="Missed checks before it is killed; an external replica is left out."
    )
    trust_remote_code: bool = Field(
        False, description="Let the weights' repository run its own Python. An operator's choice."
    )
    timeouts: TargetTimeouts = Field(
        TargetTimeouts(), description="Durations for this engine alone."
    )

    @field_validator("args")
    @classmethod
    def _ours(cls, value: dict[str, object]) -> dict[str, object]:
        for flag, values in value.items():
            whole, dot, member = flag.lstrip("-").partition(".")
            bare = whole.replace("_", "-") + dot + member
            if bare != flag:
                raise ValueError(f"write {bare!r}, not {flag!r}: flags stand without dashes")
            if _FLAG.fullmatch(bare) is None:
                raise ValueError(f"{bare!r} is no flag: a name stands here, and its value after it")
            if bare in MANAGED_FLAGS:
                raise ValueError(f"{bare!r} is set by Roundhouse: {MANAGED_FLAGS[bare]}")
            # vLLM takes a flag's beginning for the flag; a letter is the beginning of several.
            meant = next((one for one in MANAGED_FLAGS if one.startswith(bare)), None)
            if meant is not None and len(bare) > 1:
                raise ValueError(
                    f"{bare!r} may be short for {meant!r}, which is set by Roundhouse: "
                    f"{MANAGED_FLAGS[meant]}"
                )
            for said in values if isinstance(values, list) else (values,):
                if isinstance(said, str) and (wrong := no_argument(said)) is not None:
                    raise ValueError(f"the value of {bare!r} {wrong}")
        return value

    @property
    def external(self) -> bool:
        """Does somebody else run it?"""
        return self.runtime == EXTERNAL

    @property
    def command(self) -> bool:
        """Does an operator's own command start it?"""
        return self.runtime == COMMAND

    @property
    def local_weights(self) -> str:
        """The weights that vLLM serves here; the checks see to it that it has some. Not for other
        engines."""
        if self.weights is None or self.external or self.command:
            raise ValueError("only an engine of vLLM has weights that are served here")
        return self.weights


#: Flags that an operator must not set under `args`, and what to use instead.
MANAGED_FLAGS: Final = {
    "host": "engines listen on a private Unix socket",
    "port": "engines listen on a private Unix socket",
    "uds": "engines listen on a private Unix socket",
    "api-key": "keys are checked before a request reaches an engine; use server.keys",
    "model": "use the engine's `weights`",
    "served-model-name": "the engine's name is used; give models names under `models`",
    "revision": "use the engine's `revision`",
    "dtype": "use the engine's `dtype`",
    "quantization": "use the engine's `quantization`",
    "kv-cache-memory-bytes": "use the engine's `kv_cache`",
    "trust-remote-code": "use the engine's `trust_remote_code`",
    "ssl-keyfile": "engines listen on a private Unix socket; TLS belongs to a proxy in front",
    "ssl-certfile": "engines listen on a private Unix socket; TLS belongs to a proxy in front",
    "root-path": "engines answer at fixed paths",
    "grpc": "engines answer over HTTP, on a private Unix socket",
    "headless": "Roundhouse starts one server process per engine",
    "api-server-count": "Roundhouse starts one server process per engine",
    "config": "write the flags here",
}


class Runtime(Strict):
    """How engines of one kind are started."""

    python: str | None = Field(
        None,
        description="The Python that has vLLM, relative to the config file. Default: .venv-engine "
        "beside the server's environment or in the working directory.",
    )
    env: Variables = Field(
        default_factory=dict, description="Variables for all engines of this runtime."
    )
