"""Folders of weights: honest ones, and some that strangers made."""

from __future__ import annotations

import json
import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines import safetensors
from server.engines.model import read_model
from server.engines.safetensors import INDEX, MAX_HEADER, Tensor, read_file, read_folder
from server.errors import EngineError

TWO = {"a": ("F32", [2]), "b": ("BF16", [4, 2])}
SIZES = {"F32": 4, "BF16": 2, "U8": 1, "I32": 4}


def header(tensors: dict[str, tuple[str, list[int]]]) -> tuple[dict[str, Any], int]:
    at, made = 0, {}
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype]
        for part in shape:
            size *= part
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return made, at


def write(path: Path, told: Any, size: int) -> None:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * size)


def tensors(path: Path, told: dict[str, tuple[str, list[int]]]) -> None:
    write(path, *header(told))


def refused(path: Path) -> str:
    with pytest.raises(EngineError) as caught:
        read_folder(path) if path.is_dir() else read_file(path)
    assert caught.value.reason == "weights"
    assert caught.value.terminal
    return caught.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    return made


def test_a_file(folder: Path) -> None:
    tensors(folder / "model.safetensors", TWO)
    assert read_folder(folder) == (Tensor("a", "F32", (2,), 8), Tensor("b", "BF16", (4, 2), 16))


def test_only_headers_are_read(folder: Path) -> None:
    """32 GiB that are not there: a file with a hole."""
    told, size = header({"w": ("BF16", [2**17, 2**17])})
    write(folder / "model.safetensors", told, 0)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate((folder / "model.safetensors").stat().st_size + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (found,) = read_folder(folder)
    assert found.size == 2**35
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_an_index_says_which_files_count(folder: Path) -> None:
    tensors(folder / "one.safetensors", {"a": ("F32", [2])})
    tensors(folder / "two.safetensors", {"b": ("F32", [2])})
    tensors(folder / "consolidated.safetensors", TWO)
    assert "another file holds" in refused(folder)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / INDEX).write_text(json.dumps(index))
    assert [tensor.name for tensor in read_folder(folder)] == ["a", "b"]
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {"a": "two.safetensors", "b": "two.safetensors"}})
    )
    assert "do not hold" in refused(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "three.safetensors"}}))
    assert "cannot be read" in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", ".safetensors", "x.bin", 7, None,
     "a\0.safetensors", "-x.safetensors", "x" * 300 + ".safetensors"],
)  # fmt: skip
def test_an_index_that_leads_elsewhere(name: Any, folder: Path) -> None:
    tensors(folder / "model.safetensors", TWO)
    tensors(folder.parent / "model.safetensors", TWO)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    assert "no plain name" in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": {}}', "{}", "[" * 10**5, "\xff"]
)
def test_an_index_that_is_none(text: str, folder: Path) -> None:
    tensors(folder / "model.safetensors", TWO)
    (folder / INDEX).write_text(text, encoding="latin-1")
    assert "index" in refused(folder)


