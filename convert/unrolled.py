"""Owns the source text of the fast kernels: searches for block scales, many blocks side by side.

    scratch = | x[0] of all lanes | x[1] of all lanes | ... | a row of each state, of all lanes |

A lane is a sub-block, the weights that share a scale.
Compilers vectorise a loop over lanes only when its body is straight-line code, all of it within
one flat array. So the body of a search step is written here with every position of the sub-block
spelled out. What is computed, and in which order it is rounded, is ggml's `make_qkx2_quants` and
`make_qx_quants` (`ggml-quants.c`) without an importance matrix; sums run over the positions in
order, as there. Adding and subtracting MAGIC rounds to the nearest whole number, for magnitudes
below 2**22. Knows nothing of compilers: text in, text out.
"""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LANES = 64  # sub-blocks side by side: their scratch fits in the first-level cache
Q4_POSITIONS = 32  # weights a sub-block of Q4_K
Q6_POSITIONS = 16  # and of Q6_K
# Rows of results a sub-block leaves behind, at the end of its column in the scratch array.
Q4_ROWS = ("scale", "low", "level_factor", "level_low", "top", "bottom", "odd")
Q6_ROWS = ("scale", "level_factor", "largest")
Q4_STATE = (*Q4_ROWS, "average", "sum_w", "sum_x", "error")
Q6_STATE = (*Q6_ROWS, "extreme", "best")

