"""What ends of engines mean: starts of real vLLM that failed, recorded; and the rest."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from server.engines import endings
from server.engines.endings import LINES, Exit
from server.engines.failures import evidence
from server.engines.logs import clean
from server.engines.progress import Stage

#: Logs of vLLM 0.32 on a CPU; frames of tracebacks were taken out, but of `shapes`.
TAILS = Path(__file__).parent / "tails"


def recorded(name: str) -> list[str]:
    lines = (TAILS / f"{name}.txt").read_bytes().splitlines()
    return [clean(line) for line in lines if line]


SAID = {
    # name: (reason, what the message says, what a line of the evidence says)
    "truncated": ("weights", "A weights file is damaged.", "SafetensorError"),
    "shapes": ("weights", "of other sizes than the model's config.json", "RuntimeError: start"),
    "missing_tensor": ("weights", "has no place for: nothing.", "no module or parameter"),
    "dropped_tensor": ("weights", "model.norm.weight among them", "not initialized"),
    "architecture": ("weights", "architecture 'FooForCausalLM'", "FooForCausalLM"),
    "model_type": ("weights", "Transformers does not know: foo", "model type `foo`"),
    "config_garbage": ("weights", "config.json is damaged", "not a valid JSON file"),
    "config_empty": ("weights", "must name the `model_type`", "Unrecognized model"),
    "config_heads": ("weights", "The hidden size (256) is not", "attention heads (7)"),
    "tokenizer_missing": ("weights", "have no tokenizer", "instantiate the backend tokenizer"),
    "tokenizer_garbage": ("weights", "most likely the tokenizer's", "JSONDecodeError"),
    "custom_code": ("weights", "Python code of their own", "custom code"),
    "unreadable": ("weights", "not there: /models/unreadable/model.safetensors", "Errno 2"),
    "lora_missing": ("arguments", "Loading lora x failed: No adapter found", "No adapter found"),
    "too_long": ("arguments", "max-model-len 1000000 is more than", "max_model_len"),
    "bad_flag": ("arguments", "--no-such-flag", "--no-such-flag"),
    "bad_parser": ("arguments", "invalid tool call parser: nope", "invalid tool call parser"),
    "chat_template": ("arguments", "but doesn't exist", "chat template"),
    "quant": ("arguments", "Cannot find the config file for awq", "awq"),
    "fp8": ("arguments", "this quantization on this device", "static_scaled_fp8_quant"),
    "little_kv": ("memory", "Raise the engine's `kv_cache`", "No available memory"),
    "much_kv": ("memory", "The KV cache (100.0 GiB) does not fit", "Available memory on node"),
    "home_full": ("disk", "A disk is full.", "No space left on device"),
    "shm_full": ("disk", "/dev/shm is too small: 160 MiB required, 0 MiB free.", "/dev/shm"),
}  # fmt: skip


def test_every_recorded_log_is_looked_at() -> None:
    others = {"kill_worker", "kill_core"}
    assert {path.stem for path in TAILS.iterdir()} == set(SAID) | others


@pytest.mark.parametrize("name", SAID)
def test_a_recorded_start_that_failed(name: str) -> None:
    reason, told, line = SAID[name]
    error = endings.start_failure(Exit(code=2 if name == "bad_flag" else 1), recorded(name))
    assert error.reason == reason
    assert told in error.message
    assert any(line in one for one in error.log_tail)
    assert len(error.log_tail) <= LINES
    assert len(error.message) < 600
    # Each is either certain to come again, or told once and left alone until it was ready once.
    assert error.terminal or reason in ("memory", "disk")


def test_the_line_that_says_why_comes_first_where_it_stands_far_up() -> None:
    lines = recorded("shapes")
    error = endings.start_failure(Exit(code=1), lines)
    assert "exceeds dimension size" in error.log_tail[0]
    assert error.log_tail[1] == "…"
    assert error.log_tail[2:] == tuple(lines[-(LINES - 2) :])


def test_evidence() -> None:
    lines = ["ValueError: why", *(f"line {number}" for number in range(30))]
    assert evidence(lines, 5) == ("ValueError: why", "…", "line 27", "line 28", "line 29")
    assert evidence(lines[:3], 5) == ("ValueError: why", "line 0", "line 1")
    assert evidence(lines[1:], 2) == ("line 28", "line 29")
    assert evidence([], 5) == ()


# --- killed --------------------------------------------------------------------------------------


def test_killed_by_the_kernel() -> None:
    error = endings.start_failure(Exit(signal=signal.SIGKILL), ["loading"], no_memory=True)
    assert (error.reason, error.terminal) == ("memory", False)
    assert "because memory ran out. Lower `kv_cache`" in error.message
    error = endings.start_failure(Exit(signal=signal.SIGKILL), ["loading"])
    assert (error.reason, error.terminal) == ("crash", False)
    assert "most likely because memory ran out" in error.message
    error = endings.start_failure(Exit(signal=signal.SIGKILL), [], vllm=False, no_memory=True)
    assert "kv_cache" not in error.message


@pytest.mark.parametrize("name", ["kill_worker", "kill_core"])
def test_a_process_of_it_was_killed(name: str) -> None:
    """Its worker, or its core: the first process then ends by itself."""
    error = endings.start_failure(Exit(code=1), recorded(name), no_memory=True)
    assert error.reason == "memory"
    assert "The kernel killed one of its processes while it started" in error.message
    error = endings.start_failure(Exit(code=1), recorded(name))
    assert error.reason == "crash"
    assert error.message.startswith("One of its processes was killed while it started, most ")
    assert any("See " in line for line in error.log_tail)


def test_what_the_log_says_beats_the_signal() -> None:
    error = endings.start_failure(Exit(signal=signal.SIGABRT), ["terminate: std::bad_alloc"])
    assert error.reason == "memory"


def test_memory_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "vmstat"
    monkeypatch.setattr(endings, "_VMSTAT", table)
    assert endings.memory_kills() is None
    table.write_text("nr_free_pages 7\noom_kill 3\nnr_x 1\n")
    assert endings.memory_kills() == 3
    table.write_text("nr_free_pages 7\n")
    assert endings.memory_kills() is None
    table.write_text("oom_kill x\n")
    assert endings.memory_kills() is None


# --- not ready in time ---------------------------------------------------------------------------


def test_a_start_that_hangs() -> None:
    stage = Stage(5, "loading weights (50%)")
    error = endings.not_ready(900, stage, stood=600.4, quiet=590, lines=["one", "two"])
    assert error.reason == "timeout"
    assert "within 900 s; it stood at «loading weights (50%)» for 600 s" in error.message
    assert "silent for 590 s: it hangs" in error.message
    assert error.log_tail == ("one", "two")


def test_a_start_that_is_only_slow() -> None:
    stage = Stage(3, "downloading weights (12%)")
    error = endings.not_ready(900, stage, stood=3, quiet=1, lines=[])
    assert "«downloading weights (12%)» for 3 s, and was still at work" in error.message
    assert "Raise `start_timeout`" in error.message


# --- deaths of engines that were ready -----------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "lines", "no_memory", "reason", "told"),
    [
        (Exit(code=0), [], False, "crash", "nobody had asked it to (exit code 0)."),
        (Exit(code=0), ["one", "two"], False, "crash", "(exit code 0)."),
        (
            Exit(code=0),
            [
                "(EngineCore pid=3) ERROR 11-21 18:07:24 [core.py:9] RuntimeError: CUDA error: x",
                "(APIServer pid=2) INFO 11-21 18:07:25 [x.py:1] Shutting down",
            ],
            False, "crash", "(exit code 0): RuntimeError: CUDA error: x",
        ),
        (Exit(code=1), ["torch.OutOfMemoryError: CUDA out"], False, "memory", "GPU ran out"),
        (Exit(code=1), ["OSError: No space left on device"], False, "disk", "A disk is full"),
        # Such a line of a running engine is somebody's request.
        (Exit(code=1), ["RepositoryNotFoundError: x"], False, "crash", "RepositoryNotFoundError"),
        (Exit(signal=9), ["one"], True, "memory", "The kernel killed it"),
        (Exit(signal=9), ["one"], False, "crash", "(killed by SIGKILL)."),
    ],
)  # fmt: skip
def test_deaths(ended: Exit, lines: list[str], no_memory: bool, reason: str, told: str) -> None:
    error = endings.death(ended, lines, no_memory=no_memory)
    assert error.reason == reason
    assert told in error.message
    assert error.log_tail == tuple(lines)
    assert not error.terminal
