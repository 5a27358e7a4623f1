"""Owns llama.cpp's samplers: chains of them, and the grammars that answers are bound to.

Which stages a chain has, and in which order, `sampler` says.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

from edgesppo.errors import NativeError
from edgesppo.llama.library import C, start
from edgesppo.sampling.stages import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.llama.context import Context
    from edgesppo.llama.weights import Weights
    from edgesppo.sampling.params import SamplingParams


def apply(sampler: Any, rows: Any) -> tuple[int, int]:
    """Run a sampler over candidates, in place: an array of (id int32, logit and p float32).

    Returns how many are left, at the front of the array, and the place of the chosen one, or -1.
    """
    data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(C.llama_token_data))
    native = C.llama_token_data_array(data, len(rows), -1, False)
    C.llama_sampler_apply(sampler, ctypes.byref(native))
    return int(native.size), int(native.selected)


class Grammar:
    """A GBNF grammar that follows an answer (llama.cpp's grammar sampler).

    `accept` ends the process for a token that the grammar does not allow: ask `apply` first,
    which gives such tokens a logit of minus infinity.
    """

    def __init__(self, weights: Weights, text: str) -> None:
        start()
        self._handle = C.llama_sampler_init_grammar(weights.vocab, text.encode(), b"root")
        if not self._handle:
            raise NativeError("llama.cpp cannot read the grammar")
        # The finalizer holds the weights: the grammar points to their vocabulary.
        self._finalizer = weakref.finalize(self, _free_sampler, self._handle, weights)

    def apply(self, rows: Any) -> None:
        """Mark what is not allowed next; see `apply`."""
        apply(self._handle, rows)

    def accept(self, token: int) -> None:
        """Go on behind a token that is allowed."""
        C.llama_sampler_accept(self._handle, token)

    def close(self) -> None:
        """Free the grammar."""
        self._finalizer()


def _free_sampler(handle: Any, _weights: Weights) -> None:
    C.llama_sampler_free(handle)


class SamplerChain:
    """A chain of llama.cpp's samplers; runs in C on a copy of the context's logits."""

    def __init__(self) -> None:
        start()
        params = C.llama_sampler_chain_default_params()
        params.no_perf = True
        self.handle = C.llama_sampler_chain_init(params)
        self._looking_back: list[tuple[Any, int]] = []
        self._finalizer = weakref.finalize(self, C.llama_sampler_free, self.handle)

    def close(self) -> None:
        """Free the chain and every sampler in it."""
        self._finalizer()

    def add(self, name: str, *args: Any, looks_back: int = 0) -> None:
        """Append llama.cpp's sampler `llama_sampler_init_NAME(*args)`.

        `looks_back` is how many of the tokens that `recall` names it is told of.
        """
        native = _NATIVE_ARGUMENTS[name](*args) if name in _NATIVE_ARGUMENTS else args
        sampler = getattr(C, f"llama_sampler_init_{name}")(*native)
        if not sampler:
            raise NativeError(f"llama.cpp refused the sampler {name}{args}")
        C.llama_sampler_chain_add(self.handle, sampler)
        if looks_back:
            self._looking_back.append((sampler, looks_back))

    def recall(self, tokens: Sequence[int]) -> None:
        """Tell the samplers that look back of a prompt; the others hear of drawn tokens only."""
        for sampler, n in self._looking_back:
            for token in tokens[-n:]:
                C.llama_sampler_accept(sampler, token)

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and remember it."""
        return int(C.llama_sampler_sample(self.handle, context.handle, row))

    def apply(self, rows: Any) -> tuple[int, int]:
        """Choose among candidates; see `apply`."""
        return apply(self.handle, rows)

    def accept(self, token: int) -> None:
        """Tell the chain of a token that it did not draw itself (penalties look back at it)."""
        C.llama_sampler_accept(self.handle, token)


def build_chain(params: SamplingParams, weights: Weights, n_ctx: int) -> SamplerChain:
    """The native chain for `params`; n_ctx in tokens. The caller closes it.

    Raises UsageError for token ids that the vocabulary does not have.
    """
    chain = SamplerChain()
    for stage in stages(params, weights, n_ctx):
        chain.add(stage.sampler, *stage.args, looks_back=stage.looks_back)
    return chain


def _bias_arguments(n_vocab: int, pairs: Sequence[tuple[int, float]]) -> tuple[Any, ...]:
    return n_vocab, len(pairs), (C.llama_logit_bias * len(pairs))(*pairs)


def _dry_arguments(
    weights: Weights,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: Sequence[str],
) -> tuple[Any, ...]:
    words = (ctypes.c_char_p * len(breakers))(*(word.encode() for word in breakers))
    vocab = weights.vocab
    return vocab, multiplier, base, allowed_length, last_n, words, len(breakers)


# What llama.cpp's samplers take that plain numbers do not express.
_NATIVE_ARGUMENTS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "logit_bias": _bias_arguments,
    "dry": _dry_arguments,
}
