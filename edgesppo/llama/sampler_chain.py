"""llama.cpp's native samplers: the chain that draws tokens, and the grammar that limits them.

`edgesppo.sampling.stages` decides which samplers a chain has, and in which order.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

from edgesppo.errors import NativeError
from edgesppo.llama import fork
from edgesppo.llama.library import C, start
from edgesppo.sampling.stages import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.llama.context import Context
    from edgesppo.llama.weights import Weights
    from edgesppo.sampling.params import SamplingParams


def apply(sampler: Any, rows: Any) -> tuple[int, int]:
    """Run a sampler over candidates, in place: an array of (id int32, logit and p float32).

    Returns how many candidates are left, at the front of the array, and the index of the chosen
    one, or -1 if the sampler chooses none.
    """
    data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(C.llama_token_data))
    native = C.llama_token_data_array(data, len(rows), -1, False)
    C.llama_sampler_apply(sampler, ctypes.byref(native))
    return int(native.size), int(native.selected)


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
        self._finalizer = weakref.finalize(self, _free_sampler, self._handle, weights)
        fork.track(self)

    def apply(self, rows: Any) -> None:
        """Set the logits of candidates that are not allowed next to minus infinity."""
        apply(self._handle, rows)

    def accept(self, token: int) -> None:
        """Advance by a token, which must be allowed."""
        C.llama_sampler_accept(self._handle, token)

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Never free what belongs to the parent process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Free the grammar."""
        self._finalizer()


def _free_sampler(handle: Any, _weights: Weights) -> None:
    C.llama_sampler_free(handle)


class SamplerChain:
    """A chain of llama.cpp's samplers. It runs in C, on a copy of the context's logits."""

    def __init__(self) -> None:
        start()
        params = C.llama_sampler_chain_default_params()
        params.no_perf = True
        self.handle = C.llama_sampler_chain_init(params)
        self._looking_back: list[tuple[Any, int]] = []
        self._finalizer = weakref.finalize(self, C.llama_sampler_free, self.handle)
        fork.track(self)

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Never free what belongs to the parent process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Free the chain and every sampler in it."""
        self._finalizer()

    def add(self, name: str, *args: Any, looks_back: int = 0) -> None:
        """Append the sampler `llama_sampler_init_NAME(*args)`.

        `looks_back` is how many of a prompt's last tokens `recall` passes to it. Raises
        NativeError if llama.cpp refuses the arguments.
        """
        native = _NATIVE_ARGUMENTS[name](*args) if name in _NATIVE_ARGUMENTS else args
        sampler = getattr(C, f"llama_sampler_init_{name}")(*native)
        if not sampler:
            raise NativeError(f"llama.cpp refused the sampler {name}{args}")
        C.llama_sampler_chain_add(self.handle, sampler)
        if looks_back:
            self._looking_back.append((sampler, looks_back))

    def recall(self, tokens: Sequence[int]) -> None:
        """Let the samplers that look back accept the last tokens of a prompt."""
        for sampler, n in self._looking_back:
            for token in tokens[-n:]:
                C.llama_sampler_accept(sampler, token)

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and accept it."""
        return int(C.llama_sampler_sample(self.handle, context.handle, row))

    def apply(self, rows: Any) -> tuple[int, int]:
        """Choose one of the candidates; arguments and result are those of `apply`."""
        return apply(self.handle, rows)

    def accept(self, token: int) -> None:
        """Accept a token that the chain did not draw itself, as penalties look back at it."""
        C.llama_sampler_accept(self.handle, token)


def build_chain(params: SamplingParams, weights: Weights, n_ctx: int) -> SamplerChain:
    """The native chain for `params`; `n_ctx` is in tokens. The caller closes it.

    Raises UsageError for token ids outside the vocabulary.
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


# Sampler -> a function that turns its arguments into the C arrays that it takes.
_NATIVE_ARGUMENTS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "logit_bias": _bias_arguments,
    "dry": _dry_arguments,
}
