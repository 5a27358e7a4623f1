"""An automaton for the texts of all integers or decimals between two bounds.

Integers of up to 40 digits are exact, as only operations that never round are applied to their
bounds. Decimals have at most 15 digits and, between bounds, no exponent: then different texts are
different doubles, and a text is within the bounds exactly if the double parsed from it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from edgesppo.schema.automaton import from_function
from edgesppo.schema.limits import schema_error

if TYPE_CHECKING:
    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.limits import Work

PLAIN_NUMBER = "^-?(?:0|[1-9]\\d{0,14})(?:\\.\\d{1,15})?(?:[eE][+-]?\\d{1,2})?$"
_DIGITS_OF_NUMBERS = 15
_DIGITS_OF_INTEGERS = 18  # of an integer without bounds
_MAX_DIGITS = 40  # of a bound


@dataclass(frozen=True)
class Bounds:
    """`low` and `high`, None if there is none; `open_*` excludes the bound itself."""

    low: Decimal | None = None
    high: Decimal | None = None
    open_low: bool = False
    open_high: bool = False


@dataclass(frozen=True)
class _Magnitudes:
    """Bounds without sign, each as (digits before the point, digits after it)."""

    low: tuple[str, str]
    high: tuple[str, str] | None
    open_low: bool
    open_high: bool


def between(bounds: Bounds, *, whole: bool, work: Work) -> Dfa:
    """The automaton of all numbers within the bounds; `whole` for integers only."""
    digits = _max_digits(bounds, whole=whole)
    positive = _magnitudes(bounds.low, bounds.high, bounds.open_low, bounds.open_high)
    # -m is between low and high when m is between -high and -low.
    low = None if bounds.high is None else bounds.high.copy_negate()
    high = None if bounds.low is None else bounds.low.copy_negate()
    negative = _magnitudes(low, high, bounds.open_high, bounds.open_low)
    if negative is not None and whole and negative.low == ("0", ""):
        negative = _Magnitudes(("0", ""), negative.high, True, negative.open_high)  # no -0
    reader = _Reader(positive, negative, digits, whole)
    return from_function(("start",), reader.step, reader.is_end, "-.0123456789", work)


def check(bound: Decimal, name: str, *, whole: bool, where: str) -> None:
    """Raise UsageError, with the keyword `name`, for a bound that cannot be represented exactly."""
    exponent = bound.as_tuple().exponent
    assert isinstance(exponent, int)
    if bound.adjusted() >= _MAX_DIGITS or exponent < -_MAX_DIGITS:
        raise schema_error(where, f"{name} is {bound}, beyond {_MAX_DIGITS} digits; remove it")
    n = _digits(bound)
    if not whole and n > _DIGITS_OF_NUMBERS:
        raise schema_error(
            where,
            f"{name} is a number of {n} digits, expected at most {_DIGITS_OF_NUMBERS}, which "
            "are exact in JSON",
        )


def _max_digits(bounds: Bounds, *, whole: bool) -> int:
    """The most digits that a number may have."""
    digits = [_digits(bound) for bound in (bounds.low, bounds.high) if bound is not None]
    return max(_DIGITS_OF_INTEGERS, *(n + 1 for n in digits), 0) if whole else _DIGITS_OF_NUMBERS


def _digits(bound: Decimal) -> int:
    before, after = _split(bound)
    return len(before) + len(after)


def _split(value: Decimal) -> tuple[str, str]:
    """The digits before and after the point, without the sign (0 may have one, too)."""
    before, _, after = f"{value.copy_abs():f}".partition(".")
    return before, after.rstrip("0")


def _magnitudes(
    low: Decimal | None, high: Decimal | None, open_low: bool, open_high: bool
) -> _Magnitudes | None:
    """The bounds of the numbers that are not negative; None if there are none."""
    if high is not None and (high < 0 or (high == 0 and open_high)):
        return None
    if low is None or low < 0:
        low, open_low = Decimal(0), False
    top = None if high is None else _split(high)
    return _Magnitudes(_split(low), top, open_low, open_high)


class _Reader:
    """Reads a number's text character by character and compares it with both bounds.

    A state is (stage, sign, digits so far, comparison with low, comparison with high, digits left,
    whether it began with 0). The stage is "int", "point" or "frac"; a comparison is "<", "=" or
    ">", of the digits so far with as many digits of the bound.
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
            return ("point", sign, 0, *self._compare_integer_part(side, n, low, high), room, False)
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

    def _compare_integer_part(
        self, side: _Magnitudes, n: int, low: str, high: str
    ) -> tuple[str, str]:
        """The comparisons with both bounds once the digits before the point are complete."""
        results = []
        for so_far, bound in zip((low, high), _ends(side), strict=True):
            length = len(bound[0]) if bound else n
            results.append(so_far if n == length else "<" if n < length else ">")
        return results[0], results[1]

    def is_end(self, state: object) -> bool:
        assert isinstance(state, tuple)
        if state[0] in ("start", "minus", "point"):
            return False
        stage, sign, n, low, high, _, _ = state
        side = self._sides[sign]
        assert side is not None
        if stage == "int":
            low, high = self._compare_integer_part(side, n, low, high)
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
