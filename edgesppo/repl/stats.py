"""Owns the figures of a whole sitting: turns, tokens, and the best measure of the prefill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesppo.chat.generation import Result

_ENOUGH = 16  # tokens that say something of a rate


@dataclass
class SessionStats:
    """What all answers together took."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_tps: float = 0.0  # as last measured over enough tokens; 0: never

    def add(self, result: Result) -> None:
        """Count one more answer."""
        usage = result.usage
        self.answers += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.prompt_tokens - usage.cached_tokens >= _ENOUGH and result.timings.prefill_tps:
            self.prefill_tps = result.timings.prefill_tps

    def __str__(self) -> str:
        answers = "1 answer" if self.answers == 1 else f"{self.answers:,} answers"
        return (
            f"{answers} in this sitting: {self.prompt_tokens:,} tokens in "
            f"({self.cached_tokens:,} of them from the KV cache), {self.completion_tokens:,} out"
        )
