"""Where an engine's weights are: the embedded model, a folder, or an id on the hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from server.errors import EngineError

HUB_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")
LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Weights:
    """`argument` is what vLLM gets: a folder's absolute path or a hub id.

    `size`: bytes of the tensors, 0 when not known yet (hub).
    """

    argument: str
    folder: Path | None = None
    size: int = 0


def resolve(weights: str, *, base: Path, dummy: bool = False) -> Weights:
    """Find the weights and see that they are whole.

    `base` is the folder of the config file. `dummy` (vLLM's load format) needs no tensors. Raises
    EngineError with reason `weights`, terminal. Reads the disk.
    """
    if weights.startswith("embedded:"):
        return _folder(_embedded(weights.removeprefix("embedded:")), weights, dummy)
    path = Path(weights).expanduser()
    path = path if path.is_absolute() else base / path
    if path.is_dir():
        return _folder(path, weights, dummy)
    if weights.startswith(("/", ".", "~")) or path.exists():
        raise _error(f"There is no folder {weights!r} (looked for {path}).")
    if not HUB_ID.match(weights) or ".." in weights or "--" in weights:
        raise _error(
            f"{weights!r} is neither a folder nor an id on the hub. "
            "Write embedded:guide, a folder, or an id like Qwen/Qwen3-8B."
        )
    return Weights(argument=weights)


def _error(message: str) -> EngineError:
    return EngineError(message, reason="weights", terminal=True)


def _embedded(name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise _error(f"'embedded:{name}' is no embedded model; there is embedded:guide.")
    try:
        path = Path(import_module("server.embedded").path(name))
    except (ImportError, AttributeError):  # installed without the package's data
        path = Path(__file__).parents[1] / "embedded" / name
    except (KeyError, ValueError, FileNotFoundError):
        path = Path()
    if path == Path() or not path.is_dir():
        raise _error(f"'embedded:{name}' is not part of this installation.")
    return path


def _folder(path: Path, said: str, dummy: bool) -> Weights:
    path = path.resolve()
    if not (path / "config.json").is_file() and not (path / "params.json").is_file():
        raise _error(
            f"The folder {path} (weights {said!r}) has no config.json. "
            "Give the folder that holds config.json, the tokenizer and *.safetensors."
        )
    if dummy:
        return Weights(argument=str(path), folder=path)
    files = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        missing = sorted(_listed(index) - {file.name for file in files})
        if missing:
            raise _error(
                f"The folder {path} lacks {len(missing)} of the files that its index names "
                f"({missing[0]}, …). Finish the download."
            )
    if not files:
        old = [file.name for suffix in ("*.bin", "*.pt", "*.pth") for file in path.glob(suffix)]
        if old:
            raise _error(
                f"The folder {path} has only pickled weights ({old[0]}), which can run code when "
                "they are read. Convert them to safetensors (load them with transformers and "
                "`save_pretrained(..., safe_serialization=True)`), or use a copy that has them."
            )
        raise _error(f"The folder {path} (weights {said!r}) has no *.safetensors.")
    return Weights(argument=str(path), folder=path, size=sum(_whole(file) for file in files))


def _listed(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        raise _error(f"{index} cannot be read. Download the weights again.") from None


def _whole(file: Path) -> int:
    """The file's size, once its header says that all of it is there."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if (start + stream.read(len(LFS) - 8)).startswith(LFS):
            raise _error(
                f"{file} is a git-lfs pointer, not the weights. Run `git lfs pull` in its folder."
            )
        stream.seek(8)
        length = int.from_bytes(start, "little")
        try:
            if len(start) < 8 or not 2 <= length <= size - 8:
                raise ValueError(length)
            header = json.loads(stream.read(length))
            ends = [
                int(tensor["data_offsets"][1])
                for name, tensor in header.items()
                if name != "__metadata__"
            ]
            if 8 + length + max(ends, default=0) != size:
                raise ValueError(size)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise _error(
                f"{file} is damaged or not complete ({size} bytes). Download or copy it again."
            ) from None
    return size
