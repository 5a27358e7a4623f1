"""Generate one answer: the engine's tokens -> chunks of text -> one result."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

from edgesppo.chat.choices import FinishReason
from edgesppo.chat.detokenizer import StopFilter, Utf8Decoder
from edgesppo.chat.result import Chunk, Result, Timings, TokenLogprob, Usage
from edgesppo.engine.kv_cache import SHARED
from edgesppo.engine.request import Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.chat.answer_engine import AnswerEngine
    from edgesppo.engine.request import Request
    from edgesppo.sampling.params import SamplingParams

_REASONS = get_args(FinishReason)


class Generation:
    """One answer being generated: iterate over it for its chunks.

    `result()` returns the answer so far, at any time; `request` is what the engine was asked for.
    With `waits`, it begins only once `start` is called. Raises what `Engine.prepare` raises.
    """

    def __init__(
        self,
        engine: AnswerEngine,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        left_out: int = 0,
        grammar: str | None = None,
        salt: str = "",
        waits: bool = False,
    ) -> None:
        self.params = params.with_seed()
        self._engine = engine
        self._tokenizer = engine.model.tokenizer
        self._left_out = left_out
        self.request: Request = engine.prepare(
            prompt, self.params, owner=self, grammar=grammar, salt=salt
        )
        self._decoder = Utf8Decoder()
        self._stops = StopFilter(params.stop)
        self._text: list[str] = []
        self._n_tokens = 0  # tokens that were decoded to text
        self._logprobs: list[TokenLogprob] = []
        self._n_yielded = 0  # of the logprobs
        self._ended = False  # whether the stream was read to its end
        if not waits:
            self.start()

    def start(self) -> None:
        """Queue the request, if it was made to wait. Raises Closed."""
        self._engine.add(self.request)

    def __iter__(self) -> Iterator[Chunk]:
        request = self.request
        events = self._engine.stream(request)
        text = ""
        try:
            for event in events:
                text = self._decode(event)
                if event.finish_reason is not None or self._stops.found is not None:
                    self._ended = True
                    break
                fresh = () if self.params.logprobs is None else self._fresh_logprobs()
                ids = () if event.token is None else (event.token,)
                yield Chunk(text, request.n_prefilled, request.n_prompt, logprobs=fresh, ids=ids)
        finally:
            events.close()
            remaining = self._flush()
        yield self._last_chunk(text + remaining)

    def poll(self) -> bool:
        """Take in the tokens that were generated since the last call; whether the answer is done.

        Computes nothing: for those who call `Engine.step` for many answers at once, in place of
        iterating. Raises Closed, and what made sampling fail.
        """
        request = self.request
        reason = request.finish_reason  # read before the tokens: none follow it
        while self._stops.found is None and self._n_tokens < request.n_generated:
            self._decode(Event(request.tokens[request.n_prompt + self._n_tokens]))
        if self._stops.found is not None:
            self.cancel()
        elif reason is None:
            return False
        else:
            self._engine.raise_failure(request)
        if not self._ended:
            self._ended = True
            self._flush()
        return True

    @property
    def n_generated(self) -> int:
        """The tokens generated so far."""
        return self.request.n_generated

    @property
    def n_cells(self) -> int:
        """The cells of the KV cache that it takes, without those of another that it shares."""
        request = self.request
        return len(request.tokens) - (request.n_cached if request.reused == SHARED else 0)

    def cancel(self) -> None:
        """Stop generating. Any thread may call this, also in the middle of the prefill."""
        self._engine.cancel(self.request)

    def withdraw(self, *, at_once: bool = False) -> None:
        """As `cancel`, but without waiting: for answers whose steps another thread computes.

        With `at_once`, a step that computes for others, too, is cut short for them as well.
        """
        self._engine.withdraw(self.request, at_once=at_once)

    @property
    def has_news(self) -> bool:
        """Whether the next chunk is there without another step of the engine."""
        request = self.request
        return request.has_more_than(request.n_prompt + self._n_tokens, request.n_prefilled)

    def result(self) -> Result:
        """The answer so far, with the finish reason "cancelled" if it was not read to its end."""
        by_text = self._stops.found is not None
        finished = self.request.finish_reason if self._ended else None
        reason = "stop" if by_text else finished if finished in _REASONS else "cancelled"
        first = self.request.n_prompt
        ids = () if by_text else tuple(self.request.tokens[first : first + self._n_tokens])
        self._collect_logprobs(self._n_counted)
        return Result(
            "".join(self._text),
            cast("FinishReason", reason),
            self._usage(),
            self._timings(),
            self.params.seed or 0,
            self._left_out,
            ids,
            self.request.reused,
            tuple(self._logprobs),
        )

    def _decode(self, event: Event) -> str:
        """The text that became certain with the event's token."""
        if event.token is None:
            return ""
        self._n_tokens += 1
        data = self._tokenizer.text(event.token)
        text = self._stops.decode(self._decoder.decode(data))
        self._text.append(text)
        return text

    def _flush(self) -> str:
        """The text that was held back."""
        text = self._stops.decode(self._decoder.flush()) + self._stops.flush()
        self._text.append(text)
        return text

    def _last_chunk(self, text: str) -> Chunk:
        result = self.result()
        n = self.request.n_prompt
        fresh = result.logprobs[self._n_yielded :]
        return Chunk(text, n, n, result.finish_reason, result.usage, result.timings, fresh)

    def _fresh_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The entries of the tokens that were decoded to text since the last call."""
        self._collect_logprobs(self._n_tokens)
        fresh = tuple(self._logprobs[self._n_yielded : self._n_tokens])
        self._n_yielded += len(fresh)
        return fresh

    def _collect_logprobs(self, n: int) -> None:
        """Create the entries of the first `n` tokens, if they were asked for."""
        request = self.request
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
        request = self.request
        return Usage(request.n_prompt, request.n_cached, self._n_counted)

    @property
    def _n_counted(self) -> int:
        """The answer's number of tokens, without those that nobody read or behind a stop string."""
        cut = self._stops.found is not None or not self._ended
        return self._n_tokens if cut else self.request.n_generated

    def _timings(self) -> Timings:
        request = self.request
        first, last = request.first_token_at, request.last_token_at
        steps = self._n_counted - (0 if request.finish_reason == "stop" else 1)
        decoding = last - first if first is not None and last is not None else 0.0
        return Timings(
            ttft_s=first - request.submitted_at if first is not None else None,
            prefill_tps=self._prefill_rate(),
            decode_tps=steps / decoding if decoding > 0 else 0.0,
        )

    def _prefill_rate(self) -> float:
        """Prompt tokens computed per second, counted from the request's admission."""
        request = self.request
        started, done = request.admitted_at, request.prefilled_at
        if started is None or done is None or done <= started:
            return 0.0
        return (request.n_prefilled - request.n_cached) / (done - started)
