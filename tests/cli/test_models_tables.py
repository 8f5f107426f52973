"""The table of `roundhouse models list` on terminals of all widths."""

from __future__ import annotations

import pytest

from server.cli.models.listing import cut, fit

HEAD = ("MODEL", "PROVIDER", "TYPE", "CONTEXT", "$IN", "$OUT", "LICENCE", "STATUS")
ROW = ("meta-llama/Llama-3.3-70B-Instruct", "huggingface", "instruct", "131k", "0.9", "12.5")
ROWS = [(*ROW, "llama3.3", "current"), ("tiny", "lab", "chat", "8k", "-", "-", "mit", "current")]


def width(head: list[str], rows: list[tuple[str, ...]]) -> int:
    columns = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return sum(columns) + 3 * (len(columns) - 1) + 2


@pytest.mark.parametrize("columns", range(40, 141, 5))
def test_a_table_fits_its_terminal(columns: int) -> None:
    head, rows = fit(HEAD, ROWS, columns)
    assert width(head, rows) <= columns
    assert {"MODEL", "CONTEXT", "$IN", "$OUT"} <= {title.strip() for title in head}
    assert "70B" in rows[0][0] or "…" in rows[0][0]


def test_a_wide_terminal_shows_all() -> None:
    head, rows = fit(HEAD, ROWS, 120)
    assert [title.strip() for title in head] == list(HEAD)
    assert head[4:6] == ["$IN", "$OUT"]
    assert rows[0][0] == ROW[0]
    assert [row[3] for row in rows] == ["   131k", "     8k"]


def test_columns_go_before_names_are_unreadable() -> None:
    head, rows = fit(HEAD, ROWS, 80)
    assert "LICENCE" not in head
    assert rows[0][0] == "…/Llama-3.3-70B-Instruct"


def test_cut() -> None:
    assert cut("short", 5) == "short"
    assert cut("owner/a-model-7B", 12) == "…/a-model-7B"
    assert cut("a-very-long-model-name-7B", 13) == "a-very-l…e-7B"
    assert len(cut("x" * 50, 5)) == 5
