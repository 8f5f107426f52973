"""Lines as vLLM 0.32 wrote them."""

from __future__ import annotations

import pytest

from server.engines.progress import SPAWNED, advance

START = """\
Triton is installed, but doesn't include CPU backend. Disabling Triton.
(APIServer pid=7) INFO 11-21 01:52:35 [api_utils.py:286] non-default args: {'uds': '/tmp/e1.sock'}
(APIServer pid=7) INFO 11-21 01:52:43 [model.py:733] Resolved architecture: LlamaForCausalLM
(APIServer pid=7) INFO 11-21 01:52:43 [model.py:2152] Using max model len 2048
(EngineCore pid=8) INFO 11-21 01:52:49 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with …
(Worker pid=9) INFO 11-21 01:52:56 [cpu_model_runner.py:68] Starting to load model /tmp/tiny...
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 30.77it/s]
(Worker pid=9) INFO 11-21 01:52:56 [default_loader.py:501] Loading weights took 0.03 seconds
(Worker pid=9) INFO 11-21 01:52:57 [cpu_model_runner.py:87] Warming up model for the compilation...
(Worker pid=9) INFO 11-21 01:52:57 [monitor.py:40] Starting torch.compile
(Worker pid=9) INFO 11-21 01:52:59 [cpu_model_runner.py:91] Warming up done.
(Worker pid=9) INFO 11-21 01:52:57 [cpu_worker.py:260] Explicitly set (1.0/8.34) GiB for KV cache
(Worker pid=9) INFO 11-21 01:52:57 [default_loader.py:501] Loading weights took 0.03 seconds
(EngineCore pid=8) INFO 11-21 01:53:00 [core.py:402] init engine (profile, create kv cache) took 2 s
(APIServer pid=7) INFO 11-21 01:53:00 [entry.py:140] Starting vLLM server on unix:/tmp/e1.sock
INFO:     Waiting for application startup.
INFO:     Application startup complete.
"""


def test_the_stages_of_a_start() -> None:
    stage, seen = SPAWNED, []
    for line in START.splitlines():
        new = advance(stage, line)
        if new is not stage:
            seen.append(new.text)
            stage = new
    assert seen == [
        "reading the model's config",
        "importing (LlamaForCausalLM)",
        "starting the engine core",
        "loading weights",
        "loading weights (0%)",
        "loading weights (100%)",
        "weights loaded",
        "compiling",
        "compiled",
        "preparing the KV cache",
        "engine core is up",
        "starting the server",
        "ready",
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  43%|████▎     | 29/67",
            "capturing CUDA graphs (43%)",
        ),
        ("model-00001-of-00004.safetensors:  12%|█▏  | 597M/4.98G", "downloading weights (12%)"),
    ],
)
def test_stages_with_a_measure(line: str, text: str) -> None:
    assert advance(SPAWNED, line).text == text
