"""Plans for what takes free memory only, and for what may not go anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from server.engines.placement import (
    NO_ROOM,
    Device,
    Engine,
    Evict,
    Option,
    Phase,
    Plan,
    Policy,
    Refuse,
    Running,
    Start,
    Wait,
    Wish,
    World,
)
from server.engines.planner import plan
from server.engines.victims import Victim, standing_of
from tests.engines.test_planner import GPU, LONG_AGO, NOW, TWO, engine, ready


def planned(
    *engines: Engine,
    running: tuple[Running, ...] = (),
    wishes: tuple[Wish, ...] = (),
    devices: tuple[Device, ...] = (GPU,),
) -> Plan:
    return plan(World(devices, {one.name: one for one in engines}, running, wishes), NOW)


def test_eager_engines_are_loaded_in_their_order_until_memory_ends() -> None:
    eager = [engine(name, 10, eager=True) for name in ("c", "a", "b")]
    made = planned(*eager)
    assert made.actions == (
        Start("c", eager[0].options[0], ("cuda:0",)),
        Start("a", eager[1].options[0], ("cuda:0",)),
        Wait("b", NO_ROOM),
    )


def test_an_eager_engine_makes_nobody_go_and_comes_after_all_wishes() -> None:
    eager, idle, wished = engine("a", 20, eager=True), engine("b", 10), engine("c", 10)
    made = planned(eager, idle, running=(ready(idle),))
    assert made.actions == (Wait("a", NO_ROOM),)
    made = planned(eager, wished, wishes=(Wish("c", NOW),))
    assert made.actions == (
        Start("c", wished.options[0], ("cuda:0",)),
        Wait("a", NO_ROOM),
    )


def test_an_eager_engine_waits_for_what_leaves() -> None:
    eager, old = engine("a", 20, eager=True), engine("b", 20)
    leaving = ready(old, phase=Phase.STOPPING)
    assert planned(eager, old, running=(leaving,)).actions == (Wait("a", "memory is coming free"),)
    own = ready(eager, phase=Phase.STOPPING)
    assert planned(eager, running=(own,)).actions == (Wait("a", "its last process is stopping"),)


def test_an_eager_engine_that_died_starts_again_after_its_pause() -> None:
    made = planned(engine("a", 20, eager=True, not_before=NOW + 5))
    assert made.actions == (Wait("a", "it died, and starts again after a pause", NOW + 5),)
    assert made.again == NOW + 5


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.ASLEEP, Phase.WAKING])
def test_an_eager_engine_that_is_there_is_not_loaded_again(phase: Phase) -> None:
    eager = engine("a", 10, eager=True)
    assert planned(eager, running=(ready(eager, phase=phase),)).actions == ()


def test_an_eager_engine_that_can_never_fit_is_refused() -> None:
    made = planned(engine("a", 30, eager=True, refusal="It needs 30."))
    assert made.actions == (Refuse("a", "It needs 30."),)


def test_replicas_that_were_given_up_are_left_out() -> None:
    one = engine("a", 5, replicas=3)
    running = (ready(one, replica=1),)
    made = planned(replace(one, failed=frozenset({0})), running=running)
    assert made.actions == (Start("a", one.options[0], ("cuda:0",), replica=2),)
    assert planned(replace(one, failed=frozenset({0, 2})), running=running).actions == ()
    made = planned(replace(one, failed=frozenset({0})), wishes=(Wish("a", NOW),))
    assert made.actions == (Start("a", one.options[0], ("cuda:0",), replica=1),)


def test_a_replica_that_died_says_when_to_ask_again() -> None:
    one = engine("a", 5, replicas=2, not_before=NOW + 3)
    made = planned(one, running=(ready(one),))
    assert made == Plan((), NOW + 3)


def test_an_option_may_name_its_devices() -> None:
    option = Option("cuda", 10, ids=("cuda:1",))
    one = Engine("a", (option,))
    made = planned(one, wishes=(Wish("a", NOW),), devices=TWO)
    assert made.actions == (Start("a", option, ("cuda:1",)),)
    made = planned(one, wishes=(Wish("a", NOW),))
    assert isinstance(made.actions[0], Refuse)


def test_why_somebody_goes_is_told_as_a_cause() -> None:
    old, new = engine("a", 20), engine("b", 20)
    made = planned(old, new, running=(ready(old),), wishes=(Wish("b", NOW),))
    assert isinstance(made.actions[0], Evict)
    assert (made.actions[0].cause, made.actions[0].by) == ("room", "b")
    idle = engine("a", 20, idle=1.0)
    (action,) = planned(idle, running=(ready(idle),)).actions
    assert isinstance(action, Evict)
    assert (action.cause, action.by) == ("idle", None)
    (action,) = planned(running=(ready(old, last_used=LONG_AGO),)).actions
    assert isinstance(action, Evict)
    assert action.cause == "config"


def test_a_spare_instance_goes_before_an_engine_that_was_used_earlier() -> None:
    twice, old, new = engine("a", 8, replicas=2), engine("b", 8), engine("c", 8)
    running = (ready(twice), ready(twice, replica=1), ready(old, last_used=LONG_AGO - 50))
    made = planned(twice, old, new, running=running, wishes=(Wish("c", NOW),))
    assert made.actions[0] == Evict("a", "it makes room for c", 1)


def test_of_a_pinned_engine_one_instance_stays() -> None:
    twice, new = engine("a", 12, replicas=2, pinned=True), engine("b", 12)
    running = (ready(twice, phase=Phase.STARTING), ready(twice, replica=1))
    made = planned(twice, new, running=running, wishes=(Wish("b", NOW),))
    assert isinstance(made.actions[0], Wait)
    running = (ready(twice), ready(twice, replica=1))
    made = planned(twice, new, running=running, wishes=(Wish("b", NOW),))
    assert made.actions[0] == Evict("a", "it makes room for b", 1)
    made = planned(twice, engine("b", 13), running=running, wishes=(Wish("b", NOW),))
    assert isinstance(made.actions[0], Refuse)


def test_one_that_is_ended_on_its_way_to_sleep_holds_both_memories() -> None:
    option = Option("cuda", 20, asleep=(0, 20))
    one, new = Engine("a", (option,)), Engine("b", (Option("cpu", 50),))
    host = Device("cpu", "cpu", 64)
    ends = Running("a", Phase.STOPPING, option, ("cuda:0",), between=True)
    for running, expected in [(ends, Wait), (replace(ends, between=False), Start)]:
        world = World((GPU, host), {"a": one, "b": new}, (running,), (Wish("b", NOW),),
                      Policy(host="cpu"))  # fmt: skip
        (action,) = plan(world, NOW).actions
        assert isinstance(action, expected)


def test_how_all_stand_is_not_found_out_for_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is made on the server's loop: with a hundred engines, too, it must not hold it up."""
    looked: list[Running] = []

    def counted(one: Running, *rest: Any, **more: Any) -> Victim:
        looked.append(one)
        return standing_of(one, *rest, **more)

    monkeypatch.setattr("server.engines.places.standing_of", counted)
    runs = [engine(f"a{number}", 1) for number in range(20)]
    waits = [engine(f"b{number}", 20) for number in range(50)]
    wishes = tuple(Wish(one.name, NOW) for one in waits)
    running = tuple(ready(one, in_flight=1) for one in runs)
    planned(*runs, *waits, running=running, wishes=wishes)
    assert len(looked) == len(runs)
