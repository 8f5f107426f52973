"""What vLLM's log says: how far a start has come, and why one failed. Pure.

Written against the lines of vLLM 0.32; a line that is not known changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Stage:
    """`rank` grows during a start, so that late lines of one process do not move it back."""

    rank: int
    text: str


SPAWNED = Stage(0, "starting python")

#: (pattern, rank, text); `{}` takes the pattern's groups.
_STAGES: tuple[tuple[re.Pattern[str], int, str], ...] = tuple(
    (re.compile(pattern), rank, text)
    for pattern, rank, text in (
        (r"non-default args:|vLLM API server version", 1, "reading the model's config"),
        (r"Resolved architecture: (\w+)", 2, "importing ({})"),
        (r"Fetching \d+ files: +(\d+)%", 3, "downloading weights ({}%)"),
        (r"\.safetensors: +(\d+)%\|", 3, "downloading weights ({}%)"),
        (r"Initializing a V1 LLM engine", 4, "starting the engine core"),
        (r"Starting to load model", 5, "loading weights"),
        (r"Loading \w+ checkpoint shards: +(\d+)% Completed", 5, "loading weights ({}%)"),
        (r"Loading weights took|Model loading took", 6, "weights loaded"),
        (r"Starting torch\.compile|Dynamo bytecode transform", 7, "compiling"),
        (r"Warming up model for the compilation", 7, "compiling"),
        (r"torch\.compile took|Warming up done", 8, "compiled"),
        (r"Capturing CUDA graphs.*?(\d+)%", 10, "capturing CUDA graphs ({}%)"),
        (r"GiB for KV cache|Available KV cache memory|KV cache size:", 9, "preparing the KV cache"),
        (r"init engine \(profile", 11, "engine core is up"),
        (r"Starting vLLM (?:API )?server", 12, "starting the server"),
        (r"Application startup complete", 13, "ready"),
    )
)


def advance(stage: Stage, line: str) -> Stage:
    """The stage after `line`; the same object when it tells nothing new."""
    for pattern, rank, text in _STAGES:
        if rank >= stage.rank and (match := pattern.search(line)):
            new = Stage(rank, text.format(*match.groups()))
            return stage if new == stage else new
    return stage


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start failed. `reason` is a label of `EngineError`; `terminal`: again cannot help."""

    reason: str
    message: str
    hint: str
    terminal: bool = True


