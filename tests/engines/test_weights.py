from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.engines import weights
from server.errors import EngineError


def tensors(path: Path, values: bytes = b"\0" * 8, name: str = "w") -> None:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    tensors(made / "model.safetensors")
    return made


def refused(said: str, base: Path) -> str:
    with pytest.raises(EngineError) as caught:
        weights.resolve(said, base=base)
    assert caught.value.reason == "weights"
    assert caught.value.terminal
    return caught.value.message


def test_a_folder(folder: Path, tmp_path: Path) -> None:
    for said in ("model", "./model", str(folder)):
        found = weights.resolve(said, base=tmp_path)
        assert found.argument == str(folder)
        assert found.folder == folder
        assert found.size == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("said", ["Qwen/Qwen3-8B", "gpt2", "org/na.me-1_2"])
def test_a_hub_id(said: str, tmp_path: Path) -> None:
    assert weights.resolve(said, base=tmp_path) == weights.Weights(said)


@pytest.mark.parametrize(
    "said", ["a/b/c", "--flag", "org/-x", "a b", "x" * 200, "org/..", "a--b/c"]
)
def test_what_is_nothing(said: str, tmp_path: Path) -> None:
    assert "neither a folder nor an id" in refused(said, tmp_path)


@pytest.mark.parametrize("said", ["./none", "/none/at/all", "~/none-at-all"])
def test_a_folder_that_is_not_there(said: str, tmp_path: Path) -> None:
    assert "no folder" in refused(said, tmp_path)


def test_a_file_is_no_folder(folder: Path) -> None:
    assert "no folder" in refused("model/config.json", folder.parent)


def test_what_a_folder_must_hold(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no *.safetensors" in refused("model", tmp_path)
    assert weights.resolve("model", base=tmp_path, dummy=True).size == 0
    (folder / "pytorch_model.bin").touch()
    assert "pickled" in refused("model", tmp_path)
    (folder / "config.json").unlink()
    assert "config.json" in refused("model", tmp_path)
    tensors(folder / "consolidated.safetensors")
    (folder / "params.json").write_text("{}")
    assert weights.resolve("model", base=tmp_path).size > 0


def test_shards_that_are_missing(folder: Path, tmp_path: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model.safetensors", "b": "two.safetensors"}}))
    assert "two.safetensors" in refused("model", tmp_path)
    tensors(folder / "two.safetensors", name="b")
    tensors(folder / "copy.safetensors")  # it is not in the index: nobody loads it
    one = (folder / "two.safetensors").stat().st_size
    assert weights.resolve("model", base=tmp_path).size == 2 * one
    for text in ("{", "[]", '{"weight_map": []}'):
        index.write_text(text)
        assert index.name in refused("model", tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"", "damaged"),
        (b"\xff" * 8 + b"{}", "damaged"),
        (b"\x02\0\0\0\0\0\0\0[]", "damaged"),
        (b"\x02\0\0\0\0\0\0\0{}extra", "damaged"),
    ],
)
def test_files_that_are_not_whole(data: bytes, words: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(data)
    assert words in refused("model", tmp_path)


def test_a_truncated_file(folder: Path, tmp_path: Path) -> None:
    tensors(folder / "model.safetensors", b"\0" * 7)
    assert "not complete" in refused("model", tmp_path)


def test_embedded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.embedded.path", lambda name: folder)
    assert weights.resolve("embedded:guide", base=tmp_path).folder == folder

    def unknown(name: str) -> Path:
        raise KeyError(name)

    monkeypatch.setattr("server.embedded.path", unknown)
    assert "not part of this installation" in refused("embedded:other", tmp_path)
    assert "no embedded model" in refused("embedded:../x", tmp_path)


def test_embedded_without_its_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "import_module", lambda name: object())
    assert "not part of this installation" in refused("embedded:nothing", tmp_path)
