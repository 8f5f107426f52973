from __future__ import annotations

from prometheus_client import generate_latest

from server.telemetry import rare
from server.telemetry.metrics import OTHER, Metrics


def exposed(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_an_unknown_model_is_other() -> None:
    metrics = Metrics()
    assert metrics.model("qwen") == OTHER
    metrics.set_models(["qwen", "gpt"])
    assert [metrics.model(name) for name in ("qwen", "x" * 1000, "", None)] == [
        "qwen",
        OTHER,
        OTHER,
        OTHER,
    ]
    metrics.set_models(["gpt"])
    assert metrics.model("qwen") == OTHER


def test_ten_thousand_names_make_one_series() -> None:
    metrics = Metrics()
    metrics.set_models(["qwen"])
    for at in range(10_000):
        metrics.requests.labels("chat", metrics.model(f"model-{at}"), "404").inc()
    series = [line for line in exposed(metrics).splitlines() if "_requests_total{" in line]
    assert series == [
        'roundhouse_requests_total{endpoint="chat",model="other",status="404"} 10000.0'
    ]


def test_forget_drops_the_series_of_a_name_and_no_others() -> None:
    metrics = Metrics()
    for model in ("old", "new"):
        metrics.requests.labels("chat", model, "200").inc()
        metrics.duration.labels("chat", model).observe(1)
        metrics.attempts.labels(model, "engine/old", "ok").inc()
    metrics.engine_starts.labels("old", "ready").inc()
    metrics.forget("model", [])
    assert 'model="old"' in exposed(metrics)
    metrics.forget("model", ["old", "never-seen"])
    text = exposed(metrics)
    assert 'model="old"' not in text
    assert 'model="new",status="200"' in text
    assert 'engine="old"' in text
    metrics.forget("target", ["engine/old"])
    assert "engine/old" not in exposed(metrics)


def test_registries_are_apart_and_every_metric_is_described() -> None:
    one, two = Metrics(), Metrics()
    one.build_info.labels("1").set(1)
    assert 'version="1"' not in exposed(two)
    rows = one.describe()
    names = [name for name, *_ in rows]
    assert len(names) == len(set(names))
    for name, kind, labels, text in rows:
        assert name.startswith("roundhouse_")
        assert kind in {"counter", "gauge", "histogram"}
        assert text.endswith(".")
        assert not {"id", "path", "user", "client"} & set(labels)


def test_rare_events_begin_at_zero() -> None:
    metrics = Metrics()
    rare.managed_engine(metrics, "one")
    rare.external_engine(metrics, "far")
    value = metrics.registry.get_sample_value
    assert value("roundhouse_engine_restarts_total", {"engine": "one", "reason": "killed"}) == 0
    assert value("roundhouse_engine_swaps_total", {"engine": "one"}) == 0
    assert value("roundhouse_replica_changes_total", {"engine": "far", "change": "lost"}) == 0
    assert value("roundhouse_config_reloads_total", {"result": "rejected"}) == 0
    assert value("roundhouse_engine_swaps_total", {"engine": "far"}) is None
    assert value("roundhouse_replica_changes_total", {"engine": "one", "change": "lost"}) is None
    metrics.engine_restarts.labels("one", "killed").inc()
    rare.managed_engine(metrics, "one")
    assert value("roundhouse_engine_restarts_total", {"engine": "one", "reason": "killed"}) == 1
    metrics.forget("engine", ["one", "far"])
    assert 'engine="' not in exposed(metrics)
