from __future__ import annotations

from server.config.placement import Placement
from server.engines import world
from server.engines.fitting import Fitted
from server.engines.placement import FOREVER, Device, Option, Phase, Policy, Running
from tests.engines.conftest import engine

CPU = Device("cpu", "cpu", 100)
FITTED = Fitted((Option("cuda", 5),), refusal="It needs more.")


def test_the_host_is_the_cpu() -> None:
    config = Placement(starvation=7, drain=8)
    assert world.policy_of(config, [Device("cuda:0", "cuda", 9), CPU]) == Policy(
        7, 8, FOREVER, host="cpu"
    )
    assert world.policy_of(Placement(forget=9), []).forget == 9
    assert world.policy_of(Placement(), []).host is None


def test_the_configs_words_become_the_planners() -> None:
    config = engine(pinned=True, idle=60, residency=5, groups=["g"])
    found = world.engine_of("a", config, FITTED, eager=True, not_before=3, failed=[1])
    assert found.options == FITTED.options
    assert found.refusal == "It needs more."
    assert (found.pinned, found.eager, found.not_before) == (True, True, 3)
    assert (found.idle, found.residency, found.groups) == (60.0, 5.0, frozenset({"g"}))
    assert found.failed == {1}
    assert world.engine_of("a", engine(), FITTED).idle == FOREVER
    assert world.engine_of("a", engine(replicas=3), FITTED).replicas == 3


def test_what_is_kept_out_or_not_fitted_is_not_started() -> None:
    config = engine(pinned=True, replicas=3)
    for found in (
        world.engine_of("a", config, FITTED, kept_out=True, there=True, eager=True),
        world.engine_of("a", config, None, eager=True),
    ):
        assert (found.pinned, found.eager, found.replicas) == (False, False, 1)


def test_a_pinned_one_that_runs_stays_while_its_needs_are_counted_anew() -> None:
    assert world.engine_of("a", engine(pinned=True), None, there=True).pinned


def test_what_is_set_aside() -> None:
    option = Option("cuda", 5, devices=2, host=1, asleep=(2, 3))
    one = Running("a", Phase.READY, option, ("cuda:0", "cuda:1"))
    assert world.planned(one, "cpu") == {"cuda:0": 5, "cuda:1": 5, "cpu": 1}
    assert world.planned(one, None) == {"cuda:0": 5, "cuda:1": 5}
    slept = Running("a", Phase.ASLEEP, option, ("cuda:0", "cuda:1"))
    assert world.planned(slept, "cpu") == {"cuda:0": 2, "cuda:1": 2, "cpu": 4}
    on_cpu = Running("a", Phase.READY, Option("cpu", 5, host=1), ("cpu",))
    assert world.planned(on_cpu, "cpu") == {"cpu": 6}
