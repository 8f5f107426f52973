from __future__ import annotations

from typing import Any

import pytest

from server.config import yamltext
from server.errors import ConfigError


def parsed(text: str) -> Any:
    return yamltext.parse(text.encode(), "f.yaml")[0]


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        yamltext.parse(text.encode() if isinstance(text, str) else text, "f.yaml")
    return str(caught.value)


def test_plain_values_and_their_lines() -> None:
    tree, places = yamltext.parse(b"a: 1\nb:\n  - x\n  - {c: no, d: 1.5}\ne:\n", "f.yaml")
    assert tree == {"a": 1, "b": ["x", {"c": False, "d": 1.5}], "e": None}
    assert [places.of(path).line for path in [("a",), ("b", 1, "c"), ("e",), ("b", 9, "z")]] == [
        1,
        4,
        5,
        2,
    ]
    assert places.scalars == {("a",): "1", ("b", 1, "c"): "no", ("b", 1, "d"): "1.5", ("e",): ""}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        ("# nothing\n", None),
        ("\ufeffa: b", {"a": "b"}),
        ("on: 1\n8: 2\nnull: 3", {"on": 1, "8": 2, "null": 3}),
        ("a: 2026-11-21", {"a": "2026-11-21"}),
        ("a: =", {"a": "="}),
        ("x: &x {a: 1}\ny: *x", {"x": {"a": 1}, "y": {"a": 1}}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"b": 3, "a": 1}}),
        (
            "x: [&a {k: 1}, &b {k: 2, l: 3}]\ny: {<<: [*a, *b]}",
            {"x": [{"k": 1}, {"k": 2, "l": 3}], "y": {"k": 1, "l": 3}},
        ),
    ],
)
def test_what_is_read(text: str, tree: Any) -> None:
    assert parsed(text) == tree


def test_merged_keys_have_the_lines_where_they_stand() -> None:
    _, places = yamltext.parse(b"x: &x\n  a: no\ny:\n  <<: *x\n  b: 2\n", "f.yaml")
    assert places.of(("y", "a")).line == 2
    assert places.scalars["y", "a"] == "no"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "f.yaml:2: `a` stands here twice (first on line 1). Keep one of them."),
        ("a:\n\tb: 1", "f.yaml:2: This is not YAML: while scanning for the next token"),
        ("m: [*]", 'in quotes: "*".'),
        ("m: [&]", "starts with & must stand in quotes"),
        ("a: b: c", 'Put values that contain ": " in quotes.'),
        ("a: @b", "special sign in quotes"),
        ("a: 1\n---\nb: 2", "one YAML document"),
        ("a: [1", "A bracket is not closed."),
        ('a: "x', "A quote or a bracket is not closed."),
        ("a: 1\n b: 2", "Put values that contain"),
        ("a:\n  b: 1\n c: 2", "Look at the indentation"),
        ("a\nb: 1", "in quotes"),
        ("a: !!python/object:os.system x", "The YAML type !!python/object:os.system has no place"),
        ("a: !!binary aGk=", "The YAML type !!binary"),
        ("a: !!set {b, c}", "The YAML type !!set"),
        ("a: !mine [1]", "The YAML type !mine"),
        ("a: .inf", ".inf has no meaning"),
        ("a: !!int x", "'x' is no number"),
        ("{{x}}: 1", "A key must be a word."),
        ("a: {<<: 1}", "`<<` takes a mapping"),
        ("a: &a [*a]", "an anchor contains itself"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        pytest.param("[" * 2000, "nested too deeply", marks=pytest.mark.no_cover),
        (b"a: \xff", "f.yaml:1: The file is not UTF-8 text."),
        ("x: 1\na: \x07", "f.yaml:2: There is a control character."),
        ("a: *nobody", "found undefined alias"),
        ("a: " + "x" * yamltext.MAX_BYTES, "The file is larger than"),
        ("x" * 200 + "\ny: 1", "This is not YAML"),
    ],
)
def test_what_is_refused(text: str | bytes, said: str) -> None:
    assert said in refused(text)


def test_a_small_file_cannot_be_a_large_tree() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    assert "more than 50000 values" in refused(laughs)
