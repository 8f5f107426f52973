"""Tokens and prices to dollars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.cards import Prices
from server.dialects.openai import Usage
from server.routing.cost import dollars, shown

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("usage", "prices", "cost"),
    [
        (Usage(MILLION, 0), Prices(2.0, None, 8.0), 2.0),
        (Usage(0, MILLION), Prices(2.0, None, 8.0), 8.0),
        (Usage(MILLION, MILLION, 500_000), Prices(2.0, 0.5, 8.0), 1.0 + 0.25 + 8.0),
        (Usage(MILLION, 0, 500_000), Prices(2.0, None, 8.0), 2.0),
        (Usage(MILLION, 0, 500_000), Prices(2.0, 0.0, 8.0), 1.0),
        # No more can come from the cache than there is.
        (Usage(MILLION, 0, 2 * MILLION), Prices(2.0, 0.5, 8.0), 0.5),
        # An embedding has no output, and needs no price of it.
        (Usage(MILLION, 0), Prices(0.1, None, None), 0.1),
        (Usage(MILLION, 1), Prices(0.1, None, None), None),
        (Usage(1, MILLION), Prices(None, None, 8.0), None),
        (Usage(MILLION, 0, MILLION), Prices(None, 0.5, None), 0.5),
        (Usage(5, 5), Prices(0.0, None, 0.0), 0.0),
        # Nothing was counted, so nothing is known.
        (Usage(), Prices(2.0, None, 8.0), None),
        # A part of it would be too little.
        (Usage(0, MILLION, partly=True), Prices(2.0, None, 8.0), None),
        (None, Prices(2.0, None, 8.0), None),
        (Usage(1, 1), None, None),
        (Usage(1, 1), Prices(), None),
    ],
)
def test_what_an_answer_costs(
    usage: Usage | None, prices: Prices | None, cost: float | None
) -> None:
    found = dollars(usage, prices)
    assert found == (None if cost is None else pytest.approx(cost))


COUNT = st.integers(0, 10**7)
PRICE = st.floats(0, 1000)


@given(COUNT, COUNT, COUNT, PRICE, PRICE, st.none() | PRICE)
def test_it_is_never_less_with_more_tokens_nor_over_the_dearest_price(
    prompt: int, completion: int, cached: int, into: float, out: float, again: float | None
) -> None:
    prices = Prices(into, again, out)
    found = dollars(Usage(prompt, completion, cached), prices)
    if not prompt and not completion:
        assert found is None
        return
    assert found is not None
    dearest = max(into, out, again or 0)
    assert 0 <= found <= (prompt + completion) * dearest / MILLION * 1.000001
    more = dollars(Usage(prompt, completion + 1, cached), prices)
    assert more is not None
    assert more >= found


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (10.0, "10"),
        (0.000123, "0.000123"),
        (1e-8, "0.00000001"),
        (0.1 + 0.2, "0.3"),
    ],
)
def test_how_it_is_written(cost: float, text: str) -> None:
    assert shown(cost) == text