FRAME = '''
def {name}(x, blocks, factors, scratch, found):
    """Rows of results for every sub-block in x, into found."""
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

Q4_OPENING = """
average = sqrt(sum_x2 / THIRTY_TWO)
w = average + abs(x0)
sum_w = w
sum_x = w * x0
"""

Q4_FIRST_ERROR = """
bottom = ZERO if bottom > ZERO else bottom
span = top - bottom
factor = FIFTEEN / span
scale = ONE / factor
error = ZERO
"""

Q4_OPENED = """
flat = span == ZERO
scale = ZERO if flat else scale
error = NEVER if flat else error
factor = ZERO if flat else factor
odd = ONE if (not flat) & (not (abs(factor * span) < LIMIT)) else ZERO
low = bottom
level_factor = factor
level_low = bottom
"""

Q4_STEP = """
factor_here = factor / (top - low)
highest = abs(factor_here * (top - low))
lowest = abs(factor_here * (bottom - low))
within = (highest < LIMIT) & (lowest < LIMIT)
sum_l = ZERO
sum_l2 = ZERO
sum_xl = ZERO
"""

Q4_FIT = """
det = sum_w * sum_l2 - sum_l * sum_l
new_scale = (sum_w * sum_xl - sum_x * sum_l) / det
new_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
above = new_low > ZERO
new_scale = sum_xl / sum_l2 if above else new_scale
new_low = ZERO if above else new_low
new_error = ZERO
"""

Q4_CHOICE = """
better = (det > ZERO) & (new_error < error)
odd = odd if within | (error == NEVER) else ONE
level_factor = factor_here if better else level_factor
level_low = low if better else level_low
error = new_error if better else error
scale = new_scale if better else scale
low = new_low if better else low
"""

Q6_OPENED = """
empty = largest < GROUP_EPS
factor = MINUS_32 / extreme
sum_lx = ZERO
sum_l2 = ZERO
"""

Q6_FIRST = """
scale = sum_lx / sum_l2 if sum_l2 != ZERO else ZERO
best = scale * sum_lx
scale = ZERO if empty else scale
best = NEVER_LESS if empty else best
level_factor = ZERO if empty else factor
"""

Q6_CHOICE = """
better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
new_scale = sum_lx / sum_l2
scale = new_scale if better else scale
best = new_scale * sum_lx if better else best
level_factor = factor_here if better else level_factor
"""


def q4_search() -> str:
    """The search of Q4_K: 21 steps, each a fit of scale and minimum by least squares."""
    positions, state = range(Q4_POSITIONS), _Rows(Q4_POSITIONS, Q4_STATE)
    opening = [*_loads(positions), "bottom = x0", "top = x0", "sum_x2 = ZERO + x0 * x0"]
    for p in positions[1:]:
        opening += [
            f"bottom = x{p} if x{p} < bottom else bottom",
            f"top = x{p} if x{p} > top else top",
            f"sum_x2 += x{p} * x{p}",
        ]
    opening.append(Q4_OPENING)
    for p in positions[1:]:
        opening += [f"w = average + abs(x{p})", "sum_w += w", f"sum_x += w * x{p}"]
    opening.append(Q4_FIRST_ERROR)
    for p in positions:
        opening += [_level(p, f"factor * (x{p} - bottom)", "ZERO", "FIFTEEN"), *_error(p, "bottom")]
    opening += [Q4_OPENED, *state.stores(Q4_STATE)]
    step = [*_loads(positions), *state.loads(Q4_STATE), Q4_STEP]
    for p in positions:
        step += [
            _level(p, f"factor_here * (x{p} - low)", "ZERO", "FIFTEEN"),
            f"wl = (average + abs(x{p})) * l{p}",
            "sum_l += wl",
            f"sum_l2 += wl * l{p}",
            f"sum_xl += wl * x{p}",
        ]
    step.append(Q4_FIT)
    for p in positions:
        step += _error(p, "new_low", "new_")
    changed = ("scale", "low", "level_factor", "level_low", "odd", "error")
    step += [Q4_CHOICE, *state.stores(changed)]
    return _framed("search4", Q4_POSITIONS, len(Q4_ROWS), opening, step)


def q6_search() -> str:
    """The search of Q6_K: 19 steps, each a fit of the scale alone."""
    positions, state = range(Q6_POSITIONS), _Rows(Q6_POSITIONS, Q6_STATE)
    opening = [*_loads(positions), "largest = ZERO", "extreme = ZERO"]
    for p in positions:
        opening += [
            f"size = abs(x{p})",
            f"extreme = x{p} if size > largest else extreme",
            "largest = size if size > largest else largest",
        ]
    opening.append(Q6_OPENED)
    for p in positions:
        opening += _products(p, "factor")
    opening += [Q6_FIRST, *state.stores(Q6_STATE)]
    step = [*_loads(positions), *state.loads(("scale", "level_factor", "extreme", "best"))]
    step += ["factor_here = factor / extreme", "sum_lx = ZERO", "sum_l2 = ZERO"]
    for p in positions:
        step += _products(p, "factor_here")
    step += [Q6_CHOICE, *state.stores(("scale", "best", "level_factor"))]
    return _framed("search6", Q6_POSITIONS, len(Q6_ROWS), opening, step)


class _Rows:
    """Where the state of a lane lies: a row a name, after those of the positions."""

    def __init__(self, positions: int, names: tuple[str, ...]) -> None:
        self._at = {name: positions + row for row, name in enumerate(names)}

    def loads(self, names: Iterable[str]) -> list[str]:
        return [f"{name} = scratch[{self._at[name]} * LANES + lane]" for name in names]

    def stores(self, names: Iterable[str]) -> list[str]:
        return [f"scratch[{self._at[name]} * LANES + lane] = {name}" for name in names]


def _loads(positions: range) -> list[str]:
    return [f"x{p} = scratch[{p} * LANES + lane]" for p in positions]


def _level(position: int, value: str, least: str, most: str) -> str:
    """The level of a position: the nearest whole number, kept within bounds."""
    level = f"l{position}"
    return (
        f"{level} = ({value} + MAGIC) - MAGIC\n"
        f"{level} = {level} if {level} < {most} else {most}\n"
        f"{level} = {level} if {level} > {least} else {least}"
    )


def _error(position: int, low: str, prefix: str = "") -> list[str]:
    """Adds the weighted square of what the levels leave."""
    x = f"x{position}"
    return [
        f"rest = {prefix}scale * l{position} + {low} - {x}",
        f"{prefix}error += (average + abs({x})) * (rest * rest)",
    ]


def _products(position: int, factor: str) -> list[str]:
    """Adds to the sums from which a scale is fitted; the weight of x is its square."""
    x, level = f"x{position}", f"l{position}"
    return [
        _level(position, f"{factor} * {x}", "MINUS_32", "THIRTY_ONE"),
        f"w = {x} * {x}",
        f"sum_lx += w * {x} * {level}",
        f"sum_l2 += w * {level} * {level}",
    ]


def _framed(name: str, positions: int, rows: int, opening: list[str], step: list[str]) -> str:
    return FRAME.format(
        name=name,
        positions=positions,
        rows=rows,
        opening=indent("\n".join(opening), " " * 12),
        step=indent("\n".join(step), " " * 16),
    )
