from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.loadtest.bench import Outcome, Settings
from server.loadtest.goodput import Limits
from server.loadtest.options import BadOption, Given, settings
from server.loadtest.plan import Ends, Load
from server.loadtest.prompts import Listed, Synthetic
from server.loadtest.record import Occasion, document, without_secrets
from server.loadtest.sample import Failure
from tests.loadtest.made import made, sample


def of(**given: Any) -> Settings:
    return settings("http://h", "m", "sk-1", Given(**given), 77)


def test_what_nobody_gave() -> None:
    found = of()
    assert found.steps == (Load(concurrency=8),)
    assert found.ends == Ends(None, 30.0, 20)
    assert found.prompts == Synthetic(128, 77)
    assert (found.seed, found.timeout, found.warmup, found.limits) == (77, 300.0, 1, None)
    body = msgspec.json.decode(found.body(0))
    assert body["max_tokens"] == 128
    assert {"temperature", "ignore_eos"}.isdisjoint(body)
    assert found.headers() == {"content-type": "application/json", "authorization": "Bearer sk-1"}


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"requests": 5}, "ends", Ends(5, None, 20)),
        ({"requests": 5, "duration": "1m"}, "ends", Ends(5, 60.0, 20)),
        ({"rate": "1,2"}, "steps", (Load(1.0), Load(2.0))),
        ({"rate": "1", "concurrency": "4"}, "steps", (Load(1.0, 4),)),
        ({"concurrency": "1,2"}, "steps", (Load(None, 1), Load(None, 2))),
        ({"seed": 0, "prompt_tokens": 5}, "prompts", Synthetic(5, 0)),
        ({"same_prompt": True}, "prompts", Synthetic(128, 77, same=True)),
        ({"timeout": "500ms"}, "timeout", 0.5),
        ({"goodput": "e2e:1s", "stream": False}, "limits", Limits(e2e=1.0)),
        (
            {"temperature": 0.0, "ignore_eos": True, "max_tokens": 3},
            "fields",
            {"max_tokens": 3, "temperature": 0.0, "ignore_eos": True},
        ),
    ],
)
def test_what_was_given(given: dict[str, Any], name: str, value: object) -> None:
    assert getattr(of(**given), name) == value


@pytest.mark.parametrize(
    ("given", "flag", "said"),
    [
        ({"concurrency": "x"}, "--concurrency", "write 8, or 1,8,64"),
        ({"rate": "0"}, "--rate", "write requests a second"),
        ({"rate": ""}, "--rate", "write requests a second"),
        ({"rate": "1", "concurrency": "1,2"}, "--concurrency", "give one number"),
        ({"duration": "soon"}, "--duration", "write seconds (30) or 500ms"),
        ({"duration": "0s"}, "--duration", "must be longer than nothing"),
        ({"timeout": "0"}, "--timeout", "must be longer than nothing"),
        ({"timeout": "9" * 400}, "--timeout", "must be longer than nothing, such as 30s"),
        ({"goodput": "x:1"}, "--goodput", "write it like ttft:500ms"),
        ({"goodput": "ttft:1s", "stream": False}, "--goodput", "with --no-stream give e2e alone"),
        ({"prompts": "p", "prompt_tokens": 5}, "--prompt-tokens", "leave it or --prompts away"),
        ({"prompts": "p", "same_prompt": True}, "--same-prompt", "leave it or --prompts away"),
        ({"prompts": "nope"}, "--prompts", "nope cannot be read: No such file or directory."),
        ({"prompts": "."}, "--prompts", "cannot be read: Is a directory."),
        ({"prompts": "a\0b"}, "--prompts", "no name of a file"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], flag: str, said: str) -> None:
    with pytest.raises(BadOption, match=re.escape(said)) as caught:
        of(**given)
    assert caught.value.flag == flag


def test_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffWhat is a fallback?\n".encode())
    assert of(prompts=str(file)).prompts == Listed(
        (({"role": "user", "content": "What is a fallback?"},),), "mine.txt"
    )
    file.write_text("{oops")
    with pytest.raises(BadOption, match=r"mine\.txt: line 1: begins with"):
        of(prompts=str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadOption, match="is no UTF-8 text"):
        of(prompts=str(file))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["bench", "m", "--api-key", "sk-1", "--rate", "2"], "bench m --api-key *** --rate 2"),
        (["--api-key=sk-1"], "--api-key=***"),
        (["--base-url", "https://u:p@h:1/v1"], "--base-url https://h:1/v1"),
        (["--base-url=https://u:p@h"], "--base-url=https://h"),
        (["a@b", "--goodput", "ttft:1s"], "a@b --goodput ttft:1s"),
    ],
)
def test_a_recorded_command_line_holds_no_secrets(arguments: list[str], shown: str) -> None:
    assert " ".join(without_secrets(arguments)) == shown


def test_the_record() -> None:
    asked = settings("http://u:p@h", "m", "sk-secret", Given(requests=2, same_prompt=True), 7)
    outcome = Outcome([made([sample(), sample()])], 3, [Failure("HTTP 500", "cold")])
    occasion = Occasion("2026-11-21T05:00:00+00:00", "0.1.0", ["roundhouse", "bench"])
    found = document(asked, outcome, occasion, interrupted=True, raw=True)
    written = json.dumps(found)
    assert "sk-secret" not in written
    assert "u:p" not in written
    assert found["format"] == 1
    assert found["settings"] == {
        "base_url": "http://h",
        "model": "m",
        "requests": 2,
        "duration_seconds": None,
        "max_errors": 20,
        "warmup_requests": 1,
        "timeout_seconds": 300.0,
        "seed": 7,
        "stream": True,
        "prompts": {"source": "synthetic", "tokens_about": 128, "same": True},
        "request_fields": {"max_tokens": 128},
        "percentiles": "nearest rank",
    }
    assert found["environment"]["command"] == ["roundhouse", "bench"]
    assert found["environment"]["roundhouse"] == "0.1.0"
    assert (found["interrupted"], found["prompts_repeated"]) == (True, True)
    assert found["warmup_requests_failed"] == 1
    (step,) = found["steps"]
    assert step["ttft_seconds"]["p50"] == 1.0
    assert len(step["samples"]) == 2
