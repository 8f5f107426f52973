"""The model and its training: plain torch on the CPU."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.guide.corpus import MIXTURE, Maker, Sample
from scripts.guide.tokenizer import CONTEXT, render

BATCH_TOKENS = 6144
LONGEST = 640
IGNORED = -100
# Copying is learnt first, on short texts: the later tool calls build on it.
FIRST = {"copy": 45, "json": 10, "topic": 30, "outside": 5, "call": 10}
FIRST_SHARE = 0.1
WARM_UP = 60
SNAPSHOT = 250
HELD_SEED = 99
DECAY_SHARE = 0.35
MATRIX_RATE = 4e-3
OTHER_RATE = 3e-3

Item = tuple[list[int], list[int]]


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        intermediate_size=640,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        initializer_range=0.03,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )


def encode(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> Item:
    """Token ids and labels. Only the answer and the end of the turn carry loss."""
    prompt = tokenizer.encode(render(tokenizer, sample), add_special_tokens=False)
    found = tokenizer(sample.answer, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if start >= sample.forced else IGNORED
        for token, (start, _) in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]
    end = tokenizer.eos_token_id
    return prompt + found["input_ids"] + [end], [IGNORED] * len(prompt) + labels + [end]


def batches(
    tokenizer: PreTrainedTokenizerFast, maker: Maker, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of samples of like length, without end."""
    rng = random.Random(7)
    done = 0
    while True:
        mixture = FIRST if done < FIRST_SHARE * steps else MIXTURE
        items = [encode(tokenizer, sample) for sample in maker.stream(1500, mixture)]
        items = sorted(
            (item for item in items if len(item[0]) <= LONGEST), key=lambda item: len(item[0])
        )
        groups: list[list[Item]] = [[]]
        for item in items:
            if (len(groups[-1]) + 1) * len(item[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(item)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            # Padding stands at the right, where a causal model never looks back from.
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
            labels = torch.tensor([lab + [IGNORED] * (width - len(lab)) for _, lab in group])
            done += 1
            yield ids, labels


def rate(step: int, steps: int) -> float:
    """Warm-up, a plain, a straight way down."""
    left = (steps - step) / (DECAY_SHARE * steps)
    return min(1.0, (step + 1) / WARM_UP, max(left, 0.0))


def accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    """The share of answer tokens that come out right, for each kind of sample, on new samples."""
    maker, shares = Maker(HELD_SEED), []
    for kind in MIXTURE:
        right = total = 0
        for sample in maker.stream(24, {kind: 1}):
            ids, labels = encode(tokenizer, sample)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
            target = torch.tensor(labels[1:])
            chosen = target != IGNORED
            right += int((logits.argmax(-1) == target)[chosen].sum())
            total += int(chosen.sum())
        shares.append(f"{kind} {right / total:.3f}")
    return "  ".join(shares)


def train(
    tokenizer: PreTrainedTokenizerFast,
    maker: Maker,
    steps: int,
    seed: int,
    snapshot: Callable[[LlamaForCausalLM, int], None],
) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(tokenizer))
    model.train()
    # Half of the time of a small model on a CPU goes into element-wise work, which this fuses.
    body = torch.compile(model.model, dynamic=True)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(
            matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=OTHER_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(opt, lambda step: rate(step, steps)) for opt in optimizers
    ]
    started, seen, total, count = time.monotonic(), 0, 0.0, 0
    for step, (ids, labels) in zip(range(steps), batches(tokenizer, maker, steps), strict=False):
        target = labels[:, 1:]
        chosen = target != IGNORED
        with torch.autocast("cpu", torch.bfloat16):
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][chosen]
            logits = linear(hidden, model.lm_head.weight)
        loss = cross_entropy(logits.float(), target[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seen, total, count = seen + ids.numel(), total + loss.item(), count + 1
        if count == 25 or step == steps - 1:
            spent = time.monotonic() - started
            print(
                f"step {step + 1}/{steps}  loss {total / count:.4f}  {seen / spent:.0f} tokens/s  {spent:.0f} s",
                flush=True,
            )
            total, count = 0.0, 0
        if (step + 1) % SNAPSHOT == 0:
            print(f"  {accuracy(model, tokenizer)}", flush=True)
            snapshot(model, step + 1)
    return model.eval()
