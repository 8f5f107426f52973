from __future__ import annotations

from importlib import import_module

import pytest

from server.engines import nvml
from server.engines.devices import GIB
from server.engines.nvml import Card
from tests.engines import fake_nvml
from tests.engines.fake_nvml import Gpu, Nvml


def cards(lib: Nvml, visible: str | None = None) -> tuple[Card, ...] | None:
    found = nvml.cards(visible, lib)
    assert lib.opened == 0
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_all_that_are_there(count: int) -> None:
    found = cards(Nvml(fake_nvml.gpus(count)))
    assert found is not None
    assert [card.number for card in found] == list(range(count))
    for card in found:
        assert (card.name, card.uuid) == ("NVIDIA H200", f"GPU-{card.number:08x}")
        assert (card.total, card.used, card.free) == (140 * GIB, GIB, 139 * GIB)
        assert card.visible == str(card.number)
        others = tuple(n for n in range(count) if n != card.number)
        assert card.peers == card.nvlink == others


@pytest.mark.parametrize(
    "error",
    [
        fake_nvml.LibraryNotFound,
        fake_nvml.DriverNotLoaded,
        fake_nvml.NoPermission,
        fake_nvml.NVMLError,
    ],
)
def test_without_a_driver_there_is_no_answer(error: type[fake_nvml.NVMLError]) -> None:
    lib = Nvml(fake_nvml.gpus(2), init=error)
    assert cards(lib) is None
    assert nvml.used_by({"a": [1]}, [], lib) is None


def test_a_library_that_does_anything_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = Nvml(fake_nvml.gpus(1))
    monkeypatch.setattr(lib, "nvmlDeviceGetCount", lambda: int("x"))
    assert cards(lib) is None

    def broken() -> None:
        raise AttributeError("nvmlInitWithFlags")

    monkeypatch.setattr(lib, "nvmlInit", broken)
    assert cards(lib) is None


def test_the_real_library_does_no_harm() -> None:
    """With a GPU it answers, without a driver it does not."""
    assert nvml.cards("") in (None, ())


def test_the_fake_one_is_like_it() -> None:
    real = import_module("pynvml")
    used = {name for name in vars(Nvml) if name.startswith("nvml")}
    assert len(used) > 10
    assert {name for name in used if not callable(getattr(real, name, None))} == set()
    assert issubclass(real.NVMLError_GpuIsLost, real.NVMLError)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 1 , 0 ", [1, 0]),
        ("0,-1,1", [0]),
        ("0,9,1", [0]),
        ("GPU-00000001", [1]),
        ("GPU-00000001,0", [1, 0]),
        ("GPU-0000000", []),
        ("gpu-00000001", []),
    ],
)
def test_what_cuda_may_see(visible: str, uuids: list[int]) -> None:
    found = cards(Nvml(fake_nvml.gpus(3)), visible)
    assert found is not None
    assert [card.uuid for card in found] == [f"GPU-{n:08x}" for n in uuids]
    assert [card.number for card in found] == list(range(len(uuids)))
    words = [word.strip() for word in visible.split(",")]
    assert [card.visible for card in found] == words[: len(uuids)]


def test_links_are_told_by_number_and_kind() -> None:
    devices = [Gpu(f"GPU-{name}") for name in "abc"]
    devices[0].peers = {"GPU-b": {0, 2}, "GPU-c": {0}}
    devices[1].fails["links"] = fake_nvml.NotSupported
    found = cards(Nvml(devices), "2,0,1")
    assert found is not None
    assert [(card.uuid, card.peers, card.nvlink) for card in found] == [
        ("GPU-c", (), ()), ("GPU-a", (0, 2), (2,)), ("GPU-b", (), ()),
    ]  # fmt: skip


def test_one_that_is_lost_leaves_the_others_their_numbers() -> None:
    devices = fake_nvml.gpus(3)
    devices[1].fails["handle"] = fake_nvml.GpuIsLost
    for visible in (None, "0,1,2"):
        found = cards(Nvml(devices), visible)
        assert found is not None
        assert [(card.number, card.visible, card.peers) for card in found] == [
            (0, "0", (2,)), (2, "2", (0,)),
        ]  # fmt: skip


def test_a_device_that_shares_the_hosts_memory_has_no_figures() -> None:
    (device,) = fake_nvml.gpus(1)
    device.fails |= {"memory": fake_nvml.NotSupported, "name": fake_nvml.NVMLError}
    assert cards(Nvml([device])) == (Card(0, "0", "", device.uuid),)


def test_slices_are_devices() -> None:
    sliced = Gpu("GPU-a", parts={"MIG-1": 10 * GIB, "MIG-2": 20 * GIB})
    empty = Gpu("GPU-b", parts={})
    found = cards(Nvml([sliced, empty, Gpu("GPU-c")]))
    assert found is not None
    assert [(card.number, card.visible, card.total, card.part) for card in found] == [
        (0, "MIG-1", 10 * GIB, True), (1, "MIG-2", 20 * GIB, True), (3, "2", 140 * GIB, False),
    ]  # fmt: skip
    # An index means the first of its slices.
    found = cards(Nvml([sliced, Gpu("GPU-c")]), "1,0,MIG-2")
    assert found is not None
    assert [card.visible for card in found] == ["1", "MIG-1", "MIG-2"]


def test_who_uses_what() -> None:
    devices = fake_nvml.gpus(2)
    devices[0].running = [(10, 3 * GIB), (11, GIB), (99, 5 * GIB), (12, None)]
    devices[1].running = [(20, 2 * GIB)]
    lib = Nvml(devices)
    found = cards(lib) or ()
    used = nvml.used_by({"a": [10, 11, 12], "b": [20], "c": [30]}, found, lib)
    assert used == {"a": {0: 4 * GIB}, "b": {1: 2 * GIB}, "c": {}}
    # A container's process ids are not those that the driver knows.
    assert nvml.used_by({"a": [1, 2]}, found, lib) is None
    devices[0].fails["running"] = fake_nvml.NoPermission
    assert nvml.used_by({"a": [10], "b": [20]}, found, lib) == {"a": {}, "b": {1: 2 * GIB}}
    assert lib.opened == 0
