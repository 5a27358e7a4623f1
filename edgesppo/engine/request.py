"""Owns one answer on its way through the engine: `Request`, and what each step brings it: `Event`.

Token ids only; knows nothing of text or chats.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.engine.kv_cache import NOTHING
from edgesppo.errors import UsageError
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.system import validate

if TYPE_CHECKING:
    import weakref

    from edgesppo.engine.kv_cache import Slot
    from edgesppo.engine.ngram_draft import Drafter
    from edgesppo.errors import EdgesppoError
    from edgesppo.llama.context import Chain
    from edgesppo.llama.logprobs import RowLogprobs
    from edgesppo.llama.model import Model
    from edgesppo.sampling.params import SamplingParams

# The finish reason of what was under way when the engine was closed.
CLOSED = "closed"
# That of one whose sampling failed: its `error` says how.
FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """What a step brought for one request: a token, or the reason why there are no more.

    `finish_reason` is "stop" (an end or stop token, which is not given out), "length" or
    "cancelled".
    """

    token: int | None
    finish_reason: str | None = None


@dataclass(eq=False)
class Request:
    """One answer being generated. Read-only for everyone but the engine.

    `limit` is how many tokens it may have, its prompt's among them; any of `end_tokens` ends it
    before, and is none of its tokens.
    """

    tokens: list[int]
    n_prompt: int
    params: SamplingParams
    chain: Chain
    submitted_at: float
    limit: int
    end_tokens: frozenset[int]
    slot: Slot | None = None
    n_cached: int = 0
    finish_reason: str | None = None
    cancelled: bool = False
    error: EdgesppoError | None = None  # what its sampling failed with
    owner: weakref.ref[object] | None = None
    n_prefilled: int = 0  # of the prompt's tokens, those that are in the KV cache
    reused: str = NOTHING
    admitted_at: float | None = None
    prefilled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    drafter: Drafter | None = None
    draft: list[int] = field(default_factory=list)  # guesses in the batch under way
    logprobs: list[RowLogprobs] = field(default_factory=list)  # one a generated token, if asked for

    @property
    def n_generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - self.n_prompt

    @property
    def is_answering(self) -> bool:
        """Whether only its latest token is to be decoded, to give the next."""
        n, slot = len(self.tokens), self.slot
        return n > self.n_prompt and slot is not None and len(slot.ids) == n - 1

    @property
    def is_unwanted(self) -> bool:
        """Whether it was cancelled, or whoever asked for it is gone."""
        return self.cancelled or (self.owner is not None and self.owner() is None)

    @property
    def is_full(self) -> bool:
        """Whether it has as many tokens as it may."""
        return len(self.tokens) >= self.limit

    def admit(self, slot: Slot) -> None:
        """Run in this slot, from what it holds."""
        self.slot = slot
        if self.admitted_at is None:
            self.n_cached = self.n_prefilled = len(slot.ids)
            self.reused = slot.reused
            self.admitted_at = self.prefilled_at = time.perf_counter()

    def note(self, end: int, *, sampled: bool) -> None:
        """Take down that the first `end` tokens are in the cache, and when that was."""
        now = time.perf_counter()
        if end <= self.n_prompt:
            self.n_prefilled, self.prefilled_at = end, now
        if sampled:
            self.last_token_at = now
            self.first_token_at = self.first_token_at or now

    def has_more_than(self, n_tokens: int, prefilled: int) -> bool:
        """Whether there is something that a listener does not know yet, who has these tokens."""
        return (
            self.finish_reason is not None
            or n_tokens < len(self.tokens)
            or prefilled < self.n_prefilled < self.n_prompt
        )


def check_tokens(tokens: list[int], n_vocab: int) -> None:
    """Raises UsageError unless these are ids of the vocabulary, one at least."""
    if not tokens:
        raise UsageError("the prompt has no tokens")
    if set(map(type, tokens)) != {int} or min(tokens) < 0 or max(tokens) >= n_vocab:
        for token in tokens:
            validate.integer("a token of the prompt", token, 0, n_vocab - 1)


def new_request(
    tokens: list[int], params: SamplingParams, grammar: str | None, model: Model, n_ctx: int
) -> Request:
    """The request for an answer to a prompt; where there is a grammar, bound to it."""
    return Request(
        tokens,
        len(tokens),
        params,
        _chain_for(tokens, params, grammar, model, n_ctx),
        submitted_at=time.perf_counter(),
        limit=min(len(tokens) + params.max_tokens, n_ctx),
        end_tokens=model.end_tokens.union(params.stop_tokens),
    )


def _chain_for(
    tokens: list[int], params: SamplingParams, grammar: str | None, model: Model, n_ctx: int
) -> Chain:
    """What the answer to a prompt is drawn by; where there is a grammar, bound to it."""
    chain = build_chain(params, model.weights, n_ctx)
    chain.recall(tokens)
    if grammar is None:
        return chain
    from edgesppo.llama.grammar_sampler import ConstrainedChain

    seed, greedy = params.with_seed().seed or 0, params.temperature == 0
    return ConstrainedChain(chain, model, grammar, seed=seed, greedy=greedy)
