"""Fast kernels for Q4_K and Q6_K without an importance matrix: the same bytes as ggml's, sooner.

They are used only after they have made ggml's bytes on this machine. Numba, an optional
dependency, compiles the search (`kernel_source`) and the packing of levels (`packing`); numpy does
the scales, of which a block has few. Blocks with numbers so extreme that rounding by MAGIC differs
from ggml's (no trained model has any) are left to ggml.

    Q4_K, 256 weights | d: f16 | dmin: f16 | 8 scales and 8 minima of 6 bits | 128 B of levels |
    Q6_K, 256 weights | 128 B of low nibbles | 64 B of high pairs | 16 scales: i8 | d: f16 |
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, Literal, get_args

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
    # (type, float32 values of whole blocks, array that receives the blocks)
    Quantize = Callable[[GGMLQuantizationType, Floats, Blocks], None]

BLOCK = 256
F = np.float32
SIXTY_THREE = F(63)
LIMIT = F(4e6)  # the magnitude up to which MAGIC rounds; see `kernel_source`
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
    "NEVER": F(-1),  # less than any error
    "NEVER_LESS": F(np.inf),  # better than any fit
}
TENTH = F(0.1)
Q4_FACTORS = (F(-1) + TENTH * np.arange(21, dtype=F)) + FIFTEEN
Q6_FACTORS = -(THIRTY_TWO + TENTH * np.array([i for i in range(-9, 10) if i], F))
Kernels = Literal["auto", "fast", "ggml"]
CHOICES = get_args(Kernels)
WORTHWHILE = 1 << 26  # weights; ggml quantises fewer in the time that loading numba takes
CHECKED = 512  # blocks of each kind that the self-check compares


class FastKernels:
    """The compiled kernels for some block types; thread-safe."""

    def __init__(self, ggml: Quantize, kinds: Collection[GGMLQuantizationType]) -> None:
        self._ggml = ggml
        # Each returns which blocks it could not make, so that ggml must.
        self._quantizers: dict[
            GGMLQuantizationType, Callable[[Floats, Blocks], NDArray[np.bool_]]
        ] = {}
        if Q4_K in kinds:
            self._search4 = _compile(_function_of("search4", kernel_source.q4_search()))
            self._pack4 = _compile(packing.pack4)
            self._quantizers[Q4_K] = self._q4_k
        if Q6_K in kinds:
            self._search6 = _compile(_function_of("search6", kernel_source.q6_search()))
            self._pack6 = _compile(packing.pack6)
            self._quantizers[Q6_K] = self._q6_k

    @property
    def kinds(self) -> Collection[GGMLQuantizationType]:
        """The block types that they make."""
        return self._quantizers.keys()

    def blocks(self, kind: GGMLQuantizationType, values: Floats, out: Blocks) -> None:
        """Quantise float32 values to blocks of one of `kinds`, into `out`."""
        rows, blocks = values.reshape(-1, BLOCK), out.reshape(-1, row_bytes(kind, BLOCK))
        with np.errstate(all="ignore"):  # C does not warn either
            for_ggml = self._quantizers[kind](values, blocks)
        for index in np.flatnonzero(for_ggml):
            self._ggml(kind, rows[index], blocks[index])

    def matches_ggml(self) -> bool:
        """Whether the kernels make ggml's bytes, on the blocks of `trial_values`."""
        values = trial_values()
        for kind in self.kinds:
            fast, ggml = (np.zeros(row_bytes(kind, values.size), np.uint8) for _ in range(2))
            self.blocks(kind, values, fast)
            self._ggml(kind, values, ggml)
            if not np.array_equal(fast, ggml):
                return False
        return True

    def _q4_k(self, values: Floats, out: Blocks) -> NDArray[np.bool_]:
        shape = (len(kernel_source.Q4_ROWS), len(out), BLOCK // kernel_source.Q4_POSITIONS)
        found = _search(self._search4, values, shape, Q4_FACTORS, len(kernel_source.Q4_STATE))
        scale, low, level_factor, level_low, top, bottom, odd = found
        d, scales = _quantize_scales(scale, out[:, 0:2])
        dmin, minima = _quantize_scales(-low, out[:, 2:4])
        out[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
        out[:, 8:12] = minima[:, :4] | (minima[:, 4:] >> 4) << 6
        out[:, 12:16] = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
        divisor, shift = d * scales, dmin * minima
        self._pack4(values, divisor, shift, level_factor, level_low, out)
        too_far = _beyond_limit((top + shift) / divisor) | _beyond_limit((bottom + shift) / divisor)
        for_ggml: NDArray[np.bool_] = np.any((odd != 0) | (too_far & (divisor != 0)), axis=1)
        return for_ggml

    def _q6_k(self, values: Floats, out: Blocks) -> NDArray[np.bool_]:
        shape = (len(kernel_source.Q6_ROWS), len(out), BLOCK // kernel_source.Q6_POSITIONS)
        found = _search(self._search6, values, shape, Q6_FACTORS, len(kernel_source.Q6_STATE))
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
        too_far = _beyond_limit(largest / divisor) & (divisor != 0)
        for_ggml: NDArray[np.bool_] = np.any(too_far & (np.abs(greatest) >= GROUP_EPS), axis=1)
        return for_ggml


def choose_kernels(
    wanted: str, ggml: Quantize, weights: Mapping[GGMLQuantizationType, int]
) -> tuple[FastKernels | None, str | None]:
    """The fast kernels, if `wanted` allows them, numba is installed, they agree with ggml, and pay.

    `wanted` is one of CHOICES, `weights` the number of weights of each block type. The second value
    says why installed kernels are not used, else it is None. UsageError if "fast" cannot be had.
    """
    if wanted not in CHOICES:
        raise UsageError(f"unknown kernels {wanted!r}; expected one of {', '.join(CHOICES)}")
    kinds = [kind for kind in (Q4_K, Q6_K) if weights.get(kind)]
    worthwhile = sum(weights[kind] for kind in kinds) >= WORTHWHILE
    if wanted == "ggml" or not (kinds and (worthwhile or wanted == "fast")):
        return None, None
    problem: str | None = None
    try:
        kernels = FastKernels(ggml, kinds)
        if kernels.matches_ggml():
            return kernels, None
        problem = "on this machine they do not make the same bytes as ggml"
    except ImportError as error:
        if wanted == "fast":
            problem = f"{error}; install it with: pip install numba"
    except Exception as error:  # a full disk, a damaged cache: ggml needs neither
        problem = f"numba failed: {error}"
    if wanted == "fast":
        raise UsageError(f"the fast kernels cannot be used: {problem}")
    return None, problem


def trial_values() -> Floats:
    """Values for the self-check: usual, tiny, huge, of one sign, constant, of mixed scales."""
    random = np.random.default_rng(0)
    usual = random.standard_normal((CHECKED, BLOCK), F) * F(0.02)
    sub_scales = np.repeat(10 ** random.uniform(-6, 2, (CHECKED, BLOCK // 16)).astype(F), 16, 1)
    spikes = usual * F(0.01)
    spikes[np.arange(CHECKED), random.integers(0, BLOCK, CHECKED)] = F(7)
    constants = np.repeat(usual[:, :8], 32, axis=1)
    stored_short = (usual.view(np.uint32) & np.uint32(0xFFFF0000)).view(F)
    kinds = [
        *(usual, -np.abs(usual), np.abs(usual), usual + F(1), usual * sub_scales, spikes),
        *(constants, stored_short, np.round(usual * 64), np.where(usual > 0.02, usual, 0)),
        *(usual * F(scale) for scale in (1e-42, 1e-37, 1e-30, 1e-15, 1e-7, 1e5)),
        *(np.zeros((8, BLOCK), F), np.ones((8, BLOCK), F), -np.ones((8, BLOCK), F)),
    ]
    return np.concatenate(kinds).astype(F).ravel()


def _search(
    search: Callable[..., None], x: Floats, shape: tuple[int, ...], factors: Floats, state: int
) -> Floats:
    """Run a search over all sub-blocks of the values; its results, of this shape."""
    blocks = shape[1] * shape[2]
    found = np.empty(shape, F)
    scratch = np.zeros((x.size // blocks + state) * kernel_source.LANES, F)
    search(x, blocks, factors, scratch, found.ravel())
    return found


def _quantize_scales(scales: Floats, half_out: Blocks) -> tuple[Floats, Blocks]:
    """Scales as multiples (0 to 63) of a unit, written to `half_out`; the unit and multiples."""
    greatest = scales.max(axis=1, keepdims=True)
    greatest = np.where(greatest > 0, greatest, ZERO)
    inverse = np.where(greatest > 0, SIXTY_THREE / greatest, ZERO)
    multiples = np.minimum(_nearest(inverse * scales).astype(np.uint8), 63)
    half = (greatest / SIXTY_THREE).astype(np.float16)
    half_out[:] = half.view(np.uint8)
    return half.astype(F), multiples


def _nearest(values: Floats) -> NDArray[np.int32]:
    """ggml's `nearest_int`, also for values where it overflows."""
    bits: NDArray[np.int32] = (values + MAGIC).view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def _beyond_limit(values: Floats) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = np.abs(values) < LIMIT
    return ~within


def _function_of(name: str, source: str) -> Callable[..., None]:
    """Compile source text to a Python function.

    The function claims to be from the file that generates it: numba caches compiled code by a
    function's file and name, and discards it when the file changes. A hash of everything else that
    goes into it is part of its name.
    """
    names: dict[str, Any] = {"__name__": kernel_source.__name__, **CONSTANTS}
    helpers = (kernel_source.clamp, kernel_source.less, kernel_source.more, kernel_source.larger)
    names.update({helper.__name__: _compile(helper) for helper in helpers})
    exec(compile(source, kernel_source.__file__, "exec"), names)
    function: Callable[..., None] = names[name]
    function.__qualname__ = _cache_name(name, source)
    return function


def _cache_name(name: str, source: str) -> str:
    """A function name that holds a hash of the source and of the constants compiled into it."""
    return f"{name}_{zlib.crc32(repr((source, CONSTANTS)).encode()):08x}"


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba at the first call; cached on the disk where numba finds a folder for it.

    Without `fastmath`, so that every operation is rounded as C rounds it; with C's `error_model`,
    since a check before every division would prevent the loops from being vectorised.
    """
    import numba

    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no writable folder for the cache
        compiled = numba.njit(**settings)(function)
    return compiled
