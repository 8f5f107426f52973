"""Which files of a repository are weights to serve. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from server.engines.store.errors import StoreError

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: Copies of the same weights for other programs.
_ELSEWHERE = frozenset(
    "original onnx openvino gguf coreml metal flax tf tensorrt mlx runs logs checkpoints".split()
)
#: Configs, tokenizers, chat templates: small, and data.
_DATA = re.compile(
    r"(?i)\.(json|txt|jinja|jinja2|tiktoken|model|vocab|spm|bpe)$"
    r"|^(LICENSE|LICENCE|NOTICE|USE_POLICY|README)[^/]*$"
)
_PICKLE = re.compile(r"(?i)\.(bin|pt|pth|ckpt|pkl|pickle)$")
_PICKLED_WEIGHTS = re.compile(r"(pytorch_model|model|adapter_model)[^/]*\.(bin|pt|pth)")
_OTHER_INDEX = re.compile(r"(?i)(\.bin|\.h5|\.msgpack|\.onnx)\.index\.json$")
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|int8)(?=[.-])")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the hub's metadata has it. `sha256` of its bytes for large files (LFS); the others
    are known by `git`, the hash of their git object."""

    path: str
    size: int
    git: str
    sha256: str | None = None

    @property
    def blob(self) -> str:
        """Its name in the cache, as huggingface_hub gives it."""
        return self.sha256 or self.git


@dataclass(frozen=True, slots=True)
class Choice:
    """`files` to have, `left` of the others: those that somebody may miss."""

    files: tuple[Remote, ...]
    left: tuple[Remote, ...] = ()
    pickled: bool = False

    @property
    def size(self) -> int:
        # The same bytes under two names are there once.
        return sum({file.blob: file.size for file in self.files}.values())


def checked(file: Remote) -> Remote:
    """Raises StoreError for what would leave the store: hubs are other people's machines."""
    parts = file.path.split("/")
    bad = any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)
    if bad or file.size < 0 or not _BLOB.fullmatch(file.blob):
        raise StoreError(
            f"The hub lists a file that cannot be stored: {file.path!r}.", reason="hub"
        )
    return file


def choose(
    repo: str, listed: Iterable[Remote], *, allow_pickle: bool = False, allow_code: bool = False
) -> Choice:
    """Safetensors, and the data that goes with them.

    Pickles only where `allow_pickle` says so and there are no safetensors; Python only with
    `allow_code`. Raises StoreError (`unsafe`, `not_found`) when nothing to serve is left.
    """
    files = [checked(file) for file in listed]
    names = {file.path for file in files}
    here = [file for file in files if not _is_elsewhere(file.path)]
    tensors = [file for file in here if file.path.endswith(".safetensors")]
    tensors = [file for file in tensors if not _is_copy(file.path, tensors, names)]
    pickles = [file for file in here if _PICKLED_WEIGHTS.fullmatch(file.path)]
    if not tensors and not (pickles and allow_pickle):
        raise _nothing(repo, files)
    weights = tensors or pickles
    wanted = [
        file
        for file in here
        if file in weights
        or (_DATA.search(file.path) and not (tensors and _OTHER_INDEX.search(file.path)))
        or (allow_code and file.path.endswith(".py"))
    ]
    left = [file for file in files if file not in wanted and file.path.endswith(".py")]
    return Choice(tuple(wanted), tuple(left), pickled=not tensors)


def _is_elsewhere(path: str) -> bool:
    return any(part.lower() in _ELSEWHERE or part[0] == "." for part in path.split("/")[:-1])


def _is_copy(path: str, tensors: Iterable[Remote], names: set[str]) -> bool:
    """The same tensors once more, in Mistral's own layout or in another precision."""
    if path.startswith("consolidated"):
        return any(file.path.startswith("model") for file in tensors)
    return _VARIANT.search(path) is not None and _VARIANT.sub("", path) in names


def _nothing(repo: str, files: list[Remote]) -> StoreError:
    pickle = next((file.path for file in files if _PICKLE.search(file.path)), None)
    if pickle is not None:
        return StoreError(
            f"{repo} has no safetensors, only pickled weights ({pickle}), which can run code when "
            "they are read. Look for a repository that has safetensors, or convert them. If you "
            "trust its owner with this machine: --allow-pickle, or `weights.allow_pickle: true` in "
            "the config.",
            reason="unsafe",
        )
    if any(file.path.endswith(".gguf") for file in files):
        return StoreError(
            f"{repo} has GGUF files only, which vLLM does not serve. Take the repository that "
            "they were made from; its name is usually the same without -GGUF.",
            reason="not_found",
        )
    return StoreError(
        f"{repo} has no *.safetensors, so there is nothing to serve.", reason="not_found"
    )
