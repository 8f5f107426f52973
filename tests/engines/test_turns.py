"""Who takes turns with whom, before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from server.config.engine import Engine
from server.engines import turns
from server.engines.devices import GIB, UNKNOWN
from server.engines.fitting import Fitted
from server.engines.placement import Device, Option
from tests.engines.fitting_house import gpus


def need(size: int, kind: str = "cuda", *, host: int = 0, **more: Any) -> Fitted:
    return Fitted((Option(kind, size * GIB, host=host * GIB, **more),))


def said(machine: tuple[Device, ...], fits: dict[str, Fitted], pinned: str = "") -> tuple[str, ...]:
    engines = {name: Engine(weights="x", pinned=name in pinned.split()) for name in fits}
    return turns.advice(engines, fits, machine)


@pytest.mark.parametrize(
    "fits",
    [
        {},
        {"a": need(60), "b": need(20)},
        {"a": need(60), "b": need(60), "c": need(20)},
        {"a": need(70, devices=2), "b": need(10, ids=("cuda:1",))},
        {"a": need(70, devices=2), "b": need(60, "cpu")},
        {"a": Fitted(refusal="It is too big."), "b": need(60), "c": need(60)},
        {"a": Fitted((Option("cuda", 90 * GIB), Option("cpu", 60 * GIB)))},
    ],
)
def test_nobody_does_when_all_fit(fits: dict[str, Fitted]) -> None:
    assert said(gpus(80, 80), fits) == ()


@pytest.mark.parametrize(
    ("fits", "where", "who"),
    [
        ({"a": need(50), "b": need(50), "c": need(50)}, "cuda:0 has 80.0 GiB, cuda:1 has 80.0 GiB",
         "a (50.0 GiB), b (50.0 GiB), c (50.0 GiB) take turns"),
        ({"a": need(50, ids=("cuda:1",)), "b": need(50, ids=("cuda:1",)), "c": need(9, "cpu")},
         "(cuda:1 has 80.0 GiB for them)", "a (50.0 GiB), b (50.0 GiB) take turns"),
        ({"a": need(70, devices=2), "b": need(20)}, "cuda:0", "a (140.0 GiB), b (20.0 GiB)"),
        ({"a": need(40, "cpu"), "b": need(10, host=30)}, "cuda:0", "b (10.0 GiB) take turns"),
        ({"a": need(UNKNOWN // GIB), "b": need(UNKNOWN // GIB)}, "cuda:0", ": a, b take turns"),
    ],
)  # fmt: skip
def test_who_does(fits: dict[str, Fitted], where: str, who: str) -> None:
    (sentence,) = said(gpus(80, 80), fits)
    assert where in sentence
    assert who in sentence


def test_pinned_engines_do_not_take_turns() -> None:
    one, two = said(gpus(80), {name: need(50) for name in "abc"}, "a b")
    assert "b (50.0 GiB) will be refused" in one
    assert "c (50.0 GiB) take turns" in two
    assert said(gpus(80), {name: need(40) for name in "ab"}, "a b") == ()
