"""What became of one request, and the measures that follow from it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Failure:
    """`kind` is what failures are counted by, `text` what the first of a kind said."""

    kind: str
    text: str


@dataclass(slots=True)
class Sample:
    """One request. `due`, `sent`, `first` and `ended` are readings of the run's clock, in seconds.

    `first` is None before, or without, a chunk with content; `gaps` are the seconds between such
    chunks. The token counts are those of `usage`, None without it. `streamed` says what was asked.
    """

    index: int
    due: float
    sent: float
    ended: float
    streamed: bool
    first: float | None = None
    gaps: array[float] = field(default_factory=lambda: array("d"))
    chunks: int = 0
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    finish: str | None = None
    failure: Failure | None = None

    @property
    def ttft(self) -> float | None:
        """From being due to the first chunk with content."""
        return None if self.first is None else self.first - self.due

    @property
    def ttft_service(self) -> float | None:
        """From being sent to the first chunk with content."""
        return None if self.first is None else self.first - self.sent

    @property
    def e2e(self) -> float:
        """From being due to the end of the answer."""
        return self.ended - self.due

    @property
    def e2e_service(self) -> float:
        """From being sent to the end of the answer."""
        return self.ended - self.sent

    @property
    def late(self) -> float:
        """From being due to being sent."""
        return self.sent - self.due

    @property
    def tokens_are_chunks(self) -> bool:
        """The server gave no usage, so that a stream's chunks stand in for tokens."""
        return self.output_tokens is None and self.streamed

    @property
    def tokens(self) -> int | None:
        """Output tokens: of usage, else the chunks of a stream; None when nobody knows."""
        return self.chunks if self.tokens_are_chunks else self.output_tokens

    @property
    def tpot(self) -> float | None:
        """(E2E - TTFT) / (tokens - 1); None for fewer than two tokens."""
        if self.first is None or self.tokens is None or self.tokens < 2:
            return None
        return (self.ended - self.first) / (self.tokens - 1)

    @property
    def speed(self) -> float | None:
        """Output tokens a second, from being sent to the end."""
        if self.tokens is None or self.e2e_service <= 0:
            return None
        return self.tokens / self.e2e_service

    def as_json(self, start: float) -> dict[str, Any]:
        """The raw record; `…_at_seconds` count from `start`, the clock when the step began."""
        failure = self.failure
        return {
            "index": self.index,
            "due_at_seconds": self.due - start,
            "sent_at_seconds": self.sent - start,
            "first_token_at_seconds": None if self.first is None else self.first - start,
            "ended_at_seconds": self.ended - start,
            "inter_chunk_seconds": list(self.gaps),
            "content_chunks": self.chunks,
            "output_tokens": self.output_tokens,
            "prompt_tokens": self.prompt_tokens,
            "cached_prompt_tokens": self.cached_tokens,
            "finish_reason": self.finish,
            "error": None if failure is None else {"kind": failure.kind, "text": failure.text},
        }
