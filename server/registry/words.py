"""Which task a person means."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from server.registry.tasks import TASKS

#: What people say instead of a task's name.
WORDS: Final[dict[str, tuple[str, ...]]] = {
    "conversation": ("chat", "chatbot", "talk", "assistant", "dialogue", "general"),
    "instructions": ("instruct", "instruction following", "extraction", "structured output"),
    "reasoning": ("math", "maths", "mathematics", "planning", "thinking", "complex reasoning"),
    "coding": ("code", "programming", "software", "developer", "code completion"),
    "agents": ("agent", "agentic", "tools", "tool use", "function calling", "automation"),
    "cost": ("cheap", "cheapest", "budget", "price", "low cost", "bulk"),
    "long-context": ("long", "long documents", "books", "large context", "big context"),
    "local": ("self-hosted", "on-premises", "on-prem", "private", "own machine"),
    "edge": ("cpu", "laptop", "mobile", "phone", "raspberry pi", "small", "tiny", "embedded"),
    "multilingual": ("languages", "non-english", "international"),
    "vision": ("image understanding", "pictures", "screenshots", "ocr", "scans", "vqa", "charts"),
    "embedding": ("embeddings", "embed", "vectors", "semantic search", "similarity", "clustering"),
    "rerank": ("reranking", "reranker", "ranking"),
    "retrieval": ("rag", "question answering", "qa", "grounded answers", "citations"),
    "classification": ("classify", "classifier", "labels", "sentiment", "zero-shot", "triage"),
    "summarization": ("summarisation", "summarize", "summarise", "summary", "summaries", "tl;dr"),
    "translation": ("translate", "translator", "mt"),
    "completion": ("base", "base model", "text completion", "autocomplete"),
    "fine-tuning": ("finetuning", "fine-tune", "finetune", "training", "lora"),
    "biomedical": ("medical", "medicine", "biology", "clinical", "health", "bio", "biomed"),
    "speech-to-text": ("transcription", "transcribe", "asr", "stt", "speech recognition", "audio"),
    "text-to-speech": ("tts", "speech synthesis", "voice", "read aloud"),
    "image-generation": ("images", "image", "text-to-image", "draw", "illustration"),
    "safety": ("moderation", "guard", "guardrails", "harmful content", "toxicity"),
}
#: Every such word → its task.
BY_WORD: Final = {
    word: task for task, words in WORDS.items() for word in (task, task.replace("-", " "), *words)
}


def task_of(word: str) -> str:
    """The task of TASKS that a word stands for, in any case. Raises ValueError that lists them."""
    said = re.sub(r"[\s_]+", " ", word.strip().lower())
    for spelling in (said, said.replace("-", " "), said.replace(" ", "-")):
        if spelling in BY_WORD:
            return BY_WORD[spelling]
    near = dict.fromkeys(BY_WORD[one] for one in get_close_matches(said, BY_WORD, 3, 0.7))
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"{word!r} is no task.{hint} Tasks: {', '.join(TASKS)}.")
