from __future__ import annotations

from typing import Any

import pytest

from server.config.units import seconds, size


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (30, 30),
        (1.5, 1.5),
        ("30", 30),
        ("500ms", 0.5),
        ("15m", 900),
        ("1h30m", 5400),
        (" 2 D", 172800),
    ],
)
def test_durations(said: Any, meant: float) -> None:
    assert seconds(said) == meant


@pytest.mark.parametrize("said", [-1, True, "", "x", "1x", "15m x", None, [1]])
def test_no_durations(said: Any) -> None:
    with pytest.raises(ValueError, match=r"no duration|negative"):
        seconds(said)


@pytest.mark.parametrize(
    ("said", "meant"),
    [(7, 7), ("7", 7), ("64KiB", 65536), ("1.5GiB", 1610612736), ("2 MB", 2000000), ("1g", 2**30)],
)
def test_sizes(said: Any, meant: int) -> None:
    assert size(said) == meant


@pytest.mark.parametrize("said", [-1, True, 1.5, "", "x", "1 cow", "-1", None])
def test_no_sizes(said: Any) -> None:
    with pytest.raises(ValueError, match=r"no size|negative"):
        size(said)
