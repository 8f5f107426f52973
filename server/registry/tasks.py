"""The tasks that models are recommended for."""

from __future__ import annotations

from typing import Final

#: What a card's `recommended` may say, and what `recommend` takes as a task.
TASKS: Final[dict[str, str]] = {
    "conversation": "talk with people",
    "instructions": "follow instructions",
    "reasoning": "complex reasoning: mathematics, planning, many steps",
    "coding": "write and change code",
    "agents": "call tools over many steps",
    "cost": "much work for little money",
    "long-context": "read long documents",
    "local": "run on one's own machine",
    "edge": "run on a laptop or a CPU",
    "multilingual": "languages other than English",
    "vision": "understand pictures",
    "embedding": "vectors for search and clustering",
    "rerank": "order search results",
    "retrieval": "answer from given documents",
    "classification": "sort texts into classes",
    "summarization": "shorten texts",
    "translation": "translate",
    "completion": "go on with a text",
    "fine-tuning": "a base to train on",
    "biomedical": "texts of medicine and biology",
    "speech-to-text": "write down what is said",
    "text-to-speech": "say what is written",
    "image-generation": "make pictures",
    "safety": "judge whether content is harmful",
}
