"""Cards: what is known of a model. Plain dataclasses; unknown is None, never guessed.

A card's facts are named by their path (`specs.context_window`, `cost.input`). `ModelInfo.source`
says where a fact was read and when; `ModelInfo.exceptions` why one that ought to be known is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ModelType(StrEnum):
    """What a model does. `chat` takes messages; `instruct` was trained to follow instructions and
    takes messages where its tokenizer has a template; `completion` goes on with a text;
    `multimodal` chats about more than text; `vision` and `audio` give no chat."""

    CHAT = "chat"
    INSTRUCT = "instruct"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    CLASSIFICATION = "classification"
    SEQ2SEQ = "seq2seq"
    MULTIMODAL = "multimodal"
    VISION = "vision"
    AUDIO = "audio"
    IMAGE = "image"


#: Types that answer at `/v1/chat/completions`.
CHATTING = frozenset({ModelType.CHAT, ModelType.INSTRUCT, ModelType.MULTIMODAL})


class AccessMethod(StrEnum):
    """`api`: at a provider only; `local`: weights only; `both`."""

    API = "api"
    LOCAL = "local"
    BOTH = "both"


class Status(StrEnum):
    """`deprecated`: still answers, an end is announced. `retired`: its provider answers no more."""

    CURRENT = "current"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


class SizeClass(StrEnum):
    """By total parameters, and so by the memory that the weights need."""

    TINY = "tiny"  # below 1 billion: any CPU
    SMALL = "small"  # below 10: one small GPU, or a patient CPU
    MEDIUM = "medium"  # below 40: one large GPU
    LARGE = "large"  # below 150: several
    HUGE = "huge"


class LicenceKind(StrEnum):
    """`open-source`: the licence is OSI's. `open-weights`: weights for all under terms of their
    own. `proprietary`: no weights."""

    OPEN_SOURCE = "open-source"
    OPEN_WEIGHTS = "open-weights"
    PROPRIETARY = "proprietary"


@dataclass(frozen=True, slots=True)
class Source:
    """Where facts were read. `date`: the day they were read, `YYYY-MM-DD`."""

    title: str
    url: str
    date: str


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """Where an API model is asked. `header` is the header that carries the key, with `{key}`."""

    url: str
    method: str = "POST"
    auth_required: bool = True
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Specs:
    """`parameters`, `active_parameters`: a count (mixtures of experts use a part per token).
    `context_window`, `max_output`: tokens. Modalities: text, image, audio, video, file, vector,
    score, label. `languages`: ISO 639 codes. `knowledge_date`: `YYYY-MM` or `YYYY-MM-DD`."""

    parameters: int | None = None
    active_parameters: int | None = None
    context_window: int | None = None
    max_output: int | None = None
    #: Numbers of one embedding.
    dimensions: int | None = None
    architecture: str | None = None
    input_modalities: tuple[str, ...] | None = None
    output_modalities: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    knowledge_date: str | None = None

    @property
    def size_class(self) -> SizeClass | None:
        """None when the provider does not say how large it is."""
        if self.parameters is None:
            return None
        billions = self.parameters / 1e9
        for bound, size in (
            (1, SizeClass.TINY),
            (10, SizeClass.SMALL),
            (40, SizeClass.MEDIUM),
            (150, SizeClass.LARGE),
        ):
            if billions < bound:
                return size
        return SizeClass.HUGE


@dataclass(frozen=True, slots=True)
class Licence:
    """`id`: an SPDX identifier, or the licence's own short name in lower case. `commercial_use`:
    whether it may be used for profit; `conditions` says what that hangs on, where it does."""

    id: str | None = None
    name: str | None = None
    link: str | None = None
    kind: LicenceKind | None = None
    commercial_use: bool | None = None
    conditions: str | None = None
    #: The weights come only after terms were accepted on the hub; `access` says how.
    gated: bool | None = None
    access: str | None = None

    @property
    def open_source(self) -> bool | None:
        """Under a licence of the OSI. None: unknown."""
        return None if self.kind is None else self.kind is LicenceKind.OPEN_SOURCE


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars per million tokens, at the provider's standard tier and smallest prompts.
    `cache_write`: of input that is put into the provider's cache. `other`: what is not priced by
    tokens, by unit (`image`, `minute`, `1000 searches`). `notes`: what one price cannot say."""

    input: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    output: float | None = None
    other: Mapping[str, float] | None = None
    free_tier: bool | None = None
    free_limits: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Abilities:
    """True: it can; False: it cannot; None: nobody says."""

    streaming: bool | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    vision: bool | None = None
    audio: bool | None = None
    reasoning: bool | None = None
    logprobs: bool | None = None


@dataclass(frozen=True, slots=True)
class Links:
    documentation: str | None = None
    model_card: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """`creator`: who trained it. `training`: `pre-trained` or `fine-tuned`; `base`: from what."""

    creator: str | None = None
    training: str | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A card. `model_id` is what the provider (or the hub) calls the model."""

    model_id: str
    name: str
    provider: str
    type: ModelType
    access_method: AccessMethod
    description: str
    api_endpoint: ModelEndpoint | None = None
    specs: Specs = Specs()
    licence: Licence = Licence()
    cost: Cost = Cost()
    abilities: Abilities = Abilities()
    default_temperature: float | None = None
    default_max_tokens: int | None = None
    #: Other parameters that the model's makers advise, by their names in a request.
    default_parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Tasks that its makers recommend it for, or that it was trained for: see `recommend.TASKS`.
    recommended: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    origin: Origin = Origin()
    links: Links = Links()
    aliases: tuple[str, ...] = ()
    status: Status = Status.CURRENT
    #: The day its provider stops or has stopped answering for it, `YYYY-MM-DD`.
    retires: str | None = None
    replaced_by: str | None = None
    #: Sources by the path of the fact or group of facts that they stand for; "" is all the others.
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    #: Why a fact that ought to be known is not, or does not apply, by its path.
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """It costs nothing but the machine: open weights, or a provider's free tier."""
        return self.local or self.cost.free_tier is True

    @property
    def local(self) -> bool:
        """Its weights can be had and run here."""
        return self.access_method is not AccessMethod.API

    def source(self, fact: str) -> tuple[Source, ...]:
        """Where a fact was read: of its own path, or of the nearest group around it."""
        while fact and fact not in self.sources:
            fact = fact.rpartition(".")[0]
        return self.sources.get(fact, ())
