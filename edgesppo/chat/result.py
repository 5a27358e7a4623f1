"""An answer as values: the chunks that it streams in, and the whole result with its figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgesppo.chat.choices import FinishReason
from edgesppo.chat.messages import shortened


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer.

    Attributes:
        prompt_tokens: The tokens of the prompt.
        cached_tokens: Those of them that were in the KV cache and needed no prefill.
        completion_tokens: The tokens of the answer.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """How fast one answer was.

    Attributes:
        ttft_s: Time to first token, in seconds from the question; None if there was no token.
        prefill_tps: Prompt tokens computed per second, without the cached ones; 0 if there were
            none.
        decode_tps: Answer tokens per second after the first; 0 if there were none.
    """

    ttft_s: float | None
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token of an answer, or of an alternative to it.

    Attributes:
        id: The token id.
        data: The token's bytes, which may be only a part of a character; a control token's name.
        logprob: The natural logarithm of the model's own probability of the token, before bias,
            penalties, temperature and truncation.
        top: The most probable tokens in its place, best first; empty for an alternative.
    """

    id: int
    data: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The bytes as text; an incomplete character becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON has it: id, text, bytes, logprob, and top if there are any."""
        found = {"id": self.id, "text": self.text, "bytes": [*self.data], "logprob": self.logprob}
        return {**found, "top": [other.to_dict() for other in self.top]} if self.top else found


@dataclass(frozen=True, repr=False)
class Chunk:
    """A piece of an answer as it streams.

    Attributes:
        text: The text of the piece; it may be empty.
        prefilled: The prompt tokens computed so far; grows before the first token.
        prompt_tokens: The tokens of the prompt.
        finish_reason: "stop", "length" or "cancelled" in the last chunk, else None.
        usage: The token counts in the last chunk, else None.
        timings: The speed in the last chunk, else None.
        logprobs: If asked for, an entry for each new token, even if its text is held back because
            it may begin a stop string or is a part of a character.
        ids: The ids of the new tokens, likewise.
    """

    text: str
    prefilled: int = 0
    prompt_tokens: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    ids: tuple[int, ...] = ()

    def __repr__(self) -> str:
        end = "" if self.finish_reason is None else f", {self.finish_reason}"
        reading = self.prefilled < self.prompt_tokens
        at = f", {self.prefilled:,} of {self.prompt_tokens:,} prompt tokens" if reading else ""
        return f"<Chunk {shortened(self.text)}{at}{end}>"


@dataclass(frozen=True, repr=False)
class Result:
    """A whole answer.

    Attributes:
        text: The text, without the stop string that ended it.
        finish_reason: "stop" (the model ended the answer, or a stop string or stop token did),
            "length" (`max_tokens` or the context was reached) or "cancelled".
        usage: The token counts.
        timings: The speed.
        seed: The seed; asking again with it repeats the answer.
        left_out: The chat's oldest turns that were left out of the prompt because they did not fit.
        ids: The token ids, without an end token; empty if a stop string ended the answer.
        reused: Where the cached tokens came from: "nothing", "earlier" (an earlier prompt and its
            answer), "shared" (another running answer) or "restored" (a saved chat's file).
        logprobs: If asked for, an entry for each token of the answer, including those of a stop
            string that was cut off, but not the end token.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int
    left_out: int = 0
    ids: tuple[int, ...] = ()
    reused: str = "nothing"
    logprobs: tuple[TokenLogprob, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON has it, without token ids; `logprobs` only if there are any."""
        found = {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": dataclasses.asdict(self.usage),
            "timings": dataclasses.asdict(self.timings),
            "seed": self.seed,
            "left_out": self.left_out,
        }
        logprobs = [entry.to_dict() for entry in self.logprobs]
        return {**found, "logprobs": logprobs} if logprobs else found

    def __repr__(self) -> str:
        n = self.usage.completion_tokens
        tokens = "1 token" if n == 1 else f"{n:,} tokens"
        return f"<Result {shortened(self.text)}, {tokens}, {self.finish_reason}>"
