"""What an answer costs. Pure: tokens and prices in, dollars out."""

from __future__ import annotations

from typing import Final

from server.config.cards import Prices
from server.dialects.openai import Usage

_MILLION: Final = 1_000_000


def dollars(usage: Usage | None, prices: Prices | None) -> float | None:
    """US dollars for these tokens; None, never 0, when they or a price that they need are unknown.

    Cached tokens are part of the prompt. They cost the cached price, or the input price where the
    provider has no other. What has no tokens needs no price: an embedding has no output.
    """
    if usage is None or usage.partly or prices is None:
        return None
    if not (usage.prompt or usage.completion):
        return None
    cached = min(usage.cached, usage.prompt)
    per_cached = prices.input if prices.cached_input is None else prices.cached_input
    total = 0.0
    for count, price in (
        (usage.prompt - cached, prices.input),
        (cached, per_cached),
        (usage.completion, prices.output),
    ):
        if count:
            if price is None:
                return None
            total += count * price
    return total / _MILLION


def shown(cost: float) -> str:
    """Dollars as a plain decimal number, to a millionth of a millionth."""
    return f"{cost:.12f}".rstrip("0").rstrip(".")
