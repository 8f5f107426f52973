"""A byte-level BPE tokenizer, trained on the guide's own text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scripts.guide.corpus import Sample

VOCABULARY = 2304
CONTEXT = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Not special: vLLM's hermes parser reads them in the decoded text.
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
# Single digits, and words split at the humps of camelCase, so that copying is the same everywhere.
WORDS = r"'(?:s|t|re|ve|m|ll|d)\b| ?[A-Z]?[a-z]+| ?[A-Z]+| ?\d| ?[^\sA-Za-z\d]+|\s+"


def render(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> str:
    """The prompt of a sample, by the template that is shipped."""
    text = tokenizer.apply_chat_template(
        sample.messages, tools=sample.tools, tokenize=False, add_generation_prompt=True
    )
    assert isinstance(text, str)
    return text


def _texts(samples: Iterable[Sample]) -> Iterator[str]:
    for sample in samples:
        yield from sample.texts()


def train(samples: Iterable[Sample], template: Path) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(samples), trainer)
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer
