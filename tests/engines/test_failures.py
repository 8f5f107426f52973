"""Why an engine ended, by its log."""

from __future__ import annotations

import pytest

from server.engines.failures import diagnose, last_words, silent


@pytest.mark.parametrize(
    ("tail", "reason", "words", "terminal"),
    [
        (
            ["entry.py: error: unrecognized arguments: --no-such-flag"],
            "arguments",
            "--no-such",
            True,
        ),
        (
            ["entry.py: error: argument --max-model-len: invalid int value: 'lots'"],
            "arguments",
            "--max-model-len: invalid",
            True,
        ),
        (
            [
                (
                    "  Value error, User-specified max_model_len (100000) is greater than the "
                    "derived max_model_len (max_position_embeddings=2048.0 or …"
                )
            ],
            "arguments",
            "limit of 2048",
            True,
        ),
        (
            [
                (
                    "(EngineCore pid=1) ERROR ValueError: To serve at least one request with the "
                    "model's max seq len (2048), (0.01 GiB KV cache is needed, which is larger "
                    "than the available KV cache memory (0.0 GiB). Try …"
                )
            ],
            "memory",
            "2048 tokens needs 0.01 GiB",
            True,
        ),
        (
            ["ValueError: No available memory for the cache blocks. Try"],
            "memory",
            "too little memory for the KV cache",
            True,
        ),
        (
            [
                (
                    "ValueError: Available memory on node 0 (20.1/22.6 GiB) on kv cache allocation "
                    "is less than requested memory for kv (37.25 GiB). Decrease …"
                )
            ],
            "memory",
            "KV cache (37.25 GiB)",
            True,
        ),
        (
            [
                (
                    "ValueError: Free memory on device cuda:0 (3.5/24.0 GiB) on startup is less "
                    "than desired GPU memory utilization (0.92, 22.1 GiB)."
                )
            ],
            "memory",
            "3.5/24.0 GiB",
            False,
        ),
        (["torch.OutOfMemoryError: CUDA out of memory. Tried"], "memory", "GPU ran out", False),
        (["MemoryError"], "memory", "machine ran out", False),
        (["OSError: [Errno 28] No space left on device"], "disk", "full", False),
        (
            ["  Value error, Model architectures ['FooForCausalLM'] are not supported for now."],
            "weights",
            "'FooForCausalLM'",
            True,
        ),
        (
            ["has model type `foo` but Transformers does not recognize this architecture"],
            "weights",
            "foo",
            True,
        ),
        (
            ["contains custom code which must be executed to correctly load the model"],
            "weights",
            "code of their own",
            True,
        ),
        (
            ["safetensors._safetensors_rust.SafetensorError: Error while deserializing header: …"],
            "weights",
            "damaged",
            True,
        ),
        (["huggingface_hub.errors.GatedRepoError: 401 Client"], "weights", "does not let", True),
        (["RepositoryNotFoundError: 404 Client Error."], "weights", "no such model", True),
        (
            ["OSError: We couldn't connect to 'https://huggingface.co' to load the files"],
            "weights",
            "cannot be reached",
            False,
        ),
        (["ModuleNotFoundError: No module named 'vllm'"], "environment", "no working vLLM", True),
        (
            ["RuntimeError: operator torchvision::nms does not exist"],
            "environment",
            "torchvision",
            True,
        ),
        (["RuntimeError: No CUDA GPUs are available"], "environment", "no usable GPU", True),
        (["OSError: [Errno 98] Address already in use"], "crash", "in use", False),
        (
            ["  Value error, Cannot find the config file for awq [type=value_error, input_value=…"],
            "arguments",
            "config file for awq",
            True,
        ),
    ],
)
def test_known_failures(tail: list[str], reason: str, words: str, terminal: bool) -> None:
    failure = diagnose(["something else", *tail, "For further information visit"])
    assert failure is not None
    assert failure.reason == reason
    assert words in failure.message
    assert failure.terminal is terminal
    assert failure.hint.endswith((".", "."))


def test_a_message_over_two_lines() -> None:
    failure = diagnose(["has model type `foo` but", "Transformers does not recognize this"])
    assert failure is not None
    assert failure.reason == "weights"


def test_unknown_failures_are_told_by_their_exception() -> None:
    tail = [
        "(Worker pid=1) KeyError: 'x'",
        "(EngineCore pid=3) RuntimeError: Engine core initialization failed. See root cause above.",
        "  at the end",
    ]
    assert diagnose(tail) is None
    assert last_words(tail) == "KeyError: 'x'"
    assert last_words(["one", " two ", ""]) == "two"
    assert last_words([]) == ""


SECOND_HAND = "RuntimeError: Engine core initialization failed. See root cause above. x"


def test_what_is_said_of_another_process_is_the_last_resort() -> None:
    assert last_words([SECOND_HAND, "x.py:9: UserWarning: leaked", "  warnings.warn('leaked"]) == (
        SECOND_HAND
    )
    assert last_words([SECOND_HAND], exceptions=True) == SECOND_HAND
    assert last_words(["no exception"], exceptions=True) == ""
    assert silent(["loading", SECOND_HAND, "bye"])
    # A worker that comes too late to tell its core of its readiness has not killed it.
    assert silent([SECOND_HAND, "(Worker pid=3) BrokenPipeError: [Errno 32] Broken pipe"])
    assert not silent(["BrokenPipeError: [Errno 32] Broken pipe"])
    assert not silent(["ValueError: no", "BrokenPipeError: [Errno 32] Broken pipe", SECOND_HAND])
    assert not silent(["KeyError: 'x'", SECOND_HAND])
    assert not silent(["loading"])
    assert not silent([])


def test_a_warning_is_no_cause() -> None:
    line = "(APIServer pid=1) WARNING 11-21 18:06:34 [x.py:2] No space left on device: `OSError`"
    assert diagnose([line]) is None


def test_only_vllm_is_vllm() -> None:
    assert diagnose(["GatedRepoError: 401"], vllm=False) is None
    failure = diagnose(["torch.OutOfMemoryError: CUDA out of memory."], vllm=False)
    assert failure is not None
    assert "max-model-len" not in failure.hint


@pytest.mark.parametrize("vllm", [True, False])
def test_what_it_may_not_touch(vllm: bool) -> None:
    line = "PermissionError: [Errno 13] Permission denied: '/var/cache/x'"
    failure = diagnose([line], vllm=vllm)
    assert failure is not None
    assert (failure.reason, failure.terminal) == ("environment", True)
    assert "/var/cache/x" in failure.message
