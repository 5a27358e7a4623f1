"""Sampling that follows a GBNF grammar: only tokens that the grammar allows are drawn.

The next token is drawn from the candidates that the sampler chain keeps, with the chain's
probabilities renormalised over those that the grammar allows. If the grammar allows none of them,
the chain chooses again from all tokens that it allows. With temperature 0 the most probable
allowed token is taken.

Checking a candidate means parsing it letter by letter; for all 256,000 that takes as long as a
small model's decode. So an unconstrained token is drawn first, which is seldom forbidden. If it
is, some more are drawn and checked together: the first allowed one has the distribution described
above (rejection sampling). Only if there is none are all candidates checked, and of these only
the ones whose first byte may come next.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesppo.errors import NativeError
from edgesppo.llama.fork import ForkSafeLock
from edgesppo.llama.grammar import Grammar
from edgesppo.llama.sampler_chain import CANDIDATE
from edgesppo.llama.weights import ENDS, NO_TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.context import Context
    from edgesppo.llama.model import Model
    from edgesppo.llama.sampler_chain import NucleusChain, SamplerChain
    from edgesppo.llama.weights import Weights

_DRAWS = 64
# Overlong encodings, lead byte -> second bytes, which are not valid UTF-8. llama.cpp's grammar
# accepts them as the character that they spell, but a decoder of the text does not.
_OVERLONG = {0xE0: range(0x80, 0xA0), 0xF0: range(0x80, 0x90)}


class _Vocabulary:
    """Tables of the first byte of every token, built once per model."""

    def __init__(self, weights: Weights) -> None:
        first, single = weights.first_bytes()
        self.first = np.array(first, np.int16)
        self.ids = np.arange(weights.n_vocab, dtype=np.int32)
        # The tokens that are one byte each: the grammar allows such a token exactly when a text
        # that begins with that byte may come next.
        self.byte_tokens = np.array(single, np.int32)
        self.overlong = {
            lead: self.byte_tokens[np.isin(self.first[self.byte_tokens], list(followers))]
            for lead, followers in _OVERLONG.items()
        }


_vocabularies: weakref.WeakKeyDictionary[Weights, _Vocabulary] = weakref.WeakKeyDictionary()
_lock = ForkSafeLock()


def _vocabulary(weights: Weights) -> _Vocabulary:
    with _lock:
        known = _vocabularies.get(weights)
        if known is None:
            known = _vocabularies[weights] = _Vocabulary(weights)
        return known


class ConstrainedChain:
    """A sampler chain whose tokens follow a grammar (`gbnf`, with the rule "root").

    `seed` is for the draws made here; `greedy` says that the chain takes the most probable token.
    """

    def __init__(
        self,
        chain: SamplerChain | NucleusChain,
        model: Model,
        gbnf: str,
        *,
        seed: int,
        greedy: bool,
    ) -> None:
        self._chain = chain
        self._tokenizer = model.tokenizer
        self._vocabulary = _vocabulary(model.weights)
        self._grammar = Grammar(model.weights, gbnf)
        self._random = np.random.default_rng(seed)
        self._greedy = greedy
        self._last_byte = 0
        self._all: Any = None  # made with the first token: many answers may wait for their turn

    def close(self) -> None:
        """Free the chain and the grammar."""
        self._chain.close()
        self._grammar.close()

    def recall(self, tokens: Sequence[int]) -> None:
        """Let the chain accept the prompt's tokens; the grammar begins with the answer."""
        self._chain.recall(tokens)

    def sample(self, context: Context, row: int) -> int:
        """Draw an allowed token from the logits of the batch's entry `row`, and accept it.

        Raises NativeError when no token of the vocabulary is allowed.
        """
        candidates = self._candidates(context, row)
        n, chosen = self._chain.apply(candidates)
        token = int(candidates["id"][chosen])
        if not self._allowed(candidates["id"][chosen : chosen + 1])[0]:
            again = self._redraw(candidates[:n])
            token = self._among_all(context, row) if again is None else again
        self._chain.accept(token)
        self._grammar.accept(token)
        text = self._tokenizer.text(token)
        self._last_byte = text[-1] if text else 0
        return token

    def _candidates(self, context: Context, row: int) -> Any:
        """All tokens with their logits, as an array of llama_token_data."""
        if self._all is None:
            self._all = np.zeros(len(self._vocabulary.ids), CANDIDATE)
        self._all["id"] = self._vocabulary.ids
        self._all["logit"] = np.frombuffer(context.row(row), np.float32)
        self._all["p"] = 0
        return self._all

    def _allowed(self, ids: Any) -> Any:
        """A boolean for each of the token ids: whether the grammar allows it next."""
        rows = np.zeros(len(ids), CANDIDATE)
        rows["id"] = ids
        if len(rows):
            self._grammar.apply(rows)
        # A control token has a name that the grammar could take for text.
        found = (rows["logit"] == 0) & (self._vocabulary.first[ids] != NO_TEXT)
        overlong = self._vocabulary.overlong.get(self._last_byte)
        return found if overlong is None else found & ~np.isin(ids, overlong)

    def _possible(self, ids: Any) -> Any:
        """The indices of the allowed ones among the token ids."""
        vocabulary = self._vocabulary
        may_begin = np.ones(ENDS + 1, bool)
        may_begin[NO_TEXT] = False
        single = vocabulary.byte_tokens
        may_begin[vocabulary.first[single]] = self._allowed(single)
        near = np.flatnonzero(may_begin[vocabulary.first[ids]])
        return near[self._allowed(ids[near])]

    def _redraw(self, kept: Any) -> int | None:
        """An allowed token, drawn from those that the chain kept; None if there is none."""
        some = self._best(kept) if self._greedy else self._draws(kept["p"], _DRAWS)
        found = some[self._allowed(kept["id"][some])]
        if len(found):
            return int(kept["id"][found[0]])
        kept = kept[self._possible(kept["id"])]
        if not self._greedy:
            kept = kept[kept["p"] > 0]
        if not len(kept):
            return None
        index = np.argmax(kept["logit"]) if self._greedy else self._draws(kept["p"], 1)[0]
        return int(kept["id"][index])

    def _best(self, kept: Any) -> Any:
        """The indices of the most probable candidates, best first."""
        logits = np.ascontiguousarray(kept["logit"])
        n = min(_DRAWS, len(logits))
        best = np.sort(np.argpartition(logits, len(logits) - n)[-n:])
        return best[np.argsort(-logits[best], kind="stable")]

    def _draws(self, p: Any, n: int) -> Any:
        """The indices of `n` candidates, drawn independently with probabilities `p`."""
        sums = np.cumsum(p, dtype=np.float64)
        found = np.searchsorted(sums, self._random.random(n) * sums[-1], side="right")
        return np.minimum(found, len(p) - 1)

    def _among_all(self, context: Context, row: int) -> int:
        """The chain's choice from all tokens that the grammar allows."""
        candidates = self._candidates(context, row)
        allowed = candidates[self._possible(candidates["id"])]
        if not len(allowed):
            raise NativeError("no token of this vocabulary can continue the answer by its grammar")
        _, chosen = self._chain.apply(allowed)
        return int(allowed["id"][chosen])
