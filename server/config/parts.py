"""What several sections of the config are made of."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.config.units import Patience

#: Names of engines, providers and keys: they become metric labels, log fields and file names.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: Model names may have slashes and colons (`Qwen/Qwen3-8B`, `llama3:8b`).
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,199}$"
#: A provider's own id of a model.
UPSTREAM = r"^[^\x00-\x1f\x7f]{1,200}$"
#: A member of a request's body.
MEMBER = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"

Name = Annotated[str, Field(pattern=NAME)]
ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
Scalar = str | int | float | bool
Member = Annotated[str, Field(pattern=MEMBER)]
#: Without these there is no request, so that no target can be spared them.
NEVER_DROPPED: Final = frozenset("model messages prompt input stream".split())


def _not_the_request(value: tuple[str, ...]) -> tuple[str, ...]:
    for member in value:
        if member in NEVER_DROPPED:
            raise ValueError(f"without `{member}` there is no request")
    return value


#: Members that a body is sent without.
Drop = Annotated[tuple[Member, ...], AfterValidator(_not_the_request)]


def no_argument(said: str) -> str | None:
    """Why no process can be given this text; None for one that can."""
    if "\0" in said:
        return "holds a NUL sign, which no argument can"
    try:
        said.encode()
    except UnicodeEncodeError:
        return "holds half of a sign, which no argument can"
    return None


def _for_a_process(value: dict[str, str]) -> dict[str, str]:
    for name, said in value.items():  # what is said may be a secret
        if not name or "=" in name or no_argument(name):
            raise ValueError(f"{name!r} can be no name of a variable")
        if wrong := no_argument(said):
            raise ValueError(f"the value of {name} {wrong}")
    return value


#: The environment of a process.
Variables = Annotated[dict[str, str], AfterValidator(_for_a_process)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetTimeouts(Strict):
    """Durations for one target. What is not set here is as in `server.timeouts`."""

    connect: Patience | None = Field(None, description="TCP, Unix socket and TLS handshake.")
    first_byte: Patience | None = Field(None, description="Until the answer's head.")
    inter_chunk: Patience | None = Field(None, description="Between two chunks of an answer.")
