"""Owns fast kernels for Q4_K and Q6_K blocks without an importance matrix: ggml's bytes, sooner.

They are used only after they gave ggml's own bytes on this machine. Numba, an extra, compiles the
search (`unrolled`) and the packing of levels (`packing`); what a block has few of, its scales,
numpy does. A block of numbers so extreme that rounding by MAGIC is not ggml's (nothing that a
trained model holds) is left to ggml. Knows nothing of tensors or files.

    Q4_K, 256 weights | d: f16 | dmin: f16 | 8 scales and 8 minima of 6 bits | 128 B of levels |
    Q6_K, 256 weights | 128 B of low nibbles | 64 B of high pairs | 16 scales: i8 | d: f16 |
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesppo.errors import UsageError
from edgesppo_convert.quant import kernel_source, packing
from edgesppo_convert.quant.packing import (
    FIFTEEN,
    GROUP_EPS,
    MAGIC,
    MINUS_32,
    THIRTY_ONE,
    THIRTY_TWO,
    ZERO,
)
from edgesppo_convert.quant.recipe import Q4_K, Q6_K, row_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Blocks = NDArray[np.uint8]
    # float32 values, whole blocks of them -> their blocks, into the array given
    Maker = Callable[[GGMLQuantizationType, Floats, Blocks], None]

BLOCK = 256
F = np.float32
SIXTY_THREE = F(63)
LIMIT = F(4e6)  # the magnitude up to which MAGIC rounds; see `unrolled`
CONSTANTS = {
    "LANES": kernel_source.LANES,
    "sqrt": math.sqrt,
    "ZERO": ZERO,
    "ONE": F(1),
    "FIFTEEN": FIFTEEN,
    "THIRTY_ONE": THIRTY_ONE,
    "THIRTY_TWO": THIRTY_TWO,
    "MINUS_32": MINUS_32,
    "MAGIC": MAGIC,
    "LIMIT": LIMIT,
    "GROUP_EPS": GROUP_EPS,
    "NEVER": F(-1),  # no error is less
    "NEVER_LESS": F(np.inf),  # nothing is better
}
TENTH = F(0.1)
Q4_FACTORS = (F(-1) + TENTH * np.arange(21, dtype=F)) + FIFTEEN
Q6_FACTORS = -(THIRTY_TWO + TENTH * np.array([i for i in range(-9, 10) if i], F))
CHOICES = ("auto", "fast", "ggml")
WORTHWHILE = 1 << 26  # weights that ggml quantises in the time it takes to load compiled code
CHECKED = 512  # blocks of each sort that the self-check compares


class FastKernels:
    """The compiled kernels of some kinds; any number of threads may share them."""

    def __init__(self, ggml: Maker, kinds: Collection[GGMLQuantizationType]) -> None:
        self._ggml = ggml
        self._makers: dict[GGMLQuantizationType, Callable[[Floats, Blocks], NDArray[np.bool_]]] = {}
        if Q4_K in kinds:
            self._search4 = _compiled(_made("search4", kernel_source.q4_search()))
            self._pack4 = _compiled(packing.pack4)
            self._makers[Q4_K] = self._q4_k
        if Q6_K in kinds:
            self._search6 = _compiled(_made("search6", kernel_source.q6_search()))
            self._pack6 = _compiled(packing.pack6)
            self._makers[Q6_K] = self._q6_k

    @property
    def kinds(self) -> Collection[GGMLQuantizationType]:
        """What they make."""
        return self._makers.keys()

    def blocks(self, kind: GGMLQuantizationType, values: Floats, out: Blocks) -> None:
        """The blocks of the values, of one of `kinds`."""
        rows, made = values.reshape(-1, BLOCK), out.reshape(-1, row_bytes(kind, BLOCK))
        with np.errstate(all="ignore"):  # what C does without a word
            odd = self._makers[kind](values, made)
        for index in np.flatnonzero(odd):
            self._ggml(kind, rows[index], made[index])

    def agree(self) -> bool:
        """Whether these are ggml's bytes, on blocks of every sort."""
        values = trial_values()
        for kind in self.kinds:
            ours, theirs = (np.zeros(row_bytes(kind, values.size), np.uint8) for _ in range(2))
            self.blocks(kind, values, ours)
            self._ggml(kind, values, theirs)
            if not np.array_equal(ours, theirs):
                return False
        return True

    def _q4_k(self, values: Floats, out: Blocks) -> NDArray[np.bool_]:
        shape = (len(kernel_source.Q4_ROWS), len(out), BLOCK // kernel_source.Q4_POSITIONS)
        found = _searched(self._search4, values, shape, Q4_FACTORS, len(kernel_source.Q4_STATE))
        scale, low, level_factor, level_low, top, bottom, odd = found
        d, scales = _sixes(scale, out[:, 0:2])
        dmin, minima = _sixes(-low, out[:, 2:4])
        out[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
        out[:, 8:12] = minima[:, :4] | (minima[:, 4:] >> 4) << 6
        out[:, 12:16] = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
        divisor, shift = d * scales, dmin * minima
        self._pack4(values, divisor, shift, level_factor, level_low, out)
        far = _beyond((top + shift) / divisor) | _beyond((bottom + shift) / divisor)
        left: NDArray[np.bool_] = np.any((odd != 0) | (far & (divisor != 0)), axis=1)
        return left

    def _q6_k(self, values: Floats, out: Blocks) -> NDArray[np.bool_]:
        shape = (len(kernel_source.Q6_ROWS), len(out), BLOCK // kernel_source.Q6_POSITIONS)
        found = _searched(self._search6, values, shape, Q6_FACTORS, len(kernel_source.Q6_STATE))
        scale, level_factor, largest = found
        first = np.argmax(np.abs(scale), axis=1)[:, None]
        greatest = np.take_along_axis(scale, first, axis=1)
        inverse = F(-128) / greatest
        half = (F(1) / inverse).astype(np.float16)
        scales = np.minimum(_nearest(inverse * scale), 127).astype(np.int8)
        divisor = half.astype(F) * scales
        out[:, 192:208] = scales.view(np.uint8)
        out[:, 208:210] = half.view(np.uint8)
        self._pack6(values, divisor, level_factor, largest, out)
        out[np.abs(greatest[:, 0]) < GROUP_EPS] = 0
        far = _beyond(largest / divisor) & (divisor != 0)
        left: NDArray[np.bool_] = np.any(far & (np.abs(greatest) >= GROUP_EPS), axis=1)
        return left


def choose(
    wanted: str, ggml: Maker, weights: Mapping[GGMLQuantizationType, int]
) -> tuple[FastKernels | None, str | None]:
    """The kernels, if wanted, installed, in agreement with ggml here, and worth their start.

    `weights` says how many there are of each kind. Where they are installed and cannot be used,
    the second says why.
    """
    if wanted not in CHOICES:
        raise UsageError(f"no kernels {wanted!r}; there are {', '.join(CHOICES)}")
    kinds = [kind for kind in (Q4_K, Q6_K) if weights.get(kind)]
    worthwhile = sum(weights[kind] for kind in kinds) >= WORTHWHILE
    if wanted == "ggml" or not (kinds and (worthwhile or wanted == "fast")):
        return None, None
    problem: str | None = None
    try:
        kernels = FastKernels(ggml, kinds)
        if kernels.agree():
            return kernels, None
        problem = "on this machine they do not make the bytes that ggml makes"
    except ImportError as error:
        if wanted == "fast":
            problem = f"{error}; pip install numba brings it"
    except Exception as error:  # a full disk, a damaged cache: ggml can do without
        problem = f"numba fails: {error}"
    if wanted == "fast":
        raise UsageError(f"the fast kernels cannot be used: {problem}")
    return None, problem


def trial_values() -> Floats:
    """Blocks of every sort: usual, tiny, huge, of one sign, of one value, of mixed scales."""
    random = np.random.default_rng(0)
    usual = random.standard_normal((CHECKED, BLOCK), F) * F(0.02)
    sub_scales = np.repeat(10 ** random.uniform(-6, 2, (CHECKED, BLOCK // 16)).astype(F), 16, 1)
    spikes = usual * F(0.01)
    spikes[np.arange(CHECKED), random.integers(0, BLOCK, CHECKED)] = F(7)
    constants = np.repeat(usual[:, :8], 32, axis=1)
    stored_short = (usual.view(np.uint32) & np.uint32(0xFFFF0000)).view(F)
    sorts = [
        *(usual, -np.abs(usual), np.abs(usual), usual + F(1), usual * sub_scales, spikes),
        *(constants, stored_short, np.round(usual * 64), np.where(usual > 0.02, usual, 0)),
        *(usual * F(scale) for scale in (1e-42, 1e-37, 1e-30, 1e-15, 1e-7, 1e5)),
        *(np.zeros((8, BLOCK), F), np.ones((8, BLOCK), F), -np.ones((8, BLOCK), F)),
    ]
    return np.concatenate(sorts).astype(F).ravel()


def _searched(
    search: Callable[..., None], x: Floats, shape: tuple[int, ...], factors: Floats, state: int
) -> Floats:
    """The rows of results of every sub-block of the values."""
    blocks = shape[1] * shape[2]
    found = np.empty(shape, F)
    scratch = np.zeros((x.size // blocks + state) * kernel_source.LANES, F)
    search(x, blocks, factors, scratch, found.ravel())
    return found


def _sixes(amounts: Floats, half_out: Blocks) -> tuple[Floats, Blocks]:
    """Six bits an amount and their unit, which is written as float16 and returned as that is."""
    greatest = amounts.max(axis=1, keepdims=True)
    greatest = np.where(greatest > 0, greatest, ZERO)
    inverse = np.where(greatest > 0, SIXTY_THREE / greatest, ZERO)
    sixes = np.minimum(_nearest(inverse * amounts).astype(np.uint8), 63)
    half = (greatest / SIXTY_THREE).astype(np.float16)
    half_out[:] = half.view(np.uint8)
    return half.astype(F), sixes


def _nearest(values: Floats) -> NDArray[np.int32]:
    """ggml's `nearest_int`, whatever the values."""
    bits: NDArray[np.int32] = (values + MAGIC).view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def _beyond(values: Floats) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = np.abs(values) < LIMIT
    return ~within


def _made(name: str, source: str) -> Callable[..., None]:
    """The function of that source.

    It passes for a function of the file that generates it: numba keeps compiled code by a
    function's file and name, and forgets it when the file changes. What else goes into it is
    marked in the name.
    """
    names: dict[str, Any] = {"__name__": kernel_source.__name__, **CONSTANTS}
    helpers = (kernel_source.kept, kernel_source.less, kernel_source.more, kernel_source.larger)
    names.update({helper.__name__: _compiled(helper) for helper in helpers})
    exec(compile(source, kernel_source.__file__, "exec"), names)
    made: Callable[..., None] = names[name]
    made.__qualname__ = _named(name, source)
    return made


def _named(name: str, source: str) -> str:
    """A name with a mark of the source and of the constants that are compiled into it."""
    return f"{name}_{zlib.crc32(repr((source, CONSTANTS)).encode()):08x}"


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call; kept for the next time where numba finds a place for it.

    Without `fastmath`, so that every operation is rounded as C rounds it; `error_model` is C's,
    since a check before every division would keep the loops from being vectorised.
    """
    import numba

    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no folder to keep it in
        compiled = numba.njit(**settings)(function)
    return compiled
