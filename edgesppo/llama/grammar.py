"""llama.cpp's grammar sampler: which tokens a grammar allows next."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from edgesppo.errors import NativeError
from edgesppo.llama import fork, sampler_chain
from edgesppo.llama.library import C, start

if TYPE_CHECKING:
    from edgesppo.llama.weights import Weights


class Grammar:
    """A GBNF grammar and how far an answer has come in it (llama.cpp's grammar sampler).

    `accept` ends the process for a token that the grammar does not allow. Call `apply` first: it
    gives such tokens a logit of minus infinity. Raises NativeError for a text that is not GBNF.
    """

    def __init__(self, weights: Weights, text: str) -> None:
        start()
        self._handle = C.llama_sampler_init_grammar(weights.vocab, text.encode(), b"root")
        if not self._handle:
            raise NativeError("llama.cpp cannot parse the grammar")
        # The finalizer holds the weights: the grammar points to their vocabulary.
        self._finalizer = weakref.finalize(self, _free, self._handle, weights)
        fork.track(self)

    def apply(self, rows: Any) -> None:
        """Set the logits of candidates that are not allowed next to minus infinity."""
        sampler_chain.apply(self._handle, rows)

    def accept(self, token: int) -> None:
        """Advance by a token, which must be allowed."""
        C.llama_sampler_accept(self._handle, token)

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Never free what belongs to the parent process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Free the grammar."""
        self._finalizer()


def _free(handle: Any, _weights: Weights) -> None:
    C.llama_sampler_free(handle)