#: In order: the first that matches any line of the tail wins. Groups fill `{}` of the message.
_FAILURES: tuple[tuple[str, str, str, str, bool], ...] = (
    (
        r"error: unrecognized arguments: (.+)",
        "arguments",
        "vLLM does not know these arguments: {}.",
        "Correct the engine's `args`; see `vllm serve --help=all` of the engine's environment.",
        True,
    ),
    (
        r"error: (argument .+)",
        "arguments",
        "vLLM refused an argument: {}.",
        "Correct the engine's `args`.",
        True,
    ),
    (
        (
            r"max_model_len \((\d+)\) is greater than the derived max_model_len "
            r"\(max_position_embeddings=(\d+)"
        ),
        "arguments",
        "max-model-len {} is more than the model's own limit of {}.",
        "Set a smaller `max-model-len`, or leave it out.",
        True,
    ),
    (
        (
            r"To serve at least one request with the models?'s max seq len \((\d+)\), "
            r"\(?([\d.]+ GiB) KV\s*cache is needed.*?available KV cache memory \(([\d.]+ GiB)\)"
        ),
        "memory",
        "One request of {} tokens needs {} of KV cache, and there are only {}.",
        "Raise the engine's `kv_cache` or lower `max-model-len`.",
        True,
    ),
    (
        r"No available memory for the cache blocks",
        "memory",
        "No memory is left for the KV cache once the weights are loaded.",
        "Use smaller or quantized weights, or raise `gpu-memory-utilization`.",
        True,
    ),
    (
        r"Available memory on node .* is less than requested memory for kv \(([\d.]+ ?GiB|[\d.]+)",
        "memory",
        "The KV cache ({}) does not fit in the memory that is available.",
        "Lower the engine's `kv_cache`, or stop what else uses the memory.",
        True,
    ),
    (
        r"Free memory on device .*? \(([\d./ GiB]+)\) on startup is less than",
        "memory",
        "The GPU has too little free memory ({}).",
        "Stop what else uses the device (`nvidia-smi`), or lower `gpu-memory-utilization`.",
        False,
    ),
    (
        r"(?:torch\.\w*OutOfMemoryError|CUDA out of memory)",
        "memory",
        "The GPU ran out of memory.",
        "Lower `gpu-memory-utilization` or `max-model-len`, quantize, or use more devices.",
        False,
    ),
    (
        (
            r"(?:DefaultCPUAllocator: (?:can't allocate|not enough) memory|^MemoryError|"
            r"Cannot allocate memory)"
        ),
        "memory",
        "The machine ran out of memory.",
        "Lower the engine's `kv_cache`, use smaller weights, or stop what else uses the memory.",
        False,
    ),
    (
        r"No space left on device",
        "disk",
        "A disk is full.",
        "Free space under the server's home, the hub's cache (HF_HOME) or /dev/shm.",
        False,
    ),
    (
        r"Model architectures \[(.+?)\] are not supported",
        "weights",
        "vLLM does not support the model's architecture {}.",
        "Use other weights, or an engine environment whose vLLM knows it.",
        True,
    ),
    (
        r"model type `(.+?)` but Transformers does not recognize",
        "weights",
        "The weights are of a model type that Transformers does not know: {}.",
        "Use other weights, or a newer engine environment.",
        True,
    ),
    (
        r"(?:contains custom code|trust_remote_code=True)",
        "weights",
        "The weights bring Python code of their own.",
        "If you trust their source, set the engine's `trust_remote_code: true`.",
        True,
    ),
    (
        r"SafetensorError|safetensors_rust\..*Error|Error while deserializing header",
        "weights",
        "A weights file is damaged.",
        "Download or copy the weights again.",
        True,
    ),
    (
        r"GatedRepoError|Access to model .* is restricted|403 Client Error.*huggingface",
        "weights",
        "The hub does not let you read these weights.",
        "Accept the model's licence on its page and set HF_TOKEN.",
        True,
    ),
    (
        r"RepositoryNotFoundError|RevisionNotFoundError|is not a local folder and is not a valid",
        "weights",
        "The hub has no such model or revision.",
        "Check `weights` and `revision`; for a private model set HF_TOKEN.",
        True,
    ),
    (
        (
            r"Name or service not known|Temporary failure in name resolution|"
            r"We couldn't connect to 'https://|LocalEntryNotFoundError|Network is unreachable"
        ),
        "weights",
        "The hub cannot be reached, and the weights are not in its cache.",
        "Check the network or the proxy, or give a folder as `weights`.",
        False,
    ),
    (
        r"(?:No module named|No package metadata was found for) '?(vllm[\w.]*)",
        "environment",
        "The engine's Python has no working vLLM ({}).",
        "Run `make setup-engine`, or set `runtimes.vllm.python`.",
        True,
    ),
    (
        r"operator torchvision::nms does not exist",
        "environment",
        "The engine environment has a torchvision that does not fit its torch.",
        "Run `pip uninstall -y torchvision torchaudio torchcodec` in it.",
        True,
    ),
    (
        (
            r"CUDA driver version is insufficient|no NVIDIA driver|No CUDA GPUs are available|"
            r"Failed to infer device type"
        ),
        "environment",
        "vLLM finds no usable GPU.",
        "Check `nvidia-smi`, the driver and CUDA_VISIBLE_DEVICES, or set `device: cpu`.",
        True,
    ),
    (
        r"(?:Address already in use|EADDRINUSE)",
        "environment",
        "An address that the engine needs is in use.",
        "Something else runs with the same settings; the next start uses another one.",
        False,
    ),
    (
        r"Value error, (.+?)(?: \[type=|$)",
        "arguments",
        "vLLM refused its settings: {}",
        "Correct the engine's config.",
        True,
    ),
)
_COMPILED = tuple(
    (re.compile(pattern), reason, message, hint, terminal)
    for pattern, reason, message, hint, terminal in _FAILURES
)
_PREFIX = re.compile(r"^\([^)]*pid=\d+\) ")


def diagnose(tail: Iterable[str]) -> Failure | None:
    """What the last lines of a dead engine's log say, or None."""
    text = [_PREFIX.sub("", line) for line in tail]
    # Long messages are wrapped: some patterns span two lines.
    joined = [*text, *(f"{one} {two}" for one, two in pairwise(text))]
    for pattern, reason, message, hint, terminal in _COMPILED:
        for line in joined:
            if match := pattern.search(line):
                groups = (group.strip()[:200] for group in match.groups())
                return Failure(reason, message.format(*groups), hint, terminal)
    return None


#: The line of an uncaught exception: what to show when nothing above matched.
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit): .+")


def last_words(tail: Iterable[str]) -> str:
    """The line of the log that says most: an exception's, else the last one."""
    lines = [_PREFIX.sub("", line).strip() for line in tail]
    lines = [line for line in lines if line]
    told = [line for line in lines if _EXCEPTION.match(line) and "See root cause above" not in line]
    return (told or lines or [""])[-1][:300]
