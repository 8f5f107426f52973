"""What each task asks of a model, as data: who may answer, and what weighs how much.

Weights are shares; only their relation within a task counts. docs/recommend.md tells what every
part measures and where it misleads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.registry.cards import CHATTING, ModelType

_TEXT: Final = CHATTING | {ModelType.SEQ2SEQ}


@dataclass(frozen=True, slots=True)
class Weights:
    #: Capability as far as size or price tell it.
    strength: float = 0.0
    #: How new: its knowledge, the date in its name, its version among its family's.
    recency: float = 0.0
    #: Its makers recommend it for this task (or, at half, for a related one).
    advised: float = 0.0
    #: A low price per token.
    cheap: float = 0.0
    #: A large window.
    window: float = 0.0
    #: The profile's abilities, known to be there.
    abilities: float = 0.0
    #: Can be used without a room full of GPUs: over an API, or small enough.
    reach: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """`types`: who is a candidate. `by_advice`: others are, too, where they are recommended for
    the task; with no types at all, only those. `inputs`, `outputs`: modalities that must be known.
    `sizes`, `prices`: parameters and blended dollars that count as the weakest and the strongest.
    """

    weights: Weights
    types: frozenset[ModelType] = CHATTING
    by_advice: bool = False
    related: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    local: bool = False
    priced: bool = False
    most_parameters: float | None = None
    sizes: tuple[float, float] = (1e8, 5e12)
    prices: tuple[float, float] = (0.02, 15.0)
    #: Weights must fit as they are, without quantisation.
    unquantised: bool = False
    #: More to say about every answer.
    caveats: tuple[str, ...] = ()


#: A card that is recommended for nothing of this, but for something, is made for something else:
#: medicine, security, judging. It ranks far behind for a general task.
GENERAL: Final = frozenset(
    """conversation instructions reasoning coding agents cost long-context local edge multilingual
    vision retrieval summarization completion fine-tuning""".split()
)
#: What a name says more plainly than a card: `Qwen2.5-Coder`, `codestral-embed`; and the tasks
#: that such a model is no stranger to.
NAMED: Final[dict[str, frozenset[str]]] = {
    "code": frozenset({"coding", "agents", "reasoning", "completion", "fine-tuning", "local"}),
    "math": frozenset({"reasoning", "completion", "fine-tuning"}),
    "translate": frozenset({"translation", "multilingual"}),
}
#: What is left of a specialist's score for a task that it is not made for.
SPECIALIST: Final = 0.6
#: What is left of what does the task among other things, where models are made for it alone.
BY_THE_WAY: Final = 0.85
#: What is left where the very same model has a newer version.
SUPERSEDED: Final = 0.85
#: What is left of a preview's: it may change or go any day.
PREVIEW: Final = 0.93
#: What is left where access must be asked for at a provider (weights on the hub are had quickly).
BY_INVITATION: Final = 0.75
#: What is left per model of the same maker in front of it: five of one house are no choice.
VARIETY: Final = 0.96
#: So many of them; from there on one more makes no difference.
ENOUGH: Final = 5
#: What is left of strength where weights must be kept in fewer bits.
QUANTISED: Final = {"bf16": 1.0, "8-bit": 0.99, "4-bit": 0.95}

PROFILES: Final[dict[str, Profile]] = {
    # Talk: strong and new, but nobody waits for, or pays, the very largest gladly.
    "conversation": Profile(
        Weights(strength=35, recency=35, advised=6, cheap=6, window=8, reach=12),
        related=("instructions", "multilingual"),
        prices=(0.02, 6.0),
    ),
    "instructions": Profile(
        Weights(strength=30, recency=35, advised=8, cheap=6, window=6, abilities=10, reach=12),
        related=("conversation", "agents"),
        prices=(0.02, 6.0),
        abilities=("json_schema", "tools"),
    ),
    # Hard thinking: strength before all, and nothing for thrift.
    "reasoning": Profile(
        Weights(strength=45, recency=30, advised=15, abilities=12, reach=8),
        related=("coding", "agents"),
        abilities=("reasoning",),
    ),
    "coding": Profile(
        Weights(strength=35, recency=35, advised=15, window=8, abilities=5, reach=10),
        related=("agents", "reasoning"),
        abilities=("tools",),
    ),
    "agents": Profile(
        Weights(strength=35, recency=35, advised=15, window=8, abilities=12, reach=10),
        related=("coding", "reasoning"),
        abilities=("tools", "json_schema", "reasoning"),
    ),
    # Thrift: the price leads; new small models are better than old ones at the same price.
    "cost": Profile(
        Weights(strength=18, recency=26, advised=8, cheap=42, window=6, reach=4),
        related=("instructions", "classification"),
        prices=(0.02, 2.0),
        priced=True,
    ),
    # A window is only as good as the model behind it, so strength and age count as much.
    "long-context": Profile(
        Weights(strength=30, recency=30, advised=15, window=30, reach=10),
        related=("retrieval", "agents", "summarization"),
    ),
    "local": Profile(
        Weights(strength=30, recency=35, advised=8, window=8, reach=35),
        related=("conversation", "instructions", "edge"),
        local=True,
    ),
    # 5 billion parameters are about what a CPU writes at reading speed with 4 bits.
    "edge": Profile(
        Weights(strength=30, recency=35, advised=12, window=12),
        related=("local", "conversation"),
        local=True,
        most_parameters=5e9,
        sizes=(1e8, 5e9),
    ),
    "multilingual": Profile(
        Weights(strength=30, recency=35, advised=15, reach=10),
        related=("translation",),
    ),
    "vision": Profile(
        Weights(strength=30, recency=35, advised=12, cheap=5, window=6, reach=10),
        types=CHATTING | {ModelType.VISION},
        needs=("vision",),
        inputs=("image",),
        outputs=("text",),
    ),
    "embedding": Profile(
        Weights(strength=20, recency=35, advised=15, cheap=6, window=15, reach=5),
        types=frozenset({ModelType.EMBEDDING}),
        related=("retrieval", "multilingual"),
        sizes=(3e7, 1e10),
        prices=(0.001, 0.3),
    ),
    "rerank": Profile(
        Weights(strength=25, recency=40, advised=15, window=15, reach=5),
        types=frozenset({ModelType.RERANK}),
        related=("retrieval", "multilingual"),
        sizes=(1e7, 1e10),
    ),
    "retrieval": Profile(
        Weights(strength=30, recency=30, advised=10, window=15, cheap=5, reach=10),
        related=("long-context", "summarization", "instructions"),
    ),
    # A classifier that is made for it beats a chat model by far in speed, so size hardly counts.
    "classification": Profile(
        Weights(strength=10, recency=10, advised=40, reach=20),
        types=frozenset({ModelType.CLASSIFICATION}),
        sizes=(3e7, 1e10),
    ),
    "summarization": Profile(
        Weights(strength=25, recency=30, advised=8, window=10, cheap=15, reach=10),
        types=_TEXT,
        related=("long-context", "instructions", "conversation"),
    ),
    "translation": Profile(
        Weights(strength=25, recency=25, advised=35, cheap=5, reach=10),
        types=_TEXT,
        related=("multilingual",),
    ),
    "completion": Profile(
        Weights(strength=40, recency=35, advised=15, reach=10),
        types=frozenset({ModelType.COMPLETION}),
        by_advice=True,
        related=("fine-tuning",),
    ),
    # Trained as they are, without quantisation, and smaller ones are trained at all.
    "fine-tuning": Profile(
        Weights(strength=30, recency=35, advised=20, reach=15),
        types=frozenset({ModelType.COMPLETION}),
        related=("completion",),
        local=True,
        unquantised=True,
        caveats=("training needs more: a LoRA about half again, all weights about 6 times that",),
    ),
    # Only what is made for it: a general model's knowledge of medicine is not told by a card.
    "biomedical": Profile(
        Weights(strength=40, recency=35, reach=15),
        types=frozenset(),
        by_advice=True,
        sizes=(1e8, 1e11),
    ),
    "speech-to-text": Profile(
        Weights(strength=15, recency=45, advised=25, reach=10),
        types=frozenset({ModelType.AUDIO}),
        by_advice=True,
        inputs=("audio",),
        outputs=("text",),
        sizes=(5e7, 1e10),
    ),
    "text-to-speech": Profile(
        Weights(strength=15, recency=45, advised=25, reach=10),
        types=frozenset({ModelType.AUDIO}),
        by_advice=True,
        outputs=("audio",),
        sizes=(5e7, 1e10),
    ),
    "image-generation": Profile(
        Weights(strength=15, recency=50, advised=20, reach=10),
        types=frozenset({ModelType.IMAGE}),
        by_advice=True,
        outputs=("image",),
        sizes=(5e8, 3e10),
    ),
    "safety": Profile(
        Weights(strength=20, recency=45, reach=15),
        types=frozenset(),
        by_advice=True,
        sizes=(1e8, 1e11),
    ),
}
