"""One entry under `models`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from server.config.parts import UPSTREAM, Drop, ModelName, Name, Strict, TargetTimeouts
from server.protocol import older
from server.protocol.envelope import Surface
from server.protocol.parameters import LONGEST
from server.registry.cards import ModelType

#: What makes a request what it is, so that no default may stand in for it.
NO_DEFAULTS: Final = frozenset(
    "model messages prompt input stream stream_options functions function_call n".split()
)
#: Whose values are numbers: text from a variable is read as one.
FIGURES: Final = LONGEST | frozenset(
    "temperature top_p top_k min_p min_tokens presence_penalty frequency_penalty "
    "repetition_penalty length_penalty seed top_logprobs prompt_logprobs".split()
)
Dollars = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="US dollars per million tokens.")
]
Number = Annotated[int | Annotated[float, Field(allow_inf_nan=False)], Field(ge=0)]
Balance = Literal["ordered", "weighted", "least_busy", "lowest_latency", "cheapest", "affinity"]


class Target(Strict):
    """One place that can answer for a model: an engine, or a provider with an upstream id."""

    engine: Name | None = Field(None, description="A name under `engines`.")
    provider: Name | None = Field(None, description="A name under `providers`.")
    model: Annotated[str, Field(pattern=UPSTREAM)] | None = Field(
        None,
        description="The provider's own id of the model. Default: that of the model's card, if the "
        "card is this provider's.",
    )
    weight: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Its share of the requests, with `balance: weighted` or `affinity`.",
    )
    drop: Drop = Field(
        (),
        description="Members taken out of a body for this target, which does not know them. A "
        "header of the answer names them.",
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="Requests that a provider is asked at one time for this id, by whatever name "
        "of ours; over it they wait. Default: no limit. An engine's stands at the engine.",
    )
    max_waiting: int = Field(
        64, ge=0, description="Requests that may wait for one of those places; over it: 503."
    )
    timeouts: TargetTimeouts = Field(
        TargetTimeouts(), description="Durations for this target alone."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Target:
        if (self.engine is None) == (self.provider is None):
            raise ValueError("give either `engine` or `provider`")
        if self.engine is not None and self.model:
            raise ValueError("`model` belongs to provider targets only")
        for name in sorted(self.model_fields_set & {"max_in_flight", "max_waiting"}):
            if self.engine is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` belongs to provider targets only: that of an engine stands at the "
                    f"engine, under `engines.{self.engine}`"
                )
        return self


class ModelAbilities(Strict):
    """What the model can do; what is not set is as its card says."""

    streaming: bool | None = Field(None, description="Answers as a stream.")
    tools: bool | None = Field(None, description="Calls tools.")
    json_schema: bool | None = Field(None, description="Keeps to a JSON schema.")
    vision: bool | None = Field(None, description="Takes pictures.")
    audio: bool | None = Field(None, description="Takes sound.")
    reasoning: bool | None = Field(None, description="Thinks before it answers.")
    logprobs: bool | None = Field(None, description="Gives the tokens' probabilities.")
    n: bool | None = Field(None, description="Gives several choices for one request.")


class ModelPrices(Strict):
    """US dollars per million tokens."""

    input: Dollars | None = Field(None, description="Of the prompt.")
    cached_input: Dollars | None = Field(
        None, description="Of what the provider had in its cache; default: as `input`."
    )
    output: Dollars | None = Field(None, description="Of the answer.")


class Model(Strict):
    """A name that clients may put in `model`."""

    targets: tuple[Target, ...] = Field(
        (),
        description="Who can answer: engines and providers, in order of preference (see "
        "`balance`). Default: the provider of the model's card.",
    )
    fallbacks: tuple[ModelName, ...] = Field(
        (), description="Other models, tried in order when no target of this one can answer."
    )
    context_fallbacks: tuple[ModelName, ...] = Field(
        (),
        description="Models with a larger context window, for requests that are too long for this "
        "one.",
    )
    content_fallbacks: tuple[ModelName, ...] = Field(
        (),
        description="Models for requests that a provider's content filter refuses. None: its "
        "refusal is the answer.",
    )
    balance: Balance = Field(
        "ordered",
        description="Which target comes first. ordered: as they stand here; weighted: by chance, "
        "in proportion to `weight`; least_busy: the one with the fewest requests; lowest_latency: "
        "to the first token; cheapest: by their prices; affinity: the same conversation at the "
        "same target, whose cache knows it.",
    )
    bridge: ModelName | None = Field(
        None,
        description="A model that answers while this one's engine loads. When that cannot either, "
        "requests wait for the engine.",
    )
    while_loading: Literal["fallback", "wait", "refuse"] = Field(
        "fallback",
        description="While this model's engine loads: what other targets and fallbacks can answer "
        "is answered by them, and else waits; wait: for the engine in any case; refuse: 503 with "
        "an estimate at once.",
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="Requests for this model at one time, with all its targets; over it they "
        "wait. Default: no limit.",
    )
    max_waiting: int = Field(
        64, ge=0, description="Requests that may wait for one of those places; over it: 503."
    )
    alias: ModelName | None = Field(
        None, description="This name is another model's; then nothing else stands here."
    )
    owned_by: str = Field("roundhouse", description="Shown by /v1/models.")
    card: str | Literal[False] | None = Field(
        None,
        description="Id of its card in the registry. Default: the card of what the first target "
        "runs, else that of the model's name; `null` or `false`: none.",
    )
    type: ModelType | None = Field(None, description="What it does; default: as the card says.")
    context_window: int | None = Field(
        None, ge=1, description="Tokens of prompt and answer; default: as the card says."
    )
    max_output: int | None = Field(
        None, ge=1, description="Tokens of one answer; default: as the card says."
    )
    abilities: ModelAbilities = Field(
        ModelAbilities(), description="What it can do; default: as the card says."
    )
    prices: ModelPrices | None = Field(
        None,
        description="US dollars per million tokens, for all its targets. Default: for each target "
        "as the card of its provider says.",
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters for what a client leaves out of chat and completion bodies; over "
        "those of the card.",
    )
    ceilings: dict[str, Number] = Field(
        default_factory=dict, description="The most that a client may ask for, by parameter."
    )
    over_ceiling: Literal["clamp", "refuse"] = Field(
        "refuse", description="Over a ceiling: lower the value, or refuse the request with 400."
    )

    @model_validator(mode="after")
    def _alias_alone(self) -> Model:
        more = sorted(self.model_fields_set - {"alias", "owned_by"})
        if self.alias is not None and more:
            raise ValueError(f"an alias has no `{more[0]}` of its own")
        return self

    @property
    def without_card(self) -> bool:
        """`card: null` or `card: false`."""
        return not self.card and "card" in self.model_fields_set

    @field_validator("ceilings", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, most in value.items():
                if isinstance(most, bool):
                    raise ValueError(f"`{name}` should be a number")
        return value

    @field_validator("defaults", mode="after")
    @classmethod
    def _figures(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: _figure(name, v) if name in FIGURES else v for name, v in value.items()}

    @model_validator(mode="after")
    def _parameters(self) -> Model:
        for name in self.defaults:
            if name in NO_DEFAULTS:
                raise ValueError(f"`defaults`: `{name}` is the client's to say")
        for what, given in (("defaults", self.defaults), ("ceilings", self.ceilings)):
            if given.keys() >= LONGEST:
                raise ValueError(
                    f"`{what}`: max_tokens and max_completion_tokens are one and the same; keep "
                    "one of them"
                )
            for name in given.keys() & older.NAMES:
                raise ValueError(f"`{what}`: `{name}`: {older.instead(name, Surface.CHAT)}")
        for name in self.ceilings.keys() & (NO_DEFAULTS - {"n"}):
            raise ValueError(f"`ceilings`: `{name}` is no number")
        for name in self.ceilings.keys() & LONGEST:
            if self.ceilings[name] < 1 or self.ceilings[name] % 1:
                raise ValueError(f"`ceilings`: `{name}` should be a whole number, 1 or more")
        ceilings = plain(self.ceilings)
        for name, value in plain(self.defaults).items():
            if name in ceilings and isinstance(value, int | float) and value > ceilings[name]:
                raise ValueError(f"the default of `{name}` is above its ceiling")
        return self


def _figure(name: str, value: Any) -> Any:
    """The number that a default is, or None."""
    found = value
    if isinstance(value, str):
        try:
            found = int(value) if value.strip("+-").isdecimal() else float(value)
        except ValueError:
            found = None
        if found is None or not math.isfinite(found):
            raise ValueError(f"`{name}` should be a number")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"`{name}` should be a number")
    if name in LONGEST and (found < 1 or found % 1):
        raise ValueError(f"`{name}` should be a whole number, 1 or more")
    return int(found) if name in LONGEST else found


def plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """With one name for the longest answer: `max_tokens`."""
    return {("max_tokens" if name in LONGEST else name): v for name, v in parameters.items()}
