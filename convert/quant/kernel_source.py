"""Generate the source text of the fast kernels: searches for block scales, many blocks at once.

    scratch = | x[0] of all lanes | x[1] of all lanes | ... | each state variable, of all lanes |

A lane is a sub-block: the weights that share a scale. Compilers vectorise a loop over lanes only if
its body is straight-line code on one flat array. So the body of a search step is generated with
every position of the sub-block spelled out, and every name assigned once, which makes it compile in
a third of the time. What is computed, and in which order it is rounded, is ggml's
`make_qkx2_quants` and `make_qx_quants` (`ggml-quants.c`) without an importance matrix; sums run
over the positions in order, as there. Adding and subtracting MAGIC rounds to the nearest whole
number, for magnitudes below 2**22.
"""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy import float32 as Float  # noqa: N812

LANES = 64  # sub-blocks at once: their scratch fits in the first-level cache
Q4_POSITIONS = 32  # weights per sub-block of Q4_K
Q6_POSITIONS = 16  # weights per sub-block of Q6_K
# Results per sub-block, the first rows of its state in the scratch array. `odd`: not 0 where
# numbers are too large for MAGIC, so that ggml must make the block.
Q4_ROWS = ("scale", "low", "level_factor", "level_low", "top", "bottom", "odd")
Q6_ROWS = ("scale", "level_factor", "largest")
Q4_STATE = (*Q4_ROWS, "average", "sum_w", "sum_x", "error")
Q6_STATE = (*Q6_ROWS, "extreme", "best")

FRAME = '''
def {name}(x, blocks, factors, scratch, found):
    """Search every sub-block of x; its results go into found, a row each."""
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        for lane in range(count):
            for position in range({positions}):
                scratch[position * LANES + lane] = x[(first + lane) * {positions} + position]
        for lane in range(LANES):
{opening}
        for number in range(factors.size):
            factor = factors[number]
            for lane in range(LANES):
{step}
        for row in range({rows}):
            for lane in range(count):
                found[row * blocks + first + lane] = scratch[({positions} + row) * LANES + lane]
'''

Q4_FIRST_FIT = """
bottom = less(bottom_31, ZERO)
span = top - bottom
first_factor = FIFTEEN / span
first_scale = ONE / first_factor
"""

Q4_OPENED = """
flat = span == ZERO
scale = ZERO if flat else first_scale
error = NEVER if flat else first_error
level_factor = ZERO if flat else first_factor
odd = ZERO if flat | (abs(first_factor * span) < LIMIT) else ONE
low = bottom
level_low = bottom
"""

Q4_STEP = """
factor_here = factor / (top - low)
highest = abs(factor_here * (top - low))
lowest = abs(factor_here * (bottom - low))
within = (highest < LIMIT) & (lowest < LIMIT)
"""

Q4_FIT = """
det = sum_w * sum_l2 - sum_l * sum_l
free_scale = (sum_w * sum_xl - sum_x * sum_l) / det
free_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
above = free_low > ZERO
new_scale = sum_xl / sum_l2 if above else free_scale
new_low = ZERO if above else free_low
"""

Q4_CHOICE = """
better = (det > ZERO) & (new_error < error)
next_odd = odd if within | (error == NEVER) else ONE
next_level_factor = factor_here if better else level_factor
next_level_low = low if better else level_low
next_error = new_error if better else error
next_scale = new_scale if better else scale
next_low = new_low if better else low
"""

Q6_FIRST_FACTOR = """
empty = largest < GROUP_EPS
first_factor = MINUS_32 / extreme
"""

Q6_OPENED = """
first_scale = sum_lx / sum_l2 if sum_l2 != ZERO else ZERO
scale = ZERO if empty else first_scale
best = NEVER_LESS if empty else first_scale * sum_lx
level_factor = ZERO if empty else first_factor
"""

Q6_CHOICE = """
better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
new_scale = sum_lx / sum_l2
next_scale = new_scale if better else scale
next_best = new_scale * sum_lx if better else best
next_level_factor = factor_here if better else level_factor
"""


def clamp(value: Float, least: Float, most: Float) -> Float:
    """The value, limited to [least, most]; compiled into the searches."""
    capped = value if value < most else most
    return capped if capped > least else least


def less(one: Float, other: Float) -> Float:
    """The smaller; the first if neither is."""
    return other if other < one else one


def more(one: Float, other: Float) -> Float:
    """The greater; the first if neither is."""
    return other if other > one else one


def larger(one: Float, other: Float) -> Float:
    """The one of greater magnitude; the first if neither is."""
    return other if abs(other) > abs(one) else one