def test_an_index_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_INDEX", 10)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert "larger than 10 bytes" in refused(folder)


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_FILES", 1)
    for name in ("one", "two"):
        tensors(folder / f"{name}.safetensors", TWO)
    assert "2 files" in refused(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    assert "no *.safetensors" in refused(folder)
    with pytest.raises(EngineError, match="cannot be read"):
        read_folder(folder / "none")


# --- length bombs, wrong offsets, wrong JSON ----------------------------------------------------


def test_a_header_that_says_it_is_enormous(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert "damaged" in refused(path)
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with path.open("r+b") as file:
        file.truncate(2**40 + 8)  # and is: a hole of a tebibyte
    assert f"{MAX_HEADER:,} at most" in refused(path)


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    "told",
    [
        b"[]", b'"x"', b"{", b"{}x", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"a": 1' + b"0" * 10_000 + b"}",
        b'{"a": {"dtype":"U8","shape":[8],"data_offsets":[0,8]}, "a": 7}',
        {"a": 7}, {"a": None}, {"a": {}},
        one(dtype=3), one(dtype="f32"), one(dtype="F32" * 20), one(dtype="F64"),
        one(shape="2"), one(shape=[-2]), one(shape=[2.0]), one(shape=[True, 2]), one(shape=[2**64]),
        one(shape=[1] * 1000), one(shape=[2**62] * 32), one(shape=[3]),
        one(data_offsets=[0]), one(data_offsets=[8, 0]), one(data_offsets=[-8, 0]),
        one(data_offsets=[0, 8, 8]), one(data_offsets=[0.0, 8.0]), one(data_offsets=[False, 8]),
        one(data_offsets={"0": 8}), one(data_offsets=[0, 10**30]), one(data_offsets=[8, 16]),
        one(data_offsets=[0, 4]), {},
        {**one(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        {**one(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
         "b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}},
    ],
)  # fmt: skip
def test_headers_that_lie(told: Any, folder: Path) -> None:
    """Each with eight bytes of tensors after it."""
    write(folder / "model.safetensors", told, 8)
    assert "damaged" in refused(folder / "model.safetensors")


def test_what_is_unusual_and_right(folder: Path) -> None:
    path = folder / "model.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}
    write(path, {**one(), "__metadata__": {"format": "pt"}, "none": empty}, 8)
    assert [tensor.elements for tensor in read_file(path)] == [2, 0]
    write(path, one(dtype="F5_NEW"), 8)  # of a format that comes after us
    assert read_file(path)[0].size == 8
    write(path, json.dumps(one()).encode() + b"   ", 8)  # padded, as the format allows
    assert len(read_file(path)) == 1
    write(path, one(dtype="F4", shape=[16]), 8)
    assert read_file(path)[0].elements == 16
    write(path, {}, 0)
    assert read_file(path) == ()


@pytest.mark.parametrize("data", [b"", b"\x02", b"version https://git-lfs.github.com/spec/v1\n"])
def test_files_that_are_none(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    assert ("git lfs pull" if len(data) > 8 else "damaged") in refused(path)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(data: bytes, length: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(length.to_bytes(8, "little") + data)
        file.flush()
        with suppress(EngineError):
            read_file(Path(file.name))


# --- links and other things that are no files ---------------------------------------------------


def test_links_as_the_hubs_cache_has_them(folder: Path) -> None:
    blob = folder.parent / "blobs" / "abc"
    blob.parent.mkdir()
    tensors(blob, TWO)
    (folder / "model.safetensors").symlink_to("../blobs/abc")
    assert len(read_folder(folder)) == 2


def test_links_to_secrets_tell_nothing(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_text("root:x:0:0:hunter2:/root:/bin/sh\n")
    (folder / "model.safetensors").symlink_to(secret)
    assert "hunter2" not in refused(folder)
    (folder / "model.safetensors").unlink()
    (folder / INDEX).symlink_to(secret)
    assert "hunter2" not in refused(folder)


def test_what_is_no_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.mkfifo(path)
    assert "no regular file" in refused(folder)  # and it did not wait for a writer
    path.unlink()
    path.mkdir()
    assert "no regular file" in refused(folder)
    path.rmdir()
    path.symlink_to("model.safetensors")
    assert "cannot be read" in refused(folder)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "no regular file" in refused(folder)
    path.unlink()
    path.symlink_to("/none/at/all")
    assert "cannot be read" in refused(folder)
    path.unlink()
    (folder / INDEX).symlink_to("/none/at/all")
    tensors(path, TWO)
    assert "cannot be read" in refused(folder)


# --- config.json beside them --------------------------------------------------------------------


def test_a_whole_folder(folder: Path) -> None:
    tensors(
        folder / "model.safetensors",
        {
            "model.embed_tokens.weight": ("BF16", [32, 8]),
            "model.layers.0.mlp.up_proj.weight": ("BF16", [16, 8]),
            "model.norm.weight": ("F32", [8]),
            "lm_head.weight": ("BF16", [32, 8]),
        },
    )
    config = {
        "model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8,
        "max_position_embeddings": 64, "vocab_size": 32, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    model = read_model(folder)
    assert model.parameters == 32 * 8 + 16 * 8 + 8
    assert model.by_dtype == {"BF16": 768, "F32": 32}
    assert (model.dtype, model.loaded, model.linear, model.whole) == ("bfloat16", 784, 256, 16)
    assert read_model(folder, dtype="float32").loaded == 2 * 784
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert read_model(folder).parameters == 2 * 32 * 8 + 16 * 8 + 8


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1, "a": 2}', "{" * 10**5])
def test_a_config_that_is_none(text: str, folder: Path) -> None:
    tensors(folder / "model.safetensors", TWO)
    (folder / "config.json").write_text(text)
    with pytest.raises(EngineError, match="no JSON object"):
        read_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        read_model(folder)
