from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from server.cli import talk as module
from server.cli.client import Client, ClientError
from server.cli.talk import Talk, deltas, interactive
from tests.cli.conftest import DONE, FakeServer, framed

Run = Callable[..., Result]


@pytest.fixture
def talk(fake: FakeServer) -> Iterator[Talk]:
    with Client(fake.url, None, key_hint="", start_hint="") as client:
        yield Talk(client, "guide")


def said(*events: Any, cut: int = 7) -> list[str]:
    data = b"".join(framed(event) for event in events)
    return list(deltas(data[at : at + cut] for at in range(0, len(data), cut)))


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_the_text_of_a_stream(cut: int) -> None:
    role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    comment = b": waiting\n\n"
    odd = "one\u2028two\x85three"
    events = (
        comment,
        role,
        odd,
        {"choices": [{"delta": None}]},
        {"choices": None},
        "!",
        usage,
        DONE,
    )
    assert said(*events, cut=cut) == [odd, "!"]


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (["a", {"error": {"message": "The engine broke."}}], "The engine broke."),
        (["a"], "The answer broke off."),
        ([], "The answer broke off."),
        ([b"data: {nope\n\n"], "no chat stream"),
        ([b"data: " + b"x" * (9 * 2**20)], "no chat stream"),
    ],
)
def test_streams_that_fail(events: list[Any], text: str) -> None:
    with pytest.raises(ClientError, match=text):
        said(*events, cut=2**20)


def test_a_conversation_remembers(talk: Talk, fake: FakeServer) -> None:
    talk.options = {"temperature": 0.0}
    talk.system("Be short.")
    fake.stream("He", "llo", DONE)
    assert list(talk.ask("Hi")) == ["He", "llo"]
    fake.stream("Fine", {"error": {"message": "broke"}})
    with pytest.raises(ClientError, match="broke"):
        list(talk.ask("How are you?"))
    fake.error("POST", "/v1/chat/completions", 503, "The engine is loading.")
    with pytest.raises(ClientError, match=r"The engine is loading\."):
        list(talk.ask("Lost"))
    assert fake.seen[1].body == {
        "model": "guide",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "How are you?"},
        ],
        "stream": True,
        "temperature": 0.0,
    }
    assert [m["content"] for m in talk.messages[3:]] == ["How are you?", "Fine"]
    talk.clear()
    assert talk.messages == [{"role": "system", "content": "Be short."}]


def answers(*lines: str | type[BaseException]) -> Callable[[str], str]:
    left = iter(lines)

    def read(prompt: str) -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read


def test_at_the_prompt(talk: Talk, fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    fake.stream("Hello", DONE)
    fake.models("a", "b")
    lines = ("Hi", "", "/models", "/model b", "/model", "/what", "/clear", "Hi again")
    interactive(talk, answers(*lines))
    out, err = capsys.readouterr()
    assert out == "Hello\nHello\n\n"
    assert err.startswith("Talking to guide. /help says")
    assert "a\nb\nTalking to b.\n/clear   begin anew" in err
    assert err.endswith("Forgotten.\n")
    assert fake.seen[-1].body["messages"] == [{"role": "user", "content": "Hi again"}]
    assert fake.seen[-1].body["model"] == "b"


@pytest.mark.parametrize("word", ["/exit", "/quit", "/bye"])
def test_leaving(word: str, talk: Talk, fake: FakeServer) -> None:
    interactive(talk, answers(word, "not asked"))
    assert fake.seen == []
    with pytest.raises(KeyboardInterrupt):
        interactive(talk, answers(KeyboardInterrupt))


def test_faults_do_not_end_the_conversation(
    talk: Talk, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.error("POST", "/v1/chat/completions", 400, "Too long.")
    fake.json("GET", "/v1/models", {"data": 5})
    interactive(talk, answers("Hi", "/models"))
    assert "Error: Too long.\n" in (err := capsys.readouterr().err)
    assert "lists no models" in err


def test_ctrl_c_stops_an_answer_and_keeps_what_came(
    talk: Talk,
    fake: FakeServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.stream("One", "Two", "Three", DONE)
    real = module._write

    def impatient(piece: str) -> str:
        if piece == "Two":
            raise KeyboardInterrupt
        return real(piece)

    monkeypatch.setattr(module, "_write", impatient)
    interactive(talk, answers("Count"))
    assert "(stopped)" in capsys.readouterr().err
    assert talk.messages[-1]["content"] == "OneTwo"


# --- the command, in a pipe


def test_chat_in_a_pipe(run: Run, fake: FakeServer) -> None:
    fake.stream("He", "llo\x1b[0m", DONE)
    result = run(
        "chat", "guide", "--base-url", fake.url, "--system", "s", "--max-tokens", "5",
        "--temperature", "0", input="Hi\nthere\n",
    )  # fmt: skip
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello\x1b[0m\n", "")
    assert fake.seen[0].body["messages"][1] == {"role": "user", "content": "Hi\nthere"}
    assert fake.seen[0].body["max_tokens"] == 5
    fake.stream("ends with a line\n", DONE)
    assert run("chat", "m", "--base-url", fake.url, input="x").stdout == "ends with a line\n"


def test_chat_picks_a_model(run: Run, fake: FakeServer) -> None:
    fake.stream("ok", DONE)
    fake.models("first")
    assert run("chat", "--base-url", fake.url, input="x").stderr == ""
    fake.models("first", "second")
    result = run("chat", "--base-url", fake.url, input="x")
    assert result.stderr == "Using first; there are also: second.\n"
    assert fake.seen[-1].body["model"] == "first"
    fake.models()
    result = run("chat", "--base-url", fake.url, input="x")
    assert "no model that this key may use" in result.stderr


def test_chat_faults(run: Run, fake: FakeServer) -> None:
    assert run("chat", "m", "--base-url", fake.url, input="").exit_code == 2
    fake.stream("partial", {"error": {"message": "The engine broke."}})
    result = run("chat", "m", "--base-url", fake.url, input="x")
    assert (result.exit_code, result.stdout) == (1, "partial")
    assert result.stderr == "Error: The engine broke.\n"
    fake.error("POST", "/v1/chat/completions", 401, "Unknown key.")
    result = run("chat", "m", "--base-url", fake.url, input="x")
    assert "Unknown key. Give the key with ROUNDHOUSE_API_KEY=…" in result.stderr
