"""Where an engine's weights are: the embedded model, a folder, or a model of the store, which is
pulled from the hub if it is not there."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from server.engines import safetensors
from server.errors import EngineError

if TYPE_CHECKING:
    from server.config.engine import Engine
    from server.config.weights import Weights as Settings

HUB_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")
#: Weights that can run code when they are read.
PICKLES = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class Weights:
    """`argument` is what vLLM gets: a folder's absolute path or a hub id.

    `size`: bytes of the tensors, 0 when not known yet (hub).
    """

    argument: str
    folder: Path | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The config's `weights`. `folder` None: the hub's cache, as its variables have it. `counted`
    is told of bytes as they come (None, how many), and how each pull ended (one of
    `store.errors.OUTCOMES`, 0); from several threads."""

    folder: Path | None = None
    allow_pickle: bool = False
    stall_timeout: float = 30.0
    workers: int = 4
    pull: bool = True
    counted: Callable[[str | None, int], None] = lambda outcome, size: None

    @classmethod
    def of(
        cls,
        settings: Settings,
        base: Path,
        counted: Callable[[str | None, int], None] = lambda outcome, size: None,
    ) -> StoreSettings:
        """`base` is the folder of the config file, which a folder without a root is in."""
        folder = None
        if settings.folder is not None:
            folder = (base / Path(settings.folder).expanduser()).absolute()
        return cls(
            folder,
            settings.allow_pickle,
            settings.stall_timeout,
            settings.workers,
            settings.pull,
            counted,
        )


def places_of(store: StoreSettings | None) -> object:
    """Where weights are looked for, and what of them is taken."""
    return None if store is None else (store.folder, store.allow_pickle, store.pull)


def ready(
    engine: Engine,
    *,
    base: Path,
    store: StoreSettings,
    note: Callable[[str], None] = lambda text: None,
    stop: threading.Event | None = None,
) -> Weights:
    """The weights of an engine, here and whole: pulled now if they are a model of the hub that is
    not in the store. Blocks, for as long as a pull takes.

    `note` is told, in this thread, how far a pull is. Once `stop` is set it ends within a second
    with `store.errors.Cancelled`. Raises EngineError: `weights` (terminal), `network`, `disk`.
    """
    from server.engines.store import bringing  # it looks at folders with this module

    said = engine.local_weights
    dummy = engine.args.get("load-format") == "dummy"
    found = resolve(said, base=base, dummy=dummy, allow_pickle=store.allow_pickle)
    if found.folder is not None:
        return found
    return bringing.bring(
        said, engine, store, dummy=dummy, note=note, stop=stop or threading.Event()
    )


def resolve(
    weights: str, *, base: Path, dummy: bool = False, allow_pickle: bool = False
) -> Weights:
    """Find the weights and see that they are whole. Of a hub id only that it is one.

    `base` is the folder of the config file. `dummy` (vLLM's load format) needs no tensors. Raises
    EngineError with reason `weights`, terminal. Reads the disk.
    """
    if weights.startswith("embedded:"):
        return _folder(_embedded(weights.removeprefix("embedded:")), weights, dummy)
    path = Path(weights).expanduser()
    path = path if path.is_absolute() else base / path
    if path.is_dir():
        return _folder(path, weights, dummy, allow_pickle)
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


def _folder(path: Path, said: str, dummy: bool, allow_pickle: bool = False) -> Weights:
    path = path.resolve()
    if not (path / "config.json").is_file() and not (path / "params.json").is_file():
        raise _error(
            f"The folder {path} (weights {said!r}) has no config.json. "
            "Give the folder that holds config.json, the tokenizer and *.safetensors."
        )
    if dummy:
        return Weights(argument=str(path), folder=path)
    names = _names(path)
    if not names:
        return _pickled(path, said, allow_pickle)
    safetensors.read_folder(path)
    size = sum((path / name).stat().st_size for name in names)
    return Weights(argument=str(path), folder=path, size=size)


def _names(path: Path) -> set[str]:
    """The files of tensors, by the index if there is one."""
    here = {file.name for file in path.glob("*.safetensors")}
    index = path / safetensors.INDEX
    if not index.is_file():
        return here
    listed = safetensors.read_json(index, safetensors.MAX_INDEX).get("weight_map")
    names = set(map(str, listed.values())) if isinstance(listed, dict) else here
    if missing := sorted(names - here):
        raise _error(
            f"The folder {path} lacks {len(missing)} of the files that its index names "
            f"({missing[0]}, …). Finish the download."
        )
    return names


def _pickled(path: Path, said: str, allowed: bool) -> Weights:
    old = sorted(file for kind in PICKLES for file in path.glob(kind))
    if not old:
        raise _error(f"The folder {path} (weights {said!r}) has no *.safetensors.")
    if not allowed:
        raise _error(
            f"The folder {path} has only pickled weights ({old[0].name}), which can run code when "
            "they are read. Convert them to safetensors (load them with transformers and "
            "`save_pretrained(..., safe_serialization=True)`), or use a copy that has them. If "
            "you trust whoever made them with this machine: `weights.allow_pickle: true`."
        )
    return Weights(argument=str(path), folder=path, size=sum(file.stat().st_size for file in old))
