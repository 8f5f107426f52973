"""What stands in a folder of *.safetensors, from the files' headers alone.

A header is eight bytes of length (little endian) and that much JSON: name → dtype, shape, and the
first and last byte of the tensor, counted from the header's end. Files come from strangers, so
nothing in them is believed: not the length, not the offsets, not the names in the index. Links are
followed, since the hub's cache is made of them, but only to regular files; and what a file holds is
never quoted, so that a link to somebody's secrets tells nothing.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from server.errors import EngineError

#: The largest headers that are known have a few MiB; the format's own limit is 100 MB.
MAX_HEADER: Final = 32 * 2**20
#: The index of the largest models has about 10 MiB.
MAX_INDEX: Final = 64 * 2**20
MAX_FILES: Final = 4096
INDEX: Final = "model.safetensors.index.json"

#: Bits of one value. What a newer format brings is taken at its offsets' word.
BITS: Final = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\.safetensors")
_DTYPE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,15}")
_LFS: Final = b"version "


@dataclass(frozen=True, slots=True)
class Tensor:
    """`size` is bytes in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


def read_folder(folder: Path) -> tuple[Tensor, ...]:
    """All tensors that an engine would load from a folder. Blocks; reads headers only.

    With an index its files count and no others, as for vLLM: copies in another layout may lie
    beside them. Raises EngineError (`weights`, terminal).
    """
    listed = _listed(folder / INDEX)
    names = sorted(set(listed.values())) if listed is not None else _found(folder)
    if not names:
        raise _error(f"The folder {folder} has no *.safetensors.")
    if len(names) > MAX_FILES:
        raise _error(f"The folder {folder} has {len(names)} files of weights; {MAX_FILES} at most.")
    found: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    for name in names:
        for tensor in read_file(folder / name):
            if tensor.name in found:
                raise _error(f"{folder / name} holds a tensor that another file holds, too.")
            found[tensor.name], where[tensor.name] = tensor, name
    if listed is not None and any(where.get(name) != file for name, file in listed.items()):
        raise _error(
            f"{folder / INDEX} names tensors that its files do not hold. Download it again."
        )
    return tuple(found.values())


def read_file(path: Path) -> tuple[Tensor, ...]:
    """The tensors of one file, in the order of their bytes. Raises EngineError."""
    start, size = read_bytes(path, 8)
    if start.startswith(_LFS):
        raise _error(
            f"{path} is a git-lfs pointer, not the weights. Run `git lfs pull` in its folder."
        )
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= size - 8:
        raise _damaged(path)
    if length > MAX_HEADER:
        raise _error(
            f"{path} says that its header has {length:,} bytes; {MAX_HEADER:,} at most are read."
        )
    text, _ = read_bytes(path, length, skip=8)
    try:
        if len(text) != length:
            raise ValueError(length)
        return _tensors(strict_json(text), size - 8 - length)
    except ValueError:
        raise _damaged(path) from None


def _tensors(header: dict[str, Any], room: int) -> tuple[Tensor, ...]:
    """Raises ValueError unless the tensors fill the room without a gap and without overlap."""
    spans: list[tuple[int, int, Tensor]] = []
    for name, told in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(told, dict):
            raise ValueError(name)
        begin, end = _whole_numbers(told.get("data_offsets"), 2)
        shape = _whole_numbers(told.get("shape"))
        dtype = told.get("dtype")
        if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype) or begin > end:
            raise ValueError(name)
        tensor = Tensor(name, dtype, shape, end - begin)
        bits = BITS.get(dtype)
        if bits is not None and tensor.elements * bits != 8 * tensor.size:
            raise ValueError(name)
        spans.append((begin, end, tensor))
    spans.sort(key=lambda span: span[:2])
    at = 0
    for begin, end, _ in spans:
        if begin != at:
            raise ValueError(begin)
        at = end
    if at != room:
        raise ValueError(at)
    return tuple(tensor for _, _, tensor in spans)


def _whole_numbers(value: Any, count: int | None = None) -> tuple[int, ...]:
    """Few and bounded, since their product is taken. `True` is not one."""
    if (
        not isinstance(value, list)
        or len(value) > 32
        or (count is not None and len(value) != count)
        or not all(type(item) is int and 0 <= item < 2**63 for item in value)
    ):
        raise ValueError("whole numbers")
    return tuple(value)


# --- reading ------------------------------------------------------------------------------------


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """A small JSON object. Raises EngineError for any file that is none."""
    text, size = read_bytes(path, limit)
    try:
        if size > limit:
            raise ValueError(size)
        return strict_json(text)
    except ValueError:
        raise _error(f"{path} is no JSON object, or larger than {limit:,} bytes.") from None


def strict_json(text: bytes) -> dict[str, Any]:
    """An object whose names are all different: of two, readers would take one or the other.

    Raises ValueError, for nesting without end, too.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def read_bytes(path: Path, count: int, *, skip: int = 0) -> tuple[bytes, int]:
    """Up to `count` bytes after `skip`, and the file's size. Raises EngineError.

    Never waits: a pipe is opened without blocking, and then seen to be no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise _error(f"{path} is no regular file.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                file.seek(skip)
                return file.read(count), about.st_size
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise _error(f"{path} cannot be read ({exc.strerror}).") from None


def _listed(index: Path) -> dict[str, str] | None:
    """Tensor → file, by the index; None where there is none."""
    if not os.path.lexists(index):
        return None
    listed = read_json(index, MAX_INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise _error(f"{index} has no `weight_map`. Download it again.")
    for name in set(map(str, listed.values())):
        # A path would lead out of the folder.
        if not _PLAIN.fullmatch(name):
            raise _error(f"{index} names a file that is no plain name of a *.safetensors.")
    return {name: str(file) for name, file in listed.items()}


def _found(folder: Path) -> list[str]:
    try:
        return sorted(
            name for name in os.listdir(folder) if name.endswith(".safetensors") and name[0] != "."
        )
    except OSError as exc:
        raise _error(f"{folder} cannot be read ({exc.strerror}).") from None


def _damaged(path: Path) -> EngineError:
    return _error(f"{path} is damaged or not complete. Download or copy it again.")


def _error(message: str) -> EngineError:
    return EngineError(message, reason="weights", terminal=True)
