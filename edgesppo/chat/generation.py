"""Owns the three thin generators: the engine's tokens -> chunks of text -> one result.

Knows tokens and text; knows nothing of chats, terminals or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.chat.detokenizer import StopFilter, Utf8Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.engine.engine import Engine
    from edgesppo.engine.request import Event, Request
    from edgesppo.sampling.params import SamplingParams

_REASONS = ("stop", "length", "cancelled")


@dataclass(frozen=True)
class Usage:
    """Tokens: of the prompt, of those the ones that were still in the KV cache, of the answer."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """How long an answer took.

    `ttft_s` is in seconds from the question to the first token, None when none came.
    `prefill_tps` counts the prompt's tokens that were computed, per second, as far as that came;
    `decode_tps` those of the answer behind its first. Both are 0 where there were none.
    """

    ttft_s: float | None
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, or one that could have stood in its place.

    `data` is its bytes, of which a character may have more (a control token gives its name);
    `logprob` the natural logarithm of the probability that the model itself gave it, before
    bias, penalties, temperature and any cut. `top` holds the most probable tokens, best first.
    """

    id: int
    data: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The bytes as text; those of a part of a character become U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer as it streams. Only the last has finish reason, usage and timings.

    Before the first token `text` is empty and `prefilled` counts the prompt's tokens done so far,
    of `prompt_tokens`. `logprobs` has an entry for each token that came, also where its text is
    still held back, as it may begin a stop string or is a part of a character.
    """

    text: str
    prefilled: int = 0
    prompt_tokens: int = 0
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Result:
    """A whole answer. `finish_reason` is "stop", "length" or "cancelled".

    `seed` repeats it; `left_out` counts the chat's oldest turns that no longer fitted its prompt.
    `reused` says where the cached tokens came from: "nothing", "earlier" (an earlier prompt and
    its answer), "shared" (another answer that was under way), "restored" (a saved chat's file).
    `logprobs`, where they were asked for, has an entry for each of the answer's tokens: the end
    token is none of them, those of a stop string that was cut off are.
    """

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    seed: int
    left_out: int = 0
    ids: tuple[int, ...] = field(default=(), repr=False)
    reused: str = "nothing"
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)


class Generation:
    """One answer in the making: iterate over its chunks; `result()` at any time gives it so far."""

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        left_out: int = 0,
        grammar: str | None = None,
    ) -> None:
        self.params = params.with_seed()
        self._engine = engine
        self._tokenizer = engine.model.tokenizer
        self._left_out = left_out
        self._request: Request = engine.submit(prompt, self.params, owner=self, grammar=grammar)
        self._decoder = Utf8Decoder()
        self._stops = StopFilter(params.stop)
        self._text: list[str] = []
        self._n_tokens = 0  # those that were made text
        self._logprobs: list[TokenLogprob] = []
        self._n_handed_out = 0  # of the logprobs
        self._ended = False  # and not only left

    def __iter__(self) -> Iterator[Chunk]:
        request = self._request
        events = self._engine.stream(request)
        text = ""
        try:
            for event in events:
                text = self._decode(event)
                if event.finish_reason is not None or self._stops.found is not None:
                    self._ended = True
                    break
                fresh = () if self.params.logprobs is None else self._fresh_logprobs()
                yield Chunk(text, request.n_prefilled, request.n_prompt, logprobs=fresh)
        finally:
            events.close()
            rest = self._flush()
        yield self._last_chunk(text + rest)

    def cancel(self) -> None:
        """Stop, from any thread, also in the middle of the prefill."""
        self._engine.cancel(self._request)

    def result(self) -> Result:
        """The answer so far; "cancelled" when it was not read to its end."""
        by_text = self._stops.found is not None
        finished = self._request.finish_reason if self._ended else None
        reason = "stop" if by_text else finished if finished in _REASONS else "cancelled"
        first = self._request.n_prompt
        ids = () if by_text else tuple(self._request.tokens[first : first + self._n_tokens])
        self._note_logprobs(self._n_counted)
        return Result(
            "".join(self._text),
            reason,
            self._usage(),
            self._timings(),
            self.params.seed or 0,
            self._left_out,
            ids,
            self._request.reused,
            tuple(self._logprobs),
        )

    def _decode(self, event: Event) -> str:
        if event.token is None:
            return ""
        self._n_tokens += 1
        data = self._tokenizer.text(event.token)
        text = self._stops.decode(self._decoder.decode(data))
        self._text.append(text)
        return text

    def _flush(self) -> str:
        text = self._stops.decode(self._decoder.flush()) + self._stops.flush()
        self._text.append(text)
        return text

    def _last_chunk(self, text: str) -> Chunk:
        result = self.result()
        n = self._request.n_prompt
        fresh = result.logprobs[self._n_handed_out :]
        return Chunk(text, n, n, result.finish_reason, result.usage, result.timings, fresh)

    def _fresh_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The entries of the tokens that were made text since the last call."""
        self._note_logprobs(self._n_tokens)
        fresh = tuple(self._logprobs[self._n_handed_out : self._n_tokens])
        self._n_handed_out += len(fresh)
        return fresh

    def _note_logprobs(self, n: int) -> None:
        """Take down the entries of the first `n` tokens, where they were asked for."""
        request = self._request
        if self.params.logprobs is None:
            return
        for i in range(len(self._logprobs), n):
            found, token = request.logprobs[i], request.tokens[request.n_prompt + i]
            top = tuple(self._entry(*other) for other in found.top)
            self._logprobs.append(self._entry(token, found.logprob, top))

    def _entry(
        self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        return TokenLogprob(token, self._tokenizer.piece(token), logprob, top)

    def _usage(self) -> Usage:
        request = self._request
        return Usage(request.n_prompt, request.n_cached, self._n_counted)

    @property
    def _n_counted(self) -> int:
        """Tokens of the answer: those that nobody read, or behind a stop string, do not count."""
        cut = self._stops.found is not None or not self._ended
        return self._n_tokens if cut else self._request.n_generated

    def _timings(self) -> Timings:
        request = self._request
        first, last = request.first_token_at, request.last_token_at
        steps = self._n_counted - (0 if request.finish_reason == "stop" else 1)
        decoding = last - first if first is not None and last is not None else 0.0
        return Timings(
            ttft_s=first - request.submitted_at if first is not None else None,
            prefill_tps=self._prefill_rate(),
            decode_tps=steps / decoding if decoding > 0 else 0.0,
        )

    def _prefill_rate(self) -> float:
        """Tokens per second of what was computed of the prompt, from when its turn came."""
        request = self._request
        begun, done = request.admitted_at, request.prefilled_at
        if begun is None or done is None or done <= begun:
            return 0.0
        return (request.n_prefilled - request.n_cached) / (done - begun)
