"""Owns the check of one parameter's value, and how messages name a parameter.

    n_ctx (--n-ctx) is 0, expected a whole number from 16 to 8192

Knows nothing of what the parameters mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 80
# Where the command line's option is called otherwise than the parameter.
_FLAGS = {"n_threads": "--threads"}
# Parameters that have no option of their own.
_WITHOUT = ("n_seqs", "n_batch", "n_ubatch", "n_threads_batch", "flash_attention")


def named(name: str) -> str:
    """The parameter's name, with the command line's option where that is spelled otherwise."""
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    return name if name in _WITHOUT or flag == f"--{name}" else f"{name} ({flag})"


def refused(name: str, value: object, expected: str) -> UsageError:
    """The error for a value that makes no sense, to be raised."""
    return UsageError(f"{named(name)} is {shown(value)}, expected {expected}")


def shown(value: object) -> str:
    """A value as messages show it, whatever it is and however long."""
    try:
        if isinstance(value, str):
            value = value[: _SHOWN + 1]  # the rest is not looked at
        text = repr(value)
    except Exception:  # a number of thousands of digits has none
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def number(name: str, value: Any, low: float, high: float) -> None:
    """Raises UsageError unless `value` is a number within the limits; NaN and bool are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refused(name, value, f"a number from {low:g} to {high:.12g}")


def whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises UsageError unless `value` is a whole number within the limits."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(name, value, f"a whole number from {low} to {high}")


def choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raises UsageError unless `value` is one of the known words."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise refused(name, value, f"one of {', '.join(known)}")


def switch(name: str, value: Any) -> None:
    """Raises UsageError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise refused(name, value, "True or False")


def callback(name: str, value: Any) -> None:
    """Raises UsageError unless `value` can be called, or is None."""
    if value is not None and not callable(value):
        raise refused(name, value, "a function, or None")


def text(what: str, value: Any) -> None:
    """Raises UsageError unless `value` is a str of whole characters: no lone surrogate."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is of the type {type(value).__name__}, expected str")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise surrogate(what, error) from None


def surrogate(what: str, error: UnicodeEncodeError) -> UsageError:
    """The error for a text that cannot be written as UTF-8, to be raised."""
    letter = error.object[error.start]
    return UsageError(
        f"{what} has a lone surrogate, U+{ord(letter):04X}, at position {error.start}; "
        "it stands for no character"
    )
