"""One answer that the engine generates (`Request`), and what a caller receives of it (`Event`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.engine.kv_cache import NOTHING
from edgesppo.errors import ContextOverflow, UsageError
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.system import validate

if TYPE_CHECKING:
    import weakref
    from collections.abc import Sequence

    from edgesppo.engine.kv_cache import Slot
    from edgesppo.engine.ngram_draft import Drafter
    from edgesppo.llama.context import Chain
    from edgesppo.llama.logprobs import RowLogprobs
    from edgesppo.llama.model import Model
    from edgesppo.sampling.params import SamplingParams

# Internal finish reasons: the engine was closed; sampling failed with the request's `error`.
CLOSED = "closed"
FAILED = "failed"
# Seconds that a request may run, at first, before it makes way for those of another salt.
TURN_S = 15.0


@dataclass(frozen=True)
class Event:
    """One step's news of a request: a token, or the reason why there are no more.

    `finish_reason` is "stop" (an end token or stop token, which is not given out), "length" or
    "cancelled". An event with neither reports prefill progress.
    """

    token: int | None
    finish_reason: str | None = None


@dataclass(eq=False)
class Request:
    """One answer being generated. Read-only for everyone but the engine.

    `tokens` are the prompt and the answer so far; `limit` is their greatest number. Any of
    `end_tokens` ends the answer, without becoming part of it.
    """

    tokens: list[int]
    n_prompt: int
    params: SamplingParams
    chain: Chain
    submitted_at: float
    limit: int
    end_tokens: frozenset[int]
    slot: Slot | None = None
    n_cached: int = 0  # prompt tokens that were in the KV cache on admission
    finish_reason: str | None = None
    cancelled: bool = False
    error: Exception | None = None  # why sampling failed
    owner: weakref.ref[object] | None = None
    n_prefilled: int = 0  # prompt tokens that were found in the KV cache or computed
    reused: str = NOTHING
    salt: str = ""  # of the KV cells: only requests with the same one share any
    admitted_at: float | None = None
    turn_s: float = field(default_factory=lambda: TURN_S)
    turn_began_at: float = 0.0
    prefilled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    drafter: Drafter | None = None
    draft: list[int] = field(default_factory=list)  # draft tokens in the current batch
    logprobs: list[RowLogprobs] = field(default_factory=list)  # one per answer token, on request

    @property
    def n_generated(self) -> int:
        """The number of tokens generated so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def is_answering(self) -> bool:
        """Whether only the latest token is left to decode, to give the next one."""
        n, slot = len(self.tokens), self.slot
        return n > self.n_prompt and slot is not None and len(slot.ids) == n - 1

    @property
    def n_done(self) -> int:
        """The number of tokens that are in the KV cache."""
        return 0 if self.slot is None else len(self.slot.ids)

    @property
    def n_left(self) -> int:
        """The number of tokens that are not in the KV cache yet."""
        return len(self.tokens) - self.n_done

    @property
    def is_unwanted(self) -> bool:
        """Whether the request was cancelled, or its owner no longer exists."""
        return self.cancelled or (self.owner is not None and self.owner() is None)

    @property
    def is_full(self) -> bool:
        """Whether the limit of tokens is reached."""
        return len(self.tokens) >= self.limit

    def admit(self, slot: Slot) -> None:
        """Start in this slot, after the tokens that it already holds."""
        self.slot = slot
        self.turn_began_at = time.perf_counter()
        if self.admitted_at is None:
            self.n_cached = self.n_prefilled = len(slot.ids)
            self.reused = slot.reused
            self.admitted_at = self.prefilled_at = self.turn_began_at

    def had_turn(self, now: float) -> bool:
        """Whether it has run for its turn since it was admitted last."""
        return now - self.turn_began_at >= self.turn_s

    def record_progress(self, end: int, *, sampled: bool) -> None:
        """Record that the first `end` tokens are in the KV cache now, and when that was."""
        now = time.perf_counter()
        if self.first_token_at is None:  # afterwards it is prefilled only where it was put back
            self.n_prefilled, self.prefilled_at = end, now
        if sampled:
            self.last_token_at = now
            self.first_token_at = self.first_token_at or now

    def has_more_than(self, n_tokens: int, prefilled: int) -> bool:
        """Whether there is news for a reader who has seen `n_tokens`, of which `prefilled`."""
        return (
            self.finish_reason is not None
            or n_tokens < len(self.tokens)
            or prefilled < self.n_prefilled < self.n_prompt
        )


def new_request(
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    model: Model,
    n_ctx: int,
    grammar: str | None = None,
    is_alone: bool = True,
) -> Request:
    """The request for a prompt; with a GBNF `grammar`, its answer follows it.

    It `is_alone` if no others can run beside it.

    Raises UsageError for a prompt that is empty or has ids outside the vocabulary, and
    ContextOverflow for one that leaves no room for an answer in `n_ctx` tokens.
    """
    tokens = list(prompt)
    _check_ids(tokens, model.n_vocab)
    n = len(tokens)
    if n >= n_ctx:
        raise ContextOverflow.of_prompt(n, n_ctx, model.n_ctx_train)
    chain = _build_chain(tokens, params, grammar, model, n_ctx, is_alone=is_alone)
    return Request(
        tokens,
        n,
        params,
        chain,
        submitted_at=time.perf_counter(),
        limit=min(n + params.max_tokens, n_ctx),
        end_tokens=model.end_tokens.union(params.stop_tokens),
    )


def _check_ids(tokens: list[int], n_vocab: int) -> None:
    """Raise UsageError unless these are ids of the vocabulary, at least one."""
    if not tokens:
        raise UsageError("the prompt has no tokens")
    if set(map(type, tokens)) != {int} or min(tokens) < 0 or max(tokens) >= n_vocab:
        for token in tokens:
            validate.integer("a token of the prompt", token, 0, n_vocab - 1)


def _build_chain(
    tokens: list[int],
    params: SamplingParams,
    grammar: str | None,
    model: Model,
    n_ctx: int,
    *,
    is_alone: bool,
) -> Chain:
    """The sampler chain for the answer to a prompt, limited by the grammar if there is one."""
    chain = build_chain(params, model.weights, n_ctx, is_alone=is_alone)
    chain.recall(tokens)
    if grammar is None:
        return chain
    from edgesppo.llama.grammar_sampler import ConstrainedChain

    seed, greedy = params.with_seed().seed or 0, params.temperature == 0
    return ConstrainedChain(chain, model, grammar, seed=seed, greedy=greedy)
