"""The chart's README is made from its values, and every value says what it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import helm_readme, helm_render
from scripts.helm_readme import CHART, PAGE, Undocumented


def test_it_is_what_the_values_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert helm_readme.main(["--check"]) == 0, "run `make docs`"
    assert capsys.readouterr().out == ""


def test_a_page_of_yesterday_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm_readme, "PAGE", tmp_path / "README.md")
    assert helm_readme.main([]) == 0
    assert helm_readme.main(["--check"]) == 0
    (tmp_path / "README.md").write_text(PAGE.read_text("utf-8").replace("replicas", "copies"))
    assert helm_readme.main(["--check"]) == 1


def test_every_value_has_a_row() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows))

    def covered(node: Any, at: str) -> None:
        if any(row == at for row in rows) and not any(row.startswith(f"{at}.") for row in rows):
            return
        assert isinstance(node, dict), f"{at} has no row"
        assert node, f"{at} has no row"
        for key, child in node.items():
            covered(child, f"{at}.{key}" if at else key)

    covered(values, "")


def test_what_a_row_says() -> None:
    text = PAGE.read_text("utf-8")
    assert "| `gateway.replicas` | integer | `2` | Pods. Not used with autoscaling. |" in text
    assert (
        "| `engineDefaults.cache` | mapping |  | Weights and what is compiled for them. |" in text
    )
    assert '| one of `emptyDir`, `pvc`, `hostPath` | `"emptyDir"` |' in text


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n",
        "# what it is, without dashes\na: 1\n",
        "# -- said\na: 1\nb: 2\n",
        "# -- said, but not of this\n\na: 1\n",
        "# of all\na:\n  b: 1\n",
        "a: {}\n",
    ],
)
def test_a_value_that_says_nothing_is_found(text: str) -> None:
    with pytest.raises(Undocumented):
        list(helm_readme.entries(text))


def test_what_is_below_a_value_is_its_own() -> None:
    text = "# -- said\na:\n  b: {c: 1}\n  # why\n  d: 2\n# of all\ne:\n  # -- said\n  f: []\n"
    assert [entry.name for entry in helm_readme.entries(text)] == ["a", "e", "e.f"]


def test_every_example_is_in_it() -> None:
    text = PAGE.read_text("utf-8")
    for name in helm_render.examples():
        assert f"(examples/{name}.yaml)" in text
