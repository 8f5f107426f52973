from __future__ import annotations

from server.engines.stages import Stages


def test_each_stage_has_its_seconds_and_how_far_it_is_makes_no_new_one() -> None:
    now = [100.0]
    stages = Stages(lambda: now[0])
    for seconds, text in [(1, "loading weights (10%)"), (2, "loading weights (90%)"), (3, "ready")]:
        now[0] += seconds
        stages.enter(text)
    now[0] += 4
    assert (stages.name, stages.passed, stages.total) == ("ready", 4, 10)
    assert stages.end() == {"checking": 1, "loading weights": 5, "ready": 4}
