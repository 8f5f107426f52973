"""One entry under `models`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from server.config.parts import UPSTREAM, ModelName, Name, Strict, TargetTimeouts
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


class Target(Strict):
    """One place that can answer for a model: an engine, or a provider with an upstream id."""

    engine: Name | None = Field(None, description="A name under `engines`.")
    provider: Name | None = Field(None, description="A name under `providers`.")
    model: Annotated[str, Field(pattern=UPSTREAM)] | None = Field(
        None,
        description="The provider's own id of the model. Default: that of the model's card, if the "
        "card is this provider's.",
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
        description="Who can answer: engines and providers, in order of preference. Default: the "
        "provider of the model's card.",
    )
    fallbacks: tuple[ModelName, ...] = Field(
        (), description="Other models, tried in order when no target of this one can answer."
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
