"""A reasoning parser for vLLM, which loads this file: the embedded model does not reason, so that
what it says up to its first colon stands for it, where a request asks for reasoning at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.identity_reasoning_parser import IdentityReasoningParser

END = ":"


@ReasoningParserManager.register_module("colon")
class ColonParser(IdentityReasoningParser):  # type: ignore[misc]
    """Asked with a `reasoning_effort`, or with Cohere's `thinking`."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        said = kwargs.get("chat_template_kwargs") or {}
        thinking = said.get("thinking") or {}
        self._thinks = bool(said.get("enable_thinking")) or thinking.get("type") == "enabled"

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        return not self._thinks or END in self.model_tokenizer.decode(list(input_ids))

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        return self.is_reasoning_end([*delta_ids])

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        if not self._thinks:
            return None, model_output
        thoughts, end, rest = model_output.partition(END)
        return thoughts + end, rest or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        if not delta_text:
            return None
        if not self._thinks or END in previous_text:
            return DeltaMessage(content=delta_text)
        thoughts, end, rest = delta_text.partition(END)
        return DeltaMessage(reasoning=thoughts + end, content=rest or None)
