"""What to loosen where nothing, or nearly nothing, is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

#: How to loosen a demand, by the first word of a failure.
_LOOSEN: Final = {
    "provider": "set another provider's key, or ask for weights that run here",
    "weights": "let a provider answer, instead of this machine",
    "memory": "give more memory, or let a provider answer",
    "context": "ask for a smaller window",
    "max_price": "allow a higher price",
    "licence": "allow other licences",
    "needs": "ask for fewer abilities",
    "modality": "ask for fewer modalities",
    "language": "ask for fewer languages: many makers do not list what they know",
    "deprecated": "include deprecated models",
}
#: Nothing loosens these.
_FINAL: Final = frozenset({"retired"})
#: With this many left there is a choice.
_ENOUGH: Final = 1


def advise(task: str, left: int, failed: Sequence[tuple[str, ...]]) -> str | None:
    """A sentence or two; None when there is a choice, or nothing was failed."""
    if left >= _ENOUGH:
        return None
    open_to_all = [why for why in failed if not _FINAL & set(why)]
    if not open_to_all:
        return f"The registry has no model for {task} that still answers."
    # What the fewest demands keep out is the nearest to an answer.
    fewest = min(len(_demands(why)) for why in open_to_all)
    nearest = Counter(_demands(why) for why in open_to_all if len(_demands(why)) == fewest)
    demands, count = max(nearest.items(), key=lambda entry: (entry[1], entry[0]))
    ways = "; ".join(_LOOSEN[demand] for demand in demands)
    models = "1 model fails" if count == 1 else f"{count} models fail"
    return f"{models} only {' and '.join(demands)}: {ways}."


def _demands(why: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({reason.split()[0] for reason in why}))
