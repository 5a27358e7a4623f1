"""Owns sampling that is bound to a grammar: the next token, drawn among those that it allows.

The tokens that a chain keeps are drawn from with the chain's probabilities, those that the
grammar forbids left out and the others' made to sum to one; where it forbids all that are kept,
the chain chooses anew among all that are allowed. With temperature 0 the most probable allowed
token is taken.

A grammar looks at every candidate letter by letter, at 256,000 of them for as long as a small
model computes. So the free draw comes first, which it seldom forbids; then a few more draws,
checked together: the first of them that is allowed is distributed as said. Only if there is none
are all candidates looked at, and of those only the ones with a first byte that can come next.

Knows tokens, their first bytes and GBNF text; knows nothing of JSON.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesppo.errors import NativeError
from edgesppo.llama.sampler_chain import Grammar
from edgesppo.llama.weights import ENDS, NO_TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.context import Context
    from edgesppo.llama.model import Model
    from edgesppo.llama.sampler_chain import SamplerChain
    from edgesppo.llama.weights import Weights

# llama.cpp's llama_token_data.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_DRAWS = 64
# UTF-8 has no use for these continuations: they would spell a character longer than needed.
# llama.cpp's grammar takes them for that character, a reader of the text does not.
_OVERLONG = {0xE0: range(0x80, 0xA0), 0xF0: range(0x80, 0x90)}


class _Vocabulary:
    """What is looked up of every token: made once a model."""

    def __init__(self, weights: Weights) -> None:
        first, single = weights.first_bytes()
        self.first = np.array(first, np.int16)
        self.ids = np.arange(weights.n_vocab, dtype=np.int32)
        # A token for each byte that is all of that byte: a grammar allows it exactly when a
        # text that begins with the byte may come next.
        self.byte_tokens = np.array(single, np.int32)
        self.overlong = {
            lead: self.byte_tokens[np.isin(self.first[self.byte_tokens], list(followers))]
            for lead, followers in _OVERLONG.items()
        }


_vocabularies: weakref.WeakKeyDictionary[Weights, _Vocabulary] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _vocabulary(weights: Weights) -> _Vocabulary:
    with _lock:
        known = _vocabularies.get(weights)
        if known is None:
            known = _vocabularies[weights] = _Vocabulary(weights)
        return known


class ConstrainedChain:
    """A chain whose tokens follow a grammar. `greedy`: the chain has no chance in it."""

    def __init__(
        self, chain: SamplerChain, model: Model, gbnf: str, *, seed: int, greedy: bool
    ) -> None:
        self._chain = chain
        self._tokenizer = model.tokenizer
        self._vocabulary = _vocabulary(model.weights)
        self._grammar = Grammar(model.weights, gbnf)
        self._random = np.random.default_rng(seed)
        self._greedy = greedy
        self._last_byte = 0
        self._all = np.zeros(model.n_vocab, _CANDIDATE)

    def close(self) -> None:
        """Free the chain and the grammar."""
        self._chain.close()
        self._grammar.close()

    def recall(self, tokens: Sequence[int]) -> None:
        """Tell the chain of the prompt; the grammar begins with the answer."""
        self._chain.recall(tokens)

    def sample(self, context: Context, row: int) -> int:
        """Draw an allowed token from the logits of the batch's entry `row`, and remember it."""
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
        """Every token with its logit."""
        self._all["id"] = self._vocabulary.ids
        self._all["logit"] = np.frombuffer(context.row(row), np.float32)
        self._all["p"] = 0
        return self._all

    def _allowed(self, ids: Any) -> Any:
        """Which of the tokens the grammar allows next."""
        rows = np.zeros(len(ids), _CANDIDATE)
        rows["id"] = ids
        if len(rows):
            self._grammar.apply(rows)
        # Control tokens have names that could be read as text.
        found = (rows["logit"] == 0) & (self._vocabulary.first[ids] != NO_TEXT)
        overlong = self._vocabulary.overlong.get(self._last_byte)
        return found if overlong is None else found & ~np.isin(ids, overlong)

    def _possible(self, ids: Any) -> Any:
        """Those of the tokens that are allowed, as indices."""
        vocabulary = self._vocabulary
        may_begin = np.ones(ENDS + 1, bool)
        may_begin[NO_TEXT] = False
        single = vocabulary.byte_tokens
        may_begin[vocabulary.first[single]] = self._allowed(single)
        near = np.flatnonzero(may_begin[vocabulary.first[ids]])
        return near[self._allowed(ids[near])]

    def _redraw(self, kept: Any) -> int | None:
        """An allowed one of the tokens that the chain kept, if there is any."""
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
        """The most probable candidates, best first."""
        logits = np.ascontiguousarray(kept["logit"])
        n = min(_DRAWS, len(logits))
        best = np.sort(np.argpartition(logits, len(logits) - n)[-n:])
        return best[np.argsort(-logits[best], kind="stable")]

    def _draws(self, p: Any, n: int) -> Any:
        """Candidates drawn independently of each other with the chain's probabilities."""
        sums = np.cumsum(p, dtype=np.float64)
        found = np.searchsorted(sums, self._random.random(n) * sums[-1], side="right")
        return np.minimum(found, len(p) - 1)

    def _among_all(self, context: Context, row: int) -> int:
        """What the chain chooses when it is given the allowed tokens only."""
        candidates = self._candidates(context, row)
        allowed = candidates[self._possible(candidates["id"])]
        if not len(allowed):
            raise NativeError("no token of this vocabulary can continue the answer as it must")
        _, chosen = self._chain.apply(allowed)
        return int(allowed["id"][chosen])
