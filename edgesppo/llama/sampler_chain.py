"""The chain of llama.cpp's native samplers that draws tokens.

`edgesppo.sampling.stages` decides which samplers a chain has, and in which order.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

from edgesppo.errors import NativeError
from edgesppo.llama import fork
from edgesppo.llama.library import C, start
from edgesppo.sampling.nucleus import nucleus
from edgesppo.sampling.stages import first_cut, stages
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.llama.context import Context
    from edgesppo.llama.weights import Weights
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.sampling.stages import Stage

# The fields of llama.cpp's llama_token_data, as numpy takes them.
CANDIDATE = [("id", "i4"), ("logit", "f4"), ("p", "f4")]
# From so many tokens on, our top-p and our search for the best are faster than llama.cpp's.
_LARGE_VOCABULARY = 16_384
_KEPT_DRY_SAMPLERS = 8


def apply(sampler: Any, rows: Any) -> tuple[int, int]:
    """Run a sampler over candidates, in place: an array of (id int32, logit and p float32).

    Returns how many candidates are left, at the front of the array, and the index of the chosen
    one, or -1 if the sampler chooses none.
    """
    data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(C.llama_token_data))
    native = C.llama_token_data_array(data, len(rows), -1, False)
    C.llama_sampler_apply(sampler, ctypes.byref(native))
    n = int(native.size)
    # XTC leaves those that it keeps where they were, behind those that it removes.
    behind = ctypes.addressof(native.data.contents) - rows.ctypes.data
    if behind:
        at = behind // rows.itemsize
        rows[:n] = rows[at : at + n].copy()
    return n, int(native.selected)


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
        make = _MAKERS.get(name) or getattr(C, f"llama_sampler_init_{name}")
        sampler = make(*args)
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


class GreedyChain(SamplerChain):
    """A chain that takes the best of the logits as they are: the same token in a twentieth of the
    time, as no candidates are written.
    """

    def sample(self, context: Context, row: int) -> int:
        """The token of the greatest logit of the batch's entry `row`; of equal ones the first."""
        import numpy as np

        return int(np.frombuffer(context.row(row), np.float32).argmax())


class NucleusChain:
    """A chain whose top-p stage is `sampling.nucleus`: the same candidates in less time.

    They come by their ids, and not the best one first, so a seed draws another of them than
    llama.cpp's own stage.

    `before`, if any, changes logits and cuts no candidate; `after` chooses from those that are
    left. The methods are those of SamplerChain.
    """

    def __init__(self, before: SamplerChain | None, top_p: float, after: SamplerChain) -> None:
        self._before, self._top_p, self._after = before, top_p, after
        self._chains = [after] if before is None else [before, after]

    def close(self) -> None:
        """Free the native chains."""
        for chain in self._chains:
            chain.close()

    def recall(self, tokens: Sequence[int]) -> None:
        """Let the samplers that look back accept the last tokens of a prompt."""
        for chain in self._chains:
            chain.recall(tokens)

    def sample(self, context: Context, row: int) -> int:
        """Draw a token from the logits of the batch's entry `row`, and accept it."""
        import numpy as np

        logits = np.frombuffer(context.row(row), np.float32)
        if self._before is None:
            kept = nucleus(logits, self._top_p)
            rows = _candidates(kept, logits[kept])
            _, chosen = self._after.apply(rows)
        else:
            rows = _candidates(np.arange(len(logits)), logits)
            _, chosen = self.apply(rows)
        token = int(rows["id"][chosen])
        self.accept(token)
        return token

    def apply(self, rows: Any) -> tuple[int, int]:
        """Choose one of the candidates; arguments and result are those of `apply`."""
        import numpy as np

        if self._before is not None:
            self._before.apply(rows)
        kept = rows[nucleus(np.ascontiguousarray(rows["logit"]), self._top_p)]
        found = self._after.apply(kept)
        rows[: len(kept)] = kept
        return found

    def accept(self, token: int) -> None:
        """Accept a token, as penalties look back at it."""
        for chain in self._chains:
            chain.accept(token)


def _candidates(ids: Any, logits: Any) -> Any:
    """An array of llama_token_data."""
    import numpy as np

    rows = np.zeros(len(ids), CANDIDATE)
    rows["id"], rows["logit"] = ids, logits
    return rows


def build_chain(
    params: SamplingParams, weights: Weights, n_ctx: int, *, is_alone: bool = True
) -> SamplerChain | NucleusChain:
    """The chain for `params`; `n_ctx` is in tokens. The caller closes it.

    While one answer is sampled, others wait, unless it `is_alone`: one greedy answer does not make
    up for the time that numpy takes to load. Raises UsageError for token ids outside the
    vocabulary.
    """
    found = stages(params, weights, n_ctx)
    at = first_cut(found)
    is_greedy = not is_alone and [stage.sampler for stage in found] == ["greedy"]
    top_p_first = at is not None and found[at].name == "top_p"
    if weights.n_vocab < _LARGE_VOCABULARY or not (is_greedy or top_p_first):
        return _native_chain(found)
    with shielded():  # an import that Ctrl-C interrupts cannot be repeated in this process
        import numpy as np  # noqa: F401
    if at is None:
        return _native_chain(found, GreedyChain)
    after = _native_chain(found[at + 1 :])
    return NucleusChain(_native_chain(found[:at]) if at else None, params.top_p, after)


def _native_chain(found: Sequence[Stage], kind: type[SamplerChain] = SamplerChain) -> SamplerChain:
    chain = kind()
    for stage in found:
        chain.add(stage.sampler, *stage.args, looks_back=stage.looks_back)
    return chain


def _logit_bias(n_vocab: int, pairs: Sequence[tuple[int, float]]) -> Any:
    biases = (C.llama_logit_bias * len(pairs))(*pairs)
    return C.llama_sampler_init_logit_bias(n_vocab, len(pairs), biases)


# DRY samplers that were made for each model, by their arguments; the latest last.
_dry_samplers: weakref.WeakKeyDictionary[Weights, dict[tuple[Any, ...], SamplerChain]] = (
    weakref.WeakKeyDictionary()
)
_dry_lock = fork.ForkSafeLock()


def _dry(weights: Weights, *args: Any) -> Any:
    """A DRY sampler: the copy of another one if there is one with the same arguments.

    To make one takes time: llama.cpp spells the whole vocabulary for each breaker.
    """
    with _dry_lock:
        known = _dry_samplers.setdefault(weights, {})
        made = known.pop(args, None)
        if made is None:
            made = SamplerChain()
            made.add("new_dry", weights, *args)
        known[args] = made
        if len(known) > _KEPT_DRY_SAMPLERS:
            known.pop(next(iter(known))).close()
        return C.llama_sampler_clone(C.llama_sampler_chain_get(made.handle, 0))


def _new_dry(
    weights: Weights,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: Sequence[str],
) -> Any:
    words = (ctypes.c_char_p * len(breakers))(*(word.encode() for word in breakers))
    shape = (multiplier, base, allowed_length, last_n)
    return C.llama_sampler_init_dry(weights.vocab, *shape, words, len(breakers))


# Sampler -> what makes it, where that takes more than the plain values of a stage.
_MAKERS: dict[str, Callable[..., Any]] = {
    "logit_bias": _logit_bias,
    "dry": _dry,
    "new_dry": _new_dry,
}
