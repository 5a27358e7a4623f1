"""Owns how numbers are written: the texts of all integers or decimals between two bounds.

Exact for integers of up to 40 digits: only what never rounds is done with their bounds. Decimals
are written with at most 15 digits and, between bounds, without an exponent: then two different
texts are two different doubles, and a text is within the bounds exactly when the double that a
reader makes of it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from edgesppo.schema.automaton import explored
from edgesppo.schema.limits import refused

if TYPE_CHECKING:
    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.limits import Work

PLAIN_NUMBER = "^-?(?:0|[1-9]\\d{0,14})(?:\\.\\d{1,15})?(?:[eE][+-]?\\d{1,2})?$"
_DIGITS_OF_NUMBERS = 15
_DIGITS_OF_INTEGERS = 18  # where there is no bound
_MOST_DIGITS = 40  # of a bound


@dataclass(frozen=True)
class Bounds:
    """`low` and `high`, None for none; `open_*`: the bound itself is left out."""

    low: Decimal | None = None
    high: Decimal | None = None
    open_low: bool = False
    open_high: bool = False


@dataclass(frozen=True)
class _Magnitudes:
    """Bounds of the digits behind the sign: low as (digits before, digits behind the point)."""

    low: tuple[str, str]
    high: tuple[str, str] | None
    open_low: bool
    open_high: bool


def between(bounds: Bounds, *, whole: bool, work: Work) -> Dfa:
    """The texts of all numbers within the bounds."""
    digits = _room(bounds, whole=whole)
    positive = _magnitudes(bounds.low, bounds.high, bounds.open_low, bounds.open_high)
    # -m is between low and high when m is between -high and -low.
    low = None if bounds.high is None else bounds.high.copy_negate()
    high = None if bounds.low is None else bounds.low.copy_negate()
    negative = _magnitudes(low, high, bounds.open_high, bounds.open_low)
    if negative is not None and whole and negative.low == ("0", ""):
        negative = _Magnitudes(("0", ""), negative.high, True, negative.open_high)  # no -0
    reader = _Reader(positive, negative, digits, whole)
    return explored(("start",), reader.step, reader.is_end, "-.0123456789", work)


def check(bound: Decimal, name: str, *, whole: bool, where: str) -> None:
    """UsageError, with the keyword's name, for a bound that cannot be kept exactly."""
    exponent = bound.as_tuple().exponent
    assert isinstance(exponent, int)
    if bound.adjusted() >= _MOST_DIGITS or exponent < -_MOST_DIGITS:
        raise refused(where, f"{name} is {bound}, beyond {_MOST_DIGITS} digits; leave it out")
    n = _digits(bound)
    if not whole and n > _DIGITS_OF_NUMBERS:
        raise refused(
            where,
            f"{name} is a number of {n} digits, expected at most {_DIGITS_OF_NUMBERS}, as only "
            "those are exact",
        )


def _room(bounds: Bounds, *, whole: bool) -> int:
    """How many digits a number may have."""
    digits = [_digits(bound) for bound in (bounds.low, bounds.high) if bound is not None]
    return max(_DIGITS_OF_INTEGERS, *(n + 1 for n in digits), 0) if whole else _DIGITS_OF_NUMBERS


def _digits(bound: Decimal) -> int:
    before, behind = _written(bound)
    return len(before) + len(behind)


def _written(value: Decimal) -> tuple[str, str]:
    """The digits before and behind the point, without the sign that 0 may have, too."""
    before, _, behind = f"{value.copy_abs():f}".partition(".")
    return before, behind.rstrip("0")


def _magnitudes(
    low: Decimal | None, high: Decimal | None, open_low: bool, open_high: bool
) -> _Magnitudes | None:
    """The part of the bounds that is not negative; None if there is none."""
    if high is not None and (high < 0 or (high == 0 and open_high)):
        return None
    if low is None or low < 0:
        low, open_low = Decimal(0), False
    top = None if high is None else _written(high)
    return _Magnitudes(_written(low), top, open_low, open_high)


class _Reader:
    """Reads a number's text letter by letter, comparing it with both bounds as it goes.

    A state is (stage, sign, digits so far, comparison with low, with high): stage "int" or
    "frac", a comparison "<", "=" or ">", of the digits so far with as many of the bound's.
    """

    def __init__(
        self, positive: _Magnitudes | None, negative: _Magnitudes | None, room: int, whole: bool
    ) -> None:
        self._sides = {"+": positive, "-": negative}
        self._room = room
        self._whole = whole

    def step(self, state: object, letter: str) -> object:
        assert isinstance(state, tuple)
        if state[0] in ("start", "minus"):
            return self._first(state[0], letter)
        stage, sign, n, low, high, room, zero = state
        side = self._sides[sign]
        assert side is not None
        if letter == ".":
            if self._whole or stage != "int" or room == 0:
                return None
            return ("point", sign, 0, *self._whole_part(side, n, low, high), room, False)
        if letter == "-" or room == 0 or (stage == "int" and zero):
            return None
        digits = [bound[0 if stage == "int" else 1] if bound else "" for bound in _ends(side)]
        low, high = (
            _compared(so_far, letter, bound[n : n + 1] or "0")
            for so_far, bound in zip((low, high), digits, strict=True)
        )
        return ("int" if stage == "int" else "frac", sign, n + 1, low, high, room - 1, False)

    def _first(self, stage: str, letter: str) -> object:
        if letter == "-":
            return ("minus",) if stage == "start" and self._sides["-"] is not None else None
        sign = "+" if stage == "start" else "-"
        side = self._sides[sign]
        if letter == "." or side is None:
            return None
        low, high = (_compared("=", letter, b[0][:1] if b else "0") for b in _ends(side))
        return ("int", sign, 1, low, high, self._room - 1, letter == "0")

    def _whole_part(self, side: _Magnitudes, n: int, low: str, high: str) -> tuple[str, str]:
        """The comparisons once the digits before the point are complete."""
        found = []
        for so_far, bound in zip((low, high), _ends(side), strict=True):
            length = len(bound[0]) if bound else n
            found.append(so_far if n == length else "<" if n < length else ">")
        return found[0], found[1]

    def is_end(self, state: object) -> bool:
        assert isinstance(state, tuple)
        if state[0] in ("start", "minus", "point"):
            return False
        stage, sign, n, low, high, _, _ = state
        side = self._sides[sign]
        assert side is not None
        if stage == "int":
            low, high = self._whole_part(side, n, low, high)
            n = 0
        low_rest, high_rest = ((bound[1][n:] if bound else "") for bound in _ends(side))
        low = "<" if low == "=" and low_rest else low
        high = "<" if high == "=" and high_rest else high
        above = low == ">" or (low == "=" and not side.open_low)
        below = side.high is None or high == "<" or (high == "=" and not side.open_high)
        return above and below


def _ends(side: _Magnitudes) -> tuple[tuple[str, str], tuple[str, str] | None]:
    return side.low, side.high


def _compared(so_far: str, letter: str, bound: str) -> str:
    if so_far != "=" or letter == bound:
        return so_far
    return "<" if letter < bound else ">"
