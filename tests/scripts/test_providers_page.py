"""docs/providers.md is what the code says, and the code loses nothing in silence."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from openai.types import EmbeddingCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from scripts import provider_answers, providers_page
from scripts.provider_matrix import NAMES, WORDS, Asking, Cell, ask
from scripts.provider_probes import EMBEDDINGS, EXTENSIONS, MESSAGES, PARAMETERS, RERANK
from server.config.load import load
from server.config.providers_table import ROWS, SURFACES
from server.dialects.table import DIALECTS
from server.protocol.envelope import Surface
from tests.fakes.tls import make_tls

PROBES = (*PARAMETERS, *EXTENSIONS, *MESSAGES)
#: Who could be asked, with every model and setting that the page speaks of.
ASKINGS = [
    *(Asking.of(name) for name in NAMES),
    *(asking for _, asking in providers_page.VARIANTS),
]


def test_the_page_is_what_the_code_says() -> None:
    text = providers_page.PAGE.read_text("utf-8")
    assert text == providers_page.page(text), "run `make docs`"


def test_every_made_part_stands_on_the_page() -> None:
    text = providers_page.PAGE.read_text("utf-8")
    named = re.findall(r"<!-- made: (\w+) -->", text)
    assert sorted(named) == sorted(providers_page.PARTS)


def test_check_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["providers_page", "--check"])
    assert providers_page.main() == 0
    monkeypatch.setitem(providers_page.PARTS, "ends", lambda: "| other |\n")
    assert providers_page.main() == 1
    assert "make docs" in capsys.readouterr().err


def test_every_dialect_and_row_is_shown() -> None:
    assert set(NAMES) == {"openai", *DIALECTS} == set(SURFACES)
    shown = providers_page.rows()
    assert all(f"| `{name}` |" in shown for name in ROWS)


def test_every_parameter_of_openai_s_chat_is_asked_about() -> None:
    known = set(CompletionCreateParamsBase.__annotations__) - {"messages", "model"}
    asked = {probe.param for probe in PARAMETERS}
    assert known - asked == set()
    assert asked - known == set()


def test_every_parameter_of_openai_s_embeddings_is_asked_about() -> None:
    known = set(EmbeddingCreateParams.__annotations__) - {"input", "model"}
    assert known - {probe.param for probe in EMBEDDINGS} == set()


@pytest.mark.parametrize("asking", ASKINGS, ids=lambda one: f"{one.name}-{one.model}")
def test_nothing_is_lost_in_silence(asking: Asking) -> None:
    for probe in PROBES:
        word = ask(asking, probe).word
        assert word.partition(",")[0] in WORDS or word.startswith("`")
        assert word != "lost", probe.label


@pytest.mark.parametrize("surface", [Surface.EMBEDDINGS, Surface.RERANK])
def test_nothing_of_other_calls_is_lost_in_silence(surface: Surface) -> None:
    for name in providers_page.having(surface):
        for probe in EMBEDDINGS if surface is Surface.EMBEDDINGS else RERANK:
            assert ask(Asking.of(name), probe, surface).word != "lost", (name, probe.label)


def cell(name: str, label: str) -> Cell:
    (probe,) = (one for one in PROBES[: len(PARAMETERS)] if one.label == label)
    return ask(Asking.of(name), probe)


@pytest.mark.parametrize(
    ("name", "label", "shown"),
    [
        ("openai", "`seed`", "passes"),
        ("mistral", "`seed`", "`random_seed`"),
        ("anthropic", "`seed`", "refused"),
        ("anthropic", "`temperature` over 1", "`temperature`, adjusted"),
        ("anthropic", "`user`", "`metadata.user_id`"),
        ("anthropic", "`store`", "let go"),
        ("cohere", "`top_p: 1`", "`p`, adjusted"),
        ("cohere", "`tool_choice: auto`", "is so"),
        ("deepseek", "`temperature`", "let go"),
    ],
)
def test_what_is_known_of_some(name: str, label: str, shown: str) -> None:
    assert str(cell(name, label)) == shown


def test_the_configs_of_the_page_are_valid(tmp_path: Path) -> None:
    """With every variable set that they name, and the file of authorities."""
    (tmp_path / "lab-ca.pem").write_bytes(make_tls().ca_pem)
    text = providers_page.PAGE.read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        names = [
            *re.findall(r"\$\{(\w+)\}", block),
            *(v for r in ROWS.values() for v in r.variables),
        ]
        config = block if "version:" in block else f"version: 1\n{block}"
        path = tmp_path / "roundhouse.yaml"
        path.write_text(config)
        assert load(path, environ={name: f"key-of-{name}" for name in names}).config.providers


def test_answers_keep_what_the_provider_gave() -> None:
    for part, row in provider_answers.found():
        assert "not read" not in row, part


def test_a_provider_s_own_end_is_an_error_where_it_is_one() -> None:
    ends = {(name, word): ours for name, word, ours in provider_answers.ends()}
    assert ends["cohere", "ERROR"] == "502 `upstream_aborted`"
    assert ends["anthropic", "refusal"] == "`content_filter`"
    assert ends["huggingface", "eos_token"] == "`stop`"
