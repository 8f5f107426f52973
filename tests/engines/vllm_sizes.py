"""Run by the engine's Python: vLLM's own count of the KV cache for layers that are described on
stdin, as JSON. Answers with the bytes for each case, the pool's spare block in them."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any


def count(case: dict[str, Any]) -> int:
    import torch
    from vllm.v1.core import kv_cache_utils as utils
    from vllm.v1.kv_cache_interface import (
        FullAttentionSpec,
        KVCacheSpec,
        MLAAttentionSpec,
        SlidingWindowSpec,
    )
    from vllm.v1.kv_cache_layout import KVCacheLayout

    common = {
        "block_size": case["block"],
        "dtype": {"bfloat16": torch.bfloat16, "fp8": torch.uint8}[case["dtype"]],
    }
    specs: dict[str, KVCacheSpec] = {}
    for kind, layers, heads, size, window in case["layers"]:
        for i in range(layers):
            name = f"{kind}.{i}"
            if kind == "mla":
                specs[name] = MLAAttentionSpec(num_kv_heads=1, head_size=size, **common)
            elif kind == "full":
                specs[name] = FullAttentionSpec(num_kv_heads=heads, head_size=size, **common)
            else:
                specs[name] = SlidingWindowSpec(
                    num_kv_heads=heads, head_size=size, sliding_window=window, dcp_sharded=False,
                    **common,
                )  # fmt: skip
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=case["context"]),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        attention_config=SimpleNamespace(hisparse_config=None),
        cache_config=SimpleNamespace(
            get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBNHC, num_gpu_blocks_override=None
        ),
        speculative_config=None,
        max_in_flight_tokens=2 * case["batch"],
    )
    groups = utils.get_kv_cache_groups(config, specs)
    used = utils._max_memory_usage_bytes_from_groups(config, groups)
    return int(used + utils._pool_bytes_per_block(config, groups))


if __name__ == "__main__":
    print(json.dumps([count(case) for case in json.load(sys.stdin)]))
