"""What requests need, what targets lack, and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from server.config.cards import ABILITIES
from server.protocol.envelope import Surface, members
from server.routing import abilities
from server.routing.abilities import KEPT, PARAMETERS, Able, Needs

NOTHING = dict.fromkeys(PARAMETERS, False)
TEXT = [{"role": "user", "content": "hi"}]


def needs(surface: Surface = Surface.CHAT, **fields: Any) -> Needs:
    return Needs(members(json.dumps(fields).encode()), surface)


def chat(*parts: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts), **more}]


def part(kind: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": "data:,"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "tools"),
        ({"tools": []}, None),
        ({"tools": None}, None),
        ({"tools": "no list"}, None),
        ({"tool_choice": "none"}, None),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"response_format": {"type": "json_object"}}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": None}, None),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),  # a completion's: those of the tokens taken
        ({"logprobs": False}, None),
        ({"logprobs": None}, None),
        ({"prompt_logprobs": 1}, "logprobs"),
        ({"n": 2}, "n"),
        ({"n": 1}, None),
        ({"n": None}, None),
        ({"n": "two"}, None),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"modalities": ["text"]}, None),
        ({"modalities": 7}, None),
        ({"audio": {"voice": "v"}}, "audio"),
        ({"messages": chat(part("image_url"))}, "vision"),
        ({"messages": chat(part("input_image"))}, "vision"),
        ({"messages": chat(part("image_embeds"))}, "vision"),
        ({"messages": chat(part("video_url"))}, "vision"),
        ({"messages": chat(part("input_audio"))}, "audio"),
        ({"messages": chat(part("audio_url"))}, "audio"),
        ({"messages": chat("text", part("text"), {"image_url": "u"})}, "vision"),
        ({"messages": chat({"type": "text", "text": "x", "image_url": None})}, None),
        ({"messages": chat({"type": 7})}, None),
        ({"messages": chat(7)}, None),
        ({"messages": [*TEXT, {"role": "tool", "content": [part("image_url")]}]}, "vision"),
        ({"messages": [{"role": "assistant"}]}, None),
        ({"messages": [{"role": "assistant", "content": None}]}, None),
        ({"messages": "no list"}, None),
        # The word alone is no part, nor is one that is nested in something else.
        ({"messages": [{"role": "user", "content": '"image_url": [{"type": "image_url"}]'}]}, None),
        ({"messages": [{"role": "user", "content": "image_url"}]}, None),
        ({"messages": [{"role": "user", "content": "x", "extra": [part("image_url")]}]}, None),
        ({"messages": chat({"type": "text", "text": "x", "extra": part("image_url")})}, None),
    ],
)
def test_what_is_missing(fields: dict[str, Any], expected: str | None) -> None:
    request = needs(**({"messages": TEXT} | fields))
    assert request.missing(Able.of(NOTHING)) == expected
    # What it can, or may be able to, it may try.
    unknown: dict[str, bool | None] = dict.fromkeys(PARAMETERS)
    for able in (Able.of(dict.fromkeys(PARAMETERS, True)), Able.of(unknown), Able.of({})):
        assert request.missing(able) is None


def test_a_spelling_with_escapes_is_found() -> None:
    body = rb'{"messages":[{"role":"user","c\u006fntent": [{"type":"image\u005furl"}]}]}'
    assert Needs(members(body), Surface.CHAT).missing(Able.of(NOTHING)) == "vision"


def test_images_and_sounds_at_once() -> None:
    request = needs(messages=chat(part("image_url"), part("input_audio")))
    assert request.missing(Able.of({"audio": False, "vision": True})) == "audio"
    assert request.missing(Able.of({"audio": None, "vision": False})) == "vision"


def test_a_body_without_messages_has_no_images() -> None:
    assert needs(Surface.COMPLETIONS, prompt="x").missing(Able.of({"vision": False})) is None


def test_the_cards_abilities_are_known_here() -> None:
    """What a card can say is looked for, or is nothing that a body asks of a target."""
    assert set(ABILITIES) - set(PARAMETERS) == {"streaming", "reasoning"}
    assert Able.of({"streaming": False, "reasoning": False}) == Able()


@pytest.mark.parametrize(
    ("fields", "drop", "expected"),
    [
        ({"logprobs": True}, {"logprobs"}, None),
        ({"logprobs": True, "prompt_logprobs": 1}, {"logprobs"}, "logprobs"),
        ({"logprobs": True, "tools": [{}]}, {"logprobs"}, "tools"),
        ({"modalities": ["audio"], "audio": {}}, {"modalities"}, None),
        ({"modalities": ["audio"], "audio": {}}, {"audio"}, "audio"),
        ({"n": 3}, {"n"}, None),
        ({"messages": chat(part("image_url"))}, {"messages"}, "vision"),
    ],
)
def test_what_is_dropped_is_not_needed(
    fields: dict[str, Any], drop: set[str], expected: str | None
) -> None:
    assert needs(**fields).missing(Able.of(NOTHING, drop=frozenset(drop))) == expected


@pytest.mark.parametrize(
    ("drop", "names"),
    [
        (set(), ()),
        ({"seed"}, ()),
        ({"top_p"}, ("top_p",)),
        ({"tools"}, ("tools", "tool_choice", "parallel_tool_calls")),
        ({"logprobs", "top_p"}, ("logprobs", "top_logprobs", "top_p")),
        ({"messages", "model", "stream"}, ()),
    ],
)
def test_dropped(drop: set[str], names: tuple[str, ...]) -> None:
    order = (
        "model messages stream tools logprobs tool_choice top_logprobs parallel_tool_calls top_p"
    )
    body = {name: Raw(b"1") for name in order.split()}
    kept, out = Able.of({}, drop=frozenset(drop)).without_dropped(body)
    assert sorted(out) == sorted(names)
    assert set(kept) == set(body) - set(names)
    assert kept is body or names


@given(
    st.frozensets(st.sampled_from([*PARAMETERS, *KEPT, "seed", "tool_choice"])),
    st.frozensets(st.sampled_from([*PARAMETERS, *KEPT, "seed", "tool_choice"])),
)
def test_dropping_loses_nothing_else(names: frozenset[str], drop: frozenset[str]) -> None:
    body = {name: Raw(name.encode()) for name in sorted(names)}
    kept, out = Able.of({}, drop=drop).without_dropped(body)
    assert [name for name in body if name in kept or name in out] == list(body)
    assert not set(kept) & set(out)
    assert KEPT & names <= set(kept)
    assert all(kept[name] is body[name] for name in kept)


IDS: dict[str, Any] = {"window": 10}
TEXTS: dict[str, Any] = {"window": 10, "longest_token": 4}


@pytest.mark.parametrize(
    ("known", "prompt", "over"),
    [
        (IDS, list(range(10)), False),
        (IDS, list(range(11)), True),
        (IDS, [[1], [2] * 11], True),
        (IDS, [[1] * 10, [2] * 10], False),
        (IDS, [[1] * 5] * 40, False),  # many, each short enough
        (IDS, "x" * 1000, False),  # text: nothing is known of the vocabulary
        (IDS, ["x" * 1000], False),
        (IDS, [1.5] * 100, False),
        (IDS, None, False),
        (TEXTS, "x" * 40, False),
        (TEXTS, "x" * 41, True),
        (TEXTS, ["x" * 40, "x"], False),
        (TEXTS, ["x", "x" * 41], True),
        (TEXTS, "ü" * 40, False),
        (TEXTS, list(range(11)), True),
        ({"window": 10, "longest_token": 1}, "x" * 11, True),
    ],
)
def test_context_of_completions(known: dict[str, Any], prompt: Any, over: bool) -> None:
    fields = {} if prompt is None else {"prompt": prompt}
    missing = needs(Surface.COMPLETIONS, **fields).missing(Able.of({}, **known))
    assert missing == ("context" if over else None)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(length: int) -> dict[str, Any]:
    return {"type": "text", "text": "x" * length}


@pytest.mark.parametrize(
    ("messages", "over"),
    [
        ([user("x" * 40)], False),
        ([user("x" * 41)], True),
        ([user("x" * 40 + " " * 900)], False),  # templates strip
        ([user("ü" * 40)], False),
        ([user("x" * 1000), user("x")], False),  # templates may leave out what is old
        ([user("x" * 41), {"role": "assistant", "content": "y"}], True),
        ([{"role": "assistant", "content": "x" * 1000}], False),
        ([user([text(20), text(21)])], True),
        ([user([text(20), part("image_url"), text(20)])], False),
        ([user([text(20), "x" * 99])], False),
        ([user({"x": "x" * 99})], False),
        ([{"role": "user", "name": "x" * 99}], False),
    ],
)
def test_context_of_chats(messages: list[Any], over: bool) -> None:
    request = needs(messages=messages)
    assert request.missing(Able.of({}, **TEXTS)) == ("context" if over else None)
    assert request.missing(Able.of({}, **IDS)) is None


def test_what_may_be_shortened_is_not_judged() -> None:
    long = {"prompt": list(range(99))}
    able = Able.of({}, window=10)
    assert needs(Surface.COMPLETIONS, **long, truncate_prompt_tokens=5).missing(able) is None
    assert needs(Surface.COMPLETIONS, **long, transforms=["middle-out"]).missing(able) is None
    assert needs(Surface.COMPLETIONS, **long, truncate_prompt_tokens=None).missing(able)


def test_embeddings_are_not_judged() -> None:
    able = Able.of({}, window=1, longest_token=1)
    assert needs(Surface.EMBEDDINGS, input="x" * 99).missing(able) is None
    assert needs(Surface.CHAT).missing(able) is None


#: Parts with more quotes than objects may be built of one request.
MANY = [{"type": "text", "text": 'say "x"'}] * 2000


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (part("image_url"), "vision"),
        (part("input_audio"), "audio"),
        ({"image_url": "u"}, "vision"),
        ({"type": "image_embeds"}, "vision"),
        ({"type": "text", "text": "x", "image_url": None}, None),
        ({"type": "text", "text": "image_url"}, None),
        ({"type": "text", "text": '"type": "image_url"'}, None),
        ({"type": "text", "text": '{"image_url": 1} ' * 2000}, None),
        ("image_url", None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("indent", [None, 3])
def test_many_parts(last: Any, expected: str | None, indent: int | None) -> None:
    body = json.dumps({"messages": [*TEXT, *chat(*MANY, last), *TEXT]}, indent=indent).encode()
    assert Needs(members(body), Surface.CHAT).missing(Able.of(NOTHING)) == expected


def test_a_picture_before_many_parts_is_found() -> None:
    body = rb'{"messages":[{"content":[{"type":"image\u005furl"}]},{"content":[%s]}]}'
    many = b",".join([b"{}"] * 10_000)
    request = Needs(members(body % many), Surface.CHAT)
    assert request.missing(Able.of(NOTHING)) == "vision"


@pytest.mark.parametrize("piece", ["{}", '""', '{"type":""}', '"image_url"', '{"a":"image_url"}'])
def test_no_request_has_more_built_than_a_bound(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = 0

    class Counting:
        def __init__(self, decoder: Any) -> None:
            self.decoder = decoder

        def decode(self, raw: Any) -> Any:
            nonlocal built
            found = self.decoder.decode(raw)
            built += len(found)
            return found

    for name in ("_messages", "_parts", "_strings", "_modalities"):
        monkeypatch.setattr(abilities, name, Counting(getattr(abilities, name)))
    messages = '{"role":"user","content":[' + ",".join([piece] * 4000) + "]}"
    body = '{"messages":[' + ",".join([messages] * 10) + "]}"
    request = Needs(members(body.encode()), Surface.CHAT)
    assert request.missing(Able.of(NOTHING, **TEXTS)) is None
    many = ",".join([piece] * 40_000)
    body = f'{{"prompt":[{many}],"modalities":[{many}]}}'
    request = Needs(members(body.encode()), Surface.COMPLETIONS)
    assert request.missing(Able.of(NOTHING, **TEXTS)) is None
    assert 10 < built < 20_000


@pytest.mark.parametrize(
    ("prompt", "over"),
    [
        ("[1, 2,\n3]" + " " * 99, False),
        ("[" + "-1, " * 10 + "1]", True),
        ("[[1],[" + "2," * 10 + "2]]", True),
        ("[[" + "1," * 9 + "1], [" + "2," * 9 + "2]]", False),
        ("[[]" + ",[]" * 40 + "]", False),
        ("[[]" + ",[]" * 10_000 + "]", False),
        ('[["' + "x" * 99 + '"]]', False),
        ("[" + "0," * 40 + "null]", False),
    ],
)
def test_ids_are_counted_as_they_are_written(prompt: str, over: bool) -> None:
    body = f'{{"prompt": {prompt}}}'.encode()
    missing = Needs(members(body), Surface.COMPLETIONS).missing(Able.of({}, **TEXTS))
    assert missing == ("context" if over else None)


@pytest.mark.parametrize(
    ("name", "value", "asks"),
    [
        ("tools", "[ \n ]", False),
        ("tools", "[ \n 0]", True),
        ("response_format", '{"type":"json\\u005fschema"}', True),
        ("response_format", '{"type":' + "[" * 30 + "]" * 30 + "}", False),
        ("n", "[" + "{}," * 99 + "2]", False),
        ("n", "9" * 400, False),
    ],
)
def test_what_asks_however_it_is_written(name: str, value: str, asks: bool) -> None:
    body = f'{{"{name}": {value}}}'.encode()
    assert Needs(members(body), Surface.EMBEDDINGS).missing(Able.of(NOTHING)) == (
        {"tools": "tools", "response_format": "json_schema"}[name] if asks else None
    )
