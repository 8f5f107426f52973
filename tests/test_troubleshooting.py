"""docs/troubleshooting.md: every code that the server gives stands there, and nothing else does."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from server.api.openapi_schemas import MORE_CODES

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
#: Asks servers, and gives no codes of its own.
CLIENT = ROOT / "server" / "loadtest"


@functools.cache
def trees() -> tuple[ast.Module, ...]:
    files = [path for path in (ROOT / "server").rglob("*.py") if CLIENT not in path.parents]
    return tuple(ast.parse(path.read_text("utf-8")) for path in files)


def nodes() -> Iterator[ast.AST]:
    for tree in trees():
        yield from ast.walk(tree)


def strings(node: ast.AST) -> Iterator[str]:
    """The words that an expression may come to; what it is asked by (`x["code"]`) is none."""
    match node:
        case ast.Constant(value=str(word)):
            yield word
        case ast.IfExp(body=one, orelse=other):
            yield from strings(one)
            yield from strings(other)
        case ast.BoolOp(values=values):
            for value in values:
                yield from strings(value)


def assigned(target: ast.AST, value: ast.AST) -> Iterator[str]:
    """What becomes `code`, `x.code` or `x["code"]` by an assignment."""
    match target, value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values):
            for one, other in zip(targets, values, strict=True):
                yield from assigned(one, other)
        case (
            ast.Name(id="code")
            | ast.Attribute(attr="code")
            | ast.Subscript(slice=ast.Constant(value="code")),
            _,
        ):
            yield from strings(value)


def given() -> set[str]:
    """Every code that stands in server/ as one."""
    found: set[str] = set(MORE_CODES)
    for node in nodes():
        match node:
            case ast.keyword(arg="code", value=value):
                found.update(strings(value))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    found.update(assigned(target, value))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                found.update(assigned(target, value))
    return found


def told() -> list[str]:
    """The codes that have a heading of their own."""
    headings = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
    return [code for heading in headings for code in re.findall(r"`([a-z_]+)`", heading)]


def test_every_code_of_the_server_is_explained() -> None:
    assert given() - set(told()) == set(), "docs/troubleshooting.md lacks an entry"


def test_no_code_is_explained_that_the_server_does_not_give() -> None:
    assert set(told()) - given() == set()


def test_each_code_has_one_entry() -> None:
    assert sorted(told()) == sorted(set(told()))


def test_the_collection_sees_every_way_to_give_a_code() -> None:
    ways = {
        "overloaded",  # of a class
        "out_of_descriptors",  # an argument
        "upstream_refused_credentials",  # assigned with others
        "slow_client",  # of a class that stands elsewhere
    }
    assert ways <= given()


def test_what_is_quoted_are_the_server_s_own_words() -> None:
    """A quoted message is made of what stands in the code. Numbers, `names` and `…` stand for
    particulars."""
    texts = {
        bare
        for node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for part in re.split(r"`[^`]*`|(?<=[.?]) ", node.value)
        if len(bare := part.strip(" .,:;`")) >= 5
    }
    quoted = re.findall(r"^> (?:\d{3} )?(.+)$", TEXT, re.MULTILINE)
    assert len(quoted) > 50
    strange = [m for m in quoted if own(re.sub(r"`[^`]*`|…", "", m), texts) < 0.7]
    assert strange == []


def own(message: str, texts: set[str]) -> float:
    """The share of a message's letters that stand in one of these texts."""
    known = [False] * len(message)
    for text in texts:
        at = message.find(text)
        if at >= 0:
            known[at : at + len(text)] = [True] * len(text)
    letters = [ours for letter, ours in zip(message, known, strict=True) if letter.isalpha()]
    return sum(letters) / max(1, len(letters))


def test_every_reason_of_an_engine_s_end_is_explained() -> None:
    reasons: set[str] = set()
    for node in nodes():
        match node:
            case ast.Call(func=ast.Name(id="EngineError"), keywords=keywords):
                for keyword in keywords:
                    if keyword.arg == "reason":
                        reasons.update(strings(keyword.value))
    assert len(reasons) > 5
    rows = set(re.findall(r"^\| `([a-z]+)` \|", TEXT, re.MULTILINE))
    assert reasons - rows == set()


def test_the_statuses_are_those_of_the_table_of_errors() -> None:
    table = (ROOT / "docs" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (`[^|]+) \|", table, re.MULTILINE)
    known = {(status, code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    entries = re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]
    found = {
        (status, code)
        for entry in entries
        for code in re.findall(r"`([a-z_]+)`", entry.partition("\n")[0])
        for status in re.findall(r"^> (\d{3}) ", entry, re.MULTILINE)
    }
    assert len(found) > 30
    # `upstream_error` has the target's own status.
    assert {pair for pair in found - known if pair[1] != "upstream_error"} == set()
