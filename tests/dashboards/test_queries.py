"""A real Prometheus scrapes a Roundhouse that has seen everything: each panel draws something, each
rule is evaluated, each query of the metrics' page answers."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from scripts.metrics_page import queries
from tests.dashboards import asked, house, prometheus
from tests.dashboards.prometheus import Job, Prometheus
from tests.fakes import hub

#: The first test waits for all of it.
pytestmark = pytest.mark.timeout(600)
#: Rounds of requests, each seen by a scrape.
ROUNDS = 4
#: Panels that show nothing but zeros here, and why.
ZERO = {
    "service: Draining A": "the server does not stop",
    "engines: Running A": "the recorded engine was at rest",
    "engines: Waiting in the engine A": "the recorded engine was at rest",
    "engines: KV cache used A": "the recorded engine was at rest",
    "engines: Prefix hits A": "the recorded engine had none",
    "engines: Preempted A": "the recorded engine had none",
}
#: Queries that stand in the docs: of each metric, and those that answer a question.
PAGES = [*(asked.Query(name, expr) for name, expr in queries()), *asked.documented()]
#: Those that may answer with nothing here, and why.
QUIET = {
    "routing.md: retries that the budget refused": "on a slow machine the budget may do",
}
#: Alerts that this house must have raised, or had on the way.
RAISED = {
    "RoundhouseBreakerOpen",
    "RoundhouseCredentialRefused",
    "RoundhouseNoTargetLeft",
    "RoundhouseConfigRejected",
    "RoundhouseEngineWithoutReplicas",
}
#: What looks like metrics and is labels.
LABELS = {"roundhouse_engine", "roundhouse_replica"}
#: Of Kubernetes, not of ours.
FOREIGN = re.compile(r"kubelet_\w+")


@dataclass
class Seen:
    """What Prometheus said, by where the query stands."""

    drawn: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    raised: set[str] = field(default_factory=set)
    absent: list[Any] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One house, one Prometheus, all the questions."""
    prometheus.program("prometheus")
    with pytest.MonkeyPatch.context() as patch, hub.running() as weights:
        weights.add(house.WEIGHTS)
        patch.setenv("HF_ENDPOINT", weights.url)
        return asyncio.run(watch(tmp_path_factory.mktemp("watched")))


async def watch(folder: Path) -> Seen:
    async with house.street(folder) as street:
        inside = street.house
        assert inside.server.admin_url
        jobs = (
            Job("roundhouse", inside.server.admin_url.removeprefix("http://"), key=house.METRICS),
            # As the chart's PodMonitor does.
            Job(
                "engines",
                street.far.url.removeprefix("http://"),
                labels=(("roundhouse_engine", "far"),),
            ),
        )
        async with prometheus.running(folder, jobs, asked.RULES) as watching:
            began = time.time()
            await watching.scraped(jobs)
            for number in range(ROUNDS):
                await inside.round(watching.scraped(jobs))
                if number == 1:
                    await inside.mishaps()
                    await street.lost.stop()
            await inside.spoil_config()
            for _ in range(2):
                await watching.scraped(jobs)
            return await told(watching, began)


async def told(watching: Prometheus, began: float) -> Seen:
    """The answers to everything."""
    seen = Seen()
    for panel in asked.panels():
        seen.drawn[panel.where] = await watching.drawn(panel.expr, began)
    for choice in asked.variables():
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", choice.expr)
        assert found, choice.expr
        series = await watching.get("series", **{"match[]": found[1]})
        seen.choices[choice.where] = sorted({one[found[2]] for one in series})
    for each in PAGES:
        seen.answers[each.where] = await watching.drawn(each.expr, began)
    groups = (await watching.get("rules"))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        seen.rules[rule["name"]] = rule
    raised = await watching.query("count by (alertname) (count_over_time(ALERTS[1h]))")
    seen.raised = {one["metric"]["alertname"] for one in raised}
    # Before the first scrape there was none.
    seen.absent = await watching.query('ALERTS{alertname="RoundhouseAbsent"}')
    seen.names = set(await watching.get("label/__name__/values"))
    return seen


def values(result: list[dict[str, Any]]) -> list[float]:
    """All numbers of an answer that are some."""
    pairs = [pair for one in result for pair in one.get("values") or [one["value"]]]
    return [number for number in (float(value) for _, value in pairs) if not isnan(number)]


@pytest.mark.parametrize("where", [panel.where for panel in asked.panels()])
def test_a_panel_draws_something(seen: Seen, where: str) -> None:
    found = values(seen.drawn[where])
    assert found, "nothing, or no numbers"
    assert any(found) is (where not in ZERO)


@pytest.mark.parametrize("where", [each.where for each in asked.variables()])
def test_there_is_a_choice(seen: Seen, where: str) -> None:
    assert seen.choices[where]


@pytest.mark.parametrize("where", [each.where for each in PAGES])
def test_a_query_of_a_page_answers(seen: Seen, where: str) -> None:
    assert seen.answers[where] or where in QUIET


def test_legends_have_words(seen: Seen) -> None:
    """A legend's label that the query has summed away would be empty."""
    for panel in asked.panels():
        for label in re.findall(r"{{(\w+)}}", panel.legend):
            assert all(label in one["metric"] for one in seen.drawn[panel.where]), panel


def test_all_rules_are_evaluated(seen: Seen) -> None:
    names = {rule.get("alert") or rule["record"] for rule in asked.rules()}
    assert set(seen.rules) == names
    bad = {name: rule for name, rule in seen.rules.items() if rule["health"] != "ok"}
    assert not bad


def test_alerts_ask_for_metrics_that_there_are(seen: Seen) -> None:
    """With promtool's tests, which make series up, this says that an alert can be raised at all."""
    known = seen.names | {rule["record"] for rule in asked.rules() if "record" in rule}
    for rule in asked.rules():
        names = set(re.findall(r"\b(?:roundhouse|vllm|kubelet)[\w:]*[_:]\w+", rule["expr"]))
        assert names or rule["expr"].startswith("vector")
        ours = {name for name in names - LABELS if not FOREIGN.match(name)}
        assert ours <= known


def test_what_is_wrong_here_is_raised(seen: Seen) -> None:
    assert seen.raised >= RAISED
    assert not seen.absent
