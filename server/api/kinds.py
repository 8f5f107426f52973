"""Which calls a model's type is for.

A target would refuse the others in words of its own, and some answer nonsense: a reranker that is
made to chat. What is not known for certain is left to the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from server.config import cards
from server.config.resolve import ResolvedModel, provider_of
from server.config.schema import Config
from server.dialects.openai import PATHS
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from server.registry.cards import ModelInfo, ModelType
from server.registry.catalog import Catalog

_WRITES: Final = frozenset({Surface.CHAT, Surface.COMPLETIONS})
_ORDERS: Final = frozenset({Surface.RERANK})
#: The calls for each type; those of a type that is missing may be any. vLLM ranks with embeddings,
#: too, and counts the tokens of all.
_FOR: Final = {
    ModelType.CHAT: _WRITES,
    ModelType.INSTRUCT: _WRITES,
    ModelType.MULTIMODAL: _WRITES,
    ModelType.COMPLETION: _WRITES,
    ModelType.EMBEDDING: _ORDERS | {Surface.EMBEDDINGS},
    ModelType.RERANK: _ORDERS,
}
#: Those that are named where another type was asked: vectors are no provider's way to rank.
_NAMED_FOR: Final = {**_FOR, ModelType.EMBEDDING: frozenset({Surface.EMBEDDINGS})}
_JUDGED: Final = frozenset().union(*_FOR.values())
#: Arguments by which an engine makes something else of its weights.
_TURNED: Final = frozenset({"convert", "runner", "task"})
#: Models that an error names, and names that no entry has and whose types are kept.
_NAMED: Final = 8
_UNLISTED: Final = 512


class Kinds:
    """The types of all models of one config, where they are certain: looked up once."""

    def __init__(
        self, config: Config, models: Mapping[str, ResolvedModel], catalog: Catalog
    ) -> None:
        self._config, self._catalog = config, catalog
        self._known = {name: _kind(config, model) for name, model in models.items()}
        self._unlisted: dict[str, ModelType | None] = {}

    def refusal(
        self, name: str, surface: Surface, visible: Callable[[], Iterable[str]]
    ) -> InvalidRequest | None:
        """Why the model of this name, which there is, cannot be called so; None: it may try.
        `visible`: the names that the client may use; asked for only where there is an error."""
        kind = self._known[name] if name in self._known else self._of_provider(name)
        fit = None if kind is None else _FOR.get(kind)
        if fit is None or surface in fit or surface not in _JUDGED:
            return None
        return InvalidRequest(
            f"`{name[:200]}` is of the type `{kind}`, which is not for /v1{PATHS[surface]}."
            f"{self._instead(surface, visible())}",
            param="model",
            code="unsupported_endpoint",
        )

    def _instead(self, surface: Surface, visible: Iterable[str]) -> str:
        fit = [name for name in visible if surface in self._named_for(name)]
        return f" Models that are: {', '.join(fit[:_NAMED])}." if fit else ""

    def _named_for(self, name: str) -> frozenset[Surface]:
        kind = self._known.get(name)
        return frozenset() if kind is None else _NAMED_FOR.get(kind, frozenset())

    def _of_provider(self, name: str) -> ModelType | None:
        """Of `provider/any-upstream-id`."""
        if name in self._unlisted:
            return self._unlisted[name]
        provider, config = provider_of(self._config, name), self._config
        card = None
        if provider is not None:
            card = cards.card_at(config, self._catalog, provider, name.partition("/")[2])
        if len(self._unlisted) >= _UNLISTED:
            del self._unlisted[next(iter(self._unlisted))]
        self._unlisted[name] = kind = _of_card(card)
        return kind


def _kind(config: Config, model: ResolvedModel) -> ModelType | None:
    """The config's word; else that of the card, for weights that are run as what they are."""
    entry = config.models.get(model.name)
    if entry is not None and entry.type is not None:
        return entry.type
    named = (target.engine for target in model.targets if target.engine is not None)
    engines = [config.engines[name] for name in named]
    # How the replicas of others are run is for them to know, and what a command does for it.
    others = any(engine.external or engine.command for engine in engines)
    if others or not all(_TURNED.isdisjoint(engine.args) for engine in engines):
        return None
    return _of_card(model.about.card)


def _of_card(card: ModelInfo | None) -> ModelType | None:
    """None, too, where a list of models did not say and the card had to guess."""
    return None if card is None or "type" in card.exceptions else card.type
