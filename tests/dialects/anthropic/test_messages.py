"""Messages as turns: what goes where, what is refused, what is lost by name."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from server.errors import InvalidRequest
from tests.dialects.anthropic.helpers import out, sent

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40
JPEG = b"\xff\xd8\xff\xe0" + b"\x00" * 40
GIF = b"GIF89a" + b"\x00" * 40
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\x00" * 40
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x00" * 40
PDF = b"%PDF-1.7\n" + b"\x00" * 40
MARK = {"type": "ephemeral"}


def data_url(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def call(identity: str = "call_1", arguments: str = '{"a": 1}') -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


def tool_use(identity: str = "call_1", given: Any = None) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": identity,
        "name": "f",
        "input": {"a": 1} if given is None else given,
    }


def result(identity: str = "call_1", **content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, **content}


def tool(content: Any, identity: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def turns(*messages: dict[str, Any]) -> Any:
    return out({"messages": list(messages)})["messages"]


def lost(*messages: dict[str, Any]) -> tuple[str, ...]:
    return sent({"messages": list(messages)}).dropped


def test_instructions_stand_above_the_turns() -> None:
    body = out(
        {
            "messages": [
                {"role": "system", "content": "one"},
                {"role": "developer", "content": [text("two", cache_control=MARK), text(" ")]},
                user("u"),
                {"role": "system", "content": "three"},
                {"role": "assistant", "content": "a"},
                {"role": "developer", "content": [text("four"), text("five")]},
            ]
        }
    )
    assert body["system"] == [
        text("one"),
        text("two", cache_control=MARK),
        text("three\nfour\nfive"),
    ]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (GIF, "image/gif"), (WEBP, "image/webp")],
)
@pytest.mark.parametrize("declared", ["image/jpeg", "image/png", "application/octet-stream", ""])
def test_an_image_is_what_its_bytes_say(data: bytes, kind: str, declared: str) -> None:
    part = {"type": "image_url", "image_url": {"url": data_url(data, declared), "detail": "auto"}}
    source = {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}
    assert turns(user([text("see"), part])) == [
        user([text("see"), {"type": "image", "source": source}])
    ]


def test_an_image_elsewhere() -> None:
    url = "https://example.com/a.png"
    part = {"type": "image_url", "image_url": {"url": url}, "cache_control": MARK}
    source = {"type": "url", "url": url}
    assert turns(user([part])) == [
        user([{"type": "image", "source": source, "cache_control": MARK}])
    ]


@pytest.mark.parametrize("said", [data_url(PDF, "application/pdf"), base64.b64encode(PDF).decode()])
@pytest.mark.parametrize("named", [{}, {"filename": "a.pdf"}])
def test_a_document(said: str, named: dict[str, str]) -> None:
    data = base64.b64encode(PDF).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    title = {"title": "a.pdf"} if named else {}
    assert turns(user([{"type": "file", "file": {"file_data": said, **named}}])) == [
        user([{"type": "document", "source": source, **title}])
    ]


def test_calls_stand_after_the_text_and_results_in_one_turn() -> None:
    assert turns(
        user("q"),
        {"role": "assistant", "content": "t", "tool_calls": [call(), call("call_2", "")]},
        tool("r1"),
        tool([text("r2"), text("r3")], "call_2"),
        user("and?"),
    ) == [
        user([text("q")]),
        {"role": "assistant", "content": [text("t"), tool_use(), tool_use("call_2", {})]},
        user(
            [
                result(content="r1"),
                result("call_2", content=[text("r2"), text("r3")]),
                text("and?"),
            ]
        ),
    ]


def test_results_come_first() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [call(), call("call_2")]}
    assert turns(user("q"), calls, tool("r1"), user("wait"), tool("", "call_2"), user("so?"))[
        -1
    ] == user([result(content="r1"), result("call_2"), text("wait"), text("so?")])


def test_a_result_may_be_an_image() -> None:
    part = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    block = turns(user("q"), {"role": "assistant", "tool_calls": [call()]}, tool([part]))[-1]
    assert block["content"][0]["content"][0]["source"]["media_type"] == "image/png"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" \n", {}),
        ("{}", {}),
        ('{"a": {"b": [1.0, "é"]}}', {"a": {"b": [1.0, "é"]}}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
    ],
)
def test_arguments_are_an_object(arguments: Any, given: Any) -> None:
    made = turns(user("q"), {"role": "assistant", "tool_calls": [call("c", arguments)]})
    assert made[-1]["content"] == [tool_use("c", given)]


def test_arguments_go_out_as_they_were_written() -> None:
    written = '{"big": 12345678901234567890123, "f": 1.10, "e": "\\u00e9"}'
    calls = {"role": "assistant", "tool_calls": [call("c", written)]}
    assert written.encode() in sent({"messages": [user("q"), calls]}).body


def test_ids_of_others_are_brought_into_form_alike_on_both_sides() -> None:
    odd = ["functions.f:0", "functions.f.0", "é"]
    made = turns(
        user("q"),
        {"role": "assistant", "tool_calls": [call(identity) for identity in odd]},
        *(tool("r", identity) for identity in odd),
    )
    told = [block["id"] for block in made[1]["content"]]
    assert told == [block["tool_use_id"] for block in made[2]["content"]]
    assert len(set(told)) == 3
    assert all(identity.isascii() and identity.replace("_", "").isalnum() for identity in told)


def test_reasoning_comes_back_word_for_word() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    said = {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "Hm.",
        "reasoning_details": [{"index": i, **block} for i, block in enumerate(blocks)],
        "tool_calls": [call()],
    }
    assert turns(user("q"), said, tool("r"))[1]["content"] == [*blocks, text("a"), tool_use()]
    assert lost(user("q"), said) == ()


def test_a_refusal_was_said_too() -> None:
    said = {"role": "assistant", "content": None, "refusal": "No."}
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    for message in (said, parts):
        assert turns(user("q"), message)[-1]["content"] == [text("No.")]


def test_blank_text_is_left_out() -> None:
    answers: list[dict[str, Any]] = [
        {"role": "assistant", "content": "\n\n", "tool_calls": [call()]},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None},
    ]
    assert turns(user([text(" "), text("q")]), *answers) == [
        user([text("q")]),
        {"role": "assistant", "content": [tool_use()]},
    ]


def test_marks_for_the_cache() -> None:
    body = out(
        {
            "messages": [
                {"role": "system", "content": "s", "cache_control": MARK},
                user("q", cache_control=MARK),
                {"role": "assistant", "tool_calls": [call()], "cache_control": MARK},
                {**tool("r"), "cache_control": MARK},
            ]
        }
    )
    assert body["system"] == [text("s", cache_control=MARK)]
    blocks = [turn["content"][-1] for turn in body["messages"]]
    assert [block.get("cache_control") for block in blocks] == [MARK] * 3


ECHO: dict[str, Any] = {
    "role": "assistant",
    "content": "a",
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": None,
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("messages.audio", {**ECHO, "audio": {"id": "audio_1"}}),
        ("messages.name", user("q", name="Ann")),
        ("messages.reasoning_content", {**ECHO, "reasoning_content": "Hm."}),
        ("messages.reasoning_content", {**ECHO, "reasoning": "Hm."}),
        (
            "messages.reasoning_details",
            {**ECHO, "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        ),
        (
            "messages.detail",
            user([{"type": "image_url", "image_url": {"url": data_url(PNG), "detail": "high"}}]),
        ),
        ("messages.mood", user("q", mood="grim")),
        ("messages.mood", user([{**text("q"), "mood": "grim"}])),
        (
            "messages.cache_control",
            {"role": "system", "content": [text("late", cache_control=MARK)]},
        ),
    ],
)
def test_what_is_lost_is_named(name: str, message: dict[str, Any]) -> None:
    assert lost(user("q"), message, message) == (name,)


def test_an_answer_sent_back_as_it_came_loses_nothing() -> None:
    assert lost(user("q"), ECHO, {**tool("r"), "name": "f"}) == ()


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("hello", "messages"),
        (["hello"], "messages[0]"),
        ([{"role": "system", "content": "s"}], "messages"),
        ([{"role": "critic", "content": "s"}], "messages[0].role"),
        ([user("")], "messages[0].content"),
        ([user([])], "messages[0].content"),
        ([user(None)], "messages[0].content"),
        ([user(7)], "messages[0].content"),
        ([user([text(7)])], "messages[0].content[0].text"),  # type: ignore[arg-type]
        ([user(["q"])], "messages[0].content[0].type"),
        (
            [user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])],
            "messages[0].content[0].type",
        ),
        ([user([{"type": "video_url"}])], "messages[0].content[0].type"),
        ([user([{"type": "image_url"}])], "messages[0].content[0].image_url.url"),
        *(
            (
                [user([text("q"), {"type": "image_url", "image_url": {"url": url}}])],
                "messages[0].content[1].image_url.url",
            )
            for url in (
                "ftp://a/b",
                data_url(WAV),
                data_url(b"BM  bitmap"),
                data_url(PDF),
                "data:,x",
                "x!",
                7,
            )
        ),
        ([user([{"type": "file"}])], "messages[0].content[0].file"),
        ([user([{"type": "file", "file": {}}])], "messages[0].content[0].file.file_data"),
        (
            [user([{"type": "file", "file": {"file_id": "f"}}])],
            "messages[0].content[0].file.file_id",
        ),
        (
            [user([{"type": "file", "file": {"file_data": data_url(PNG)}}])],
            "messages[0].content[0].file.file_data",
        ),
        (
            [user("q"), {"role": "assistant", "content": [{"type": "image_url"}]}],
            "messages[1].content[0].type",
        ),
        ([{"role": "system", "content": [{"type": "file"}]}], "messages[0].content[0].type"),
        ([user("q"), {"role": "assistant", "tool_calls": {"a": 1}}], "messages[1].tool_calls"),
        (
            [user("q"), {"role": "assistant", "reasoning_details": "Hm.", "content": "a"}],
            "messages[1].reasoning_details",
        ),
        *(
            ([user("q"), {"role": "assistant", "tool_calls": [said]}], f"messages[1].{where}")
            for said, where in (
                ("x", "tool_calls[0]"),
                ({**call(), "type": "custom"}, "tool_calls[0]"),
                ({**call(), "function": {"name": ""}}, "tool_calls[0].function.name"),
                ({**call(), "id": None}, "tool_calls[0].id"),
                (call("c", "[1]"), "tool_calls[0].function.arguments"),
                (call("c", '{"a":'), "tool_calls[0].function.arguments"),
                (call("c", 7), "tool_calls[0].function.arguments"),  # type: ignore[arg-type]
            )
        ),
        ([user("q"), {"role": "tool", "content": "r"}], "messages[1].tool_call_id"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent({"messages": messages})
    assert refused.value.param == param
    assert len(json.dumps(refused.value.body())) < 500
