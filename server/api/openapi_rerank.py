"""Rerank on the OpenAPI page: its two paths and what goes in and comes out."""

from __future__ import annotations

from typing import Any, Final

from server.api.openapi_parts import Paths, inference, json_of
from server.api.openapi_schemas import MODEL, Schema, either, many, number, ref, text, thing, whole
from server.protocol.rerank import DOCUMENTS

RERANK_SCHEMAS: Final[dict[str, Schema]] = {
    "RerankRequest": thing(
        {
            "model": MODEL,
            "query": either(
                text(), {"type": "object"}, description="A text; an object for models that can see."
            ),
            "documents": many(
                either(text(), thing({"text": text()})),
                f"At most {DOCUMENTS}. An object that holds a `text` and nothing else is a text.",
                minItems=1,
            ),
            "top_n": whole("How many results; without it, or with 0, all.", minimum=0),
            "max_tokens_per_doc": whole("Longer documents are cut off there.", minimum=0),
        },
        *("query", "documents"),
    ),
    "Ranking": thing(
        {
            "id": text(),
            "model": text(),
            "results": many(
                thing(
                    {
                        "index": whole("Which of `documents`, from 0."),
                        "relevance_score": number(),
                        "document": thing({"text": text()}, description="Of models on engines."),
                    },
                    *("index", "relevance_score"),
                ),
                "The most relevant first.",
            ),
            "usage": ref("Usage"),
            "meta": {"type": "object", "description": "Cohere's: what it bills."},
        },
        *("id", "model", "results"),
    ),
}
_DOCUMENTS: Final = ["A turntable turns locomotives.", "Swindon had a works."]
_ASK: Final = {"model": "reranker", "query": "What turns locomotives?", "documents": _DOCUMENTS}
_ASKED: Final = {
    "plain": {"summary": "All documents, in order", "value": _ASK},
    "best": {
        "summary": "The best one, of objects",
        "value": {**_ASK, "documents": [{"text": each} for each in _DOCUMENTS], "top_n": 1},
    },
}
_ANSWERS: Final = {
    "engine": {
        "summary": "Of a model on an engine",
        "value": {
            "id": "score-1",
            "model": "reranker",
            "usage": {"prompt_tokens": 29, "total_tokens": 29},
            "results": [
                {"index": 0, "document": {"text": _DOCUMENTS[0]}, "relevance_score": 0.97},
                {"index": 1, "document": {"text": _DOCUMENTS[1]}, "relevance_score": 0.02},
            ],
        },
    },
    "cohere": {
        "summary": "Of Cohere",
        "value": {
            "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
            "model": "rerank-v3.5",
            "results": [
                {"index": 0, "relevance_score": 0.97},
                {"index": 1, "relevance_score": 0.02},
            ],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        },
    },
}


def _post(name: str, description: str) -> dict[str, Any]:
    asked, answers = json_of("RerankRequest", _ASKED), json_of("Ranking", _ANSWERS)
    summary = "Order documents by their relevance to a query"
    return {"post": inference(name, summary, asked, answers, description=description)}


RERANK: Final[Paths] = {
    "/v1/rerank": _post(
        "rerank",
        "As Cohere, Jina and vLLM have it; OpenAI has none. For rerank models, and on engines for "
        "embedding models, too, which compare by the cosine. `return_documents: true` is refused "
        "for models at Cohere, which sends no documents back.",
    ),
    "/v2/rerank": _post("rerankV2", "`/v1/rerank`, where clients of Cohere's API v2 ask for it."),
}
