"""What the chart tells vLLM, before vLLM's own parsers: no GPU and no cluster is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import helm_render
from server.engines.runtimes import Launch
from tests.engines.test_vllm_arguments import Parser
from tests.helm.policies import Pod, pods

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

#: What LeaderWorkerSet tells a group's pods, and the kubelet puts in.
GROUP = {
    "$(LWS_GROUP_SIZE)": "2",
    "$(LWS_LEADER_ADDRESS)": "roundhouse-engine-llama-70b-nodes-0.models",
}
WEIGHTS = Path(__file__).resolve().parents[2] / "server" / "embedded" / "guide"
TOLD = ["host", "port", "served_model_name", "shutdown_timeout", "headless"]
SPREAD = ["nnodes", "node_rank", "master_addr", "tensor_parallel_size", "pipeline_parallel_size"]


@pytest.fixture(scope="module")
def parser(repo_root: Path) -> Iterator[Parser]:
    made = Parser(repo_root)
    yield made
    made.close()


def engines(values: dict[str, Any]) -> list[Pod]:
    return [pod for pod in pods(helm_render.manifests(values)) if pod.role]


def told(parser: Parser, pod: Pod, values: list[str]) -> dict[str, Any]:
    """What vLLM makes of a pod's command."""
    container = pod.spec["containers"][0]
    assert container["command"] == ["vllm", "serve"]
    # Weights that are here, as vLLM looks for them at once.
    args = [str(WEIGHTS), *container["args"][1:]]
    for variable, value in {
        **GROUP,
        "$(LWS_WORKER_INDEX)": "0" if pod.role == "serving" else "1",
    }.items():
        args = [arg.replace(variable, value) for arg in args]
    device = "cuda" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu"
    argv = ("python", "-m", "vllm.entrypoints.cli.main", "serve", *args)
    return parser.ask(Launch(argv, {}, "", facts={"device": device}), values)


@pytest.mark.parametrize("name", [n for n in helm_render.examples() if n != "gateway-only"])
def test_examples(name: str, parser: Parser) -> None:
    for pod in engines(helm_render.example(name)):
        made = told(parser, pod, TOLD)
        assert (made["host"], made["port"], made["shutdown_timeout"]) == ("0.0.0.0", 8000, 120)
        assert made["served_model_name"] == pod.spec["containers"][0]["args"][:1]
        assert made["headless"] == (pod.role == "worker")


def test_a_group_is_one_vllm_over_its_machines(parser: Parser) -> None:
    leader, worker = engines(helm_render.example("multi-node-70b"))
    both = {
        "nnodes": 2,
        "master_addr": GROUP["$(LWS_LEADER_ADDRESS)"],
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
    }
    assert told(parser, leader, SPREAD) == {**both, "node_rank": 0}
    assert told(parser, worker, SPREAD) == {**both, "node_rank": 1}


def test_flags_as_values_write_them(parser: Parser) -> None:
    args = {
        "max-model-len": 16384,
        "enable-auto-tool-choice": True,
        "tool-call-parser": "hermes",
        "enable-prefix-caching": False,
        "gpu-memory-utilization": 0.85,
        "speculative-config": {"method": "ngram", "num_speculative_tokens": 3},
    }
    values = {
        **helm_render.example("one-gpu"),
        "engines": [
            {"name": "a", "model": "/models/a", "args": args, "extraArgs": ["--host=::"]},
        ],
    }
    (pod,) = engines(values)
    made = told(
        parser,
        pod,
        ["host", "served_model_name", *(name.replace("-", "_") for name in args)],
    )
    # The last one counts: for a cluster that speaks IPv6 alone.
    assert made.pop("host") == "::"
    assert made.pop("served_model_name") == ["a"]
    assert made == {name.replace("-", "_"): value for name, value in args.items()}
