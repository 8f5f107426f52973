"""Make the guide: text → tokenizer → weights → a Hugging Face folder.

python -m scripts.guide.make --out server/embedded/guide
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.guide import tokenizer as tokenizers
from scripts.guide import train as training
from scripts.guide.corpus import HERE, SEED, Maker

STEPS = 2200
TOKENIZER_SAMPLES = 20_000


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder: bf16 weights, configs, tokenizer. The card is written by hand."""
    out.mkdir(parents=True, exist_ok=True)
    config = model.config
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = torch.bfloat16
    config.save_pretrained(out)
    weights = {
        name: value.to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    generation = {
        "do_sample": False,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # vLLM samples at 1.0 unless this says otherwise, which is too wild for so small a model.
        "temperature": 0.0,
    }
    (out / "generation_config.json").write_text(
        json.dumps(generation, indent=2) + "\n", encoding="utf-8"
    )
    tokenizer.save_pretrained(out)
    # Under the name that transformers before 5 knows, too.
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("backend", None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    text = json.dumps(settings, indent=2) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--snapshots", type=Path, help="where to write weights on the way")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    samples = Maker(options.seed).stream(TOKENIZER_SAMPLES)
    tokenizer = tokenizers.train(samples, HERE / "chat_template.jinja")

    def snapshot(model: LlamaForCausalLM, step: int) -> None:
        if options.snapshots:
            export(model, tokenizer, options.snapshots / str(step))

    model = training.train(tokenizer, Maker(options.seed), options.steps, options.seed, snapshot)
    export(model, tokenizer, options.out)
    size = (options.out / "model.safetensors").stat().st_size
    print(f"{options.out}: {model.num_parameters():,} parameters, {size:,} bytes of weights")


if __name__ == "__main__":
    main()
