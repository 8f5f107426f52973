"""The lines by which the causes of ends are known: of vLLM, of other programs, of any. Data."""

from __future__ import annotations

from typing import Final, NamedTuple


class Cause(NamedTuple):
    """`pattern` is searched in a line; its groups fill `{}` of `message`. `reason` is a label of
    `EngineError`, `hint` the way out; `terminal`: again cannot help."""

    pattern: str
    reason: str
    message: str
    hint: str
    terminal: bool = True


class Shared(NamedTuple):
    """A cause of any program. `hint` is for vLLM, `other` for a command."""

    pattern: str
    reason: str
    message: str
    hint: str
    other: str
    terminal: bool = False


#: In order: the first that matches any line wins. From vLLM 0.32.
VLLM: Final = (
    Cause(
        r"error: unrecognized arguments: (.+)",
        "arguments",
        "vLLM does not know these arguments: {}.",
        "Correct the engine's `args`; see `vllm serve --help=all` of the engine's environment.",
    ),
    Cause(
        r"error: (argument .+)",
        "arguments",
        "vLLM refused an argument: {}.",
        "Correct the engine's `args`.",
    ),
    Cause(
        r"max_model_len \((\d+)\) is greater than the derived max_model_len "
        r"\(max_position_embeddings=(\d+)",
        "arguments",
        "max-model-len {} is more than the model's own limit of {}.",
        "Set a smaller `max-model-len`, or leave it out.",
    ),
    Cause(
        r"To serve at least one request with the models?'s max seq len \((\d+)\), "
        r"\(?([\d.]+ GiB) KV\s*cache is needed.*?available KV cache memory \(([\d.]+ GiB)\)",
        "memory",
        "One request of {} tokens needs {} of KV cache, and there are only {}.",
        "Raise the engine's `kv_cache` or lower `max-model-len`.",
    ),
    Cause(
        r"No available memory for the cache blocks",
        "memory",
        "There is too little memory for the KV cache once the weights are loaded.",
        "Raise the engine's `kv_cache` or `gpu-memory-utilization`, or use smaller weights.",
    ),
    Cause(
        r"Available memory on node .* is less than requested memory for kv \(([\d.]+ ?GiB|[\d.]+)",
        "memory",
        "The KV cache ({}) does not fit in the memory that is available.",
        "Lower the engine's `kv_cache`, or stop what else uses the memory.",
    ),
    Cause(
        r"Free memory on device .*? \(([\d./ GiB]+)\) on startup is less than",
        "memory",
        "The GPU has too little free memory ({}).",
        "Stop what else uses the device (`nvidia-smi`), or lower `gpu-memory-utilization`.",
        terminal=False,
    ),
    Cause(
        r"Model architectures \[(.+?)\] are not supported",
        "weights",
        "vLLM does not support the model's architecture {}.",
        "Use other weights, or an engine environment whose vLLM knows it.",
    ),
    Cause(
        r"model type `(.+?)` but Transformers does not recognize",
        "weights",
        "The weights are of a model type that Transformers does not know: {}.",
        "Use other weights, or a newer engine environment.",
    ),
    Cause(
        r"(?:contains custom code|trust_remote_code=True)",
        "weights",
        "The weights bring Python code of their own.",
        "If you trust their source, set the engine's `trust_remote_code: true`.",
    ),
    Cause(
        r"the config file at '.*' is not a valid JSON file|Unrecognized model in .*\. Should have "
        r"a `model_type`",
        "weights",
        "The weights' config.json is damaged, or not one of a model.",
        "Download or copy it again; it must name the `model_type`.",
    ),
    Cause(
        r"ValueError: (The hidden size .*heads \(\d+\))",
        "weights",
        "The weights' config.json contradicts itself: {}.",
        "Download or copy it again.",
    ),
    Cause(
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer for",
        "weights",
        "The weights have no tokenizer.",
        "Copy tokenizer.json and tokenizer_config.json into their folder, or name another in "
        "`args: {tokenizer: …}`.",
    ),
    Cause(
        r"json\.decoder\.JSONDecodeError|data did not match any variant of untagged enum",
        "weights",
        "A JSON file beside the weights is damaged, most likely the tokenizer's.",
        "Download or copy it again.",
    ),
    Cause(
        r"_C::(\w+)\(\) expected at most 0 argument",
        "arguments",
        "vLLM cannot compute with this quantization on this device ({}).",
        "Use another `quantization`, other weights, or another `device`.",
    ),
    Cause(
        r"There is no module or parameter named '(.+?)' in",
        "weights",
        "The weights hold tensors that the model's config.json has no place for: {}.",
        "Use weights and a config.json that belong together.",
    ),
    Cause(
        r"Following weights were not initialized from checkpoint: \{'(.+?)'",
        "weights",
        "The weights lack tensors that the model needs, {} among them.",
        "Download or copy the weights again, or use a config.json that belongs to them.",
    ),
    Cause(
        r"start \(\d+\) \+ length \(\d+\) exceeds dimension size|Attempted to load weight|"
        r"The size of tensor a \(\d+\) must match|shape '\[.*\]' is invalid for input of size",
        "weights",
        "The weights' tensors are of other sizes than the model's config.json says.",
        "Use weights and a config.json that belong together.",
    ),
    Cause(
        r"SafetensorError|safetensors_rust\..*Error|Error while deserializing header|"
        r"Value error, 'utf-8' codec can't decode",
        "weights",
        "A weights file is damaged.",
        "Download or copy the weights again.",
    ),
    Cause(
        r"(Loading lora .+ failed: .+)",
        "arguments",
        "vLLM refused its settings: {}.",
        "Correct `lora-modules` under the engine's `args`.",
    ),
    Cause(
        r"No such file or directory: '(.+\.(?:safetensors|json|model))'",
        "weights",
        "A file of the weights is not there: {}.",
        "Finish the download, or copy it again; a link must lead somewhere.",
    ),
    Cause(
        r"GatedRepoError|Access to model .* is restricted|403 Client Error.*huggingface",
        "weights",
        "The hub does not let you read these weights.",
        "Accept the model's licence on its page and set HF_TOKEN.",
    ),
    Cause(
        r"RepositoryNotFoundError|RevisionNotFoundError|is not a local folder and is not a valid",
        "weights",
        "The hub has no such model or revision.",
        "Check `weights` and `revision`; for a private model set HF_TOKEN.",
    ),
    Cause(
        r"Name or service not known|Temporary failure in name resolution|"
        r"We couldn't connect to 'https://|LocalEntryNotFoundError|Network is unreachable",
        "weights",
        "The hub cannot be reached, and the weights are not in its cache.",
        "Check the network or the proxy, or give a folder as `weights`.",
        terminal=False,
    ),
    Cause(
        r"(?:No module named|No package metadata was found for) '?(vllm[\w.]*)",
        "environment",
        "The engine's Python has no working vLLM ({}).",
        "Run `make setup-engine`, or set `runtimes.vllm.python`.",
    ),
    Cause(
        r"operator torchvision::nms does not exist",
        "environment",
        "The engine environment has a torchvision that does not fit its torch.",
        "Run `pip uninstall -y torchvision torchaudio torchcodec` in it.",
    ),
    Cause(
        r"CUDA driver version is insufficient|no NVIDIA driver|No CUDA GPUs are available|"
        r"Failed to infer device type",
        "environment",
        "vLLM finds no usable GPU.",
        "Check `nvidia-smi`, the driver and CUDA_VISIBLE_DEVICES, or set `device: cpu`.",
    ),
)
#: What the machine, Python, CUDA and llama.cpp say: of whatever program.
SHARED: Final = (
    Shared(
        r"torch\.\w*OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|"
        r"cudaMalloc failed: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
        "memory",
        "The GPU ran out of memory.",
        "Lower `gpu-memory-utilization` or `max-model-len`, quantize, or use more devices.",
        "Let it take less (context, layers on the GPU), or stop what else uses the device.",
    ),
    Shared(
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|^MemoryError|"
        r"Cannot allocate memory|std::bad_alloc|failed to allocate .*buffer|"
        r"unable to allocate .*buffer|failed to map segment|Unable to allocate .* for an array",
        "memory",
        "The machine ran out of memory.",
        "Lower the engine's `kv_cache`, use smaller weights, or stop what else uses the memory.",
        "Use smaller weights, or stop what else uses the memory.",
    ),
    Shared(
        r"Insufficient space in (/dev/shm) for .*: (.+ required, .+ free)",
        "disk",
        "{} is too small: {}.",
        "Make it larger: `--shm-size` of a container, a memory volume of a pod.",
        "Make it larger: `--shm-size` of a container, a memory volume of a pod.",
    ),
    Shared(
        r"No space left on device|Disk quota exceeded|\[Errno 27\] File too large",
        "disk",
        "A disk is full.",
        "Free space under the server's home, the hub's cache (HF_HOME), TMPDIR or /dev/shm.",
        "Free space where it writes: its caches, TMPDIR, /dev/shm.",
    ),
    Shared(
        r"Read-only file system",
        "disk",
        "It wants to write where nobody may.",
        "Point `server.home`, HF_HOME and TMPDIR at folders that can be written.",
        "Point its caches and TMPDIR, in `env`, at folders that can be written.",
    ),
    Shared(
        r"Permission denied: '(.+?)'",
        "environment",
        "It may not read or write {}.",
        "Give the server's user the right to; caches are in `server.home` and HF_HOME.",
        "Give the server's user the right to, or point it elsewhere in `cmd` or `env`.",
        terminal=True,
    ),
    Shared(
        # Nothing is wrong with its config, so this is no `environment`, which is not tried again.
        r"[Aa]ddress already in use|EADDRINUSE|couldn't bind",
        "crash",
        "An address that it needs is in use by another process.",
        "The next start uses another one.",
        "The next start gets another port; one that stands in `cmd` as a number does not change.",
    ),
    Shared(
        r"error while loading shared libraries: (\S+):",
        "environment",
        "A library that it needs is not here: {}.",
        "Install it, or name its folder in LD_LIBRARY_PATH under `env`.",
        "Install it, or name its folder in LD_LIBRARY_PATH under `env`.",
        terminal=True,
    ),
)
#: After all others: what vLLM says of settings, in words of its own.
SETTINGS: Final = (
    Cause(
        r"(invalid (?:tool call|reasoning) parser: \S+)",
        "arguments",
        "vLLM refused its settings: {}.",
        "Correct the engine's `args`; the engine's log names those that there are.",
    ),
    Cause(
        r"VLLMValidationError: (.+?)(?: \(parameter=|$)",
        "arguments",
        "vLLM refused its settings: {}.",
        "Correct the engine's `args`.",
    ),
    Cause(
        r"Value error, (.+?)(?: \[type=|$)",
        "arguments",
        "vLLM refused its settings: {}.",
        "Correct the engine's config.",
    ),
)
#: Programs that are no vLLM: Python's, and llama.cpp's server.
COMMAND: Final = (
    Cause(
        r"ModuleNotFoundError: No module named '?([\w.]+)|: No module named ([\w.]+)",
        "environment",
        "Its Python lacks the module {}{}.",
        "Install it there, or name another Python in `cmd`.",
    ),
    Cause(
        r"error: unrecognized arguments: (.+)|error: invalid argument: (.+)",
        "arguments",
        "It does not know an argument: {}{}.",
        "Correct `cmd`.",
    ),
    Cause(
        r"error: (argument .+|the following arguments are required: .+)",
        "arguments",
        "It refused an argument: {}.",
        "Correct `cmd`.",
    ),
    Cause(
        r"failed to load model(?:, |: | )?(.*)|error loading model: (.+)",
        "weights",
        "It cannot load its weights: {}{}.",
        "See that the file in `cmd` is there, whole, and of a kind that the program knows.",
    ),
)
