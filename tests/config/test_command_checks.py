"""Engines with `runtime: command`: what starts them, and which keys mean something for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.config.command_checks import words
from server.config.engine import COMMAND_KEYS, LOCAL_KEYS, VLLM_KEYS
from server.config.load import Loaded
from server.config.resolve import external_engines, local_engines, resolve_models
from server.registry.catalog import builtin

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]

CMD = "llama-server --port ${PORT} -m m.gguf"


def command(cmd: str, more: str = "") -> str:
    """`cmd` as it is to be read."""
    text = cmd.replace("'", "''")
    return f"version: 1\nengines: {{e: {{runtime: command, cmd: '{text}'{more}}}}}\n"


# --- what is read


def test_a_command_is_an_engine_of_ours(good: Good) -> None:
    loaded = good(command(CMD))
    engine = loaded.config.engines["e"]
    assert (engine.command, engine.external, engine.weights) == (True, False, None)
    assert (engine.cmd, engine.health, engine.model) == (CMD, "/health", None)
    assert list(local_engines(loaded.config)) == ["e"]
    assert not external_engines(loaded.config)
    assert resolve_models(loaded.config)["e"].targets[0].engine == "e"
    assert loaded.advice == ()


def test_what_else_is_for_it(good: Good) -> None:
    more = (
        ", weights: m.gguf, model: qwen, device: 'cuda:0', memory: 10GiB, env: {A: b}, "
        "load: request, idle: 15m, residency: 1m, groups: [g], start_timeout: 1m, "
        "stop_timeout: 1s, health: '/v1/models', max_in_flight: 4"
    )
    other = ", f: {weights: w, groups: [g], load: request}}"
    text = command(CMD, more)[:-2] + other + "\n"
    loaded = good(text)
    engine = loaded.config.engines["e"]
    assert (engine.weights, engine.model, engine.memory) == ("m.gguf", "qwen", 10 * 2**30)
    assert (engine.health, engine.groups) == ("/v1/models", ("g",))
    assert loaded.advice == ()
    assert good(command(CMD, ", pinned: true, replicas: 2")).config.engines["e"].replicas == 2


def test_its_card_is_that_of_what_it_calls_the_model(good: Good) -> None:
    id = next(card.model_id for card in builtin().values() if card.local and "/" in card.model_id)
    loaded = good(command(CMD, f", model: {id}"))
    card = resolve_models(loaded.config)["e"].about.card
    assert card is not None
    assert card.model_id == id


def test_words_are_cut_as_a_shell_does() -> None:
    assert words("a 'b c' \"d e\" f\\ g --port=${PORT}") == [
        "a", "b c", "d e", "f g", "--port=${PORT}",
    ]  # fmt: skip
    assert words("sh -c 'exec a | b'") == ["sh", "-c", "exec a | b"]


# --- the port


def test_the_port_is_left_alone_and_other_variables_are_not(good: Good) -> None:
    cmd = "s --port ${PORT} -m ${HOME}/m --at http://h:${PORT}/${X:-x} $${y} $${PORT}"
    environ = {"HOME": "/root", "PORT": "8080"}
    found = good(command(cmd), environ=environ).config.engines["e"].cmd
    assert found == "s --port ${PORT} -m /root/m --at http://h:${PORT}/x ${y} ${PORT}"


def test_elsewhere_it_is_a_variable_like_any_other(good: Good, faults: Faults) -> None:
    text = command(CMD, ', env: {P: "${PORT}"}')
    assert good(text, environ={"PORT": "8080"}).config.engines["e"].env == {"P": "8080"}
    (said,) = faults(text)
    assert "engines.e.env.P: ${PORT} is not set." in said
    (said,) = faults(command("s ${PORT} ${NOPE}"))
    assert "engines.e.cmd: ${NOPE} is not set." in said


def test_a_port_with_a_default_is_a_variable(faults: Faults) -> None:
    for environ in ({}, {"PORT": "80"}):
        (said,) = faults(command("s --port ${PORT:-80}"), environ=environ)
        assert "engines.e.cmd: has no `${PORT}`" in said


# --- what is refused

CASES = {
    "version: 1\nengines: {e: {runtime: command}}": "engines.e.cmd: is missing. Write `cmd: "
    '"llama-server --port ${PORT} -m model.gguf"`.',
    "version: 1\nengines: {e: {runtime: command, cmd: }}": "engines.e.cmd: has no value. Write",
    "version: 1\nengines: {e: {runtime: command, weights: w}}": "engines.e.cmd: is missing.",
    "version: 1\nruntimes: {command: {}}": "runtimes.command: the name `command` is taken. It",
    "version: 1\nengines: {e: {cmd: 'a ${PORT}'}}": "engines.e: has neither `weights` nor "
    "`runtime: command`. Add `runtime: command` where `cmd` is what starts it.",
    "version: 1\nengines: {e: {weights: w, cmd: 'a ${PORT}'}}": "engines.e.cmd: is for engines "
    "with `runtime: command` only. Remove it, or write `runtime: command`.",
    "version: 1\nengines: {e: {weights: w, health: /x}}": "engines.e.health: is for engines with "
    "`runtime: command` only.",
    command(""): "engines.e.cmd: names no program. Write `cmd:",
    command("'' ${PORT}"): "engines.e.cmd: names no program.",
    command("llama-server -m m.gguf"): "engines.e.cmd: has no `${PORT}`, so that nobody could tell "
    "it where to answer. Write it where its port stands, as in `cmd:",
    command("${PORT}"): "engines.e.cmd: has no `${PORT}`",
    command("s --port 8080"): "engines.e.cmd: has no `${PORT}`",
    command("s ${PORT} 'a"): "engines.e.cmd: cannot be cut into words: a quote does not close",
    command("s ${PORT} \\"): "engines.e.cmd: cannot be cut into words: a quote does not close, or",
    command("A=b s ${PORT}"): "engines.e.cmd: begins with the variable A, and no shell runs it. "
    "Write it under `env`: `env: {A: …}`.",
    'version: 1\nengines: {e: {runtime: command, cmd: "s ${PORT} \\0"}}': "engines.e.cmd: holds a "
    "NUL sign, which no argument can.",
    'version: 1\nengines: {e: {runtime: command, cmd: "s ${PORT} \\ud800"}}': "engines.e.cmd: "
    "holds half of a sign, which no argument can.",
    "version: 1\nengines: {e: {runtime: command, cmd: [s]}}": "engines.e.cmd: should be text.",
    command(CMD, ", health: health"): "engines.e.health: must be a path that begins with /, such",
    command(CMD, ", health: '/a b'"): "engines.e.health: must be a path that begins with /",
    command(CMD, ", health: 'http://h/x'"): "engines.e.health: must be a path that begins with /",
    command(CMD, ", urls: ['http://a:1']"): "engines.e.urls: is for engines with `runtime:",
    command(CMD, ", api_key: k"): "engines.e.api_key: is for engines with `runtime: external` only",
    command(CMD, ', model: "a\\nb"'): "engines.e.model: must have 1 to 200",
    command(CMD, ", memory: 0"): "engines.e.memory: should be greater than 0.",
    command(CMD, ", args: {a: 1}"): "engines.e.args: is not for an engine with `runtime: command`. "
    "Write them in `cmd`.",
    command(CMD, ", dtype: float16"): "engines.e.dtype: is not for an engine with `runtime: "
    "command`. Say it to the program, in `cmd`, and remove it here.",
    command(CMD, ", kv_cache: 1GiB"): "what it takes in all stands under `memory`.",
    command(CMD, ", sleep: true"): "Only engines of vLLM can sleep; remove it.",
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    (said,) = faults(text)
    assert CASES[text] in said


@pytest.mark.parametrize("key", sorted(VLLM_KEYS))
def test_every_key_of_vllm_is_refused(key: str, faults: Faults) -> None:
    values = {"args": "{a: 1}", "trust_remote_code": "false", "sleep": "false"}
    numbers = {"kv_cache": "1", "concurrency": "1"}
    (said,) = faults(command(CMD, f", {key}: {({**values, **numbers}).get(key, 'auto')}"))
    assert f"engines.e.{key}: is not for an engine with `runtime: command`." in said


def test_no_key_is_for_vllm_only_and_for_commands_only() -> None:
    assert not VLLM_KEYS & COMMAND_KEYS
    assert VLLM_KEYS | COMMAND_KEYS < LOCAL_KEYS


def test_a_secret_in_a_command_is_never_repeated(good: Good, faults: Faults) -> None:
    environ = {"K": "$A73577357"}
    for cmd in ("s --api-key ${K}", "s ${PORT} '${K}", "K=${K} s ${PORT}"):
        assert "73577357" not in "\n".join(faults(command(cmd), environ=environ))
    (said,) = good(command("s ${PORT} --api-key ${K}"), environ=environ).advice
    assert "73577357" not in said


# --- advice

SIGNS = {
    "s ${PORT} | tee log": "|",
    "s ${PORT} 2>&1": "2>&1",
    "s ${PORT} && t": "&&",
    "s ${PORT} -m ~/m.gguf": "~",
    "s --port ${PORT} -m $HOME/m.gguf": "$",
    "s ${PORT} $(nproc)": "$",
    "s ${PORT} `nproc`": "`",
}


@pytest.mark.parametrize("cmd", SIGNS)
def test_what_a_shell_would_read(cmd: str, good: Good) -> None:
    (said,) = good(command(cmd)).advice
    assert said == (
        f"Engine `e`: no shell runs its `cmd`, so that {SIGNS[cmd]} is given to the program as "
        "it stands. Write `sh -c 'exec …'` where a shell is wanted."
    )


@pytest.mark.parametrize(
    "cmd",
    [
        "sh -c 'exec s --port ${PORT} | tee log'",
        "/bin/bash -c 's $HOME ${PORT}'",
        's \'{"a": "$"}\' --port=${PORT}',
    ],
)
def test_what_is_meant(cmd: str, good: Good) -> None:
    assert good(command(cmd)).advice == ()
