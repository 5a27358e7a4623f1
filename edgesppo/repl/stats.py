"""Token counts since the program started, and the speed of the prefill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesppo.chat.result import Result

_MIN_TOKENS = 16  # fewer are not enough to measure a rate


@dataclass
class SessionStats:
    """Totals of all answers since the program started."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_tps: float = 0.0  # tokens per second, as last measured; 0: not measured yet
    last: Result | None = None  # the last answer

    def add(self, result: Result) -> None:
        """Add one answer to the totals; one without a token, as of a complete one, is none."""
        usage = result.usage
        if not usage.completion_tokens:
            return
        self.last = result
        self.answers += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.prompt_tokens - usage.cached_tokens >= _MIN_TOKENS and result.timings.prefill_tps:
            self.prefill_tps = result.timings.prefill_tps

    def __str__(self) -> str:
        answers = "1 answer" if self.answers == 1 else f"{self.answers:,} answers"
        return (
            f"{answers} since the start: {self.prompt_tokens:,} tokens in "
            f"({self.cached_tokens:,} of them from the KV cache), {self.completion_tokens:,} out"
        )