def q4_search() -> str:
    """Source of the search for Q4_K: 21 steps, each fits scale and minimum by least squares."""
    positions, state = range(Q4_POSITIONS), _Rows(Q4_POSITIONS, Q4_STATE)
    weights = [f"w{p} = average + abs(x{p})" for p in positions]
    opening = [
        *_loads(positions),
        *_extremes(positions),
        *_sum("sum_x2", [f"x{p} * x{p}" for p in positions]),
        "average = sqrt(sum_x2 / THIRTY_TWO)",
        *weights,
        *_sum("sum_w", [f"w{p}" for p in positions]),
        *_sum("sum_x", [f"w{p} * x{p}" for p in positions]),
        Q4_FIRST_FIT,
        *(_level(p, f"first_factor * (x{p} - bottom)", "ZERO", "FIFTEEN") for p in positions),
        *_errors(positions, "bottom", "first_"),
        Q4_OPENED,
        *state.stores(Q4_STATE),
    ]
    step = [
        *_loads(positions),
        *state.loads(Q4_STATE),
        Q4_STEP,
        *weights,
        *(_level(p, f"factor_here * (x{p} - low)", "ZERO", "FIFTEEN") for p in positions),
        *(f"wl{p} = w{p} * l{p}" for p in positions),
        *_sum("sum_l", [f"wl{p}" for p in positions]),
        *_sum("sum_l2", [f"wl{p} * l{p}" for p in positions]),
        *_sum("sum_xl", [f"wl{p} * x{p}" for p in positions]),
        Q4_FIT,
        *_errors(positions, "new_low", "new_"),
        Q4_CHOICE,
        *state.stores(("scale", "low", "level_factor", "level_low", "odd", "error"), "next_"),
    ]
    return _framed("search4", Q4_POSITIONS, len(Q4_ROWS), opening, step)


def q6_search() -> str:
    """Source of the search for Q6_K: 19 steps, each fits the scale alone."""
    positions, state = range(Q6_POSITIONS), _Rows(Q6_POSITIONS, Q6_STATE)
    opening = [
        *_loads(positions),
        *_largest(positions),
        Q6_FIRST_FACTOR,
        *_products(positions, "first_factor"),
        Q6_OPENED,
        *state.stores(Q6_STATE),
    ]
    step = [
        *_loads(positions),
        *state.loads(("scale", "level_factor", "extreme", "best")),
        "factor_here = factor / extreme",
        *_products(positions, "factor_here"),
        Q6_CHOICE,
        *state.stores(("scale", "level_factor", "best"), "next_"),
    ]
    return _framed("search6", Q6_POSITIONS, len(Q6_ROWS), opening, step)


class _Rows:
    """The rows of the state variables in the scratch array, after those of the positions."""

    def __init__(self, positions: int, names: tuple[str, ...]) -> None:
        self._at = {name: positions + row for row, name in enumerate(names)}

    def loads(self, names: Iterable[str]) -> list[str]:
        return [f"{name} = scratch[{self._at[name]} * LANES + lane]" for name in names]

    def stores(self, names: Iterable[str], prefix: str = "") -> list[str]:
        return [f"scratch[{self._at[name]} * LANES + lane] = {prefix}{name}" for name in names]


def _loads(positions: range) -> list[str]:
    return [f"x{p} = scratch[{p} * LANES + lane]" for p in positions]


def _extremes(positions: range) -> list[str]:
    """Least and greatest value; the least is named `bottom` only once it is limited to 0."""
    least = [f"bottom_{p} = less(bottom_{p - 1}, x{p})" for p in positions[1:]]
    greatest = [f"top_{p} = more(top_{p - 1}, x{p})" for p in positions[1:]]
    return ["bottom_0 = x0", *least, "top_0 = x0", *greatest, f"top = top_{positions[-1]}"]


def _largest(positions: range) -> list[str]:
    """The value of the largest magnitude; of several, the first."""
    extremes = [f"extreme_{p} = larger(extreme_{p - 1}, x{p})" for p in positions[1:]]
    last = f"extreme_{positions[-1]}"
    return ["extreme_0 = x0", *extremes, f"extreme = {last}", f"largest = abs({last})"]


def _level(position: int, value: str, least: str, most: str) -> str:
    """The level of a position: the nearest whole number, limited to [least, most]."""
    return f"l{position} = clamp(({value} + MAGIC) - MAGIC, {least}, {most})"


def _sum(name: str, terms: Iterable[str]) -> list[str]:
    """A sum in the order of its terms; every step has its own name, assigned once."""
    terms = list(terms)
    steps = [f"{name}_0 = ZERO + {terms[0]}"]
    steps += [f"{name}_{i} = {name}_{i - 1} + {term}" for i, term in enumerate(terms) if i]
    return [*steps, f"{name} = {name}_{len(terms) - 1}"]


def _errors(positions: range, low: str, prefix: str = "") -> list[str]:
    """The sum of the weighted squares of what the levels do not represent."""
    residuals = [f"{prefix}rest{p} = {prefix}scale * l{p} + {low} - x{p}" for p in positions]
    terms = [f"w{p} * ({prefix}rest{p} * {prefix}rest{p})" for p in positions]
    return [*residuals, *_sum(f"{prefix}error", terms)]


def _products(positions: range, factor: str) -> list[str]:
    """The sums from which a scale is fitted; x has the weight x * x."""
    levels = [_level(p, f"{factor} * x{p}", "MINUS_32", "THIRTY_ONE") for p in positions]
    weights = [f"w{p} = x{p} * x{p}" for p in positions]
    sum_lx = _sum("sum_lx", [f"w{p} * x{p} * l{p}" for p in positions])
    return [*levels, *weights, *sum_lx, *_sum("sum_l2", [f"w{p} * l{p} * l{p}" for p in positions])]


def _framed(name: str, positions: int, rows: int, opening: list[str], step: list[str]) -> str:
    return FRAME.format(
        name=name,
        positions=positions,
        rows=rows,
        opening=indent("\n".join(opening), " " * 12),
        step=indent("\n".join(step), " " * 16),
    )
